"""What is asked over HTTP: our service and the bare endpoint, each one process on the first processor; all
else, the one who asks, PostgreSQL and the service's supervisor among it, is on the second.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import psutil

from benchmarks.speed.load import Server, post
from benchmarks.speed.population import Customer
from benchmarks.speed.workload import PLACEMENT, SLOTS, Width, World, import_customers, publish, request
from benchmarks.stage import Cluster, Service, file_system, settings_of, workers_of
from decision.settings import opened

ROOT = Path(__file__).parents[2]
WIDTH: Width = "columns"
TIMEOUT_MS = 10_000
PATIENCE = 30.0  # seconds, for whatever is started


@contextmanager
def apart() -> Iterator[tuple[int, int]]:
    """This process, and all it starts, on the second processor that it may use: gives both, the one for who
    is asked first. Where there is only one, all share it."""
    before = os.sched_getaffinity(0)
    first, *others = sorted(before)
    second = others[0] if others else first
    os.sched_setaffinity(0, {second})
    try:
        yield first, second
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def bare_endpoint(core: int) -> Iterator[tuple[int, psutil.Process]]:
    """Runs the yardstick: its port and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with _on(core):
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.speed.bare", str(port)], cwd=ROOT)
    try:
        _until(lambda: _answers(port), "the bare endpoint answers")
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def service(url: str, log: Path, core: int) -> Iterator[tuple[int, psutil.Process]]:
    """Runs `decision serve` with one worker and a log line for each decision: its port, and the worker."""
    with _on(core):  # its threads are to be there too
        made = Service(url, log, "--no-learner", "--log-format", "json", "--access-log")
    try:
        made.wait_until_ready()
        os.sched_setaffinity(made.process.pid, os.sched_getaffinity(0))  # the supervisor
        (worker,) = workers_of(made)
        yield made.port, worker
    finally:
        made.end()


@contextmanager
def store(kind: str, directory: Path) -> Iterator[tuple[str, str]]:
    """An empty store, `SQLite` or `PostgreSQL`: its URL, and how it keeps what it commits, in words."""
    where = f"on {file_system(directory)}"
    if kind == "SQLite":
        yield (
            f"sqlite:{directory / 'store.db'}",
            f"SQLite {sqlite3.sqlite_version}: synced before each answer, {where}",
        )
        return
    cluster = Cluster(directory)
    try:
        asyncio.run(cluster.run("CREATE DATABASE speed"))
        yield cluster.url("speed"), f"{asyncio.run(settings_of(cluster, 'speed'))}, {where}"
    finally:
        cluster.kill()


def fill(url: str, made: World, people: Sequence[Customer]) -> None:
    """Publishes the catalog with what has been learned, and imports the customers."""

    async def into() -> None:
        async with opened(url) as opened_store:
            await publish(opened_store, made)
            await import_customers(opened_store, people)

    asyncio.run(into())


def question(customer: Customer) -> dict[str, Any]:
    """The body of a request. It is given more time than it takes: were it not, an overloaded service would
    answer with less, and sooner."""
    placements = [{"id": PLACEMENT, "limit": SLOTS}]
    return request(customer) | {"placements": placements, "timeout_ms": TIMEOUT_MS}


def server(
    port: int,
    process: psutil.Process,
    cores: tuple[int, int],
    people: Sequence[Customer],
    path: str = "/v1/decisions",
) -> Server:
    """Asks for a decision for each of the customers. Watched are its processor time, that of anything on its
    processor, and of anything on the other."""
    requests = [post(path, orjson.dumps(question(each))) for each in people]

    def spent() -> tuple[float, ...]:
        busy = psutil.cpu_times(percpu=True)
        return seconds_of(process), *(_busy(busy[core]) for core in cores)

    return Server(port, requests, spent)


def seconds_of(process: psutil.Process) -> float:
    """Seconds of processor time that the threads of a process have taken, to the microsecond."""
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _busy(core: Any) -> float:
    return float(core.user + core.nice + core.system + core.irq + core.softirq)


@contextmanager
def _on(core: int) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _until(done: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, f"not within {PATIENCE:.0f} s: {what}"
        time.sleep(0.02)
