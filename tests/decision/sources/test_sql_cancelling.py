"""A SQL source whose caller has run out of time: it ends at once, and nothing of it stays behind."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from sqldatabases import Database, Opener, Postgres, Sqlite
from test_sql import CUSTOMERS, NPS, QUERY

from decision.sources.port import Cause, SourceFault
from decision.sources.sql import Sql


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nobody is told of what is expected: no driver complains in the log."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# Far above what it takes, and far below what it takes where something waits for the database.
AT_ONCE = 1.5


async def _given_up(source: Sql, after: float = 0.03) -> float:
    """How long a call that was cancelled took to end, in seconds."""
    call = asyncio.create_task(source.fetch([("anna",)]))
    await asyncio.sleep(after)
    began = time.perf_counter()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    return time.perf_counter() - began


async def test_calls_given_up_leave_the_pool_usable(database: Database, opened: Opener) -> None:
    source = opened(database.url, database.slow, NPS, calls=2)
    assert await source.fetch([("bert",)]) == [{"customer.nps": 1}]
    assert max([await _given_up(source) for _ in range(30)]) < AT_ONCE
    assert await source.fetch([("bert",)]) == [{"customer.nps": 1}]
    assert threading.active_count() < 20


@pytest.mark.parametrize("after", [0.0, 0.001, 0.002, 0.005, 0.01])
async def test_a_call_may_be_given_up_at_any_moment(database: Database, opened: Opener, after: float) -> None:
    await database.run(CUSTOMERS)
    source = opened(database.url, QUERY, NPS, calls=2)
    for turn in range(30):
        calls = [asyncio.create_task(source.fetch([("anna",)])) for _ in range(4)]
        await asyncio.sleep(after * turn / 30)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
    assert await asyncio.gather(*(source.fetch([("anna",)]) for _ in range(6))) == [[{"customer.nps": 9}]] * 6


async def test_the_server_is_told(postgres: Postgres, opened: Opener) -> None:
    source = opened(postgres.url, postgres.slow, NPS, calls=4, timeout="60s")
    calls = [asyncio.create_task(source.fetch([("anna",)])) for _ in range(4)]
    while await postgres.running() < 4:
        await asyncio.sleep(0.01)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    async with asyncio.timeout(10):
        while await postgres.running():
            await asyncio.sleep(0.001)


async def test_the_thread_of_sqlite_stops(sqlite: Sqlite, opened: Opener) -> None:
    source = opened(sqlite.url, sqlite.slow, NPS, calls=1)
    await _given_up(source, 0.2)
    async with asyncio.timeout(10):
        while source._under_way:
            await asyncio.sleep(0.001)
    used = time.process_time()
    await asyncio.sleep(0.3)
    assert time.process_time() - used < 0.2


async def test_the_event_loop_is_not_held_up(database: Database, opened: Opener) -> None:
    source = opened(database.url, database.slow, NPS)
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - began)

    await _given_up(source)
    watcher = asyncio.create_task(watch())
    await _given_up(source, 0.2)
    watcher.cancel()
    assert longest < AT_ONCE


async def test_a_server_that_hangs_holds_nobody_up(postgres: Postgres, opened: Opener) -> None:
    await postgres.run(CUSTOMERS)
    source = opened(postgres.url, QUERY, NPS, calls=2, timeout="100ms")
    await asyncio.gather(*(source.fetch([("anna",)]) for _ in range(2)))
    postgres.freeze()
    assert max([await _given_up(source) for _ in range(5)]) < AT_ONCE
    postgres.thaw()
    async with asyncio.timeout(10):
        while True:
            try:
                assert await source.fetch([("anna",)]) == [{"customer.nps": 9}]
                break
            except SourceFault:
                continue


@pytest.mark.parametrize("idle", [0, 2])
async def test_closing_does_not_wait_for_a_server_that_hangs(
    postgres: Postgres, opened: Opener, idle: int
) -> None:
    await postgres.run(CUSTOMERS)
    source = opened(postgres.url, QUERY, NPS, calls=2)
    await asyncio.gather(*(source.fetch([("anna",)]) for _ in range(2)))
    postgres.freeze()
    calls = [asyncio.create_task(source.fetch([("anna",)])) for _ in range(2 - idle)]
    await asyncio.sleep(0.05)
    async with asyncio.timeout(10):
        await source.close()
        await asyncio.gather(*calls, return_exceptions=True)


async def test_closing_ends_the_calls_under_way(database: Database, opened: Opener) -> None:
    source = opened(database.url, database.slow, NPS, calls=1)
    calls = [asyncio.create_task(source.fetch([("anna",)])) for _ in range(3)]
    await asyncio.sleep(0.3)
    async with asyncio.timeout(10):
        await source.close()
        for fault in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(fault, SourceFault)
            assert fault.cause == Cause.UNAVAILABLE


def test_a_process_ends_with_a_statement_under_way(sqlite: Sqlite) -> None:
    script = f"""
import asyncio
from arbitration.catalog.sources import SqlSource
from decision.sources.connections import Connection
from decision.sources.port import Served
from decision.sources.sql import Sql

async def main():
    spec = SqlSource(id="crm", kind="sql", query={sqlite.slow!r})
    source = Sql(spec, [Served("customer.nps", "int", "nps")], Connection(url={sqlite.url!r}))
    task = asyncio.create_task(source.fetch([("anna",)]))
    await asyncio.sleep(.3)

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=20)
