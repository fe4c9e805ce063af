"""PostgreSQL stopped, and frozen, under a running service: refused in time, and over when it is back.

pytest tests/faults/test_database_gone.py            stopped for two seconds
pytest -m long tests/faults/test_database_gone.py    stopped and frozen for thirty, with many more callers;
                                                     writes benchmarks/results/database_gone.md
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest
from clusters import Cluster
from httpx_aiohttp import HttpxAiohttpClient
from ledgers import Made, PostgresDatabase, check_learned, settle
from load import Refusal
from service import PROC, Service
from test_limits import SHORT, Size, processor
from traffic import calling, check_books, document, ready, until

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "database_gone.md"
MEGABYTE = 1 << 20
SMALL = replace(SHORT, callers=8, customers=12, gifts=60, money=40)
LARGE = replace(SHORT, callers=40, customers=60, gifts=1500, money=900)
HARM = {"stopped": Cluster.stop, "frozen": Cluster.freeze}
MEND = {"stopped": Cluster.start, "frozen": Cluster.thaw}
LONGEST = 9.0  # seconds: 3 to get a connection, 5 to be answered on it, and what a busy machine adds

pytestmark = pytest.mark.skipif(not (PROC / "self" / "stat").exists(), reason="looks at processes in /proc")


@dataclass
class Figures:
    """What it did. `refused`: requests of callers; `flood`: status and seconds of those that were sent
    whether or not the one before was answered; `grown`: bytes of memory. In seconds, since the database was
    there again: `recovered`, until a request sent after that was answered; `learned`, until more was."""

    refused: list[Refusal]
    flood: list[tuple[int, float]]
    grown: int
    lines: int
    recovered: float
    learned: float


@asynccontextmanager
async def flooding(url: str, pace: float) -> AsyncIterator[list[tuple[int, float]]]:
    """Sends a decision every `pace` seconds (0: none)."""
    came: list[tuple[int, float]] = []
    ended = asyncio.Event()

    async def ask(client: httpx.AsyncClient, id: str) -> None:
        began = time.monotonic()
        asked = {"customer_id": id, "request_id": id, "channel": "shop"}
        reply = await client.post(f"{url}/v1/decisions", json=asked)
        came.append((reply.status_code, time.monotonic() - began))

    async def send(client: httpx.AsyncClient) -> None:
        async with asyncio.TaskGroup() as asked:
            for number in count():
                asked.create_task(ask(client, f"flood-{number}"))
                await asyncio.sleep(pace)
                if ended.is_set():
                    return

    limits = httpx.Limits(max_connections=None)
    async with HttpxAiohttpClient(timeout=60, limits=limits) as client, asyncio.TaskGroup() as group:
        if pace:
            group.create_task(send(client))
        yield came
        ended.set()


async def gone(
    made: PostgresDatabase, how: str, seconds: float, size: Size, pace: float, log: Path
) -> Figures:
    """AssertionError where anything but a proper 503 is answered, or what was answered is lost."""
    service = Service(made.url, log, "--interval", "0.2")
    try:
        await ready(service)
        async with calling([service.url], size) as traffic, flooding(service.url, pace) as flood:
            await _learns(made, 0)
            await until(traffic.more(20), "requests are answered")
            rounds = await _rounds(made)
            processes, before, said = service.processes(), service.resident(), service.said()
            await asyncio.to_thread(HARM[how], made.cluster)
            end, first = time.monotonic() + seconds, len(traffic.refused)
            await until(lambda: len(traffic.refused) > first, "requests are refused")
            await until(lambda: time.monotonic() > end, "the database was gone for so long", seconds + 60)
            refused, grown = traffic.refused[first:], service.resident() - before
            lines = _records(service.said()) - _records(said)
            await asyncio.to_thread(MEND[how], made.cluster)
            mended = time.monotonic()
            await until(lambda: traffic.last > mended, "it has recovered")
            recovered = traffic.last_answer - mended
            learned = await _learns(made, rounds + 1) - mended
            await until(traffic.more(40), "it goes on")
            assert service.processes() == processes, "it did so without a restart"
            assert traffic.tally["not answered"] == 0
        assert {status for status, _ in flood} <= {200, 503}
        await settle(made)
        assert await asyncio.to_thread(service.end) == 0
    finally:
        if service.process.poll() is None:
            service.process.kill()  # the others end with it
            service.process.wait()
    books = await check_books(made, traffic)
    await check_learned(made, books)
    return Figures(refused, flood, grown, lines, recovered, learned)


def _records(said: str) -> int:
    """How many lines were logged; those of a traceback belong to the one before."""
    return sum(line.startswith("20") for line in said.splitlines())


async def _rounds(database: PostgresDatabase) -> int:
    return sum(rounds for (rounds,) in (await database.tables("rounds"))["rounds"])


async def _learns(database: PostgresDatabase, before: int) -> float:
    """When more was learned."""
    async with asyncio.timeout(60):
        while True:
            with suppress(OSError, asyncpg.PostgresError):  # those that waited for it may be too many
                if await _rounds(database) > before:
                    return time.monotonic()
            await asyncio.sleep(0.05)


@pytest.mark.long
async def test_a_database_that_is_stopped(make_database: Made, tmp_path: Path) -> None:
    database = await make_database("postgres", document(SMALL))
    assert isinstance(database, PostgresDatabase)
    figures = await gone(database, "stopped", 2.0, SMALL, 0, tmp_path / "log")
    assert max(refusal.seconds for refusal in figures.refused) < LONGEST
    assert figures.grown < 16 * MEGABYTE


@pytest.mark.long
async def test_a_database_that_is_gone_for_half_a_minute(make_database: Made, tmp_path: Path) -> None:
    busy, done = os.getloadavg()[0], {}
    for how in HARM:
        database = await make_database("postgres", document(LARGE))
        assert isinstance(database, PostgresDatabase)
        done[how] = await gone(database, how, 30.0, LARGE, 0.02, tmp_path / f"{how}.log")
        print(_row(how, done[how]))
    for figures in done.values():
        assert max(refusal.seconds for refusal in figures.refused) < LONGEST
        assert max(seconds for _, seconds in figures.flood) < LONGEST
        assert figures.grown < 100 * MEGABYTE
        assert figures.lines < 200
    RESULT.write_text(_report(done, busy), encoding="utf-8")


def _row(how: str, figures: Figures) -> str:
    seconds = sorted(refusal.seconds for refusal in figures.refused)
    flood = sorted(taken for _, taken in figures.flood)
    codes = ", ".join(f"{n:,} `{code}`" for code, n in Counter(each.code for each in figures.refused).items())
    of_flood = Counter(status for status, _ in figures.flood)
    return (
        f"| {how} | {codes} | {seconds[len(seconds) // 2]:.2f} / {seconds[-1]:.2f}"
        f" | {of_flood[200]:,} / {of_flood[503]:,} | {flood[len(flood) // 2]:.2f} / {flood[-1]:.2f}"
        f" | {figures.grown / MEGABYTE:+.0f} MB | {figures.lines}"
        f" | {figures.recovered:.2f} s | {figures.learned:.2f} s |"
    )


def _report(done: dict[str, Figures], busy: float) -> str:
    table = "\n".join(_row(how, figures) for how, figures in done.items())
    return f"""# PostgreSQL gone for 30 s

One `decision serve` with its learner; {LARGE.callers} callers, each of which asks again 50 ms after it was
refused, and 50 decisions a second that are sent whether or not those before were answered. PostgreSQL is
*stopped* (connections are cut, and new ones refused), or *frozen* (SIGSTOP of all its processes: connections
stay, new ones are accepted, nothing is ever answered) for 30 s.

| | callers refused | seconds: median, most | flood: 200 / 503 | seconds: median, most | memory | log lines \
| recovered | learned |
|---|---|---|---|---|---|---|---|---|
{table}

- Nothing but 503 problem documents with `Retry-After`, and decisions, was answered. No process was restarted.
- Afterwards all that was answered was in the ledger, once, the limits held, and the learned state equalled
  the one relearned from the ledger to 1e-9.
- Memory is that of supervisor, worker and learner together, at the end of the 30 s against before. Recovered:
  a request sent after the database was there again was answered.

Measured on:

- {processor()}, {psutil.cpu_count()} cores, {platform.system()}; Python {platform.python_version()}
- load average before it began: {busy:.1f}; callers and database run on the same cores

Repeat: `pytest -m long tests/faults/test_database_gone.py`.
"""
