"""Does a decision notice that a snapshot or a catalog is swapped beneath it?

    python benchmarks/snapshot_swap.py [--write] [--rounds 10]

Durable decisions on SQLite at a steady pace, in windows of 2 s in turn: nothing changes; another process
commits a new snapshot every 0.5 s; another process publishes a catalog. Prints a table; `--write` also
keeps it in `benchmarks/results/snapshot_swap.md`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the service has it

import argparse
import asyncio
import copy
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
import uvloop
from storage import busy, keep, machine, quantile

from arbitration.catalog.compile import CompiledCatalog
from arbitration.catalog.problems import Source
from arbitration.policy.state import State
from arbitration.snapshot import fingerprint, lineage
from decision.api.context import Context, build
from decision.clock import utc_now
from decision.demo.world import simulate_customers, visit
from decision.importing import Importer, replacing
from decision.messages import DecisionRequest
from decision.publishing import check_document, check_path, load_published
from decision.settings import opened
from decision.storage.port import SnapshotRecord, Store

EXAMPLE = Path(__file__).parents[1] / "examples" / "telco"
CUSTOMERS = 500
RATE = 100.0
WINDOW = 2.0
BETWEEN = 1.0
SWAP_EVERY = 0.5
KINDS = {
    "quiet": "nothing changes",
    "snapshot": f"a snapshot every {SWAP_EVERY} s",
    "catalog": "a catalog published",
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results/")
    parser.add_argument("--rounds", type=int, default=10, help="windows of each kind")
    parser.add_argument("--changes", help=argparse.SUPPRESS)  # the other process: the store it writes to
    options = parser.parse_args()
    if options.changes:
        uvloop.run(change(options.changes))
        return
    with tempfile.TemporaryDirectory() as directory:
        report = uvloop.run(measure(f"sqlite:{Path(directory) / 'store.db'}", options.rounds))
    keep(report, "snapshot_swap.md", write=options.write)


@dataclass
class Seen:
    """`latency`: seconds by kind of window, window by window. `changed` and `served`: by kind of change, when
    version number n was committed, and when it or a newer one was first served (monotonic seconds)."""

    latency: dict[str, list[list[float]]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    changed: dict[str, list[tuple[str, float]]] = field(
        default_factory=lambda: {"snapshot": [], "catalog": []}
    )
    served: dict[str, list[tuple[str, float]]] = field(
        default_factory=lambda: {"snapshot": [], "catalog": []}
    )

    def delays(self, kind: str) -> list[float]:
        """From commit to being served; a version that was overtaken before it was seen counts as served when
        the newer one was."""
        order = {version: number for number, (version, _) in enumerate(self.changed[kind])}
        found = []
        for number, (_, at) in enumerate(self.changed[kind]):
            found.append(
                next(seen for name, seen in self.served[kind] if name in order and order[name] >= number) - at
            )
        return found


async def measure(url: str, rounds: int) -> str:
    """All measurements, as markdown."""
    before = busy()
    published, document = check_path(EXAMPLE)
    async with opened(url) as store:
        await store.publish_catalog(published.version, document, utc_now())
        importer = Importer(replacing(store, utc_now), published.compiled)
        for number, customer in enumerate(simulate_customers(CUSTOMERS, 7, utc_now()), start=1):
            await importer.row(number, customer, customer)
        await importer.finish()
        assert importer.imported == CUSTOMERS
        service = build(store)  # polls as in production
        await service.live.start()
        other = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            "--changes",
            url,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        seen = Seen()
        watching = asyncio.create_task(_watch(service, seen))
        listening = asyncio.create_task(_listen(other, seen))
        try:
            await _windows(service, other, seen, rounds)
        finally:
            assert other.stdin is not None
            other.stdin.close()
            await other.wait()
            await listening
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await service.live.stop()
    compiled = published.compiled
    size = f"{len(compiled.arm_ids)} arms, {compiled.encoders['default'].size} columns"
    return _report(seen, rounds, size, before)


async def _windows(service: Context, other: asyncio.subprocess.Process, seen: Seen, rounds: int) -> None:
    rng = np.random.default_rng(7)
    random.seed(7)
    decide = service.deciding.decide
    for number in range(rounds + 1):
        for kind in random.sample(list(KINDS), len(KINDS)):
            telling = asyncio.create_task(_tell(other, kind))
            latency = await _window(service, rng)
            await telling
            if number > 0:  # the first of each kind warms up
                seen.latency[kind].append(latency)
            await decide(_request(rng))
            await asyncio.sleep(BETWEEN)  # what was asked for last is taken up before the next window


async def _window(service: Context, rng: np.random.Generator) -> list[float]:
    """Decides at moments laid down before; seconds from each such moment to the committed reply."""
    moments = np.cumsum(rng.exponential(1 / RATE, int(2 * RATE * WINDOW)))
    moments = moments[moments < WINDOW]
    requests = [_request(rng) for _ in moments]
    latency: list[float] = []
    begin = time.monotonic()

    async def one(request: DecisionRequest, intended: float) -> None:
        await service.deciding.decide(request)
        latency.append(time.monotonic() - intended)

    async with asyncio.TaskGroup() as group:
        for moment, request in zip(moments.tolist(), requests, strict=True):
            await asyncio.sleep(begin + moment - time.monotonic())
            group.create_task(one(request, begin + moment))
    return latency


def _request(rng: np.random.Generator) -> DecisionRequest:
    channel, placements, context = visit(rng)
    return DecisionRequest.model_validate(
        {
            "customer_id": f"sim-{rng.integers(1, CUSTOMERS + 1):06d}",
            "channel": channel,
            "placements": [{"id": name} for name in placements],
            "context": context,
        }
    )


async def _tell(other: asyncio.subprocess.Process, kind: str) -> None:
    assert other.stdin is not None
    if kind == "catalog":
        other.stdin.write(b"catalog\n")
    elif kind == "snapshot":
        for _ in range(round(WINDOW / SWAP_EVERY)):
            other.stdin.write(b"snapshot\n")
            await asyncio.sleep(SWAP_EVERY)


async def _listen(other: asyncio.subprocess.Process, seen: Seen) -> None:
    assert other.stdout is not None
    async for line in other.stdout:
        kind, version, at = orjson.loads(line)
        seen.changed[kind].append((version, at))


async def _watch(service: Context, seen: Seen) -> None:
    """Notes when a version is served for the first time, to 5 ms."""
    last: dict[str, str] = {}
    while True:
        serving = service.live.serving
        now = time.monotonic()
        for kind, version in (
            ("snapshot", serving.snapshots["default"].version),
            ("catalog", serving.published.version),
        ):
            if last.get(kind) != version:
                last[kind] = version
                seen.served[kind].append((version, now))
        await asyncio.sleep(0.005)


async def change(url: str) -> None:
    """The other process: at each line of its input commits a new snapshot or publishes a new catalog, and
    tells its version and when its commit had returned."""
    async with opened(url) as store:
        publication = await store.live_catalog()
        assert publication is not None
        document = await store.catalog(publication.version)
        assert document is not None
        compiled = load_published(publication.version, document).compiled
        state, number = _learned(compiled), 0
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            number += 1
            version = await (
                _commit(store, compiled, state) if line == "snapshot" else _publish(store, document, number)
            )
            at = time.monotonic()  # one clock for all processes
            sys.stdout.write(f"{orjson.dumps([line, version, at]).decode()}\n")
            sys.stdout.flush()


def _learned(compiled: CompiledCatalog) -> State:
    state = State(fingerprint(compiled, "default"), compiled.encoders["default"].size)
    for arm in compiled.arm_ids:
        _add(state, arm, 200)
    return state


def _add(state: State, arm: str, events: int) -> None:
    rng = np.random.default_rng([events, len(state.rows), int(state.count.sum())])
    x = rng.normal(size=(events, state.size))
    x[:, 0] = 1.0
    state.add([arm] * events, x, (rng.random(events) < 0.2).astype(float), np.ones(events))


async def _commit(store: Store, compiled: CompiledCatalog, state: State) -> str:
    for arm in compiled.arm_ids:
        _add(state, arm, 1)
    digest, content = state.to_bytes()
    line = lineage(compiled, "default")
    record = SnapshotRecord(f"{line}-{digest}", line, utc_now(), content)
    cursor = await store.cursor()
    await store.commit_learning([], [record], cursor, expected=cursor, lineages=[line])
    return record.version


async def _publish(store: Store, document: bytes, number: int) -> str:
    changed = copy.deepcopy(orjson.loads(document))
    changed["actions"][0]["lever"] = 1 + number / 1000
    checked = check_document(Source(changed))
    assert checked.published is not None, checked.problems
    await store.publish_catalog(checked.published.version, checked.document, utc_now())
    return checked.published.version


def _report(seen: Seen, rounds: int, size: str, before: str) -> str:
    delays = {kind: seen.delays(kind) for kind in seen.changed}
    return "\n".join(
        [
            "# Decisions while snapshots and catalogs are swapped",
            "",
            f"`examples/telco` ({size}), {CUSTOMERS} simulated customers, decisions by the service without"
            " HTTP, each committed durably to SQLite. Open loop: Poisson arrivals at"
            f" {RATE:.0f}/s; latency from the intended start to the committed reply. {rounds} windows of"
            f" {WINDOW:.0f} s of each kind, in random order within each round, {BETWEEN:.0f} s between two."
            " The changes are written by another process; the service looks for them every 0.5 s, as it"
            " does in production.",
            "",
            "| window | decisions | p50 ms | p99 ms | max ms | p99 of one window, lowest to highest |",
            "|---|---|---|---|---|---|",
            *(_row(title, seen.latency[kind]) for kind, title in KINDS.items()),
            "",
            "| from commit to served | changes | median s | max s |",
            "|---|---|---|---|",
            *(_delay_row(kind, values) for kind, values in delays.items()),
            "",
            "A window has about 200 decisions, so its own p99 is its second or third slowest one.",
            "",
            f"- {machine()}, numpy {np.__version__}",
            f"- {before}",
            "- two processes: the service, and the one that writes the changes (it also checks the catalog,"
            " or sums and compresses the snapshot)",
            "",
            "Repeat: `python benchmarks/snapshot_swap.py --write`.",
            "",
        ]
    )


def _row(title: str, windows: Sequence[Sequence[float]]) -> str:
    latency = [1e3 * value for window in windows for value in window]
    single = [1e3 * quantile(window, 0.99) for window in windows]
    return (
        f"| {title} | {len(latency):,} | {quantile(latency, 0.5):.2f} | {quantile(latency, 0.99):.2f} |"
        f" {max(latency):.2f} | {min(single):.2f} to {max(single):.2f} |"
    )


def _delay_row(kind: str, delays: Sequence[float]) -> str:
    return f"| {kind} | {len(delays)} | {quantile(delays, 0.5):.2f} | {max(delays):.2f} |"


if __name__ == "__main__":
    main()
