"""Group commit: all that waits shares one transaction and one sync of the log.

What is brief runs on the event loop: two threads that take turns at the interpreter for every statement cost
more than the statements. What waits for the disk, or takes long, is done in a thread beside it. One batch at
a time is under way, from its BEGIN to the end of its sync; nobody is answered before.

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
from contextlib import closing
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from decision.errors import StoreBusy, StoreUnavailable
from decision.fault_log import FaultLog
from decision.storage.sqlite.log import Log

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

logger = logging.getLogger(__name__)

# Seconds to wait for a lock that was not given up within the whole timeout before: who comes now is told so.
_NEXT_WAIT = 0.5
# Seconds until a lock that another process has is asked for again: at first, and at most.
_SOON, _LATER = 0.001, 0.02
# Records that the event loop takes in one go, of one operation and of a batch: a few milliseconds.
_BRIEF, _BRIEF_BATCH = 8, 64
# Pages in the log from which on it is copied into the database: 16 MB. A page that was written often is
# copied once, so with more it costs less; but the log takes more room.
_LONG_LOG = 4_000
# Milliseconds to wait for those who still read an old state of the database, before the log can begin anew.
_RESTART_WAIT = 20

# What is wrong with one operation only. Every other sqlite3.Error (disk full, locked, corrupt, I/O)
# says that the transaction itself cannot be trusted.
_OWN_FAULT = (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.InterfaceError)


class _Task(NamedTuple):
    operation: Operation[Any] | None
    records: int
    since: float
    waiter: asyncio.Future[Any]
    brief: bool


class _Outcome(NamedTuple):
    result: Any
    error: Exception | None


class Writer:
    """The only connection that writes to the file at `path`. Belongs to the event loop it is first used on.

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
        self._queue: deque[_Task] = deque()
        self._in_hand: list[_Task] = []
        self._waiting = 0
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._connection: sqlite3.Connection | None = None
        self._log: Log | None = None
        self._lent = False
        self._in_doubt = False
        self._locked_out = False
        self._copying: asyncio.Future[int | None] | None = None
        self._copied = False
        self._long_log = _LONG_LOG
        self._faults = FaultLog(
            logger, f"writing to {self._path} failed, nothing of the batch was acknowledged"
        )
        self._aside: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        # A daemon, so that a program that forgot to close can still end: what was acknowledged is on disk.
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many records are accepted and not yet answered."""
        return self._waiting

    def reader(self) -> sqlite3.Connection | None:
        """The connection, to be read from at once, if there is one and no thread has it: what it has just
        written it need not read from the files again."""
        return None if self._lent else self._connection

    async def run(self, operation: Operation[T], records: int = 1, *, brief: bool = False) -> T:
        """Runs `operation` and returns its result when it is committed and on the disk. `records`: how many
        it carries, as a measure of the memory it holds; one operation may carry more than `max_waiting`.
        `brief`: it takes well below a millisecond for each of its records.

        The operation may share its transaction with others and must not end it; where another fails, it is
        run again from the beginning. What it raises undoes it alone and is raised here. Raises StoreBusy at
        once if too much waits already, StoreUnavailable if the batch could not be committed (then none of it
        was) or synced (then it may have been), or if the writer is closed. Whatever is accepted is answered
        in one of these ways. A caller that is cancelled while waiting does not know whether its operation
        was committed; it is left out if it had not begun.
        """
        result: T = await self._accepted(operation, records, brief and records <= _BRIEF)
        return result

    async def settle(self) -> None:
        """Returns when all that can be read now is on the disk: what another process has just committed, and
        we ourselves, can be read before. Raises as `run`."""
        await self._accepted(None, 1, brief=True)

    def _accepted(self, operation: Operation[Any] | None, records: int, brief: bool) -> asyncio.Future[Any]:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if self._abandoned():
            raise StoreUnavailable("the event loop that the store belonged to has ended")
        now = time.monotonic()
        self._refuse_if_busy(now)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Any] = loop.create_future()
        self._queue.append(_Task(operation, records, now, waiter, brief))
        self._waiting += records
        if self._idle.is_set():
            self._idle.clear()
            self._loop = loop
            loop.call_soon(self._next)  # with all that comes in the same turn of the loop
        return waiter

    def _abandoned(self) -> bool:
        """Whether the loop has ended while something was under way: nothing can go on."""
        return not self._idle.is_set() and self._loop.is_closed()

    def _refuse_if_busy(self, now: float) -> None:
        if self._waiting >= self._max_waiting:
            raise StoreBusy(f"{self._waiting} records wait to be written")
        oldest = self._in_hand or self._queue
        if oldest and now - oldest[0].since > self._patience:
            raise StoreBusy(f"a write has been waiting for {now - oldest[0].since:.1f} s")

    async def close(self) -> None:
        """Finishes what is queued, then stops. May be called again."""
        self._closed = True
        if not self._abandoned():
            await self._idle.wait()
            if self._copying is not None:
                await asyncio.wait([self._copying])
        self._aside.put(None)
        await asyncio.to_thread(self._thread.join)
        self._disconnect()

    def _next(self) -> None:
        """The next step, when nothing is under way."""
        if self._copied:
            self._copied = False
            self._aside.put(self._begin_log_anew)
            return
        batch = self._in_hand = self._take()
        if not batch:
            self._idle.set()
        elif self._in_doubt:
            self._aside.put(partial(self._recover, batch))
        else:
            self._begin(batch, time.monotonic() + self._lock_wait(batch[0]), _SOON)

    def _take(self) -> list[_Task]:
        """Those that are there, as many as fit in a batch; what is brief is not put to what is not."""
        batch: list[_Task] = []
        records = 0
        most = min(self._max_batch, _BRIEF_BATCH) if self._queue and self._queue[0].brief else self._max_batch
        while self._queue and records < most and self._queue[0].brief == (batch or self._queue)[0].brief:
            task = self._queue.popleft()
            records += task.records
            batch.append(task)
        return batch

    def _begin(self, batch: list[_Task], until: float, delay: float) -> None:
        try:
            connection, log = self._connected()
            if any(task.operation is not None for task in batch):
                connection.execute("BEGIN IMMEDIATE")
        except Exception as error:  # noqa: BLE001  # every waiter must hear of it
            if _locked(error) and time.monotonic() < until:
                self._loop.call_later(delay, self._begin, batch, until, min(2 * delay, _LATER))
            else:
                self._failed(batch, error)
            return
        if not batch[0].brief:
            self._lent = True
            self._aside.put(partial(self._commit_aside, batch, connection, log))
            return
        try:
            outcomes = _commit(connection, batch)
        except Exception as error:  # noqa: BLE001
            self._failed(batch, error)
            return
        self._aside.put(partial(self._sync, batch, outcomes, log))

    def _work(self) -> None:
        while (job := self._aside.get()) is not None:
            job()

    def _commit_aside(self, batch: list[_Task], connection: sqlite3.Connection, log: Log) -> None:
        try:
            outcomes = _commit(connection, batch)
        except Exception as error:  # noqa: BLE001  # the thread must live
            self._tell(self._failed, batch, error)
            return
        self._sync(batch, outcomes, log)

    def _sync(self, batch: list[_Task], outcomes: Sequence[_Outcome], log: Log) -> None:
        try:
            log.sync()
        except OSError as error:
            self._tell(self._doubt, batch, error)
        else:
            self._tell(self._done, batch, outcomes)

    def _tell(self, what: Callable[..., None], *given: Any) -> None:
        """Has the event loop go on; once for a batch, not once for each waiter."""
        try:
            self._loop.call_soon_threadsafe(what, *given)
        except RuntimeError:
            logger.warning("an event loop ended before %d of its writes were answered", len(self._in_hand))

    def _done(self, batch: list[_Task], outcomes: Sequence[_Outcome]) -> None:
        self._lent = False
        self._faults.well()
        self._locked_out = False
        self._answer(batch, outcomes)
        busy = self._copying is not None or self._copied
        if not busy and self._log is not None and self._log.reaches(self._long_log):
            self._copying = self._loop.run_in_executor(None, self._copy_log)
            self._copying.add_done_callback(self._log_copied)
        self._next()  # before those that were answered go on: the disk is not to wait for them

    def _failed(self, batch: list[_Task], error: Exception, came: str = "was not committed") -> None:
        self._lent = False
        self._faults.fault(error)
        self._locked_out = _locked(error)
        self._disconnect()  # undoes the transaction; the next batch starts on a fresh connection
        self._answer(batch, [_Outcome(None, _unavailable(error, came)) for _ in batch])
        self._loop.call_soon(self._next)

    def _doubt(self, batch: list[_Task], error: OSError) -> None:
        self._in_doubt = True
        self._failed(batch, error, "was committed, and may not be on the disk")

    def _answer(self, batch: Sequence[_Task], outcomes: Sequence[_Outcome]) -> None:
        self._in_hand = []
        for task, outcome in zip(batch, outcomes, strict=True):
            self._waiting -= task.records
            if task.waiter.done():  # cancelled meanwhile
                continue
            if outcome.error is None:
                task.waiter.set_result(outcome.result)
            else:
                task.waiter.set_exception(outcome.error)

    def _recover(self, batch: list[_Task]) -> None:
        """After a sync that failed: all that can be read is written anew, into the database, and synced
        there; and the log that may have holes is given up. Until that has succeeded nothing is accepted."""
        try:
            with closing(sqlite3.connect(self._path, timeout=self._lock_wait(batch[0]))) as connection:
                connection.execute("PRAGMA synchronous = FULL")
                busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise sqlite3.OperationalError("the log cannot be written anew while it is read")
        except sqlite3.Error as error:
            self._tell(self._failed, batch, error)
        else:
            self._tell(self._recovered, batch)

    def _recovered(self, batch: list[_Task]) -> None:
        self._in_doubt = False
        self._begin(batch, time.monotonic() + self._lock_wait(batch[0]), _SOON)

    def _copy_log(self) -> int | None:
        """Most of it, while others write."""
        return self._checkpoint("PASSIVE", 0)

    def _log_copied(self, _: asyncio.Future[int | None]) -> None:
        self._copying = None
        self._copied = True
        if self._idle.is_set() and not self._closed:
            self._idle.clear()
            self._next()

    def _begin_log_anew(self) -> None:
        """Copies what was written meanwhile, while nobody writes: whoever writes next begins at its start."""
        frames = self._checkpoint("RESTART", _RESTART_WAIT)
        self._long_log = _LONG_LOG if frames is None else max(frames, _LONG_LOG) + _LONG_LOG // 2
        self._tell(self._next)

    def _checkpoint(self, mode: str, wait: int) -> int | None:
        """None if all of the log is in the database, else how many frames the log has."""
        try:
            with closing(sqlite3.connect(self._path, timeout=wait / 1000)) as connection:
                busy, frames, copied = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            logger.warning("the log of %s could not be copied, and is tried again: %s", self._path, error)
            return self._long_log
        return int(frames) if busy or copied < frames else None

    def _lock_wait(self, oldest: _Task) -> float:
        """Seconds to wait for a lock: what queued up behind one has had its wait."""
        most = min(self._busy_timeout, _NEXT_WAIT) if self._locked_out else self._busy_timeout
        return max(most - (time.monotonic() - oldest.since), 0.0)

    def _connected(self) -> tuple[sqlite3.Connection, Log]:
        if self._connection is None or self._log is None:
            self._disconnect()
            # One thread at a time uses it: the event loop, or the one beside it. It never waits for a lock.
            connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
            self._connection = connection
            connection.execute("PRAGMA synchronous = NORMAL")  # to sync is for us
            connection.execute("PRAGMA wal_autocheckpoint = 0")  # it would be waited for, on the event loop
            # 64 MiB. The 2 that are usual hold what is known of some hundred customers.
            connection.execute("PRAGMA cache_size = -65536")
            connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten with zeros
            self._log = Log(connection)
        return self._connection, self._log

    def _disconnect(self) -> None:
        log, self._log = self._log, None
        if log is not None:
            log.close()
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.close()
        except sqlite3.Error:
            logger.exception("closing the writing connection failed")


def _commit(connection: sqlite3.Connection, batch: Sequence[_Task]) -> list[_Outcome]:
    """In the transaction that has begun. Most of the time all goes well: only where something does not, all
    is begun anew, with each operation on its own."""
    if not connection.in_transaction:
        return [_Outcome(None, None) for _ in batch]
    connection.execute("SAVEPOINT batch")
    try:
        outcomes = [_run(connection, task) for task in batch]
    except Exception as error:
        if isinstance(error, sqlite3.Error) and not isinstance(error, _OWN_FAULT):
            raise
        connection.execute("ROLLBACK TO batch")  # and the lock stays ours
        outcomes = [_attempt(connection, task) for task in batch]
    connection.execute("COMMIT")
    return outcomes


def _run(connection: sqlite3.Connection, task: _Task) -> _Outcome:
    if task.operation is None or task.waiter.cancelled():
        return _Outcome(None, None)
    return _Outcome(task.operation(connection), None)


def _attempt(connection: sqlite3.Connection, task: _Task) -> _Outcome:
    connection.execute("SAVEPOINT operation")
    try:
        outcome = _run(connection, task)
    except Exception as error:
        if isinstance(error, sqlite3.Error) and not isinstance(error, _OWN_FAULT):
            raise
        connection.execute("ROLLBACK TO operation")
        outcome = _Outcome(None, error)
    connection.execute("RELEASE operation")
    return outcome


def _locked(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def _unavailable(cause: Exception, came: str) -> StoreUnavailable:
    # One for each waiter: an exception raised in several tasks would collect all their tracebacks.
    error = StoreUnavailable(f"the write {came}: {cause}")
    error.__cause__ = cause
    return error
