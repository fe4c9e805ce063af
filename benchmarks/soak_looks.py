"""What the soak sees of each process, of the requests and of the database, every few seconds."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import psutil
from prometheus_client.parser import text_string_to_metric_families
from soak_load import Load
from stage import Cluster, Service, busy_seconds, seconds_of
from storage import quantile

EVERY = 5.0
MB = 1e6
TABLES = ("decisions", "responses", "labels", "reservations", "standings", "snapshots", "catalogs")
SQLITE = ("decisions", "responses", "labels", "snapshots", "catalogs")


@dataclass
class Held:
    """What one process held: `memory` (resident, MB), `descriptors`, `threads`, one a look."""

    memory: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)


@dataclass
class Looks:
    """What was seen, one entry every 5 s: seconds since the beginning, by process, and of all together.

    `busy`: how much of the machine was, in percent; `others`: by what is not part of this.
    """

    at: list[float] = field(default_factory=list)
    held: dict[str, Held] = field(default_factory=dict)
    median: list[float] = field(default_factory=list)
    slowest: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    lag: list[float] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)
    rows: dict[str, list[float]] = field(default_factory=dict)
    size: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)


async def look(
    looks: Looks, load: Load, service: Service, place: Cluster | Path, show: Callable[[float, str], None]
) -> None:
    """Looks every 5 s."""
    names = {psutil.Process(pid): _name(pid, number) for number, pid in enumerate(service.processes())}
    ours = [*names, psutil.Process()]
    before = spent(ours, place)
    begin = time.perf_counter()
    number = 0
    while True:
        number += 1
        await asyncio.sleep(begin + number * EVERY - time.perf_counter())
        latency, load.since_look = load.since_look or [0.0], []
        looks.at.append(time.perf_counter() - begin)
        now = spent(ours, place)
        whole, own = (after - earlier for earlier, after in zip(before, now, strict=True))
        before = now
        looks.busy.append(100 * whole / EVERY / psutil.cpu_count())
        looks.others.append(max(0.0, 100 * (whole - own) / EVERY / psutil.cpu_count()))
        looks.rate.append(len(latency) / EVERY)
        looks.median.append(1e3 * quantile(latency, 0.5))
        looks.slowest.append(1e3 * quantile(latency, 0.99))
        for process, name in names.items():
            _hold(looks.held.setdefault(name, Held()), [process])
        if isinstance(place, Cluster):
            _hold(looks.held.setdefault("PostgreSQL, all", Held()), place.processes(), own=True)
        at = time.perf_counter()
        looks.lag.append(_lag(await load.metrics()))
        load.took["metrics"].append((at - load.begin, time.perf_counter() - at))
        connections, size, rows = await _database(place)
        looks.connections.append(connections)
        looks.size.append(size / MB)
        for name, count in rows.items():
            looks.rows.setdefault(name, []).append(count)
        show(
            looks.at[-1],
            f"{looks.rate[-1]:.0f}/s p50 {looks.median[-1]:.1f} p99 {looks.slowest[-1]:.1f} ms,"
            f" processors {looks.busy[-1]:.0f}%, lag {looks.lag[-1]:.1f} s, wrong {load.wrong.total()}",
        )


def spent(processes: Sequence[psutil.Process], place: Cluster | Path) -> tuple[float, float]:
    """Seconds of processor time that the whole machine was busy, and that these and the database were."""
    found = [*processes, *(place.processes() if isinstance(place, Cluster) else [])]
    return busy_seconds(), sum(map(seconds_of, found))


def _name(pid: int, number: int) -> str:
    words = psutil.Process(pid).cmdline()
    kind = "worker" if "worker" in words else "learner" if "learn" in words else "supervisor"
    return f"{kind} ({number})" if kind == "worker" else kind


def _hold(held: Held, processes: Sequence[psutil.Process], *, own: bool = False) -> None:
    """`own`: without what they share with others."""
    memory, descriptors, threads = 0.0, 0, 0
    for process in processes:
        try:
            memory += (process.memory_full_info().uss if own else process.memory_info().rss) / MB
            descriptors += process.num_fds()
            threads += process.num_threads()
        except psutil.NoSuchProcess:
            continue
    held.memory.append(memory)
    held.descriptors.append(descriptors)
    held.threads.append(threads)


def _lag(text: str) -> float:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.endswith("learner_lag_seconds"):
                return float(sample.value)
    return float("nan")


async def _database(place: Cluster | Path) -> tuple[int, int, dict[str, float]]:
    """Connections (0 where there are none), bytes, and what each table has."""
    if isinstance(place, Path):
        with closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True)) as file:
            rows = {
                f"`{name}`, rows": file.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
                for name in SQLITE
            }
        return 0, sum(each.stat().st_size for each in place.parent.glob(f"{place.name}*")), rows
    connection = await asyncpg.connect(place.url("bench"))
    try:
        count, size = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'decision'),"
            " pg_database_size(current_database())"
        )
        # Rows as vacuum and the statistics know them: to count would be a load of its own.
        unread = await connection.fetchval("SELECT count(*) FROM unread")
        found = await connection.fetch(
            "SELECT coalesce(parents.relname, tables.relname), sum(n_live_tup)::bigint,"
            "       sum(pg_total_relation_size(tables.relid))::bigint"
            "  FROM pg_stat_user_tables AS tables LEFT JOIN pg_inherits ON inhrelid = tables.relid"
            "       LEFT JOIN pg_class AS parents ON parents.oid = inhparent"
            " WHERE coalesce(parents.relname, tables.relname) = ANY($1) GROUP BY 1",
            list(TABLES),
        )
    finally:
        await connection.close()
    rows: dict[str, float] = {"`unread`, rows": unread}
    for name, live, held in found:
        rows |= {f"`{name}`, rows": live, f"`{name}`, MB": held / MB}
    return count, size, rows
