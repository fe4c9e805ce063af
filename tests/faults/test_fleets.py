"""Two services and two learners of their own on one PostgreSQL, as on several machines."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
from ledgers import Database, Made, PostgresDatabase, check_learned, settle
from service import Service
from test_limits import SECOND, SHORT
from traffic import calling, check_books, document, ready, until

SIZE = replace(SHORT, callers=6, customers=40, gifts=300, money=200)
_LEADERS = """
    SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Learner:
    """`decision learn` as a process."""

    def __init__(self, url: str, log: Path) -> None:
        self._log = log
        command = [sys.executable, "-m", "decision", "learn", "--store", url, "--interval", "0.2"]
        with log.open("ab") as said:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)

    @property
    def said(self) -> list[str]:
        """What it said of its part, in order: `learning`, or that it stands by."""
        lines = [line.partition("decision.learner ")[2] for line in self._log.read_text().splitlines()]
        return [line for line in lines if line == "learning" or line.endswith("standing by")]

    @property
    def leads(self) -> bool:
        return self.said[-1:] == ["learning"]

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Fleet:
    """Two of each."""

    database: PostgresDatabase
    services: list[Service]
    learners: list[Learner]

    def leader(self) -> Learner:
        (one,) = (each for each in self.learners if each.leads and each.process.poll() is None)
        return one

    async def leaders(self) -> list[int]:
        """The server's processes that hold the learner's lock."""
        connection = await asyncpg.connect(self.database.url)
        try:
            return [row[0] for row in await connection.fetch(_LEADERS)]
        finally:
            await connection.close()

    async def learned(self) -> int:
        """How many rounds were learned, by whomever."""
        ((rounds,),) = (await self.database.tables("rounds"))["rounds"]
        return int(rounds)

    async def goes_on(self, since: int, seconds: float = 60.0) -> float:
        """Waits until more is learned than `since`; the seconds it took."""
        began = time.monotonic()
        while await self.learned() <= since:
            assert time.monotonic() - began < seconds, "nobody learns"
            await asyncio.sleep(0.02)
        return time.monotonic() - began

    async def published(self, changed: dict[str, Any]) -> float:
        """Publishes through one service; the seconds from its commit until the other one decides with it."""
        one, other = (each.url for each in self.services)
        async with httpx.AsyncClient(verify=False, timeout=30) as client:
            before = await _served(client, other)
            publishing = asyncio.create_task(client.post(f"{one}/v1/catalog/publish", json=changed))
            async with asyncio.timeout(30):
                while (now := await _served(client, other)) == before:
                    await asyncio.sleep(0.02)
            served = time.time()
            reply = await publishing
            assert reply.status_code == 200, reply.text
            assert reply.json()["version"] == now
        connection = await asyncpg.connect(self.database.url)
        try:
            at = await connection.fetchval("SELECT max(published_at) FROM publications")
        finally:
            await connection.close()
        return served - int(at) / SECOND


async def _served(client: httpx.AsyncClient, url: str) -> str:
    """The version that a service decides with at this moment."""
    asked = {"customer_id": "publisher", "channel": "web", "mode": "dry_run", "request_id": str(uuid4())}
    reply = await client.post(f"{url}/v1/decisions", json=asked)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["catalog_version"])


@asynccontextmanager
async def fleet(database: Database, folder: Path) -> AsyncIterator[Fleet]:
    """Runs it until one learns and one stands by; whatever happens, none of its processes is left."""
    assert isinstance(database, PostgresDatabase)
    services = [
        Service(database.url, folder / f"service-{number}", "--no-learner", "--timeout-ms", "10000")
        for number in range(2)
    ]
    learners = [Learner(database.url, folder / f"learner-{number}") for number in range(2)]
    try:
        await ready(*services)
        await until(lambda: all(each.said for each in learners), "both learners have looked")
        yield Fleet(database, services, learners)
    finally:
        for learner in learners:
            learner.end()
        for service in services:
            for pid in service.processes() if service.process.poll() is None else []:
                os.kill(pid, signal.SIGKILL)
            service.process.wait()


async def test_two_services_and_two_learners(make_database: Made, tmp_path: Path) -> None:
    database = await make_database("postgres", document(SIZE))
    async with fleet(database, tmp_path) as running:
        async with calling([each.url for each in running.services], SIZE) as traffic:
            said = sorted(each.said[-1] for each in running.learners)
            assert said == ["another learner leads; standing by", "learning"]
            assert len(await running.leaders()) == 1
            await running.goes_on(0)

            took = await running.published({**document(SIZE), "name": "changed"})
            print(f"a catalog was live in the other service after {took:.3f} s")
            assert took < 2

            # The server ends the session that holds the lock: one of the two goes on.
            (session,) = await running.leaders()
            before = await running.learned()
            await running.database.cluster.run(f"SELECT pg_terminate_backend({session})")
            took = await running.goes_on(before + 1)
            print(f"it went on {took:.2f} s after the session of the leader was ended")
            assert len(await running.leaders()) == 1
            leader = running.leader()

            # A leader that is frozen keeps the lock: until it goes on nobody learns, and nothing is lost.
            leader.signal(signal.SIGSTOP)
            frozen = await running.learned()
            await until(traffic.more(60), "requests are answered")
            assert await running.learned() <= frozen + 1  # a commit may have been under way
            assert [each for each in running.learners if each.leads] == [leader]
            leader.signal(signal.SIGCONT)
            await running.goes_on(frozen + 1)

            killed, before = time.monotonic(), await running.learned()
            leader.signal(signal.SIGKILL)
            (other,) = (each for each in running.learners if each is not leader)
            await until(lambda: other.leads, "the other one leads")
            print(f"the other one led {time.monotonic() - killed:.2f} s after the kill of the leader,")
            await running.goes_on(before + 1)
            took = time.monotonic() - killed
            print(f"and had learned after {took:.2f} s")
            assert took < 10
            assert len(await running.leaders()) == 1
        await settle(database)
    books = await check_books(database, traffic)
    await check_learned(database, books)
