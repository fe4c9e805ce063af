"""The service over HTTP against a bare endpoint: how much it takes, and how long it takes at half of that,
also while catalogs and snapshots are swapped beneath it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import psutil

from benchmarks.speed.load import (
    CLIENT_LIMIT,
    CONNECTIONS,
    KEPT_UP,
    LONGEST,
    WARM,
    Server,
    Window,
    open_loop,
    saturation,
)
from benchmarks.speed.population import Customer, customers
from benchmarks.speed.report import Cell, Progress, Section, Table, Target, Tick
from benchmarks.speed.servers import WIDTH, apart, bare_endpoint, fill, server, service, store
from benchmarks.speed.swaps import Kind, Swaps, swapping
from benchmarks.speed.workload import POLICY, world
from decision.clock import utc_now


@dataclass(frozen=True)
class Sizes:
    """`customers`: for each catalog; `seconds`: of a window that looks for saturation, of which there are
    `steps`; `half`: of one at half of it, with so many `swaps`, `every` so many seconds."""

    stores: Sequence[str]
    arms: Sequence[int]
    customers: int
    rounds: int
    seconds: float
    steps: int
    half: float
    swaps: int
    every: float


FULL = Sizes(("SQLite", "PostgreSQL"), (100, 1_000), 30_000, 2, 1.5, 4, 5.0, 2, 2.5)
SMOKE = Sizes(("SQLite",), (20,), 500, 1, 0.2, 1, 0.3, 1, 0.1)

LEAST = {100: 50.0, 1_000: 30.0}
"""% of the bare endpoint's throughput, by arms."""
MOST_TAIL = 5.0
OTHERS_LIMIT = 0.1
"""Of the processor of who is asked; more of it in other hands, and the figures mean little."""
BARE, QUIET = "bare endpoint", "nothing changes"
SWAPPED: Mapping[str, Kind] = {
    "catalogs published beside it": "catalog",
    "catalogs published by it": "publish",
    "snapshots swapped": "snapshot",
}


@dataclass
class Case:
    """What was found of one store and catalog, round by round: the windows at saturation by who was asked,
    `bare`, the same answering `bytes` made before, or `ours`; and those at half of it by what happened."""

    store: str
    arms: int
    saturated: dict[str, list[Window]] = field(
        default_factory=lambda: {who: [] for who in ("bare", "bytes", "ours")}
    )
    half: dict[str, list[Window]] = field(
        default_factory=lambda: {kind: [] for kind in (BARE, QUIET, *SWAPPED)}
    )

    def rate(self, who: str) -> float:
        """Requests a second at saturation; the median of the rounds."""
        return median(window.answered for window in self.saturated[who])

    @property
    def share(self) -> float:
        """% of the bare endpoint's throughput; the median of the rounds, each for itself."""
        pairs = zip(self.saturated["ours"], self.saturated["bare"], strict=True)
        return median(100 * ours.answered / bare.answered for ours, bare in pairs)

    def windows(self) -> Iterator[Window]:
        """All."""
        for windows in (*self.saturated.values(), *self.half.values()):
            yield from windows


def run(smoke: bool, progress: Progress) -> Section:
    """The part."""
    sizes = SMOKE if smoke else FULL
    cases: list[Case] = []
    kept: list[str] = []
    people = customers(sizes.customers * len(sizes.arms), now=utc_now())
    with apart() as cores, bare_endpoint(cores[0]) as bare:
        for kind in sizes.stores:
            # Not the temporary directory: that is often in memory.
            with (
                tempfile.TemporaryDirectory(prefix="speed", dir="/var/tmp") as directory,
                store(kind, Path(directory)) as (url, said),
            ):
                kept.append(said)
                for number, arms in enumerate(sizes.arms):
                    tick = progress(f"{kind}, {arms:,} arms", 2 * sizes.rounds)
                    mine = people[number * sizes.customers : (number + 1) * sizes.customers]
                    fill(url, world(arms, width=WIDTH), mine)
                    with _asked(url, arms, Path(directory, "log"), bare, cores, mine) as (asked, swaps):
                        cases.append(_measured(Case(kind, arms), asked, swaps, sizes, tick))
    return _section(cases, sizes, kept)


@contextmanager
def _asked(
    url: str,
    arms: int,
    log: Path,
    bare: tuple[int, psutil.Process],
    cores: tuple[int, int],
    people: Sequence[Customer],
) -> Iterator[tuple[Mapping[str, Server], Swaps]]:
    with service(url, log, cores[0]) as ours, swapping(url, arms, ours[0]) as swaps:
        yield (
            {
                "bare": server(*bare, cores, people),
                "bytes": server(*bare, cores, people, path="/bytes"),
                "ours": server(*ours, cores, people),
            },
            swaps,
        )


def _measured(case: Case, asked: Mapping[str, Server], swaps: Swaps, sizes: Sizes, tick: Tick) -> Case:
    for number in range(sizes.rounds):
        for who in _turn(list(asked), number):
            found = saturation(asked[who], sizes.seconds, sizes.steps, seed=100 * number)
            case.saturated[who].append(found)
        tick()
    for number in range(sizes.rounds):
        for what in _turn(list(case.half), number):
            who = "bare" if what == BARE else "ours"
            window = _at_half(asked[who], case.rate(who) / 2, what, swaps, sizes, 1_000 + number)
            case.half[what].append(window)
        tick()
    return case


def _at_half(server: Server, rate: float, what: str, swaps: Swaps, sizes: Sizes, seed: int) -> Window:
    if what not in SWAPPED:
        return open_loop(server, rate, sizes.half, seed)
    swaps.prepare(SWAPPED[what], sizes.swaps, sizes.every)
    swaps.go()
    window = open_loop(server, rate, sizes.half, seed)
    swaps.done()
    return window


def _turn(names: list[str], number: int) -> list[str]:
    first = number % len(names)
    return names[first:] + names[:first]


def _section(cases: Sequence[Case], sizes: Sizes, kept: Sequence[str]) -> Section:
    size = world(sizes.arms[0], width=WIDTH).catalog.encoders[POLICY].size
    load = f"""
        `decision serve` with one worker, durable, a line of JSON logged for each decision, without the
        learner, against an endpoint of FastAPI with the same messages that builds a reply of three items
        (`benchmarks/speed/bare.py`); uvicorn, uvloop and httptools both. One process on one processor each,
        both on the same one; the client, PostgreSQL and the supervisor are on the other. A request is for one
        of {sizes.customers:,} customers at random, three items of one placement, with its context; three
        clauses an action, x of {size} columns, 2,000 outcomes learned of the median arm. Open loop: Poisson
        arrivals at a fixed rate, latency from the moment at which a request was to start to the last byte of
        its answer, waiting for one of at most {CONNECTIONS} connections included; the first {WARM:g} s of a
        window do not count. Saturation: the highest rate of which {KEPT_UP:.0%} is answered within the
        window, all with status 200 and nothing degraded, p99 below {LONGEST * 1e3:.0f} ms; found by
        bisection, {sizes.steps} windows of {sizes.seconds:g} s after one in a closed loop. {sizes.rounds}
        rounds by turns, medians. At half of it: windows of {sizes.half:g} s by turns; catalogs and snapshots
        are written by another process, {sizes.swaps} in a window, {sizes.every:g} s between two, all of them
        new, in one action or in what was learned; catalogs also by `POST /v1/catalog/publish`, which checks
        them as well. A catalog of which every rule and text is new takes some five times as long to load.
    """
    throughput = Table(
        "Throughput at saturation",
        (
            "store", "arms", "bare req/s", "bare, reply made before, req/s", "service req/s", "% of bare",
            "lowest to highest", "its processor busy with it", "the other busy", "items a reply",
            "reply bytes, bare : service",
        ),
        [_throughput_row(case) for case in cases],
    )  # fmt: skip
    latency = Table(
        "Latency at half of saturation",
        (
            "store", "arms", "meanwhile", "req/s", "p50 ms", "p99 ms", "p99.9 ms", "p99 : p50",
            "µs of processor a request", "not in time",
        ),
        [_latency_row(case, what) for case in cases for what in case.half],
    )  # fmt: skip
    return Section("HTTP", load, [throughput, latency], list(_targets(cases)), [*kept, *_notes(cases)])


def _throughput_row(case: Case) -> Sequence[Cell]:
    ours, bare = case.saturated["ours"], case.saturated["bare"]
    shares = [100 * one.answered / other.answered for one, other in zip(ours, bare, strict=True)]
    return (
        case.store,
        f"{case.arms:,}",
        case.rate("bare"),
        case.rate("bytes"),
        case.rate("ours"),
        case.share,
        f"{min(shares):.0f} to {max(shares):.0f}",
        f"{median(each.spent[0] for each in ours):.0%}",
        f"{median(each.spent[2] for each in ours):.0%}",
        median(each.items for each in ours),
        f"{bare[-1].size} : {ours[-1].size}",
    )


def _latency_row(case: Case, what: str) -> Sequence[Cell]:
    windows = case.half[what]
    p50, p99 = (1e3 * median(each.quantile(share) for each in windows) for share in (0.5, 0.99))
    return (
        case.store,
        f"{case.arms:,}",
        what,
        median(each.answered for each in windows),
        p50,
        p99,
        1e3 * float(np.quantile(np.concatenate([each.latency for each in windows]), 0.999)),
        _tail(windows),
        median(1e6 * each.spent[0] / each.answered for each in windows),
        str(sum(not each.in_time for each in windows)),
    )


def _tail(windows: Sequence[Window]) -> float:
    return median(each.quantile(0.99) / each.quantile(0.5) for each in windows)


def _targets(cases: Sequence[Case]) -> Iterator[Target]:
    for case in cases:
        about = f"{case.store}, {case.arms:,} arms"
        if case.arms in LEAST:
            yield Target(f"throughput, {about}", case.share, LEAST[case.arms], "%", least=True)
        for what in (QUIET, *SWAPPED):
            yield Target(f"p99 : p50, {about}, {what}", _tail(case.half[what]), MOST_TAIL, "×")


def _notes(cases: Sequence[Case]) -> Iterator[str]:
    windows = [window for case in cases for window in case.windows()]
    yield f"The client took at most {max(each.client for each in windows):.0%} of its processor."
    void = sum(not each.valid for each in windows)
    if void:
        yield f"**Void**: more than {CLIENT_LIMIT:.0%} in {void} windows, so it may be what was measured."
    others = median(each.spent[1] - each.spent[0] for each in windows)
    yield f"Other processes took {max(others, 0.0):.0%} of the processor of who was asked (median)."
    if others > OTHERS_LIMIT:
        yield "**Void**: that is too much; to be run on a machine that does nothing else."
    late = sum(not each.in_time for case in cases for windows in case.saturated.values() for each in windows)
    if late:
        yield f"**Void**: {late} searches for saturation found no rate that was kept up with."
    yield "No API key was made: the service listens to this machine only, and asks for none."
    yield """p99.9 is of the windows of all rounds together; the other figures are medians of the rounds.
        "Not in time": windows in which the service did not keep up, by the measure of saturation."""
