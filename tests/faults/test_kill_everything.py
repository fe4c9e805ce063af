"""kill -9 of a worker, the learner, everything, and the database, while callers decide and answer.

pytest tests/faults/test_kill_everything.py            one round on PostgreSQL
pytest -m long tests/faults/test_kill_everything.py    twenty, on either backend; writes
                                                       benchmarks/results/kill.md, kill_sqlite.md
"""

from __future__ import annotations

import asyncio
import os
import platform
import random
import signal
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import orjson
import psutil
import pytest
from ledgers import Books, Database, Made, PostgresDatabase, check_learned, settle
from service import PROC, Service
from test_limits import SHORT, Size, processor
from traffic import Traffic, calling, check_books, document, ready, until

SMALL = replace(SHORT, callers=8, customers=12, gifts=60, money=40)
LARGE = replace(SHORT, callers=12, customers=60, gifts=1500, money=900)
OPTIONS = ("--workers", "2", "--interval", "0.2", "--timeout-ms", "10000")
KINDS = {"sqlite": ["worker", "learner"], "postgres": ["worker", "learner", "database"]}
EVERYTHING = "everything"
ROUNDS = 20
_RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
RESULTS = {"postgres": _RESULTS / "kill.md", "sqlite": _RESULTS / "kill_sqlite.md"}

pytestmark = pytest.mark.skipif(not (PROC / "self" / "cmdline").exists(), reason="finds processes in /proc")


@dataclass
class Killing:
    """Starts the service, kills of it what it is told to, and starts it again. `seconds`: by what was
    killed, from each kill until a request that was made after it was answered."""

    database: Database
    log: Path
    chance: random.Random
    urls: list[str] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    async def start(self) -> None:
        self.service = Service(self.database.url, self.log, *OPTIONS)
        self.urls[:] = [self.service.url]
        await ready(self.service)

    async def whole(self) -> None:
        """Waits until all workers serve and the learner learns."""
        await until(lambda: len(self.pids("worker")) == 2 and self._serve(), "all workers serve")
        await until(lambda: len(self.pids("learn")) == 1, "the learner runs")
        before = await _rounds(self.database)
        async with asyncio.timeout(60):
            while await _rounds(self.database) == before:
                await asyncio.sleep(0.05)

    def _serve(self) -> bool:
        said = self.service.said()
        return all(f"Started server process [{pid}]" in said for pid in self.pids("worker"))

    async def kill(self, what: str, traffic: Traffic) -> None:
        """Kills it at a random moment, and waits until callers are answered again."""
        await until(traffic.more(self.chance.randint(10, 60)), "requests are answered")
        await asyncio.sleep(self.chance.uniform(0, 0.05))
        killed = time.monotonic()
        if what == EVERYTHING:
            self.end()
            await self.start()
        elif what == "database":
            assert isinstance(self.database, PostgresDatabase)
            await asyncio.to_thread(self.database.cluster.kill)
            await asyncio.sleep(self.chance.uniform(0, 0.2))
            await asyncio.to_thread(self.database.cluster.start)
        else:
            os.kill(self.chance.choice(self.pids(what)), signal.SIGKILL)
        await until(lambda: traffic.last > killed, f"an answer after the kill of {what}")
        self.seconds.setdefault(what, []).append(traffic.last_answer - killed)

    def pids(self, what: str) -> list[int]:
        """Of the service's workers, or of its learner."""
        role = "learn" if what == "learner" else what
        return [pid for pid in self.service.processes() if role.encode() in _words(pid)]

    def end(self) -> None:
        """kill -9 of every process there is of the service."""
        if self.service.process.poll() is None:
            for pid in self.service.processes():
                os.kill(pid, signal.SIGKILL)
            self.service.process.wait()


def _words(pid: int) -> list[bytes]:
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:  # it ended meanwhile
        return []


async def _rounds(database: Database) -> int:
    return sum(rounds for (rounds,) in (await database.tables("rounds"))["rounds"])


@dataclass
class Run:
    """Rounds that went well."""

    killing: Killing
    traffic: Traffic
    books: Books
    rounds: int


async def run(database: Database, size: Size, rounds: int, kinds: list[str], log: Path, seed: int) -> Run:
    """Kills everything in each round: first what is of `kinds`, in any order. AssertionError where that
    shows. In the large size what was killed is there again before the next is."""
    killing = Killing(database, log, random.Random(seed))
    await killing.start()
    try:
        async with calling(killing.urls, size) as traffic:
            for _ in range(rounds):
                await killing.whole()
                for what in killing.chance.sample(kinds, len(kinds)):
                    await killing.kill(what, traffic)
                    if size is LARGE:
                        await killing.whole()
                await killing.kill(EVERYTHING, traffic)
                await check_books(database, traffic)
        await settle(database)
        assert await asyncio.to_thread(killing.service.end) == 0
    finally:
        killing.end()
    books = await check_books(database, traffic)
    await check_learned(database, books)
    return Run(killing, traffic, books, rounds)


@pytest.mark.parametrize(
    ("backend", "rounds"), [("postgres", 1), pytest.param("sqlite", 1, marks=pytest.mark.long)]
)
async def test_a_kill_loses_nothing(make_database: Made, tmp_path: Path, backend: str, rounds: int) -> None:
    database = await make_database(backend, document(SMALL))
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown where it fails
    done = await run(database, SMALL, rounds, KINDS[backend], tmp_path / "log", seed)
    killed = {what: len(each) for what, each in done.killing.seconds.items()}
    assert killed == dict.fromkeys([*KINDS[backend], EVERYTHING], rounds)
    assert done.traffic.tally["not answered"] > 0
    assert done.books.learned


@pytest.mark.long
@pytest.mark.parametrize("backend", ["postgres", "sqlite"])
async def test_many_kills_lose_nothing(backend: str, make_database: Made, tmp_path: Path) -> None:
    before = os.getloadavg()[0]
    database = await make_database(backend, document(LARGE))
    done = await run(database, LARGE, ROUNDS, KINDS[backend], tmp_path / "log", 6)
    RESULTS[backend].write_text(_report(backend, done, before), encoding="utf-8")


def _report(backend: str, done: Run, busy: float) -> str:
    told, traffic = done.books.told, done.traffic
    kills = "\n".join(
        f"| {what} | {len(each)} | {statistics.median(each):.2f} | {max(each):.2f} |"
        for what, each in sorted(done.killing.seconds.items())
    )
    twice = sum(count > 1 for count in [*told.requests.values(), *done.books.responses.values()])
    lost = len(traffic.answered.keys() - told.requests.keys())
    unheard = len(traffic.acknowledged.keys() - told.responses.keys())
    states = Counter(item.state for item in told.shown)
    refused = sum(count for what, count in traffic.tally.items() if what.startswith("503"))
    taken = ", ".join(
        f"{told.amounts(budget)[0]:,} of {total:,} of `{budget}`"
        for budget, total in traffic.size.totals.items()
    )
    killed = ", the learner and PostgreSQL 18 (all its processes; started again on the same data, fsync on)"
    if backend == "sqlite":
        killed = " and the learner"
    return f"""# Kill -9 of everything, on {"SQLite" if backend == "sqlite" else "PostgreSQL"}

`decision serve --workers 2` with its learner, as processes; {LARGE.callers} callers, {LARGE.customers}
customers and five channels: single decisions and batches of 8, immediate and deferred, the same request
twice at once, responses once and twice; eight contact policies, and two budgets. In each of {ROUNDS} rounds
a worker{killed}
are killed in any order at random moments, then all processes of the service at once. Callers send again,
with the same ids, what was not answered.

| killed | times | seconds to the next answer: median | longest |
|---|---|---|---|
{kills}

The answer is one to a request that was sent after the kill. It includes the start of the database, or of the
service, where that was killed.

- {len(traffic.answered):,} decisions answered, {lost} of them lost; {len(traffic.acknowledged):,} responses
  acknowledged, {unheard} of them lost; {twice} of either there twice.
- {traffic.tally["not answered"]:,} attempts got no answer and {refused:,} were refused (503), and were made
  again. {_found(traffic):,} decisions and {traffic.tally["responses found recorded"]:,} responses had been
  committed by an attempt that was not answered; the next one was told what the ledger had.
- Reserved items: {states["firm"]:,} confirmed, {states["released"]:,} released. Budgets taken, as counted
  from what was shown and as their accounts say (money in ten-thousandths): {taken}.
- The learned state equals the one relearned from the ledger to 1e-9; events and rewards of each arm equal
  those counted by hand: {sum(events for events, _ in done.books.learned.values()):,} events.

After each round, and when all was settled, nothing was lost or there twice, and no limit was exceeded.

Measured on:

- {processor()}, {psutil.cpu_count()} cores, {platform.system()}; Python {platform.python_version()}
- load average before it began: {busy:.1f}; callers and database run on the same cores

Repeat: `pytest -m long tests/faults/test_kill_everything.py`.
"""


def _found(traffic: Traffic) -> int:
    """Decisions made before the attempt on which their caller was answered."""
    return sum(
        datetime.fromisoformat(orjson.loads(content)["decided_at"]).timestamp() < traffic.again[request]
        for (_, request), content in traffic.answered.items()
        if request in traffic.again
    )
