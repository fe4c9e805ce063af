"""The SQLite file under a running service: its disk full, the file not writable, its lock held by another.

Always the same must hold: requests that need a write get a 503 problem document at once or within the lock's
timeout, reads go on, the log and the memory do not grow, all of it is over when the fault is, without a
restart, and whatever was answered is in the ledger. The long versions are measured in
`benchmarks/results/store_faults.md`.
"""

from __future__ import annotations

import asyncio
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx
import pytest
from load import Load, Refusal, check
from service import PROC, Service, serving, until
from support import asking, catalog_document

from arbitration.catalog.problems import Source
from decision.clock import utc_now
from decision.errors import StoreUnavailable
from decision.publishing import check_document
from decision.settings import open_store, opened

pytestmark = pytest.mark.skipif(not (PROC / "self" / "stat").exists(), reason="looks at processes in /proc")

MEGABYTE = 1 << 20
LEFT = MEGABYTE // 4


class Tmpfs:
    """A small file system of its own, which a file of zeros makes full."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "disk"
        self.path.mkdir()
        _run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(self.path))

    def fill(self, service: Service) -> None:
        """Leaves little room, for the service to fill."""
        left = shutil.disk_usage(self.path).free
        with suppress(OSError):  # the service was faster, and it is full already
            (self.path / "ballast").write_bytes(bytes(left - LEFT))

    def free(self, service: Service) -> None:
        (self.path / "ballast").unlink()

    def close(self) -> None:
        _run("umount", str(self.path))


class FileSizeLimit:
    """An ordinary directory; full is what a limit on the size of files in the service's processes says."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "disk"
        self.path.mkdir()

    def fill(self, service: Service) -> None:
        # The smaller of the two: the log is begun anew only once all of it is in the database.
        files = (self.path / "store.db", self.path / "store.db-wal")
        self._limit(service, min(file.stat().st_size for file in files) + LEFT)

    def free(self, service: Service) -> None:
        self._limit(service, resource.RLIM_INFINITY)

    def _limit(self, service: Service, size: int) -> None:
        for pid in service.processes():
            _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, most))

    def close(self) -> None:
        pass


Disk = Tmpfs | FileSizeLimit


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A real small disk where one may be mounted."""
    try:
        disk: Disk = Tmpfs(tmp_path)
    except (OSError, subprocess.CalledProcessError):
        (tmp_path / "limited").mkdir()
        disk = FileSizeLimit(tmp_path / "limited")
    yield disk
    disk.close()


@pytest.fixture
def limited(tmp_path: Path) -> Disk:
    return FileSizeLimit(tmp_path)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


async def publish(path: Path) -> str:
    """The URL of a new store at `path` in which the small catalog is published."""
    checked = check_document(Source(catalog_document()))
    assert checked.published is not None
    async with opened(f"sqlite:{path}") as store:
        await store.publish_catalog(checked.published.version, checked.document, utc_now())
    return f"sqlite:{path}"


def has_learned(path: Path) -> bool:
    """Whether any snapshot was made."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT 1 FROM snapshots LIMIT 1").fetchone() is not None


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    """Nobody can write to the database, nor to its log; as on a file system that turned read-only."""
    files = [str(file) for file in (path, path.with_name(f"{path.name}-wal")) if file.exists()]
    try:
        try:
            _run("chattr", "+i", *files)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"cannot make a file immutable here: {error}")
        yield
    finally:  # what stays immutable, nobody can clear away
        with suppress(FileNotFoundError):  # there is no chattr
            subprocess.run(["chattr", "-i", *files], capture_output=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process, as SQLite sees it, has the write lock."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def reads_of_nobody_work(service: Service, load: Load) -> None:
    """What is of nobody can be read. A look at a customer has to be written down: where there is no room for
    that, it is refused."""
    decision_id = next(reversed(load.answered))
    with httpx.Client(base_url=service.url, timeout=20) as client:
        for path in (f"/v1/decisions/{decision_id}", f"/v1/decisions/{decision_id}/explanation"):
            looked = client.get(path)
            if looked.status_code != 200:  # an entry may still fit where a decision does not
                assert looked.status_code == 503
                assert looked.json()["code"] in ("store_unavailable", "store_busy")
        assert client.get("/v1/catalog").status_code == 200
        assert client.get("/readyz").status_code == 200


def reads_work(service: Service, load: Load) -> None:
    """What was answered before can be read, explained and found in its customer's history."""
    decision_id = next(reversed(load.answered))
    with httpx.Client(base_url=service.url, timeout=20) as client:
        assert client.get(f"/v1/decisions/{decision_id}").content == load.answered[decision_id]
        explained = client.get(f"/v1/decisions/{decision_id}/explanation").json()
        assert explained["decision_id"] == decision_id
        customer = client.get(f"/v1/decisions/{decision_id}").json()["customer_id"]
        history = client.get(f"/v1/customers/{customer}/history").json()
        assert decision_id in {each["decision_id"] for each in history["decisions"]}


async def check_kept(path: Path, *loads: Load) -> None:
    """Of a service that has ended: its file is sound, and holds all that was answered."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    async with opened(f"sqlite:{path}") as store:
        await check(store, *loads)


@dataclass
class Figures:
    """What a fault did."""

    refused: list[Refusal] = field(default_factory=list)
    grown: int = 0
    lines: int = 0
    recovered: float = 0.0

    def __str__(self) -> str:
        codes = Counter(refusal.code for refusal in self.refused)
        seconds = sorted(refusal.seconds for refusal in self.refused)
        return (
            f"refused {dict(codes)}, median {seconds[len(seconds) // 2]:.3f} s, longest {seconds[-1]:.3f} s;"
            f" memory +{self.grown / MEGABYTE:.1f} MB; {self.lines} lines logged;"
            f" recovered in {self.recovered:.2f} s"
        )


async def _full(disk: Disk, log: Path, seconds: float) -> Figures:
    path = disk.path / "store.db"
    url = await publish(path)
    with serving(url, log, "--interval", "0.2") as service, Load(service.url, "full") as load:
        until(load.more_acknowledged(20), "responses are acknowledged")
        until(lambda: has_learned(path), "the learner is at work")
        processes = service.processes()
        disk.fill(service)
        until(load.more_refused(20), "the disk is full")
        before, said, first = service.resident(), service.said(), len(load.refused)
        until(load.more_refused(20), "requests are refused")
        reads_of_nobody_work(service, load)
        time.sleep(seconds)
        figures = Figures(load.refused[first:], service.resident() - before)
        figures.lines = service.said().count("\n") - said.count("\n")
        disk.free(service)
        began = time.monotonic()
        until(load.more_acknowledged(5), "it has recovered")
        figures.recovered = time.monotonic() - began
        until(load.more_acknowledged(20), "it goes on")
        reads_of_nobody_work(service, load)
        assert service.processes() == processes, "it did so without a restart"
    assert service.process.returncode is not None
    await check_kept(path, load)
    return figures


async def test_a_full_disk(disk: Disk, tmp_path: Path) -> None:
    figures = await _full(disk, tmp_path / "log", 0.5)
    assert {refusal.code for refusal in figures.refused} == {"store_unavailable"}
    assert figures.grown < 16 * MEGABYTE
    assert figures.lines <= 30


@pytest.mark.long
@pytest.mark.parametrize("kind", ["disk", "limited"])
async def test_a_full_disk_for_half_a_minute(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    figures = await _full(request.getfixturevalue(kind), tmp_path / "log", 30)
    print(f"\n{kind}: {figures}")
    assert figures.grown < 16 * MEGABYTE
    assert figures.lines <= 30


async def _read_only(path: Path, seconds: float) -> Figures:
    url = await publish(path)
    with serving(url, path.with_name("log"), "--no-learner") as service, Load(service.url, "ro") as load:
        until(load.more_acknowledged(20), "responses are acknowledged")
        before, said = service.resident(), service.said()
        with immutable(path):
            until(load.more_refused(40), "requests are refused")
            reads_of_nobody_work(service, load)
            time.sleep(seconds)
            figures = Figures(list(load.refused), service.resident() - before)
            figures.lines = service.said().count("\n") - said.count("\n")
        began = time.monotonic()
        until(load.more_acknowledged(5), "it has recovered")
        figures.recovered = time.monotonic() - began
        until(load.more_acknowledged(20), "it goes on")
    await check_kept(path, load)
    return figures


@pytest.mark.long
async def test_a_file_that_turns_read_only(tmp_path: Path) -> None:
    figures = await _read_only(tmp_path / "store.db", 0.0)
    assert {refusal.code for refusal in figures.refused} == {"store_unavailable"}
    assert figures.lines <= 30


@pytest.mark.long
async def test_a_file_that_is_read_only_for_half_a_minute(tmp_path: Path) -> None:
    figures = await _read_only(tmp_path / "store.db", 30.0)
    print(f"\n{figures}")
    assert figures.lines <= 30


async def test_a_file_that_cannot_be_written_is_not_opened(tmp_path: Path) -> None:
    url = await publish(tmp_path / "store.db")
    store = open_store(url)
    with immutable(tmp_path / "store.db"):
        with pytest.raises(StoreUnavailable) as refused:
            await store.open()
        assert "store.db: the database cannot be written: attempt to write" in str(refused.value)
    await store.open()
    await store.close()


@pytest.mark.long
@pytest.mark.parametrize("command", ["serve", "learn"])
async def test_a_start_that_meets_such_a_file_says_so_in_one_line(command: str, tmp_path: Path) -> None:
    url = await publish(tmp_path / "store.db")
    with immutable(tmp_path / "store.db"):
        start = [sys.executable, "-m", "decision", command, "--store", url]
        ended = subprocess.run(start, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 1
    reason, *more = ended.stderr.splitlines()
    assert "store.db: the database cannot be written" in reason
    assert "Traceback" not in "".join(more)
    assert len(more) <= 1


@pytest.mark.long
async def test_a_lock_that_another_process_holds_for_twenty_seconds(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    url = await publish(path)
    with (
        serving(url, tmp_path / "log", "--interval", "0.2") as service,
        Load(service.url, "held", callers=16) as load,
    ):
        until(load.more_acknowledged(100), "responses are acknowledged")
        until(lambda: has_learned(path), "the learner is at work")
        before, said = service.resident(), service.said()
        with locked(path):
            began = time.monotonic()
            with Batches(service.url) as batches:
                time.sleep(10)
                reads_of_nobody_work(service, load)
                time.sleep(10)
            grown = service.resident() - before
            figures = Figures(list(load.refused), grown, service.said().count("\n") - said.count("\n"))
            held = time.monotonic() - began
        began = time.monotonic()
        until(load.more_acknowledged(5), "it has recovered")
        figures.recovered = time.monotonic() - began
        until(load.more_acknowledged(100), "it goes on")
    print(f"\nheld for {held:.0f} s: {figures}; batches: {batches.codes}")
    await check_kept(path, load)
    assert max(refusal.seconds for refusal in figures.refused) < 6
    assert batches.codes.keys() <= {200, 503}
    assert figures.grown < 200 * MEGABYTE
    assert figures.lines <= 30


class Batches:
    """Sends a batch of twenty decisions every tenth of a second, whether or not the last was answered."""

    def __init__(self, url: str) -> None:
        self.codes: Counter[int] = Counter()
        self._url = url
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    async def _send(self) -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=self._url, timeout=30, limits=limits) as client:
            sent = []
            for turn in range(1_000_000):
                if self._stopped.is_set():
                    break
                requests = [asking(f"b-{turn}-{number}", "panel") for number in range(20)]
                sent.append(
                    asyncio.create_task(client.post("/v1/decisions:batch", json={"requests": requests}))
                )
                await asyncio.sleep(0.1)
            for reply in await asyncio.gather(*sent):
                self.codes[reply.status_code] += 1
