"""What a decision of the whole service, without HTTP, costs as its store grows and as more wait at once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from time import perf_counter, perf_counter_ns, process_time

import orjson

from arbitration.contact import Contact, Shown, micros
from benchmarks.speed.authoring import CHANNEL
from benchmarks.speed.population import customers
from benchmarks.speed.report import Tick
from benchmarks.speed.service import asked, serving
from benchmarks.speed.timing import Times, by_turns_async, uncollected
from benchmarks.speed.workload import World
from decision.api.context import Context
from decision.clock import new_id, utc_now
from decision.importing import to_customer
from decision.messages import ImportLine
from decision.storage.port import Claim, DecisionRecord

PROFILES = 10_000
"""Different profiles at most; where there are more customers, some have the same."""
PUT = 5_000
HISTORY = timedelta(days=700)


async def by_customers(
    directory: Path, made: World, counts: Sequence[int], rounds: int, tick: Tick
) -> dict[int, Times]:
    """A decision, by how many customers are in the store."""
    people = customers(min(PROFILES, counts[-1]), seed=11, now=utc_now())
    requests = [asked(each) for each in people]
    profiles = [to_customer(each.id, ImportLine.model_validate(each.profile())) for each in people]
    calls: dict[str, Callable[[int], Awaitable[object]]] = {}
    async with AsyncExitStack() as stack:
        for count in counts:
            (directory / str(count)).mkdir()
            service = await stack.enter_async_context(serving(directory / str(count), made, ()))
            for start in range(0, count, PUT):
                part = [
                    replace(profiles[number % len(profiles)], customer_id=f"c{number}")
                    for number in range(start, min(start + PUT, count))
                ]
                await service.store.put_customers(part, utc_now())

            def call(number: int, service: Context = service, count: int = count) -> Awaitable[object]:
                customer = number * max(1, count // 1_000) % count  # from all over the store
                request = requests[customer % len(requests)]
                return service.deciding.decide(request.model_copy(update={"customer_id": f"c{customer}"}))

            calls[str(count)] = call
        times = await by_turns_async(calls, rounds, tick=tick)
    return {count: times[str(count)] for count in counts}


_LONG_KNOWN = 30


async def by_history(
    directory: Path, made: World, lengths: Sequence[int], rounds: int, tick: Tick
) -> dict[int, Times]:
    """A decision, by how many decisions were made for the customer before, over 700 days. All have had three
    contacts with each of three actions today, and there are as many customers of each length: what is decided
    here holds back as much of all."""
    sizes = dict.fromkeys(lengths, min(rounds, _LONG_KNOWN))
    people = customers(sum(sizes.values()), seed=12, now=utc_now())
    waiting = iter(people)
    async with serving(directory, made, people) as service:
        calls: dict[str, Callable[[int], Awaitable[object]]] = {}
        for length, size in sizes.items():
            mine = [next(waiting) for _ in range(size)]
            for each in mine:
                await _past(service, made, each.id, length)
            requests = [asked(each) for each in mine]
            calls[str(length)] = lambda number, requests=requests: service.deciding.decide(
                requests[number % len(requests)]
            )
        times = await by_turns_async(calls, rounds, tick=tick)
    return {length: times[str(length)] for length in lengths}


async def _past(service: Context, made: World, customer: str, length: int) -> None:
    now = utc_now()
    moments = [now - HISTORY * (length - number) / (length + 1) for number in range(length)]
    moments += [now - timedelta(hours=1, minutes=number) for number in range(9)]
    records = [_shown(made, customer, at, number % 3) for number, at in enumerate(moments)]
    for start in range(0, len(records), 1_000):
        await service.store.commit_decisions(records[start : start + 1_000])


def _shown(made: World, customer: str, at: datetime, number: int) -> DecisionRecord:
    arm = made.catalog.arms[number]
    item = {"treatment": arm.treatment.id, "action": arm.action.id, "group": arm.group.id}
    contact = Contact(micros(at), CHANNEL, (Shown(*item.values()),))
    return DecisionRecord(
        decision_id=new_id(),
        customer_id=customer,
        request_id=None,
        request_hash="",
        decided_at=at,
        channel=CHANNEL,
        mode="live",
        catalog_version=made.catalog.version,
        snapshots={},
        inputs=b"x" * 2048,
        reply=orjson.dumps({"placements": [{"id": "hero", "items": [item]}]}),
        claim=Claim((customer,), made.catalog.limits, None, {}, contact),
    )


async def by_callers(
    directory: Path, made: World, callers: Sequence[int], rounds: int, seconds: float, tick: Tick
) -> dict[int, tuple[float, float, Times]]:
    """By how many callers wait at once, each asking for another customer as soon as it has its answer:
    decisions per second, µs of processor time per decision, and how long each took."""
    people = customers(min(PROFILES, math.ceil(rounds * seconds * 5_000)), seed=13, now=utc_now())
    requests = [asked(each) for each in people]
    counted: Mapping[int, list[int]] = {count: [] for count in callers}
    spent = {count: [0.0, 0.0] for count in callers}
    turn = 0
    async with serving(directory, made, people) as service:

        async def caller(times: list[int], until: float) -> None:
            nonlocal turn
            while perf_counter() < until:
                turn += 1
                request = requests[turn % len(requests)]
                began = perf_counter_ns()
                await service.deciding.decide(request)
                times.append(perf_counter_ns() - began)

        for number in range(-1, rounds):
            for count in callers:
                times: list[int] = []
                with uncollected():
                    began, busy = perf_counter(), process_time()
                    await asyncio.gather(*(caller(times, began + seconds) for _ in range(count)))
                if number >= 0:
                    counted[count].extend(times)
                    spent[count][0] += perf_counter() - began
                    spent[count][1] += process_time() - busy
            tick()
    return {
        count: (len(times) / spent[count][0], spent[count][1] / len(times) * 1e6, Times(times))
        for count, times in counted.items()
    }
