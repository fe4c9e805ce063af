"""The databases that SQL sources are tested on, and what may happen to them."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import psutil

from decision.sources.sql import Sql

Opener = Callable[..., Sql]


class Database(Protocol):
    """`slow`: a query that takes ten seconds or more for anna, and at once finds `nps` 1 for others.
    `endless`: one that finds ten million rows."""

    url: str
    slow: str
    endless: str

    async def run(self, script: str) -> None:
        """Runs statements as its owner would."""


class Sqlite:
    slow = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
        " WHERE :customer_id = 'anna' AND i < 100000000) SELECT count(*) AS nps FROM n"
    )
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000000)"
        " SELECT i AS nps FROM n"
    )

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite+aiosqlite:///{path}"

    async def run(self, script: str) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(script)

    @contextmanager
    def locked(self) -> Iterator[None]:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield


class Postgres:
    slow = "SELECT 1 AS nps FROM pg_sleep(CASE :customer_id WHEN 'anna' THEN 60 ELSE 0 END)"
    endless = "SELECT generate_series(1, 10000000) AS nps"

    def __init__(self, server: Any) -> None:
        self._server = server
        self._frozen: list[int] = []
        self.folder = str(server.get_postmaster_info().socket_dir)
        self.url = self.url_at(self.folder)

    def url_at(self, folder: str) -> str:
        return f"postgresql+asyncpg://postgres@/postgres?host={folder}"

    async def run(self, script: str) -> None:
        await self.ask(script)

    async def ask(self, query: str) -> Any:
        """The first column of the first row, where there is one."""
        connection = await asyncpg.connect(host=self.folder, user="postgres", database="postgres")
        try:
            if ";" in query:
                return await connection.execute(query)
            return await connection.fetchval(query)
        finally:
            await connection.close()

    async def running(self) -> int:
        """How many slow statements are at work."""
        found: int = await self.ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
        return found

    def stop(self) -> None:
        self._server.stop()

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def freeze(self) -> None:
        """From now on it answers nothing, and closes nothing."""
        main = psutil.Process(self._server.get_pid())
        self._frozen = [main.pid, *(child.pid for child in main.children(recursive=True))]
        for pid in self._frozen:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self._frozen:
            os.kill(pid, signal.SIGCONT)
        self._frozen = []


async def threads_gone() -> None:
    """Waits until the last thread of a closed SQLite connection has told its event loop so."""
    async with asyncio.timeout(10):
        while any("_connection_worker_thread" in thread.name for thread in threading.enumerate()):
            await asyncio.sleep(0.001)


@dataclass
class Wire:
    """`sent`: how often the client spoke. `delay`: seconds that each answer is held back."""

    url: str
    sent: int = 0
    delay: float = 0.0


@asynccontextmanager
async def wire(postgres: Postgres, folder: Path, *, tcp: bool = False) -> AsyncIterator[Wire]:
    """A way to the server that can be watched and slowed down."""
    between = Wire(postgres.url_at(str(folder)))
    open_calls: set[asyncio.Task[Any]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ours: bool) -> None:
        with closing(writer):
            while data := await reader.read(65_536):
                if ours:
                    between.sent += 1
                elif between.delay:
                    await asyncio.sleep(between.delay)
                writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_calls.add(task)
        theirs, back = await asyncio.open_unix_connection(f"{postgres.folder}/.s.PGSQL.5432")
        with closing(back), closing(writer):
            await asyncio.gather(
                pump(reader, back, True), pump(theirs, writer, False), return_exceptions=True
            )
        open_calls.discard(task)

    if tcp:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        between.url = f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres"
    else:
        server = await asyncio.start_unix_server(serve, folder / ".s.PGSQL.5432")
    try:
        yield between
    finally:
        server.close()
        for call in open_calls:
            call.cancel()
        await asyncio.gather(*open_calls, return_exceptions=True)
