"""The circuit breaker: opens after failures in a row, rests, lets exactly one call try."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from decision.sources.breaker import Breaker


def opened() -> Breaker:
    """One that opened at 100 and rests until 110."""
    breaker = Breaker(3, 10)
    for _ in range(3):
        assert breaker.allows(99)
    for _ in range(3):
        breaker.failed(100, began=99)
    assert breaker.open
    return breaker


def test_it_opens_after_failures_in_a_row_and_not_before() -> None:
    breaker = Breaker(3, 10)
    for _ in range(2):
        breaker.failed(0, began=0)
    breaker.succeeded()
    for _ in range(2):
        breaker.failed(0, began=0)
    assert not breaker.open
    assert breaker.allows(0)
    breaker.failed(0, began=0)
    assert breaker.open
    assert not breaker.allows(0)


def test_after_the_rest_exactly_one_call_may_try() -> None:
    breaker = opened()
    assert not breaker.allows(109.9)
    assert [breaker.allows(110) for _ in range(3)] == [True, False, False]
    assert not breaker.allows(1_000)


def test_a_success_of_the_one_that_tries_closes() -> None:
    breaker = opened()
    assert breaker.allows(110)
    breaker.succeeded()
    assert not breaker.open
    assert all(breaker.allows(110) for _ in range(3))
    breaker.failed(111, began=110)
    assert not breaker.open, "the count begins anew"


def test_a_failure_of_the_one_that_tries_rests_again_from_then() -> None:
    breaker = opened()
    assert breaker.allows(115)
    breaker.failed(116, began=115)
    assert not breaker.allows(125.9)
    assert breaker.allows(126)
    assert not breaker.allows(126)


def test_failures_that_come_late_do_not_prolong_the_rest() -> None:
    breaker = opened()
    for now in (101, 105, 109):
        breaker.failed(now, began=99)
    assert breaker.allows(110)


def test_failures_that_come_late_are_not_those_of_the_one_that_tries() -> None:
    breaker = opened()
    assert breaker.allows(110)
    breaker.failed(111, began=99)
    assert not breaker.allows(130), "it is still out"
    breaker.failed(131, began=110)
    assert not breaker.allows(140)
    assert breaker.allows(141)


def test_one_that_tries_and_never_asks_leaves_it_to_the_next() -> None:
    breaker = opened()
    assert breaker.allows(110)
    breaker.given_up(began=99)
    assert not breaker.allows(111), "that was another"
    breaker.given_up(began=110)
    assert breaker.allows(111)


def test_a_success_that_comes_late_closes() -> None:
    breaker = opened()
    breaker.succeeded()
    assert breaker.allows(101)


def test_calls_that_wait_for_their_turn_are_held_back_once_it_is_open() -> None:
    breaker = opened()
    assert breaker.holds_back(began=99)
    assert breaker.allows(110)
    assert breaker.holds_back(began=99)
    assert not breaker.holds_back(began=110), "the one that tries"
    breaker.succeeded()
    assert not breaker.holds_back(began=99)


@dataclass
class Calls:
    """Calls under way, by when they began; those let through while it was open apart."""

    closed: list[int] = field(default_factory=list)
    tries: list[int] = field(default_factory=list)


STEPS = st.lists(st.tuples(st.sampled_from(["ask", "well", "ill", "late", "gone"]), st.integers(0, 5)))


@given(STEPS, st.integers(1, 4))
def test_while_open_at_most_one_call_is_out_per_rest(steps: list[tuple[str, int]], failures: int) -> None:
    breaker, now, rest = Breaker(failures, 4), 0, 4
    calls = Calls()
    last_failure = -100
    for step, passes in steps:
        now += 1 + passes
        if step == "ask":
            was_open = breaker.open
            if breaker.allows(now):
                assert not (was_open and calls.tries), "two at once"
                assert not was_open or now - last_failure >= rest
                (calls.tries if was_open else calls.closed).append(now)
        elif step == "well" and (calls.tries or calls.closed):
            (calls.tries or calls.closed).pop(0)
            breaker.succeeded()
            # Closed: whoever tried is a call like any other now.
            calls.closed += calls.tries
            calls.tries = []
        elif step == "ill" and calls.tries:
            breaker.failed(now, calls.tries.pop())
            last_failure = now
            assert breaker.open
        elif step == "gone" and calls.tries:
            breaker.given_up(calls.tries.pop())
        elif step in ("ill", "late") and calls.closed:
            was_open = breaker.open
            breaker.failed(now, calls.closed.pop(0))
            if breaker.open and not was_open:
                last_failure = now
