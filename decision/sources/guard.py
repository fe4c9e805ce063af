"""Between a decision and a source: cache, coalescing, batching, breaker, timeout, and a bound on calls.

A call is a task of its own, not of the request that caused it: several requests may wait for one call,
each as long as its own deadline allows, and what comes too late for all of them still fills the cache.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from arbitration.catalog.scalars import duration
from arbitration.catalog.sources import FeastSource, OpenInferenceSource
from arbitration.catalog.sources import Source as Specification
from arbitration.facts import MAX_STRING, MAX_STRINGS
from decision.sources.breaker import Breaker
from decision.sources.port import Cause, Key, Row, Source, SourceFault
from decision.tracing import span

log = logging.getLogger(__name__)

Report = Callable[[str, str, float], None]
"""Told of every call: the source's id, what came of it (`ok` or a cause), how many seconds it took."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a source had to say. `row` is None where there is none; `age`: seconds since it was fetched;
    `cause`: why there is no row, or STALE."""

    row: Row | None
    age: float = 0.0
    cause: Cause | None = None


class Guarded:
    """A source that answers every question, in time or with a cause. Belongs to one event loop."""

    def __init__(self, specification: Specification, source: Source, calls: int, report: Report) -> None:
        """`calls`: the most calls at once."""
        self.id = specification.id
        self._source = source
        self._report = report
        self._timeout = _seconds(specification.timeout)
        self._breaker = Breaker(specification.breaker.failures, _seconds(specification.breaker.rest))
        self._slots = asyncio.Semaphore(calls)
        cache = specification.cache
        self._ttl = 0.0 if cache is None else _seconds(cache.ttl)
        self._kept = 0.0 if cache is None else self._ttl + _seconds(cache.stale)
        self._size = 0 if cache is None else cache.size
        self._answers: OrderedDict[Key, tuple[float, Row | None]] = OrderedDict()
        self._flights: dict[Key, asyncio.Task[Answer]] = {}
        batch = specification.batch if isinstance(specification, FeastSource | OpenInferenceSource) else None
        self._most = 1 if batch is None else batch.size
        self._wait = 0.0 if batch is None else _seconds(batch.wait)
        self._gathering: _Batch | None = None
        self._batches: set[asyncio.Task[Sequence[Row | None] | Cause]] = set()
        self._said: str | None = None

    @property
    def left_alone(self) -> bool:
        """Whether its circuit is open."""
        return self._breaker.open

    async def get(self, key: Key, deadline: float) -> Answer:
        """The answer for `key`, waiting at most until `deadline` (a time of the event loop)."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        kept = self._answers.get(key)
        if kept is not None and now - kept[0] < self._kept:
            self._answers.move_to_end(key)
            age = now - kept[0]
            fresh = age < self._ttl
            if not fresh and key not in self._flights and self._breaker.allows(now):
                self._start(key)
            cause = Cause.NOT_FOUND if kept[1] is None else None if fresh else Cause.STALE
            return Answer(kept[1], age, cause)
        flight = self._flights.get(key)
        if flight is None:
            if now >= deadline:
                return Answer(None, cause=Cause.TIMEOUT)
            if not self._breaker.allows(now):
                return Answer(None, cause=Cause.CIRCUIT_OPEN)
            flight = self._start(key)
        try:
            async with asyncio.timeout_at(deadline):
                return await asyncio.shield(flight)
        except TimeoutError:
            return Answer(None, cause=Cause.TIMEOUT)

    async def close(self, patience: float | None = None) -> None:
        """Lets the calls under way come to their end, for requests may wait for them, and closes.

        `patience`: for how many seconds; then they are ended. May be called again, with less of it.
        """
        while under_way := {*self._flights.values(), *self._batches}:
            _, late = await asyncio.wait(under_way, timeout=patience)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._source.close()

    def _start(self, key: Key) -> asyncio.Task[Answer]:
        flight = asyncio.create_task(self._fly(key), name=f"source {self.id}")
        self._flights[key] = flight
        return flight

    async def _fly(self, key: Key) -> Answer:
        try:
            outcome = await (self._call([key]) if self._most == 1 else self._together(key))
        finally:
            del self._flights[key]
        if isinstance(outcome, Cause):
            return Answer(None, cause=outcome)
        (row,) = outcome
        if self._size:
            self._answers[key] = (asyncio.get_running_loop().time(), row)
            self._answers.move_to_end(key)
            while len(self._answers) > self._size:
                self._answers.popitem(last=False)
        return Answer(row, cause=Cause.NOT_FOUND if row is None else None)

    async def _together(self, key: Key) -> Sequence[Row | None] | Cause:
        """As `_call`, in one call with the other questions of this moment."""
        batch = self._gathering
        if batch is None:
            batch = self._gathering = _Batch([], asyncio.Event())
            batch.call = asyncio.create_task(self._send(batch))
            self._batches.add(batch.call)
            batch.call.add_done_callback(self._batches.discard)
        place = len(batch.keys)
        batch.keys.append(key)
        if len(batch.keys) == self._most:
            self._gathering = None
            batch.full.set()
        assert batch.call is not None
        outcome = await asyncio.shield(batch.call)
        return outcome if isinstance(outcome, Cause) else [outcome[place]]

    async def _send(self, batch: _Batch) -> Sequence[Row | None] | Cause:
        try:
            async with asyncio.timeout(self._wait):
                await batch.full.wait()
        except TimeoutError:
            if self._gathering is batch:
                self._gathering = None
        return await self._call(batch.keys)

    async def _call(self, keys: Sequence[Key]) -> Sequence[Row | None] | Cause:
        loop = asyncio.get_running_loop()
        began = loop.time()
        asked = ill = False
        outcome: Sequence[Row | None] | Cause = Cause.TIMEOUT
        try:
            async with asyncio.timeout(self._timeout):
                await self._slots.acquire()
            try:
                if self._breaker.holds_back(began):  # it has opened while this call waited for its turn
                    outcome = Cause.CIRCUIT_OPEN
                    return outcome
                asked = ill = True
                # All its time from here: the wait for a turn is ours, and says nothing of the source.
                with span("source", source_id=self.id):
                    async with asyncio.timeout(self._timeout):
                        rows = await self._source.fetch(keys)
            finally:
                self._slots.release()
            if len(rows) != len(keys):
                raise RuntimeError("an answer is one row for each key")
            self._said, ill = None, False
            outcome = [_bounded(row) or None for row in rows]
        except TimeoutError:
            outcome = Cause.TIMEOUT
        except SourceFault as fault:
            outcome, ill = fault.cause, fault.ill
            if str(fault) != self._said:  # once, not for each of the calls that fail alike
                self._said = str(fault)
                log.warning("source %s: %s: %s", self.id, outcome, fault)
        except Exception as error:  # noqa: BLE001
            # A fault of ours costs this source's facts, not the decision. Its text stays out of the log: it
            # may hold what was asked with.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("source %s could not be asked: %s\n%s", self.id, type(error).__name__, where)
            outcome = Cause.UNAVAILABLE
        finally:
            # Also where the task was cancelled: the breaker waits for the outcome of the call it allowed.
            result = _named(outcome)
            self._judge(began, result, asked=asked, ill=ill)
            self._report(self.id, result, loop.time() - began)
        return outcome

    def _judge(self, began: float, result: str, *, asked: bool, ill: bool) -> None:
        was_open = self._breaker.open
        if not asked:
            self._breaker.given_up(began)
        elif ill:
            self._breaker.failed(asyncio.get_running_loop().time(), began)
        else:
            self._breaker.succeeded()
        if self._breaker.open != was_open:
            state = "closed: it answers again" if was_open else f"open: {result}"
            log.warning("source %s: circuit %s", self.id, state)


@dataclass
class _Batch:
    keys: list[Key]
    full: asyncio.Event
    call: asyncio.Task[Sequence[Row | None] | Cause] | None = None


def _named(outcome: Sequence[Row | None] | Cause) -> str:
    if isinstance(outcome, Cause):
        return outcome
    return "ok" if any(outcome) else Cause.NOT_FOUND


def _bounded(row: Row | None) -> Row:
    """The row as it is kept: a value that no declared type admits anyway needs no place in the cache. To know
    nothing of a customer is not to know them."""
    return {name: {} if _large(value) else value for name, value in (row or {}).items()}


def _large(value: object) -> bool:
    if isinstance(value, list):
        return len(value) > MAX_STRINGS or any(map(_large, value))
    return isinstance(value, dict) or (isinstance(value, str) and len(value) > MAX_STRING)


def _seconds(text: str) -> float:
    return duration(text).total_seconds()
