"""Group commit: one thread writes, and everything that waits shares one transaction and one fsync.

What waits is bounded, in records and in time: a disk that does not keep up is said at once to whoever comes
next, instead of letting all of them wait, and memory grow.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from decision.errors import StoreBusy, StoreUnavailable
from decision.fault_log import FaultLog

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

logger = logging.getLogger(__name__)

# Seconds to wait for a lock that was not given up within the whole timeout before: who comes now is told so.
_NEXT_WAIT = 0.5

# What is wrong with one operation only. Every other sqlite3.Error (disk full, locked, corrupt, I/O)
# says that the transaction itself cannot be trusted.
_OWN_FAULT = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.InterfaceError)


class _Task(NamedTuple):
    operation: Operation[Any]
    records: int
    since: float
    loop: asyncio.AbstractEventLoop
    waiter: asyncio.Future[Any]


class _Outcome(NamedTuple):
    result: Any
    error: Exception | None


class Writer:
    """The only connection that writes to the file at `path`, in a thread of its own.

    `busy_timeout`: seconds an operation may wait, all in all, for another process's write lock; once that was
    not enough, much less, until the lock is free again. `max_batch`:
    a transaction takes no further operation once it has so many records. `max_waiting`: none is accepted
    while so many records wait; `patience`: nor while one has waited for so many seconds. Starts at once;
    `close()` must be awaited.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        busy_timeout: float = 5.0,
        max_batch: int = 512,
        max_waiting: int = 5_000,
        patience: float = 1.0,
    ) -> None:
        self._path = str(path)
        self._busy_timeout = busy_timeout
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._patience = patience
        self._gate = threading.Condition()  # guards the four below
        self._queue: deque[_Task] = deque()
        self._in_hand: list[_Task] = []
        self._waiting = 0
        self._closed = False
        self._connection: sqlite3.Connection | None = None
        self._locked_out = False
        self._faults = FaultLog(logger, f"writing to {self._path} failed, nothing of the batch was kept")
        # A daemon, so that a program that forgot to close can still end: what was acknowledged is on disk.
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many records are accepted and not yet answered."""
        return self._waiting

    async def run(self, operation: Operation[T], records: int = 1) -> T:
        """Runs `operation` in the writer thread and returns its result after the commit. `records`: how many
        it carries, as a measure of the memory it holds; one operation may carry more than `max_waiting`.

        The operation may share its transaction with others and must not end it. What it raises undoes
        it alone and is raised here. Raises StoreBusy at once if too much waits already, StoreUnavailable if
        the batch could not be committed (then none of it was), or if the writer is closed. Whatever is
        accepted is answered in one of these ways. A caller that is cancelled while waiting does not know
        whether its operation was committed; it is left out if it had not begun.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[T] = loop.create_future()
        now = time.monotonic()
        with self._gate:  # nothing may queue once it is closed: nobody would answer it
            if self._closed:
                raise StoreUnavailable("the store is closed")
            self._refuse_if_busy(now)
            self._queue.append(_Task(operation, records, now, loop, waiter))
            self._waiting += records
            self._gate.notify()
        return await waiter

    def _refuse_if_busy(self, now: float) -> None:
        if self._waiting >= self._max_waiting:
            raise StoreBusy(f"{self._waiting} records wait to be written")
        oldest = self._in_hand or self._queue
        if oldest and now - oldest[0].since > self._patience:
            raise StoreBusy(f"a write has been waiting for {now - oldest[0].since:.1f} s")

    async def close(self) -> None:
        """Finishes what is queued, then stops. May be called again."""
        with self._gate:
            self._closed = True
            self._gate.notify()
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while batch := self._take():
            outcomes = self._commit(batch)
            with self._gate:
                self._in_hand = []
                self._waiting -= sum(task.records for task in batch)
            _deliver(batch, outcomes)
        self._disconnect()

    def _take(self) -> list[_Task]:
        """Waits for a task, then takes those that are there. Empty: the writer is closed, and all is done."""
        with self._gate:
            while not self._queue and not self._closed:
                self._gate.wait()
            records = 0
            while self._queue and records < self._max_batch:
                task = self._queue.popleft()
                records += task.records
                self._in_hand.append(task)
            return self._in_hand

    def _commit(self, batch: Sequence[_Task]) -> list[_Outcome]:
        try:
            connection = self._connected()
            connection.execute(f"PRAGMA busy_timeout = {self._lock_wait(batch[0])}")
            connection.execute("BEGIN IMMEDIATE")
            outcomes = [_attempt(connection, task) for task in batch]
            connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001  # the thread must live, and every waiter hear of it
            self._faults.fault(error)
            self._locked_out = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
            self._disconnect()  # undoes the transaction; the next batch starts on a fresh connection
            return [_Outcome(None, _unavailable(error)) for _ in batch]
        self._faults.well()
        self._locked_out = False
        return outcomes

    def _lock_wait(self, oldest: _Task) -> int:
        """Milliseconds to wait for a lock: what queued up behind one has had its wait. In steps, as each
        distinct statement takes a place in the connection's cache."""
        waited = int((time.monotonic() - oldest.since) * 4) / 4
        most = min(self._busy_timeout, _NEXT_WAIT) if self._locked_out else self._busy_timeout
        return int(1000 * max(most - waited, 0.0))

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._path, isolation_level=None)
            self._connection = connection
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten with zeros
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.close()
        except sqlite3.Error:
            logger.exception("closing the writing connection failed")


def _attempt(connection: sqlite3.Connection, task: _Task) -> _Outcome:
    if task.waiter.cancelled():
        return _Outcome(None, None)
    connection.execute("SAVEPOINT operation")
    try:
        outcome = _Outcome(task.operation(connection), None)
    except Exception as error:
        if isinstance(error, sqlite3.Error) and not isinstance(error, _OWN_FAULT):
            raise
        connection.execute("ROLLBACK TO operation")
        outcome = _Outcome(None, error)
    connection.execute("RELEASE operation")
    return outcome


def _unavailable(cause: Exception) -> StoreUnavailable:
    # One for each waiter: an exception raised in several tasks would collect all their tracebacks.
    error = StoreUnavailable(f"the write was not committed: {cause}")
    error.__cause__ = cause
    return error


def _deliver(batch: Sequence[_Task], outcomes: Sequence[_Outcome]) -> None:
    """Wakes each event loop once, not once for each waiter."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], _Outcome]]] = {}
    for task, outcome in zip(batch, outcomes, strict=True):
        by_loop.setdefault(task.loop, []).append((task.waiter, outcome))
    for loop, settled in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, settled)
        except RuntimeError:
            logger.warning("an event loop ended before %d of its writes were answered", len(settled))


def _settle(settled: Sequence[tuple[asyncio.Future[Any], _Outcome]]) -> None:
    for waiter, outcome in settled:
        if waiter.done():  # cancelled meanwhile
            continue
        if outcome.error is None:
            waiter.set_result(outcome.result)
        else:
            waiter.set_exception(outcome.error)
