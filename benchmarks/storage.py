"""How fast the SQLite store is: point reads, and durable commits by one caller and by many.

    python benchmarks/storage.py [--write] [--seconds 5] [--directory DIR]

Prints a table; `--write` also keeps it in `benchmarks/results/storage.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import orjson
import uvloop

from decision.clock import new_id
from decision.storage.port import Customer, DecisionRecord, Identity, ResponseRecord, Stop
from decision.storage.sqlite.store import SqliteStore

RESULTS = Path(__file__).parent / "results"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
CUSTOMERS = 20_000
DECISIONS = 20_000
READS = 20_000
SYNCS = 300
INPUTS, REPLY = 2048, 1024
CALLERS = (1, 64)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results/")
    parser.add_argument("--seconds", type=float, default=5.0, help="of commits, for each number of callers")
    parser.add_argument("--directory", type=Path, help="on the disk to measure [default: the temporary one]")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        report = uvloop.run(measure(Path(directory), options.seconds))
    keep(report, "storage.md", write=options.write)


async def measure(directory: Path, seconds: float) -> str:
    """All measurements, as markdown."""
    before = busy()
    synced = sync_times(directory / "sync")
    store = SqliteStore(directory / "store.db")
    await store.open()
    reads = [row async for row in _reads(store)]
    commits = [await _commits(store, callers, seconds) for callers in CALLERS]
    synced += sync_times(directory / "sync")
    await store.close()
    return "\n".join(
        [
            "# The SQLite store",
            "",
            f"Point reads, one after the other, of {CUSTOMERS:,} customers and {DECISIONS:,} decisions"
            f" ({READS:,} reads at random of each kind):",
            "",
            "| read | p50 µs | p99 µs |",
            "|---|---|---|",
            *reads,
            "",
            f"Durable commits (`synchronous=FULL`) of one decision each, {INPUTS:,} bytes of inputs and"
            f" {REPLY:,} of reply; closed loop, {seconds:.0f} s each, every caller commits its next decision"
            " when its last one is on disk:",
            "",
            "| callers | decisions/s | p50 ms | p99 ms |",
            "|---|---|---|---|",
            *commits,
            "",
            f"The disk: {SYNCS} times 4 KB appended and `fdatasync`, before and again after:"
            f" p50 {quantile(synced, 0.5) * 1e3:.2f} ms, p99 {quantile(synced, 0.99) * 1e3:.2f} ms.",
            "",
            f"- {machine()}",
            f"- {before}",
            "- one process, uvloop; the reads run on the event loop, the commits in the writer's thread",
            "",
            "Repeat: `python benchmarks/storage.py --write`.",
            "",
        ]
    )


async def _reads(store: SqliteStore) -> AsyncIterator[str]:
    rng = random.Random(7)
    decisions = [_decision(rng, f"c-{number % CUSTOMERS}", f"q-{number}") for number in range(DECISIONS)]
    for start in range(0, CUSTOMERS, 1000):
        customers = [_customer(rng, number) for number in range(start, start + 1000)]
        await store.put_customers(customers, NOW)
    for start in range(0, DECISIONS, 1000):
        await store.commit_decisions(decisions[start : start + 1000])
    for start in range(0, DECISIONS, 1000):  # every other customer has one stop in force
        answered = decisions[start : start + 1000 : 2]
        await store.commit_responses([_response(decision) for decision in answered])
    kinds: dict[str, Callable[[int], Awaitable[object]]] = {
        "names": lambda n: store.names(f"c-{n}"),
        "standing": lambda n: store.standing((f"c-{n}",), NOW),
        "customer": lambda n: store.customer(f"c-{n}"),
        "as_of": lambda n: store.as_of(f"c-{n}"),
        "decision_of_request": lambda n: store.decision_of_request([f"c-{n % CUSTOMERS}"], f"q-{n}"),
        "resolve": lambda n: store.resolve(Identity("cookie", f"cookie-{n}")),
        "decision": lambda n: store.decision(decisions[n].decision_id),
    }
    for name, read in kinds.items():
        times = []
        for _ in range(READS):
            number = rng.randrange(min(CUSTOMERS, DECISIONS))
            started = time.perf_counter()
            found = await read(number)
            times.append(time.perf_counter() - started)
            assert found is not None
        yield f"| `{name}` | {quantile(times, 0.5) * 1e6:.1f} | {quantile(times, 0.99) * 1e6:.1f} |"


async def _commits(store: SqliteStore, callers: int, seconds: float) -> str:
    rng = random.Random(callers)
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while time.perf_counter() < end:
            record = _decision(rng, f"c-{rng.randrange(CUSTOMERS)}", new_id())
            started = time.perf_counter()
            await store.commit_decisions([record])
            times.append(time.perf_counter() - started)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    rate = len(times) / (time.perf_counter() - began)
    return (
        f"| {callers} | {rate:,.0f} | {quantile(times, 0.5) * 1e3:.2f} | {quantile(times, 0.99) * 1e3:.2f} |"
    )


def _customer(rng: random.Random, number: int) -> Customer:
    return Customer(
        f"c-{number}",
        {f"attribute_{n}": rng.choice(["Basic", "Max", 7, 21.5, True]) for n in range(15)},
        {"clv": rng.random() * 5000, "churn": rng.random()},
        {"marketing": "given"},
        (Identity("cookie", f"cookie-{number}"),),
    )


def _decision(rng: random.Random, customer_id: str, request_id: str) -> DecisionRecord:
    return DecisionRecord(
        decision_id=new_id(),
        customer_id=customer_id,
        request_id=request_id,
        request_hash="0" * 32,
        decided_at=NOW,
        channel="web",
        mode="live",
        catalog_version="v1",
        snapshots={"default": "default-v1"},
        inputs=_json(rng, INPUTS),
        reply=_json(rng, REPLY),
    )


def _json(rng: random.Random, size: int) -> bytes:
    return orjson.dumps({"x": rng.randbytes(size // 2 - 4).hex()})


def _response(decision: DecisionRecord) -> ResponseRecord:
    stop = Stop("group", "retention", NOW + timedelta(days=365))
    return ResponseRecord(
        f"r-{decision.decision_id}", decision.decision_id, decision.customer_id, "t", "accepted", None, NOW,
        NOW, (stop,),
    )  # fmt: skip


def sync_times(file: Path) -> list[float]:
    """Seconds that the disk below `file` takes to keep 4 KB more, each time."""
    times = []
    with file.open("wb", buffering=0) as out:
        for _ in range(SYNCS):
            out.write(os.urandom(4096))
            started = time.perf_counter()
            os.fdatasync(out.fileno())
            times.append(time.perf_counter() - started)
    return times


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least that share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -int(-share * len(ordered) // 1) - 1))]


def machine() -> str:
    """Processor, cores and versions, in one line."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":")[1] for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0].strip() if names else model
    versions = (
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, uvloop {version('uvloop')}"
    )
    return f"{model}, {os.cpu_count()} cores, {platform.system()}; {versions}"


def busy() -> str:
    """How busy the machine is with other things; to be asked before the work begins."""
    return f"load average before it began: {os.getloadavg()[0]:.1f}"


def keep(report: str, name: str, *, write: bool) -> None:
    """Prints a report, and keeps it among the results if asked."""
    sys.stdout.write(report)
    if write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / name).write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
