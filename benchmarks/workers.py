"""Decisions per second with one worker and with two, on PostgreSQL.

    python benchmarks/workers.py [--write] [--rounds 5] [--seconds 6]

Closed loop: so many callers, each asks again when it has its answer. By turns: each round has both numbers of
workers, in alternating order. First each worker may use a fixed share of a processor (control groups,
version 1; to be run as root), so that workers, PostgreSQL and callers together fit into this machine; then as
much as it gets. Prints tables; `--write` also keeps them in `benchmarks/results/workers.md`.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

import orjson
import psutil
import uvloop
from stage import (
    Caller,
    Cluster,
    Service,
    busy_seconds,
    file_system,
    paragraph,
    prepare,
    seconds_of,
    settings_of,
    workers_of,
)
from storage import busy, keep, machine, quantile, sync_times

GROUPS = Path("/sys/fs/cgroup/cpu")
PERIOD_US = 20_000
CUSTOMERS = 5_000
CALLERS = 16
WARM = 1.5
INTENTS = ["information", "billing", "upgrade", "technical", "cancel", "moving"]
COUNTS = (1, 2)


@dataclass(frozen=True, slots=True)
class Case:
    """`share`: the part of a processor each worker may use; None: no limit. `budget`: every decision takes of
    the same one."""

    title: str
    share: float | None
    budget: bool


@dataclass(frozen=True, slots=True)
class Round:
    """Of one window: decisions per second, seconds each took, how many each worker answered, and processor
    time a second of each worker, of PostgreSQL and of the callers, and of the machine altogether."""

    rate: float
    took: list[float]
    answered: list[int]
    workers: list[float]
    database: float
    callers: float
    machine: float
    degraded: int


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the result in benchmarks/results/")
    parser.add_argument("--rounds", type=int, default=5, help="of each case and number of workers, by turns")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each window")
    parser.add_argument("--share", type=float, default=0.25, help="of a processor, for each worker")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench") as directory:
        report = uvloop.run(measure(Path(directory), options.rounds, options.seconds, options.share))
    keep(report, "workers.md", write=options.write)


async def measure(directory: Path, rounds: int, seconds: float, share: float) -> str:
    """All cases, as markdown."""
    before = busy()
    cases = [
        Case("limited", share, budget=False),
        Case("limited, one budget", share, budget=True),
        Case("not limited", None, budget=False),
        Case("not limited, one budget", None, budget=True),
    ]
    seen: dict[tuple[str, int], list[Round]] = {}
    synced = sync_times(directory / "sync")
    with ExitStack() as stack:
        cluster = Cluster(directory)
        stack.callback(cluster.kill)
        await cluster.run("CREATE DATABASE bench")
        url = cluster.url("bench")
        document = await prepare(url, CUSTOMERS)
        kept = await settings_of(cluster, "bench")
        services = {count: await _service(stack, url, directory, count) for count in COUNTS}
        published = None
        for number in range(rounds + 1):  # the first warms up
            for case in cases:
                if case.budget != published:
                    await _publish(services[1], _catalog(document, budget=case.budget))
                    published = case.budget
                for count in COUNTS if number % 2 else reversed(COUNTS):
                    service = services[count]
                    with _limited(workers_of(service), case.share):
                        made = await _window(service, cluster, min(seconds, 3.0) if not number else seconds)
                    if number:
                        seen.setdefault((case.title, count), []).append(made)
    return _report(cases, seen, [machine(), before, kept, file_system(directory)], synced, rounds, seconds)


async def _service(stack: ExitStack, url: str, directory: Path, count: int) -> Service:
    service = Service(url, directory / f"{count}.log", "--workers", str(count), "--no-learner")
    stack.callback(service.end)
    await asyncio.to_thread(service.wait_until_ready)
    while len(workers_of(service)) < count:
        await asyncio.sleep(0.1)
    return service


def _catalog(document: dict[str, Any], *, budget: bool) -> dict[str, Any]:
    """The example without budgets, and with one more placement that the same action always fills."""
    made = copy.deepcopy(document)
    for action in made["actions"]:
        action.pop("budget", None)
    made["placements"].append(
        {"id": "note", "channel": "agent_desktop", "slots": 1, "content": [{"id": "headline"}]}
    )
    treatment = {"id": "everybody_agent", "channel": "agent_desktop", "placement": "note"}
    action = {"id": "everybody", "group": "service", "value": 1, "treatments": [treatment]}
    treatment["content"] = {"headline": "Something for everybody"}  # type: ignore[assignment]
    if budget:
        action["budget"] = {"total": 1_000_000_000}
    made["actions"].append(action)
    return made


async def _publish(service: Service, catalog: dict[str, Any]) -> None:
    caller = await Caller.open(_port(service))
    answer = await caller.call("POST", "/v1/catalog/publish", orjson.dumps(catalog))
    assert answer.status == 200, answer.body
    caller.close()
    await asyncio.sleep(2.0)  # until it is live everywhere


@contextmanager
def _limited(workers: Sequence[psutil.Process], share: float | None) -> Iterator[None]:
    """Each worker in a control group of its own, which may use that part of a processor."""
    if share is None:
        yield
        return
    groups = [GROUPS / f"decision-bench-{worker.pid}" for worker in workers]
    try:
        for group, worker in zip(groups, workers, strict=True):
            group.mkdir()
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(round(share * PERIOD_US)))
            (group / "cgroup.procs").write_text(str(worker.pid))
        yield
    finally:
        for group, worker in zip(groups, workers, strict=True):
            if group.exists():
                (GROUPS / "cgroup.procs").write_text(str(worker.pid))
                group.rmdir()


async def _window(service: Service, cluster: Cluster, seconds: float) -> Round:
    """Asks for `WARM` seconds, then for those that count."""
    workers = workers_of(service)
    chance = random.Random()
    callers = [await Caller.open(_port(service)) for _ in range(CALLERS)]
    begin = time.perf_counter() + WARM
    end = begin + seconds
    took: list[float] = []
    degraded = 0
    counted: dict[int, int] = {}

    async def ask(caller: Caller) -> None:
        nonlocal degraded
        while (started := time.perf_counter()) < end:
            answer = await caller.call("POST", "/v1/decisions", _request(chance))
            assert answer.status == 200, answer.body
            now = time.perf_counter()
            if started >= begin and now <= end:
                took.append(now - started)
                counted[caller.port] = counted.get(caller.port, 0) + 1
                degraded += b'"degraded":[]' not in answer.body

    async def watch() -> list[list[float]]:
        await asyncio.sleep(begin - time.perf_counter())
        first = _spent(workers, cluster)
        await asyncio.sleep(end - time.perf_counter())
        return [first, _spent(workers, cluster)]

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        for caller in callers:
            group.create_task(ask(caller))
    first, last = watching.result()
    spent = [(b - a) / seconds for a, b in zip(first, last, strict=True)]
    owners = _owners(workers)
    answered = [sum(n for port, n in counted.items() if owners[port] == each.pid) for each in workers]
    for caller in callers:
        caller.close()
    return Round(len(took) / seconds, took, answered, spent[:-3], *spent[-3:], degraded)


def _request(chance: random.Random) -> bytes:
    return orjson.dumps(
        {
            "request_id": str(uuid4()),
            "customer_id": f"sim-{chance.randint(1, CUSTOMERS):06d}",
            "channel": "agent_desktop",
            "placements": [{"id": "agent_panel"}, {"id": "note"}],
            "context": {"intent": chance.choice(INTENTS)},
            "timeout_ms": 2000,
        }
    )


def _owners(workers: Sequence[psutil.Process]) -> dict[int, int]:
    """By the port of a caller: which worker has its connection."""
    return {
        connection.raddr.port: worker.pid
        for worker in workers
        for connection in worker.net_connections("tcp")
        if connection.raddr
    }


def _spent(workers: Sequence[psutil.Process], cluster: Cluster) -> list[float]:
    """Seconds of processor time: of each worker, of PostgreSQL, of ourselves, and of everything."""
    database = sum(map(seconds_of, cluster.processes()))
    return [*map(seconds_of, workers), database, seconds_of(psutil.Process()), busy_seconds()]


def _port(service: Service) -> int:
    return int(service.url.rpartition(":")[2])


def _report(
    cases: Sequence[Case],
    seen: dict[tuple[str, int], list[Round]],
    facts: Sequence[str],
    synced: Sequence[float],
    rounds: int,
    seconds: float,
) -> str:
    return "\n".join(
        [
            "# Decisions per second by workers",
            "",
            paragraph(
                f"""
                `decision serve --workers N --no-learner` on a PostgreSQL of its own, `examples/telco` without
                its budgets, {CUSTOMERS:,} simulated customers. Each request is for a customer at random on
                the agent's desktop: three items of the panel and one more, with a request id, committed to
                disk before it is answered. Closed loop: {CALLERS} callers on keep-alive connections, each
                asks again when it has its answer. {rounds} rounds of {seconds:.0f} s a case and number of
                workers, by turns and in alternating order, {WARM:.1f} s to warm up before each; medians of
                the rounds, in brackets the lowest and the highest.
                """
            ),
            "",
            paragraph(
                f"""
                **Limited**: each worker may use no more than a fixed part of a processor (a control group
                with a quota for every {PERIOD_US // 1000} ms), so that two workers, PostgreSQL and the
                callers together fit into this machine, and nothing else than the workers is scarce: what two
                then do more than one shows whether anything they share stands in the way: the socket, the
                database, its locks. **Not limited**: all of them together on this machine's processors. **One
                budget**: every decision takes of the same one.
                """
            ),
            "",
            "| case | workers | decisions/s | p50 ms | p99 ms | 2 workers : 1 |",
            "|---|---|---|---|---|---|",
            *(_row(case, count, seen) for case in cases for count in COUNTS),
            "",
            "Where the processor time goes, in processors (1.00: one, all the time), medians:",
            "",
            "| case | workers | each worker | PostgreSQL | callers | whole machine"
            " | ms of workers a decision | ms of PostgreSQL a decision | answered by each worker |",
            "|---|---|---|---|---|---|---|---|---|",
            *(_spent_row(case, count, seen[case.title, count]) for case in cases for count in COUNTS),
            "",
            *_budget_lines(cases, seen),
            "",
            f"- {facts[0]}, asyncpg {version('asyncpg')}, uvicorn {version('uvicorn')}",
            f"- {facts[1]}",
            f"- {facts[2]}; on {facts[3]}, where 4 KB appended and `fdatasync` take p50"
            f" {quantile(synced, 0.5) * 1e3:.2f} ms, p99 {quantile(synced, 0.99) * 1e3:.2f} ms",
            "- callers: one process, uvloop; it is among the figures above, and so is PostgreSQL: all share"
            f" {os.cpu_count()} processors",
            f"- replies that had to do without something: {_degraded(seen)}",
            "",
            "Repeat, as root: `python benchmarks/workers.py --write`.",
            "",
        ]
    )


def _row(case: Case, count: int, seen: dict[tuple[str, int], list[Round]]) -> str:
    rounds = seen[case.title, count]
    title = case.title if case.share is None else f"{case.title}: {case.share:.0%} each"
    ratio = ""
    if count == 2:
        single = seen[case.title, 1]
        each = [two.rate / one.rate for one, two in zip(single, rounds, strict=True)]
        ratio = f"**{_median_rate(rounds) / _median_rate(single):.2f}** ({min(each):.2f} to {max(each):.2f})"
    rates = [each.rate for each in rounds]
    half, most = (median(quantile(each.took, share) for each in rounds) * 1e3 for share in (0.5, 0.99))
    return (
        f"| {title} | {count} | {median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
        f" | {half:.1f} | {most:.1f} | {ratio} |"
    )


def _spent_row(case: Case, count: int, rounds: Sequence[Round]) -> str:
    workers = ", ".join(f"{median(each.workers[n] for each in rounds):.2f}" for n in range(count))
    others = [median(getattr(each, name) for each in rounds) for name in ("database", "callers", "machine")]
    shown = " | ".join(f"{value:.2f}" for value in others)
    work = median(sum(each.workers) / each.rate for each in rounds) * 1e3
    database = median(each.database / each.rate for each in rounds) * 1e3
    parts = [median(each.answered[n] / sum(each.answered) for each in rounds) for n in range(count)]
    lowest = min(min(each.answered) / sum(each.answered) for each in rounds)
    spread = ", ".join(f"{part:.0%}" for part in parts)
    if count > 1:
        spread += f" (least in any round {lowest:.0%})"
    return f"| {case.title} | {count} | {workers} | {shown} | {work:.2f} | {database:.2f} | {spread} |"


def _budget_lines(cases: Sequence[Case], seen: dict[tuple[str, int], list[Round]]) -> Iterator[str]:
    for case in cases:
        if case.budget:
            without = case.title.partition(",")[0]
            for count in COUNTS:
                lost = 1 - _median_rate(seen[case.title, count]) / _median_rate(seen[without, count])
                yield (
                    f"One budget for all, {without}, {count} worker{'s' * (count > 1)}: {lost:.0%} fewer"
                    " decisions per second."
                )


def _median_rate(rounds: Sequence[Round]) -> float:
    return median(each.rate for each in rounds)


def _degraded(seen: dict[tuple[str, int], list[Round]]) -> str:
    rounds = [each for found in seen.values() for each in found]
    return f"{sum(each.degraded for each in rounds):,} of {sum(len(each.took) for each in rounds):,}"


if __name__ == "__main__":
    main()
