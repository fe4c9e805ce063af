"""When a source is left alone, and how it is tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decision.sources.breaker import Breaker


def opened(failures: int = 3, rest: float = 10, at: float = 100) -> Breaker:
    breaker = Breaker(failures, rest)
    for _ in range(failures):
        assert breaker.allows(at)
        breaker.failed(at)
    return breaker


@pytest.mark.parametrize("failures", [1, 2, 5])
def test_it_opens_after_so_many_failures_in_a_row(failures: int) -> None:
    breaker = Breaker(failures, 10)
    for _ in range(failures):
        assert breaker.allows(100)
        assert not breaker.open
        breaker.failed(100)
    assert breaker.open
    assert not breaker.allows(100)
    assert not breaker.allows(109.999)


def test_a_success_between_begins_the_count_again() -> None:
    breaker = Breaker(3, 10)
    for _ in range(10):
        breaker.failed(100)
        breaker.failed(100)
        breaker.succeeded()
    assert not breaker.open
    assert breaker.allows(100)


def test_after_the_rest_exactly_one_call_tries() -> None:
    breaker = opened()
    assert breaker.allows(110)
    assert [breaker.allows(now) for now in (110, 111, 1000)] == [False, False, False]
    assert breaker.open


def test_a_success_of_the_one_that_tries_closes() -> None:
    breaker = opened()
    assert breaker.allows(110)
    breaker.succeeded()
    assert not breaker.open
    assert all(breaker.allows(110) for _ in range(100))
    breaker.failed(110)  # and the count begins at nothing
    breaker.failed(110)
    assert breaker.allows(110)


def test_a_failure_of_the_one_that_tries_rests_again_from_then() -> None:
    breaker = opened()
    assert breaker.allows(115)
    breaker.failed(116)
    assert not breaker.allows(125.9)
    assert breaker.allows(126)
    assert not breaker.allows(126)


def test_failures_that_come_late_do_not_prolong_the_rest() -> None:
    breaker = opened()
    for now in (101, 105, 109):
        breaker.failed(now)
    assert breaker.allows(110)


def test_a_success_that_comes_late_closes() -> None:
    breaker = opened()
    breaker.succeeded()
    assert breaker.allows(101)


@given(st.lists(st.tuples(st.sampled_from(["ask", "well", "ill"]), st.integers(0, 5))), st.integers(1, 4))
def test_while_open_at_most_one_call_is_out_per_rest(steps: list[tuple[str, int]], failures: int) -> None:
    breaker, now, rest = Breaker(failures, 4), 0, 4
    out, tried = 0, -100
    for step, passes in steps:
        now += passes
        was_open = breaker.open
        if step == "ask" and breaker.allows(now):
            if was_open:
                assert out == 0
                assert now - tried >= rest
                tried = now
            out += 1
        elif step != "ask" and out:
            out -= 1
            if step == "well":
                breaker.succeeded()
                tried = -100
            else:
                breaker.failed(now)
        if breaker.open and not was_open:
            tried = now
            out = 0  # those under way from before are not the one that tries
