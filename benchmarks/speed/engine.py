"""What `decide` costs: by the number of candidate arms, by what has been learned, and by stage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from time import perf_counter_ns
from typing import Any

import numpy as np

from arbitration.decide import decide
from arbitration.features import Encoder
from arbitration.index import Index
from arbitration.inputs import Inputs
from arbitration.policy.posterior import Posterior
from arbitration.worth import Worth
from benchmarks.speed.authoring import POLICY, Width
from benchmarks.speed.population import customers
from benchmarks.speed.report import Progress, Section, Table, Target
from benchmarks.speed.timing import Call, Times, by_turns
from benchmarks.speed.workload import Maturity, World, inputs, world

_DECIDE = import_module("arbitration.decide")  # the package has a function of this name
STAGES: Mapping[str, tuple[Any, str]] = {
    "rules": (Index, "holding"),
    "value": (Worth, "of"),
    "screening": (_DECIDE, "screen"),
    "encoding": (Encoder, "encode"),
    "scoring": (Posterior, "score"),
    "slot": (_DECIDE, "_own_chances"),
}
"""The functions whose time is told apart. What is called within one counts for itself alone."""
COLUMNS = ("rules", "value", "screening", "encoding", "scoring", "slot 1", "slot 2", "slot 3", "the rest")

RUN = 10

Key = tuple[Width, Maturity, int]


def run(smoke: bool, progress: Progress) -> Section:
    """Decides for the same customers in every world, by turns."""
    sizes = (20,) if smoke else (10, 100, 300, 1_000, 3_000)
    narrow = (20,) if smoke else (100, 1_000)
    rounds, people = (3, 20) if smoke else (80, 1_000)
    maturities: tuple[Maturity, ...] = ("mature", "young")
    keys: list[Key] = [("features", maturity, arms) for maturity in maturities for arms in sizes]
    keys += [("columns", maturity, arms) for maturity in maturities for arms in narrow]
    tick = progress("worlds", len(keys))
    prepared: dict[Key, tuple[World, list[Inputs]]] = {}
    everyone = customers(people)
    for width, maturity, arms in keys:
        made = world(arms, maturity, width)
        prepared[width, maturity, arms] = made, [inputs(each, made.catalog) for each in everyone]
        tick()
    calls = {str(key): _deciding(*prepared[key]) for key in keys}
    times = by_turns(calls, rounds, run=RUN, tick=progress("decisions", rounds))
    staged = {key: _stages(*prepared[key], 5 if smoke else 200) for key in keys}
    rows = [_row(key, prepared[key][0], times[str(key)]) for key in keys]
    return Section(
        "The engine: `decide`",
        f"""One placement of three slots, three clauses per action from a pool of about 250, 30 attributes, 4
        scores and 4 values of the situation (3% of them missing), Thompson sampling at alpha 1 with exact
        probabilities, contact policies that hold some actions back; about a third of all arms is left.
        {rounds} rounds; in each, all worlds by turns, each for the same {RUN} customers, of which the
        first is not counted.""",
        [
            Table("", ("arms", "x", "learned", "left of them", "median µs", "p99 µs"), rows),
            Table(
                "By stage, medians in µs, measured apart: timers add some",
                ("arms", "x", "learned", *COLUMNS),
                [(*_named(key, prepared[key][0]), *staged[key]) for key in keys],
            ),
        ],
        list(_targets(keys, prepared, times)),
        (
            """*x*: how many columns the context vector has; 32 features of all kinds make 134 of them, as a
            value of several kinds has one for each. *mature*: 2,000 outcomes learned of the median arm,
            *young*: 100.""",
        ),
    )


def _deciding(made: World, asked: Sequence[Inputs]) -> Call:
    catalog, snapshots, count = made.catalog, made.snapshots, len(asked)
    return lambda number: decide(asked[number % count], catalog, snapshots)


def _named(key: Key, made: World) -> tuple[int, int, str]:
    return key[2], made.catalog.encoders[POLICY].size, key[1]


def _row(key: Key, made: World, times: Times) -> tuple[int | float | str, ...]:
    asked = [inputs(each, made.catalog) for each in customers(50)]
    alive = [decide(each, made.catalog, made.snapshots).slates[0].screening.alive.sum() for each in asked]
    return *_named(key, made), float(np.mean(alive)), times.median, times.p99


def _targets(
    keys: Sequence[Key], prepared: Mapping[Key, tuple[World, Any]], times: Mapping[str, Times]
) -> Iterator[Target]:
    for bound, arms in ((200.0, 1_000), (80.0, 100)):
        for key in keys:
            if key[2] == arms:
                _, size, maturity = _named(key, prepared[key][0])
                what = f"`decide` at {arms:,} arms, x of {size}, {maturity}: median"
                yield Target(what, times[str(key)].median, bound, "µs")


def _stages(made: World, asked: Sequence[Inputs], decisions: int) -> list[float]:
    """Median µs of each of COLUMNS."""
    found: dict[str, list[float]] = defaultdict(list)
    for each in asked[:decisions]:
        with _timed() as taken:
            began = perf_counter_ns()
            decide(each, made.catalog, made.snapshots)
            whole = perf_counter_ns() - began
        slots = taken.pop("slot", [])
        parts = {name: sum(times) for name, times in taken.items()}
        parts |= {f"slot {number}": time for number, time in enumerate(slots, start=1)}
        parts["the rest"] = whole - sum(parts.values())
        for name in COLUMNS:
            found[name].append(parts.get(name, 0) / 1e3)
    return [float(np.median(found[name])) for name in COLUMNS]


@contextmanager
def _timed() -> Iterator[dict[str, list[int]]]:
    """Nanoseconds of each call of the STAGES, while this is open."""
    taken: dict[str, list[int]] = defaultdict(list)
    within: list[int] = []
    before = {
        name: (owner, attribute, getattr(owner, attribute)) for name, (owner, attribute) in STAGES.items()
    }
    for name, (owner, attribute, function) in before.items():
        setattr(owner, attribute, _timer(function, taken[name], within))
    try:
        yield taken
    finally:
        for owner, attribute, function in before.values():
            setattr(owner, attribute, function)


def _timer(function: Callable[..., Any], times: list[int], within: list[int]) -> Callable[..., Any]:
    def timed(*given: Any, **named: Any) -> Any:
        within.append(0)
        began = perf_counter_ns()
        try:
            return function(*given, **named)
        finally:
            took = perf_counter_ns() - began
            times.append(took - within.pop())
            if within:
                within[-1] += took

    return timed
