"""How the cost of a decision grows: with the catalog, the customers, a customer's past, and the callers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter

import uvloop

from arbitration.decide import decide
from benchmarks.speed.authoring import Width
from benchmarks.speed.growth import by_callers, by_customers, by_history
from benchmarks.speed.population import customers
from benchmarks.speed.report import Progress, Section, Table, Target, figure
from benchmarks.speed.timing import Times, by_turns
from benchmarks.speed.workload import inputs, world

COLUMNS = ("median µs", "p99 µs", "of the first")
WHOLE = ("median µs", "p99 µs", "processor µs", "of the first")


def run(smoke: bool, progress: Progress) -> Section:
    """The catalog by `decide` alone; the rest by the whole service on SQLite, with 100 arms."""
    sizes = (10, 100) if smoke else (100, 300, 1_000, 3_000)
    counts = (100, 1_000) if smoke else (1_000, 10_000, 100_000, 1_000_000)
    lengths = (10, 100) if smoke else (10, 100, 1_000, 10_000)
    callers = (1, 8) if smoke else (1, 8, 32, 64)
    rounds, windows, seconds = (3, 1, 0.1) if smoke else (150, 8, 1.0)
    made = world(10 if smoke else 100, "young", "columns")
    widths: tuple[Width, ...] = ("columns",) if smoke else ("features", "columns")
    arms = {width: _by_arms(width, sizes, rounds, progress) for width in widths}
    began = perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        at = [Path(directory) / name for name in ("customers", "history", "callers")]
        for each in at:
            each.mkdir()
        people = uvloop.run(by_customers(at[0], made, counts, rounds, progress("customers", rounds)))
        past = uvloop.run(by_history(at[1], made, lengths, rounds, progress("history", rounds)))
        tasks = uvloop.run(
            by_callers(at[2], made, callers, windows, seconds, progress("callers", windows + 1))
        )
    took = perf_counter() - began
    tables = [
        Table(f"`decide`, by arms; x of {_size(width)}", ("arms", *COLUMNS), _rows(found))
        for width, found in arms.items()
    ]
    tables += [
        Table("A decision, by customers in the store", ("customers", *WHOLE), _rows(people, busy=True)),
        Table("A decision, by the customer's earlier ones", ("earlier", *WHOLE), _rows(past, busy=True)),
        Table(
            "Decisions, by how many wait at once for different customers",
            ("callers", "decisions/s", "processor µs each", "median µs", "p99 µs"),
            [(count, rate, cost, each.median, each.p99) for count, (rate, cost, each) in tasks.items()],
        ),
    ]
    return Section(
        "Growth",
        f"""By arms: `decide` as in the engine's part, of what was learned of mature arms. The rest: a whole
        decision in process, from the typed request to the reply that was committed and synced on SQLite,
        with {len(made.catalog.arms)} arms; one at a time, {rounds} rounds by turns, each with 5
        customers, the first of which is not counted; by callers {windows} windows of {seconds:g} s each,
        by turns. With filling the stores it took {took:,.0f} s.""",
        tables,
        list(_targets(arms, people, past)),
        (
            """A median of a whole decision has the time of a sync to disk in it, which is the same whatever
            grows: see storage.md. A history is spread over 700 days; contact policies look back 7.""",
        ),
    )


def _by_arms(width: Width, sizes: Sequence[int], rounds: int, progress: Progress) -> dict[int, Times]:
    everyone = customers(500, seed=9)
    calls = {}
    for arms in sizes:
        made = world(arms, "mature", width)
        given = [inputs(each, made.catalog) for each in everyone]
        calls[str(arms)] = lambda number, made=made, given=given: decide(
            given[number % len(given)], made.catalog, made.snapshots
        )
    times = by_turns(calls, rounds, tick=progress(f"arms, {width}", rounds))
    return {arms: times[str(arms)] for arms in sizes}


def _size(width: Width) -> int:
    (encoder,) = world(100, "mature", width).catalog.encoders.values()
    return encoder.size


def _rows(found: Mapping[int, Times], *, busy: bool = False) -> list[tuple[str | float, ...]]:
    first = next(iter(found.values())).median
    return [
        (
            f"{what:,}",
            each.median,
            each.p99,
            *((each.busy,) if busy else ()),
            f"{figure(each.median / first)} ×",
        )
        for what, each in found.items()
    ]


def _targets(
    arms: Mapping[Width, Mapping[int, Times]], people: Mapping[int, Times], past: Mapping[int, Times]
) -> list[Target]:
    found = []
    for width, times in arms.items():
        for few in times:
            if few * 10 in times:
                what = f"{few:,} → {few * 10:,} arms, x of {_size(width)}"
                found.append(Target(what, times[few * 10].median / times[few].median, 3, "×"))
    for name, grown in (("customers", people), ("earlier decisions", past)):
        least, most = min(grown), max(grown)
        what = f"{least:,} → {most:,} {name}"
        found.append(Target(what, grown[most].median / grown[least].median, 1.2, "×"))
        found.append(Target(f"{what}: processor time", grown[most].busy / grown[least].busy, 1.2, "×"))
    return found
