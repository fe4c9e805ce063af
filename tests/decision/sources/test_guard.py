"""What stands between a decision and a source: cache, coalescing, batches, breaker, and bounds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from arbitration.catalog.sources import FeastSource, HttpSource
from arbitration.catalog.sources import Source as Specification
from decision.sources.guard import Answer, Guarded
from decision.sources.port import Cause, Key, Row, SourceFault

ANNA: Key = ("anna@example.org",)
BEN: Key = ("ben",)
ILL = SourceFault(Cause.UNAVAILABLE, "status 500")


class Upstream:
    """A source that answers, when it is let, what it is told (default: how often it was asked)."""

    def __init__(self) -> None:
        self.asked: list[list[Key]] = []
        self.answers: list[Any] = []
        self.open = asyncio.Event()
        self.open.set()
        self.busy = self.busiest = self.closed = 0

    async def fetch(self, keys: Sequence[Key]) -> Sequence[Row | None]:
        self.asked.append(list(keys))
        call = len(self.asked)
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            await self.open.wait()
            answer = self.answers.pop(0) if self.answers else {"call": call}
            if isinstance(answer, BaseException):
                raise answer
            if callable(answer):
                return list(map(answer, keys))
            return [answer for _ in keys]
        finally:
            self.busy -= 1

    async def close(self) -> None:
        assert not self.busy
        self.closed += 1


class Jump:
    """The event loop's clock, which can be set forward."""

    def __init__(self, loop: asyncio.AbstractEventLoop, patch: pytest.MonkeyPatch) -> None:
        real, self._ahead = loop.time, 0.0
        patch.setattr(loop, "time", lambda: real() + self._ahead)

    def __call__(self, seconds: float) -> None:
        self._ahead += seconds


@pytest.fixture
async def jump(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Jump]:
    with monkeypatch.context() as patch:
        yield Jump(asyncio.get_running_loop(), patch)


@pytest.fixture
async def upstream() -> Upstream:
    return Upstream()


Reports = list[tuple[str, str]]


def http(**more: Any) -> Specification:
    return HttpSource(id="crm", kind="http", path="/{customer_id}", **{"timeout": "1m", **more})


def feast(**more: Any) -> Specification:
    return FeastSource(id="crm", kind="feast", **{"timeout": "1m", **more})


def guard(
    upstream: Upstream, specification: Specification, reports: Reports | None = None, calls: int = 32
) -> Guarded:
    told: Reports = [] if reports is None else reports
    return Guarded(specification, upstream, calls, lambda id, result, _: told.append((id, result)))


async def ask(guarded: Guarded, key: Key = ANNA, seconds: float = 60) -> Answer:
    return await guarded.get(key, asyncio.get_running_loop().time() + seconds)


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not done():
            await asyncio.sleep(0.001)


CACHE = {"ttl": "1h", "stale": "2h"}


async def test_without_a_cache_every_question_is_asked(upstream: Upstream) -> None:
    reports: Reports = []
    guarded = guard(upstream, http(), reports)
    assert [(await ask(guarded)).row for _ in range(3)] == [{"call": 1}, {"call": 2}, {"call": 3}]
    assert reports == [("crm", "ok")] * 3


async def test_an_answer_is_used_again_for_its_ttl(upstream: Upstream, jump: Jump) -> None:
    guarded = guard(upstream, http(cache={"ttl": "1h"}))
    first = await ask(guarded)
    jump(3590)
    again = await ask(guarded)
    assert (first.row, again.row, again.cause, len(upstream.asked)) == ({"call": 1}, {"call": 1}, None, 1)
    assert 3590 <= again.age < 3600
    assert (await ask(guarded, BEN)).row == {"call": 2}
    jump(20)
    assert await ask(guarded) == Answer({"call": 3})


async def test_a_stale_answer_serves_while_one_newer_is_fetched(upstream: Upstream, jump: Jump) -> None:
    guarded = guard(upstream, http(cache=CACHE))
    await ask(guarded)
    jump(3700)
    upstream.open.clear()
    for _ in range(5):
        old = await ask(guarded, seconds=0)  # there is no waiting
        assert (old.row, old.cause) == ({"call": 1}, Cause.STALE)
        await asyncio.sleep(0)
    assert len(upstream.asked) == 2
    upstream.open.set()
    await until(lambda: not upstream.busy)
    await asyncio.sleep(0.01)
    new = await ask(guarded)
    assert (new.row, new.cause) == ({"call": 2}, None)


async def test_a_stale_answer_is_not_refreshed_while_the_circuit_is_open(
    upstream: Upstream, jump: Jump
) -> None:
    guarded = guard(upstream, http(cache=CACHE, breaker={"failures": 1}))
    await ask(guarded)
    jump(3601)
    upstream.answers = [ILL]
    assert (await ask(guarded)).cause is Cause.STALE  # and the refresh fails
    await until(lambda: len(upstream.asked) == 2 and not upstream.busy)
    await asyncio.sleep(0.01)
    for _ in range(3):
        assert (await ask(guarded)).cause is Cause.STALE
        await asyncio.sleep(0)
    assert len(upstream.asked) == 2


async def test_a_call_that_got_its_turn_late_has_all_its_time(upstream: Upstream) -> None:
    guarded = guard(upstream, http(timeout="1s", breaker={"failures": 1}), calls=1)

    async def slow(keys: Sequence[Key]) -> Sequence[Row | None]:
        await asyncio.sleep(0.6)
        return [{"told": key[0]} for key in keys]

    upstream.fetch = slow  # type: ignore[method-assign]
    first, second = await asyncio.gather(ask(guarded, ("a",)), ask(guarded, ("b",)))
    assert (first.row, second.row) == ({"told": "a"}, {"told": "b"})


async def test_values_that_no_type_admits_are_not_kept(upstream: Upstream) -> None:
    guarded = guard(upstream, http(cache=CACHE))
    upstream.answers = [{"a": "x" * 4_097, "b": ["x"] * 257, "c": {"d": 1}, "e": ["x" * 4_097], "f": "x"}]
    row = (await ask(guarded)).row
    assert row == {"a": {}, "b": {}, "c": {}, "e": {}, "f": "x"}


async def test_closing_ends_what_outlasts_its_patience(upstream: Upstream) -> None:
    guarded = guard(upstream, feast(batch={"size": 2, "wait": "60s"}))
    upstream.open.clear()
    waiting = [asyncio.create_task(ask(guarded, (number,))) for number in range(3)]
    await until(lambda: upstream.busy)
    async with asyncio.timeout(5):
        await guarded.close(patience=0.01)
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (upstream.busy, upstream.closed) == (0, 1)


async def test_what_is_older_than_stale_is_not_used(upstream: Upstream, jump: Jump) -> None:
    guarded = guard(upstream, http(cache=CACHE))
    await ask(guarded)
    jump(3 * 3600 + 1)
    upstream.answers = [ILL]
    assert await ask(guarded) == Answer(None, cause=Cause.UNAVAILABLE)
    assert len(upstream.asked) == 2


async def test_a_refresh_that_fails_leaves_the_old_in_use(upstream: Upstream, jump: Jump) -> None:
    guarded = guard(upstream, http(cache=CACHE, breaker={"failures": 1, "rest": "1d"}))
    await ask(guarded)
    jump(3700)
    upstream.answers = [ILL]
    for _ in range(5):
        old = await ask(guarded)
        assert (old.row, old.cause) == ({"call": 1}, Cause.STALE)
        await asyncio.sleep(0.005)
    assert len(upstream.asked) == 2  # the circuit is open
    assert await ask(guarded, BEN) == Answer(None, cause=Cause.CIRCUIT_OPEN)


async def test_the_answer_not_used_for_longest_goes_first(upstream: Upstream) -> None:
    guarded = guard(upstream, http(cache={"ttl": "1h", "size": 2}))
    for key in (("a",), ("b",), ("a",), ("c",), ("a",)):
        await ask(guarded, key)
    assert upstream.asked == [[("a",)], [("b",)], [("c",)]]
    await ask(guarded, ("b",))
    assert upstream.asked[3:] == [[("b",)]]


async def test_that_somebody_is_not_known_is_kept_too(upstream: Upstream, jump: Jump) -> None:
    guarded = guard(upstream, http(cache=CACHE))
    upstream.answers = [lambda _: None, lambda _: None]
    assert await ask(guarded) == Answer(None, cause=Cause.NOT_FOUND)
    assert (await ask(guarded)).cause is Cause.NOT_FOUND
    assert len(upstream.asked) == 1
    jump(3700)  # stale: asked again meanwhile, and then known
    assert (await ask(guarded)).cause is Cause.NOT_FOUND
    await until(lambda: len(upstream.asked) == 2 and not upstream.busy)


@pytest.mark.parametrize(
    "fault", [ILL, SourceFault(Cause.BAD_REPLY, "x"), SourceFault(Cause.NOT_FOUND, "x", ill=False)]
)
async def test_faults_are_not_kept(upstream: Upstream, fault: SourceFault) -> None:
    reports: Reports = []
    guarded = guard(upstream, http(cache=CACHE), reports)
    upstream.answers = [fault]
    assert await ask(guarded) == Answer(None, cause=fault.cause)
    assert (await ask(guarded)).row == {"call": 2}
    assert reports == [("crm", fault.cause), ("crm", "ok")]


async def test_who_has_no_time_left_leaves_and_the_call_fills_the_cache(upstream: Upstream) -> None:
    reports: Reports = []
    guarded = guard(upstream, http(cache=CACHE), reports)
    upstream.open.clear()
    assert await ask(guarded, seconds=0.02) == Answer(None, cause=Cause.TIMEOUT)
    patient = asyncio.create_task(ask(guarded))
    assert await ask(guarded, seconds=0.02) == Answer(None, cause=Cause.TIMEOUT)
    upstream.open.set()
    assert (await patient).row == {"call": 1}
    assert (await ask(guarded, seconds=-1)).row == {"call": 1}
    assert (len(upstream.asked), reports) == (1, [("crm", "ok")])


async def test_who_is_cancelled_does_not_end_the_call(upstream: Upstream) -> None:
    guarded = guard(upstream, http())
    upstream.open.clear()
    hasty, patient = asyncio.create_task(ask(guarded)), asyncio.create_task(ask(guarded))
    await until(lambda: upstream.busy)
    hasty.cancel()
    await asyncio.wait([hasty])
    assert hasty.cancelled()
    upstream.open.set()
    assert (await patient).row == {"call": 1}


async def test_a_deadline_that_has_passed_causes_no_call(upstream: Upstream) -> None:
    guarded = guard(upstream, http())
    assert await ask(guarded, seconds=-1) == Answer(None, cause=Cause.TIMEOUT)
    assert upstream.asked == []


async def test_a_call_ends_with_the_timeout_of_the_source(upstream: Upstream) -> None:
    reports: Reports = []
    guarded = guard(upstream, http(timeout="20ms", breaker={"failures": 1}), reports)
    upstream.open.clear()
    assert await ask(guarded) == Answer(None, cause=Cause.TIMEOUT)
    assert (upstream.busy, reports) == (0, [("crm", "timeout")])
    assert await ask(guarded) == Answer(None, cause=Cause.CIRCUIT_OPEN)


async def test_who_asks_the_same_meanwhile_waits_for_the_same_call(upstream: Upstream) -> None:
    guarded = guard(upstream, http())
    upstream.open.clear()
    asking = [asyncio.create_task(ask(guarded, key)) for key in [ANNA] * 50 + [BEN] * 50]
    await until(lambda: len(upstream.asked) == 2)
    upstream.open.set()
    rows = [(await each).row for each in asking]
    assert rows == [{"call": 1}] * 50 + [{"call": 2}] * 50
    assert upstream.asked == [[ANNA], [BEN]]


async def test_no_more_calls_at_once_than_allowed(upstream: Upstream) -> None:
    guarded = guard(upstream, http(), calls=3)
    upstream.open.clear()
    asking = [asyncio.create_task(ask(guarded, (number,))) for number in range(10)]
    await until(lambda: upstream.busy == 3)
    await asyncio.sleep(0.01)
    assert len(upstream.asked) == 3
    upstream.open.set()
    assert None not in [answer.row for answer in await asyncio.gather(*asking)]
    assert (len(upstream.asked), upstream.busiest) == (10, 3)


async def test_waiting_for_a_turn_in_vain_does_not_speak_against_the_source(upstream: Upstream) -> None:
    guarded = guard(upstream, http(timeout="50ms", breaker={"failures": 5}), calls=1)
    upstream.open.clear()
    holding = asyncio.create_task(ask(guarded))
    await until(lambda: upstream.busy)
    waiting = [asyncio.create_task(ask(guarded, (number,))) for number in range(5)]
    answers = await asyncio.gather(holding, *waiting)
    assert {answer.cause for answer in answers} == {Cause.TIMEOUT}
    assert len(upstream.asked) < 5
    upstream.open.set()
    assert (await ask(guarded)).row is not None, "our own crowding opened the circuit"


async def test_who_waits_for_a_turn_is_held_back_once_the_circuit_opens(upstream: Upstream) -> None:
    guarded = guard(upstream, http(breaker={"failures": 1}), calls=1)
    upstream.answers = [ILL]
    upstream.open.clear()
    asking = [asyncio.create_task(ask(guarded, (number,))) for number in range(5)]
    await until(lambda: upstream.busy)
    upstream.open.set()
    causes = [answer.cause for answer in await asyncio.gather(*asking)]
    assert causes == [Cause.UNAVAILABLE] + [Cause.CIRCUIT_OPEN] * 4
    assert len(upstream.asked) == 1


async def test_to_know_nothing_of_a_customer_is_not_to_know_them(upstream: Upstream) -> None:
    guarded = guard(upstream, http())
    upstream.answers = [{}]
    assert await ask(guarded) == Answer(None, cause=Cause.NOT_FOUND)


def tell(key: Key) -> Row:
    return {"told": key[0]}


async def test_a_batch_is_sent_when_it_is_full(upstream: Upstream) -> None:
    guarded = guard(upstream, feast(batch={"size": 4, "wait": "60s"}))
    upstream.answers = [tell, tell]
    answers = await asyncio.gather(*(ask(guarded, (number,)) for number in (3, 1, 2, 0, 5, 4, 7, 6)))
    assert upstream.asked == [[(3,), (1,), (2,), (0,)], [(5,), (4,), (7,), (6,)]]
    assert [answer.row for answer in answers] == [{"told": number} for number in (3, 1, 2, 0, 5, 4, 7, 6)]


async def test_a_batch_is_sent_when_its_first_waited_long_enough(upstream: Upstream) -> None:
    guarded = guard(upstream, feast(batch={"size": 100, "wait": "20ms"}))
    upstream.answers = [tell]
    answers = await asyncio.gather(*(ask(guarded, (number,)) for number in range(5)))
    assert upstream.asked == [[(number,) for number in range(5)]]
    assert [answer.row for answer in answers] == [{"told": number} for number in range(5)]
    upstream.answers = [tell]
    assert (await ask(guarded, (9,))).row == {"told": 9}
    assert upstream.asked[1:] == [[(9,)]]


async def test_the_same_question_is_in_a_batch_once(upstream: Upstream) -> None:
    guarded = guard(upstream, feast(batch={"size": 3, "wait": "20ms"}))
    await asyncio.gather(*(ask(guarded, key) for key in (ANNA, ANNA, BEN, ANNA)))
    assert upstream.asked == [[ANNA, BEN]]


async def test_each_answer_of_a_batch_is_kept_on_its_own(upstream: Upstream) -> None:
    guarded = guard(upstream, feast(batch={"size": 2}, cache=CACHE))
    upstream.answers = [lambda key: None if key == BEN else tell(key)]
    assert [a.cause for a in await asyncio.gather(ask(guarded, ANNA), ask(guarded, BEN))] == [
        None,
        Cause.NOT_FOUND,
    ]
    again = await asyncio.gather(ask(guarded, BEN), ask(guarded, ANNA))
    assert [answer.row for answer in again] == [None, {"told": ANNA[0]}]
    assert len(upstream.asked) == 1


async def test_a_batch_that_fails_is_one_failure(upstream: Upstream) -> None:
    reports: Reports = []
    guarded = guard(upstream, feast(batch={"size": 8}, breaker={"failures": 2, "rest": "1d"}), reports)
    for batch in range(2):
        upstream.answers = [ILL]
        answers = await asyncio.gather(*(ask(guarded, (batch, number)) for number in range(8)))
        assert {answer.cause for answer in answers} == {Cause.UNAVAILABLE}
    assert reports == [("crm", "unavailable")] * 2
    assert await ask(guarded) == Answer(None, cause=Cause.CIRCUIT_OPEN)


async def test_of_a_batch_too_each_leaves_at_its_own_deadline(upstream: Upstream) -> None:
    guarded = guard(upstream, feast(batch={"size": 2}, cache=CACHE))
    upstream.open.clear()
    patient = asyncio.create_task(ask(guarded, ANNA))
    assert (await ask(guarded, BEN, seconds=0.05)).cause is Cause.TIMEOUT
    upstream.answers = [tell]
    upstream.open.set()
    assert (await patient).row == {"told": ANNA[0]}
    assert (await ask(guarded, BEN)).row == {"told": "ben"}
    assert len(upstream.asked) == 1


async def test_an_open_circuit_lets_one_try_per_rest_and_closes_on_an_answer(
    upstream: Upstream, jump: Jump
) -> None:
    guarded = guard(upstream, http(breaker={"failures": 2, "rest": "1h"}))
    upstream.answers = [ILL, ILL, ILL]
    for key in (ANNA, BEN):
        assert (await ask(guarded, key)).cause is Cause.UNAVAILABLE
    assert [(await ask(guarded)).cause for _ in range(20)] == [Cause.CIRCUIT_OPEN] * 20
    jump(3601)
    causes = [(await ask(guarded)).cause for _ in range(20)]
    assert causes == [Cause.UNAVAILABLE] + [Cause.CIRCUIT_OPEN] * 19
    jump(3601)
    upstream.open.clear()
    asking = [asyncio.create_task(ask(guarded, (number,))) for number in range(20)]
    await until(lambda: sum(each.done() for each in asking) == 19)
    upstream.open.set()
    answers = await asyncio.gather(*asking)
    assert [answer.cause for answer in answers] == [None] + [Cause.CIRCUIT_OPEN] * 19
    assert (await ask(guarded)).cause is None
    assert len(upstream.asked) == 5


async def test_a_fault_due_to_one_customer_does_not_speak_against_the_source(upstream: Upstream) -> None:
    guarded = guard(upstream, http(breaker={"failures": 1}))
    upstream.answers = [SourceFault(Cause.BAD_REPLY, "status 422", ill=False)] * 3
    assert [(await ask(guarded)).cause for _ in range(3)] == [Cause.BAD_REPLY] * 3
    assert (await ask(guarded)).row == {"call": 4}


async def test_an_error_nobody_expected_is_unavailable_and_in_the_log_without_its_text(
    upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    guarded = guard(upstream, http(breaker={"failures": 2, "rest": "1d"}))
    upstream.answers = [ValueError(f"{ANNA[0]} is odd"), KeyError(ANNA)]
    for _ in range(2):
        assert await ask(guarded) == Answer(None, cause=Cause.UNAVAILABLE)
    assert await ask(guarded) == Answer(None, cause=Cause.CIRCUIT_OPEN)
    assert "ValueError" in caplog.text
    assert "KeyError" in caplog.text
    assert "fetch" in caplog.text  # where it came from
    assert ANNA[0] not in caplog.text


async def test_an_answer_that_is_not_one_per_question_is_an_error_of_ours_too(upstream: Upstream) -> None:
    class Short(Upstream):
        async def fetch(self, keys: Sequence[Key]) -> Sequence[Row | None]:
            return []

    for specification in (http(), feast(batch={"size": 2})):
        guarded = guard(Short(), specification)
        answers = await asyncio.gather(ask(guarded), ask(guarded, BEN))
        assert answers == [Answer(None, cause=Cause.UNAVAILABLE)] * 2


async def test_faults_that_are_alike_are_logged_once_and_name_nobody(
    upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "decision")
    guarded = guard(upstream, http(breaker={"failures": 3, "rest": "1d"}))
    upstream.answers = [ILL] * 3
    for _ in range(5):
        await ask(guarded)
    assert [record.getMessage() for record in caplog.records] == [
        "source crm: unavailable: status 500",
        "source crm: circuit open: unavailable",
    ]
    assert ANNA[0] not in caplog.text


async def test_closing_waits_for_the_calls_under_way(upstream: Upstream) -> None:
    for specification in (http(), feast(batch={"size": 2, "wait": "1ms"})):
        guarded = guard(upstream, specification)
        upstream.open.clear()
        asking = asyncio.create_task(ask(guarded))
        await until(lambda: upstream.busy)
        closing = asyncio.create_task(guarded.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        upstream.open.set()
        await closing
        assert (await asking).row is not None
    assert upstream.closed == 2
