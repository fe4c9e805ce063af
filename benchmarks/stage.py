"""What a benchmark of the whole service stands on: a PostgreSQL of its own, the telco example in it, callers
that cost little, and a look at each process.

The servers are started as the tests of faults start them.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import asyncpg
import httptools
import orjson
import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "faults"))

from clusters import Cluster
from service import Service

from decision.clock import utc_now
from decision.demo.world import simulate_customers
from decision.importing import Importer, replacing
from decision.publishing import check_path
from decision.settings import opened

EXAMPLE = Path(__file__).parents[1] / "examples" / "telco"


def paragraph(text: str) -> str:
    """Text as markdown has it on one line."""
    return " ".join(text.split())


async def prepare(url: str, customers: int) -> dict[str, Any]:
    """Publishes the telco example in the store `url` and imports so many simulated customers, `sim-000001`
    onwards. Returns the catalog."""
    published, document = check_path(EXAMPLE)
    async with opened(url) as store:
        await store.publish_catalog(published.version, document, utc_now())
        importer = Importer(replacing(store, utc_now), published.compiled)
        for number, customer in enumerate(simulate_customers(customers, 7, utc_now()), start=1):
            await importer.row(number, customer, customer)
        await importer.finish()
        assert importer.imported == customers
    catalog: dict[str, Any] = orjson.loads(document)
    return catalog


def workers_of(service: Service) -> list[psutil.Process]:
    """The API processes, in the order in which they were started."""
    found = [psutil.Process(pid) for pid in service.processes()]
    return sorted((each for each in found if "worker" in each.cmdline()), key=psutil.Process.create_time)


def busy_seconds() -> float:
    """Seconds of processor time that anything on this machine took."""
    whole = psutil.cpu_times()
    return float(whole.user + whole.nice + whole.system + whole.irq + whole.softirq)


def seconds_of(process: psutil.Process) -> float:
    """Seconds of processor time that a process took; 0 if it is gone."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


async def settings_of(cluster: Cluster, database: str) -> str:
    """How the server keeps what it commits, in words."""
    names = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers")
    connection = await asyncpg.connect(cluster.url(database))
    try:
        values = [await connection.fetchval("SELECT current_setting($1)", name) for name in names]
    finally:
        await connection.close()
    said = ", ".join(f"{name} {value}" for name, value in zip(names[1:], values[1:], strict=True))
    return f"PostgreSQL {values[0].split()[0]}: {said}"


def file_system(path: Path) -> str:
    """The kind of the file system that a path is on."""
    parts = [each for each in psutil.disk_partitions(all=True) if path.is_relative_to(each.mountpoint)]
    return max(parts, key=lambda each: len(each.mountpoint)).fstype


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: `status`, and the body as it is."""

    status: int
    body: bytes


class Caller(asyncio.Protocol):
    """One keep-alive connection, one request at a time, and as little work as can be: `httpx` takes as long
    for a request as the service does. Raises ConnectionError where the connection is lost before the answer.
    """

    def __init__(self) -> None:
        self._answer: asyncio.Future[Answer] | None = None
        self._parser: Any = None
        self._body: list[bytes] = []
        self.sent = 0

    @classmethod
    async def open(cls, port: int) -> Self:
        """Connects to a service of this machine."""
        _, made = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop does not derive from `asyncio.Transport`.
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._parser = httptools.HttpResponseParser(self)
        self.port: int = transport.get_extra_info("sockname")[1]
        """The local port, by which the other end can be told."""

    async def call(self, method: str, path: str, content: bytes = b"") -> Answer:
        """Sends a request and waits for its answer."""
        if self._transport.is_closing():
            raise ConnectionError("closed")
        self._answer = asyncio.get_running_loop().create_future()
        self.sent += 1
        self._transport.write(
            f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"content-length: {len(content)}\r\n\r\n".encode()
            + content
        )
        return await self._answer

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        self._body.append(part)

    def on_message_complete(self) -> None:
        answer, self._answer = self._answer, None
        assert answer is not None, "an answer to nothing"
        if not answer.done():  # nobody waits any more
            answer.set_result(Answer(self._parser.get_status_code(), b"".join(self._body)))
        self._body = []
        if not self._parser.should_keep_alive():
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("lost before the answer"))
