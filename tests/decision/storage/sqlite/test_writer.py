"""The writer: what is answered was committed and synced, whatever happens in between.

In one file, as all of it is about one order of steps.
"""

from __future__ import annotations

import asyncio
import errno
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from decision.errors import StoreBusy, StoreUnavailable
from decision.storage.sqlite import log as logs
from decision.storage.sqlite import writer as module
from decision.storage.sqlite.writer import Writer

Op = Callable[[sqlite3.Connection], int]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "writer.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE kept (n INTEGER PRIMARY KEY, filling BLOB)")
    return path


@pytest.fixture
async def writer(path: Path) -> AsyncIterator[Writer]:
    writer = Writer(path, busy_timeout=0.05, patience=60)
    yield writer
    await writer.close()


def keep(n: int, filling: bytes = b"") -> Op:
    def operation(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO kept VALUES (?, ?)", (n, filling))
        return n

    return operation


def _refuse_commit(action: int, first: str | None, *rest: str | None) -> int:
    refused = action == sqlite3.SQLITE_TRANSACTION and first == "COMMIT"
    return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK


def kept(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [n for (n,) in connection.execute("SELECT n FROM kept ORDER BY n")]


async def settled(waiting: list[asyncio.Task[int]]) -> list[int | BaseException]:
    """The results, or a failure where a waiter was forgotten."""
    async with asyncio.timeout(10):
        return await asyncio.gather(*waiting, return_exceptions=True)


async def hold(writer: Writer) -> threading.Event:
    """Keeps the writer busy, in a batch of its own, until the event is set."""
    started, release = threading.Event(), threading.Event()

    def operation(connection: sqlite3.Connection) -> bool:
        started.set()
        return release.wait()

    holding = asyncio.create_task(writer.run(operation))
    while not started.is_set():
        await asyncio.sleep(0.001)
    assert not holding.done()
    return release


async def in_one_batch(writer: Writer, *operations: Op) -> list[int | BaseException]:
    """Lets the writer meet all the operations at once."""
    release = await hold(writer)
    waiting = [asyncio.create_task(writer.run(operation)) for operation in operations]
    await asyncio.sleep(0)
    release.set()
    return await settled(waiting)


async def test_waiting_operations_share_commits(writer: Writer, path: Path) -> None:
    statements: list[str] = []
    await writer.run(lambda connection: connection.set_trace_callback(statements.append))
    results = await asyncio.gather(*(writer.run(keep(n)) for n in range(300)))
    assert results == list(range(300)) == kept(path)
    assert 1 <= statements.count("COMMIT") <= 30
    await writer.run(lambda connection: connection.set_trace_callback(None))


async def test_a_batch_has_a_greatest_size(path: Path) -> None:
    writer = Writer(path, max_batch=10, patience=60)
    statements: list[str] = []
    await writer.run(lambda connection: connection.set_trace_callback(statements.append))
    await in_one_batch(writer, *(keep(n) for n in range(100)))
    await writer.close()
    assert statements.count("COMMIT") >= 10
    assert len(kept(path)) == 100


async def test_a_result_is_there_after_the_commit_only(writer: Writer, path: Path) -> None:
    for n in range(20):
        await writer.run(keep(n))
        assert kept(path)[-1] == n


async def test_results_come_back_in_one_wake_up_of_the_loop(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, wake_ups = asyncio.get_running_loop(), 0
    call = loop.call_soon_threadsafe

    def counted(*arguments: object, **named: object) -> object:
        nonlocal wake_ups
        wake_ups += 1
        return call(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    await in_one_batch(writer, *(keep(n) for n in range(100)))
    assert wake_ups == 2  # the operation that held the writer, and the batch of a hundred


async def test_what_an_operation_raises_undoes_it_alone(writer: Writer, path: Path) -> None:
    def half(connection: sqlite3.Connection) -> int:
        keep(50)(connection)
        raise LookupError("after its write")

    results = await in_one_batch(writer, keep(1), half, keep(2), keep(1), keep(3))
    assert [type(result) for result in results] == [int, LookupError, int, sqlite3.IntegrityError, int]
    assert kept(path) == [1, 2, 3]


async def test_a_lock_that_stays_fails_the_batch_and_the_next_one_works(writer: Writer, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        results = await asyncio.gather(*(writer.run(keep(n)) for n in range(5)), return_exceptions=True)
        assert all(isinstance(result, StoreUnavailable) for result in results)
        assert all(isinstance(result.__cause__, sqlite3.OperationalError) for result in results)  # type: ignore[union-attr]
        assert len({id(result) for result in results}) == 5
        blocker.execute("ROLLBACK")
    assert kept(path) == []
    assert writer.waiting == 0
    assert await writer.run(keep(7)) == 7
    assert kept(path) == [7]


async def test_a_full_disk_fails_the_batch_and_keeps_nothing_of_it(writer: Writer, path: Path) -> None:
    def fill_up(connection: sqlite3.Connection) -> int:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        return int(connection.execute(f"PRAGMA max_page_count = {pages + 1}").fetchone()[0])

    await writer.run(keep(1))
    await writer.run(fill_up)
    results = await in_one_batch(writer, keep(2), keep(3, bytes(100_000)), keep(4))
    assert [type(result) for result in results] == [StoreUnavailable] * 3
    assert kept(path) == [1]
    assert await writer.run(keep(5, bytes(100_000))) == 5  # a fresh connection, without the limit
    assert kept(path) == [1, 5]


async def test_a_disk_that_fails_in_one_operation_fails_the_batch(writer: Writer, path: Path) -> None:
    def unreadable(connection: sqlite3.Connection) -> int:
        raise sqlite3.OperationalError("disk I/O error")

    results = await in_one_batch(writer, keep(1), unreadable, keep(2))
    assert [type(result) for result in results] == [StoreUnavailable] * 3
    assert kept(path) == []


async def test_a_failing_commit_fails_all_and_keeps_nothing(writer: Writer, path: Path) -> None:
    # COMMIT itself is refused: every operation has succeeded by then.
    def no_commits(connection: sqlite3.Connection) -> int:
        connection.set_authorizer(_refuse_commit)
        return 0

    results = await in_one_batch(writer, keep(1), no_commits, keep(2))
    assert [type(result) for result in results] == [StoreUnavailable] * 3
    assert kept(path) == []
    assert await writer.run(keep(3)) == 3
    assert kept(path) == [3]


async def test_a_cancelled_waiter_breaks_nothing(writer: Writer, path: Path) -> None:
    release = await hold(writer)
    waiting = [asyncio.create_task(writer.run(keep(n))) for n in range(10)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    release.set()
    results = await settled(waiting)
    assert [type(result) for result in results] == [asyncio.CancelledError, int] * 5
    assert kept(path) == [1, 3, 5, 7, 9], "who did not wait for it is left out"
    assert await writer.run(keep(99)) == 99
    assert writer.waiting == 0


async def test_what_waits_is_bounded_and_what_was_accepted_is_kept(path: Path) -> None:
    writer = Writer(path, max_waiting=10, patience=60)
    release = await hold(writer)
    assert writer.waiting == 1
    waiting = [asyncio.create_task(writer.run(keep(n))) for n in range(1_000)]
    await asyncio.sleep(0)
    assert writer.waiting == 10
    refused = [task for task in waiting if task.done()]
    assert len(refused) == 991, "they hear of it at once"
    assert {type(task.exception()) for task in refused} == {StoreBusy}
    release.set()
    results = await settled(waiting)
    assert kept(path) == [result for result in results if isinstance(result, int)] == list(range(9))
    assert writer.waiting == 0
    assert await writer.run(keep(99)) == 99
    await writer.close()


async def test_what_waits_is_counted_in_records(path: Path) -> None:
    writer = Writer(path, max_waiting=2_500, patience=60)
    statements: list[str] = []
    await writer.run(lambda connection: connection.set_trace_callback(statements.append))
    release = await hold(writer)
    waiting = [asyncio.create_task(writer.run(keep(n), records=1_000)) for n in range(5)]
    await asyncio.sleep(0)
    assert writer.waiting == 3_001
    release.set()
    results = await settled(waiting)
    assert [type(result) for result in results] == [int, int, int, StoreBusy, StoreBusy]
    assert statements.count("COMMIT") == 1 + 1 + 3, "each was more than a batch should be"
    await writer.close()


async def test_none_is_accepted_while_one_has_waited_for_too_long(path: Path) -> None:
    writer = Writer(path, patience=0.1)
    release = await hold(writer)
    behind = asyncio.create_task(writer.run(keep(1)))
    await asyncio.sleep(0.15)
    with pytest.raises(StoreBusy, match="waiting for"):
        await writer.run(keep(2))
    release.set()
    assert await behind == 1
    assert await writer.run(keep(3)) == 3
    assert kept(path) == [1, 3]
    await writer.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how many seconds each batch would have waited for a lock."""
    found: list[float] = []
    lock_wait = Writer._lock_wait

    def noted(writer: Writer, oldest: Any) -> float:
        found.append(lock_wait(writer, oldest))
        return found[-1]

    monkeypatch.setattr(Writer, "_lock_wait", noted)
    return found


async def test_a_lock_is_waited_for_as_long_once_only(
    path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_NEXT_WAIT", 0.01)
    writer = Writer(path, busy_timeout=0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        for brief in (False, True, False):
            with pytest.raises(StoreUnavailable, match="locked"):
                await writer.run(keep(1), brief=brief)
        blocker.execute("ROLLBACK")
    assert await writer.run(keep(2)) == 2
    assert await writer.run(keep(3)) == 3
    first, *locked_out, last = waits
    assert 0.01 < first <= 0.1
    assert len(locked_out) == 3
    assert max(locked_out) <= 0.01
    assert 0.01 < last <= 0.1
    await writer.close()


async def test_what_queued_up_has_had_part_of_its_wait(path: Path, waits: list[float]) -> None:
    writer = Writer(path, busy_timeout=2.0)
    release = await hold(writer)
    behind = asyncio.create_task(writer.run(keep(1)))
    await asyncio.sleep(0.3)
    release.set()
    assert await behind == 1
    first, second = waits
    assert 1.75 < first <= 2.0
    assert 0 <= second <= 1.75
    await writer.close()


async def test_the_loop_goes_on_while_another_process_has_the_lock(path: Path) -> None:
    writer = Writer(path, busy_timeout=5.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(writer.run(keep(1), brief=True))
        turns = 0
        while turns < 20:
            await asyncio.sleep(0.001)
            turns += 1
        assert not waiting.done()
        blocker.execute("ROLLBACK")
    assert await waiting == 1
    await writer.close()


async def test_a_fault_that_lasts_does_not_flood_the_log(
    writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    def unreadable(connection: sqlite3.Connection) -> int:
        raise sqlite3.OperationalError("disk I/O error")

    for _ in range(50):
        with pytest.raises(StoreUnavailable):
            await writer.run(unreadable)
    assert len(caplog.records) == 1


async def test_close_finishes_what_is_queued_and_then_refuses(path: Path) -> None:
    writer = Writer(path, patience=60)  # however slow the disk, all of them are accepted
    waiting = [asyncio.create_task(writer.run(keep(n))) for n in range(1_000)]
    await asyncio.sleep(0)
    await writer.close()
    assert await settled(waiting) == list(range(1_000))
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(writer.run(keep(1)), 10)
    await writer.close()


def test_a_writer_ends_with_its_event_loop(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writer = Writer(path)
    release = threading.Event()

    def slow(connection: sqlite3.Connection) -> int:
        release.wait()
        return keep(1)(connection)

    async def gives_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.run(slow), 0.01)

    async def later() -> None:
        with pytest.raises(StoreUnavailable, match="loop"):
            await asyncio.wait_for(writer.run(keep(2)), 10)
        await writer.close()

    asyncio.run(gives_up())
    release.set()
    asyncio.run(later())
    assert kept(path) == [1]
    assert "an event loop ended" in caplog.text


async def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "absent" / "x.db")
    with pytest.raises(StoreUnavailable):
        await writer.run(keep(1))
    await writer.close()


class Disk:
    """Stands for the disk: `synced` is what each sync that has ended found committed when it began."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path = path
        self.synced: list[set[int]] = []
        self.begun = 0
        self.may_end = threading.Event()
        self.may_end.set()
        self.failing = 0
        monkeypatch.setattr(logs, "_sync", self._sync)

    def _sync(self, file: int) -> None:
        found = set(kept(self._path))
        self.begun += 1
        assert self.may_end.wait(10)
        if self.failing:
            self.failing -= 1
            raise OSError(errno.EIO, "Input/output error")
        self.synced.append(found)


@pytest.fixture
def disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(path, monkeypatch)


async def test_nobody_is_answered_before_a_sync_that_began_after_the_commit(
    writer: Writer, disk: Disk
) -> None:
    async def one(n: int) -> int:
        await asyncio.sleep(n % 7 / 1000)
        result = await writer.run(keep(n), brief=n % 10 > 0)
        assert any(n in each for each in disk.synced)
        return result

    assert await asyncio.gather(*(one(n) for n in range(200))) == list(range(200))
    disk.may_end.clear()
    begun, waiting = disk.begun, asyncio.create_task(writer.run(keep(500), brief=True))
    while disk.begun == begun:
        await asyncio.sleep(0.001)
    behind = asyncio.create_task(writer.run(keep(501), brief=True))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    assert not behind.done()
    disk.may_end.set()
    assert await asyncio.gather(waiting, behind) == [500, 501]
    assert 501 in disk.synced[-1]


async def test_settling_is_a_sync_of_its_own(writer: Writer, disk: Disk, path: Path) -> None:
    """Also of what another process has committed; and it needs no lock."""
    await writer.settle()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        keep(1)(other)
        other.execute("BEGIN IMMEDIATE")
        await writer.settle()
        other.execute("ROLLBACK")
    assert disk.synced == [set(), {1}]


async def test_after_a_sync_that_failed_nothing_is_believed_until_all_is_written_anew(
    writer: Writer, disk: Disk, path: Path
) -> None:
    await writer.run(keep(1), brief=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM kept").fetchall()  # as long as it reads on, the log has to stay
        disk.failing = 1
        with pytest.raises(StoreUnavailable, match="Input/output"):
            await writer.run(keep(2), brief=True)
        for brief in (True, False):
            with pytest.raises(StoreUnavailable, match="anew"):
                await writer.run(keep(3), brief=brief)
        with pytest.raises(StoreUnavailable):
            await writer.settle()
        assert disk.begun == 2, "another sync would say nothing of what the one that failed was to keep"
        reader.execute("COMMIT")
    assert await writer.run(keep(4), brief=True) == 4
    assert kept(path) == [1, 2, 4]
    database = path.with_name("alone.db")
    database.write_bytes(path.read_bytes())
    assert kept(database) == [1, 2], "what was in the log is in the database"


async def test_the_log_is_copied_before_it_is_long(
    path: Path, monkeypatch: pytest.MonkeyPatch, writer: Writer
) -> None:
    monkeypatch.setattr(module, "_LONG_LOG", 20)
    writer._long_log = 20
    log, page = path.with_name(f"{path.name}-wal"), 4096 + 24
    for n in range(200):
        await writer.run(keep(n, bytes(8_000)), brief=True)
        assert log.stat().st_size < 100 * page
    assert len(kept(path)) == 200


async def test_what_is_brief_is_done_by_the_event_loop_itself(writer: Writer) -> None:
    def who(connection: sqlite3.Connection) -> int:
        return threading.get_ident()

    mine = threading.get_ident()
    assert await writer.run(who, brief=True) == mine
    assert await writer.run(who, records=100, brief=True) != mine
    assert await writer.run(who) != mine


async def test_what_a_thread_is_writing_cannot_be_read(writer: Writer) -> None:
    await writer.run(keep(1))
    assert writer.reader() is not None
    release = await hold(writer)
    assert writer.reader() is None
    release.set()
    await writer.run(keep(2))
    assert writer.reader() is not None
