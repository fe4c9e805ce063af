"""Group commit: one thread writes, and everything that waits shares one transaction and one fsync."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from decision.errors import StoreUnavailable

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

logger = logging.getLogger(__name__)

# What is wrong with one operation only. Every other sqlite3.Error (disk full, locked, corrupt, I/O)
# says that the transaction itself cannot be trusted.
_OWN_FAULT = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.InterfaceError)


class _Task(NamedTuple):
    operation: Operation[Any]
    loop: asyncio.AbstractEventLoop
    waiter: asyncio.Future[Any]


class _Outcome(NamedTuple):
    result: Any
    error: Exception | None


class Writer:
    """The only connection that writes to the file at `path`, in a thread of its own.

    `busy_timeout`: seconds to wait for another process's write lock. `max_batch`: the most operations
    in one transaction. Starts at once; `close()` must be awaited.
    """

    def __init__(self, path: Path | str, *, busy_timeout: float = 5.0, max_batch: int = 512) -> None:
        self._path = str(path)
        self._busy_timeout = busy_timeout
        self._max_batch = max_batch
        self._queue: SimpleQueue[_Task | None] = SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._connection: sqlite3.Connection | None = None
        # A daemon, so that a program that forgot to close can still end: what was acknowledged is on disk.
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    async def run(self, operation: Operation[T]) -> T:
        """Runs `operation` in the writer thread and returns its result after the commit.

        The operation may share its transaction with others and must not end it. What it raises undoes
        it alone and is raised here. Raises StoreUnavailable if the batch could not be committed (then
        none of it was), or if the writer is closed. A caller that is cancelled while waiting does not
        know whether its operation was committed.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[T] = loop.create_future()
        with self._gate:  # nothing may queue behind the end mark: nobody would answer it
            if self._closed:
                raise StoreUnavailable("the store is closed")
            self._queue.put(_Task(operation, loop, waiter))
        return await waiter

    async def close(self) -> None:
        """Finishes what is queued, then stops. May be called again."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._take()
            if batch:
                _deliver(batch, self._commit(batch))
        self._disconnect()

    def _take(self) -> tuple[list[_Task], bool]:
        """Waits for a task, then takes all that are there. The flag says that the end mark was met."""
        task = self._queue.get()
        batch: list[_Task] = []
        while task is not None:
            batch.append(task)
            if len(batch) == self._max_batch:
                return batch, False
            try:
                task = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _commit(self, batch: Sequence[_Task]) -> list[_Outcome]:
        try:
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
            outcomes = [_attempt(connection, task.operation) for task in batch]
            connection.execute("COMMIT")
        except Exception as error:
            # Whatever it was, the thread must live and every waiter must hear of it.
            logger.exception("a batch of %d operations was not committed", len(batch))
            self._disconnect()  # undoes the transaction; the next batch starts on a fresh connection
            return [_Outcome(None, _unavailable(error)) for _ in batch]
        return outcomes

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._path, timeout=self._busy_timeout, isolation_level=None)
            self._connection = connection
            connection.execute("PRAGMA synchronous = FULL")
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.close()
        except sqlite3.Error:
            logger.exception("closing the writing connection failed")


def _attempt(connection: sqlite3.Connection, operation: Operation[Any]) -> _Outcome:
    connection.execute("SAVEPOINT operation")
    try:
        outcome = _Outcome(operation(connection), None)
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
