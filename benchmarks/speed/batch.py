"""A large outbound run: the same decisions one by one and in batches, within a process and over HTTP.

    python -W ignore -m benchmarks.speed.batch [--decisions 1000000]

decides for that many customers in batches, in full, where the part of the suite times fewer of them.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import http.client
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import orjson
import uvloop

from arbitration.catalog.compile import compile_document
from arbitration.snapshot import serve
from benchmarks.speed.load import CALLERS, Server, closed_loop, post
from benchmarks.speed.population import Customer, customers
from benchmarks.speed.report import Cell, Progress, Section, Table, Target, Tick
from benchmarks.speed.servers import TIMEOUT_MS, WIDTH, apart, fill, seconds_of, service
from benchmarks.speed.workload import POLICY, World, catalog, import_customers, learned, publish
from benchmarks.stage import file_system
from decision.api.context import build
from decision.clock import utc_now
from decision.deciding import Deciding
from decision.messages import DecisionRequest
from decision.settings import opened

CHANNEL, PLACEMENT = "email", "letter"
BLOCK = 1_000
"""What a batch has at most."""
AT_ONCE = 64
MILLION = 1_000_000
NOTHING_MISSING = b'"degraded":[]'
JSON = {"content-type": "application/json"}
TIMES = 20.0


@dataclass(frozen=True)
class Sizes:
    """`single`, `batched`: how many decisions of a round are made one by one, and in batches; `seconds`: of
    single calls over HTTP."""

    arms: int
    rounds: int
    single: int
    batched: int
    block: int
    seconds: float


FULL = Sizes(100, 4, 1_000, 5_000, BLOCK, 2.0)
SMOKE = Sizes(20, 1, 40, 200, 100, 0.2)

ALONE, TOGETHER, BATCHED = "one by one", f"one by one, {AT_ONCE} at once", "in batches"
CALLS, BATCH_CALLS = f"single calls, {CALLERS} connections", "batch calls, one caller"


@dataclass
class Way:
    """Of one way to decide, round by round: decisions a second, and µs of processor time each."""

    rates: list[float] = field(default_factory=list)
    spent: list[float] = field(default_factory=list)

    def add(self, decisions: float, seconds: float, processor: float) -> None:
        """A round."""
        self.rates.append(decisions / seconds)
        self.spent.append(1e6 * processor / decisions)


def run(smoke: bool, progress: Progress) -> Section:
    """The part."""
    sizes = SMOKE if smoke else FULL
    ways = {name: Way() for name in (ALONE, TOGETHER, BATCHED, CALLS, BATCH_CALLS)}
    tick = progress("rounds", 2 * sizes.rounds)
    with apart() as (first, _), tempfile.TemporaryDirectory(prefix="speed", dir="/var/tmp") as name:
        directory = Path(name)
        disk = file_system(directory)
        uvloop.run(_within(f"sqlite:{directory / 'within.db'}", ways, sizes, tick))
        _over_http(f"sqlite:{directory / 'http.db'}", directory / "log", first, ways, sizes, tick)
    return _section(ways, sizes, disk)


@cache
def outbound(arms: int) -> World:
    """The world of the other parts, its one channel being e-mail that we send: to whom consents, one item."""
    document, rules = catalog(arms, WIDTH)
    document = copy.deepcopy(document)
    (channel,), (placement,) = document["channels"], document["placements"]
    channel |= {"id": CHANNEL, "direction": "outbound", "consent": "marketing"}
    placement |= {"id": PLACEMENT, "channel": CHANNEL, "slots": 1}
    for action in document["actions"]:
        for treatment in action["treatments"]:
            treatment |= {"channel": CHANNEL, "placement": PLACEMENT}
    compiled = compile_document(document)
    state = learned(compiled, "mature", WIDTH)
    return World(
        document, rules, compiled, {POLICY: state}, {POLICY: serve(compiled, POLICY, state, "mature")}
    )


def asked(customer: Customer) -> dict[str, Any]:
    """The body of the request for one customer."""
    return {
        "customer_id": customer.id,
        "channel": CHANNEL,
        "context": customer.context(),
        "timeout_ms": TIMEOUT_MS,
    }


@asynccontextmanager
async def deciding(
    url: str, made: World
) -> AsyncIterator[tuple[Deciding, Callable[[int, int], Awaitable[Any]]]]:
    """What decides, as the service has it, and what imports so many customers of a seed: their requests."""
    async with opened(url) as store:
        await publish(store, made)
        context = build(store)
        await context.live.start()

        async def imported(count: int, seed: int) -> list[DecisionRequest]:
            people = customers(count, seed, utc_now())
            await import_customers(store, people)
            return [DecisionRequest.model_validate(asked(each)) for each in people]

        try:
            yield context.deciding, imported
        finally:
            await context.live.stop()


async def _within(url: str, ways: dict[str, Way], sizes: Sizes, tick: Tick) -> None:
    async with deciding(url, outbound(sizes.arms)) as (service, imported):

        async def alone(requests: Sequence[DecisionRequest]) -> None:
            for request in requests:
                await service.decide(request)

        async def together(requests: Sequence[DecisionRequest]) -> None:
            left = iter(requests)
            await asyncio.gather(*(alone(left) for _ in range(AT_ONCE)))  # type: ignore[arg-type]

        async def batched(requests: Sequence[DecisionRequest]) -> None:
            await in_batches(service, requests, sizes.block)

        do = {ALONE: alone, TOGETHER: together, BATCHED: batched}
        for number in range(sizes.rounds + 1):  # the first warms up
            requests = await imported(2 * sizes.single + sizes.batched, 10 + number)
            parts = {
                ALONE: requests[: sizes.single],
                TOGETHER: requests[sizes.single : 2 * sizes.single],
                BATCHED: requests[2 * sizes.single :],
            }
            for name in _turn(list(do), number):
                began, before = perf_counter(), process_time()
                await do[name](parts[name])
                if number:
                    taken = perf_counter() - began
                    ways[name].add(len(parts[name]), taken, process_time() - before)
            if number:
                tick()


async def in_batches(service: Deciding, requests: Sequence[DecisionRequest], block: int) -> None:
    """Decides for all of them. The one place that says what the batch path is."""
    for start in range(0, len(requests), block):
        for reply in await service.decide_all(requests[start : start + block]):
            assert isinstance(reply, bytes), reply
            assert NOTHING_MISSING in reply, reply


def _over_http(url: str, log: Path, core: int, ways: dict[str, Way], sizes: Sizes, tick: Tick) -> None:
    people = customers(2 * sizes.batched * (sizes.rounds + 1), now=utc_now())
    fill(url, outbound(sizes.arms), people)
    half, rest = people[: len(people) // 2], people[len(people) // 2 :]
    singles = [post("/v1/decisions", orjson.dumps(asked(each))) for each in half]
    bodies = [
        orjson.dumps({"requests": [asked(each) for each in rest[start : start + sizes.block]]})
        for start in range(0, len(rest), sizes.block)
    ]
    blocks = iter(bodies)
    with service(url, log, core) as (port, worker):
        called = Server(port, singles, lambda: (seconds_of(worker),))
        caller = http.client.HTTPConnection("localhost", port)
        for number in range(sizes.rounds + 1):
            window = closed_loop(called, sizes.seconds, number)
            assert not window.failed, "a decision failed"
            before, began = seconds_of(worker), perf_counter()
            for _ in range(sizes.batched // sizes.block):
                caller.request("POST", "/v1/decisions:batch", next(blocks), JSON)
                answer = caller.getresponse().read()
                assert answer.count(NOTHING_MISSING) == sizes.block, answer[:500]
            if number:
                ways[CALLS].add(window.answered, 1.0, window.spent[0])
                taken = perf_counter() - began
                ways[BATCH_CALLS].add(sizes.batched, taken, seconds_of(worker) - before)
                tick()
        caller.close()


def _turn(names: list[str], number: int) -> list[str]:
    first = number % len(names)
    return names[first:] + names[:first]


def _section(ways: dict[str, Way], sizes: Sizes, disk: str) -> Section:
    load = f"""
        An outbound e-mail run: {sizes.arms} arms, one item for each customer, SQLite on {disk}, each decision
        durable when it is answered; but for single calls every customer is decided for once. Within a
        process: `Deciding.decide` for one after the other, {AT_ONCE} of these at once (so that they share a
        commit), and `Deciding.decide_all` for {sizes.block:,} at a time. Over HTTP, the service on one
        processor and the client on another: `POST /v1/decisions` in a closed loop, and
        `POST /v1/decisions:batch` with {sizes.block:,} each. {sizes.rounds} rounds by turns, of
        {sizes.single:,} decisions one by one and {sizes.batched:,} in batches, after one that does not count;
        medians. The time for a million is extrapolated from these.
    """
    table = Table(
        "",
        ("", "decisions/s", "µs of processor a decision", "a million takes, minutes", "times as fast"),
        [_row(ways, name, TOGETHER) for name in (ALONE, TOGETHER, BATCHED)]
        + [_row(ways, name, CALLS) for name in (CALLS, BATCH_CALLS)],
    )
    targets = [
        Target(f"batches against {TOGETHER}", _times(ways, BATCHED, TOGETHER), TIMES, "×", least=True),
        Target("batch calls against single calls", _times(ways, BATCH_CALLS, CALLS), TIMES, "×", least=True),
    ]
    notes = [
        f"""Times as fast: as many decisions a second; within the process against {TOGETHER}, over HTTP
        against single calls. Both keep a processor busy; one caller that waits for the disk does not.""",
    ]
    return Section("A large outbound run", load, [table], targets, notes)


def _row(ways: dict[str, Way], name: str, against: str) -> Sequence[Cell]:
    rate = median(ways[name].rates)
    return (name, rate, median(ways[name].spent), MILLION / rate / 60, _times(ways, name, against))


def _times(ways: dict[str, Way], name: str, against: str) -> float:
    return median(a / b for a, b in zip(ways[name].rates, ways[against].rates, strict=True))


def main() -> None:
    """The whole run, in slices: each is imported before, which does not count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--decisions", type=int, default=MILLION)
    parser.add_argument("--slice", type=int, default=20_000, help="customers imported at a time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="speed", dir="/var/tmp") as directory:
        taken = uvloop.run(_whole(f"sqlite:{directory}/store.db", options.decisions, options.slice))
    sys.stdout.write(
        f"{options.decisions:,} decisions: {taken:,.1f} s, {options.decisions / taken:,.0f} a second\n"
    )


async def _whole(url: str, decisions: int, size: int) -> float:
    taken = 0.0
    async with deciding(url, outbound(FULL.arms)) as (service, imported):
        for seed, count in enumerate(_slices(decisions, size)):
            requests = await imported(count, seed)
            began = perf_counter()
            await in_batches(service, requests, BLOCK)
            taken += perf_counter() - began
            sys.stderr.write(f"\r{seed * size + count:,} decisions, {taken:,.0f} s ")
    sys.stderr.write("\n")
    return taken


def _slices(whole: int, size: int) -> Iterator[int]:
    for start in range(0, whole, size):
        yield min(size, whole - start)


if __name__ == "__main__":
    main()
