"""Measures several things against each other: by turns, so that whatever else the machine does hits all."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter_ns, process_time_ns

import numpy as np

Call = Callable[[int], object]
"""What is measured; told the number of the customer it is about, which differs each time."""


class Times:
    """How long each call took, in µs; `busy`: the median of the processor time of the whole process, where it
    was measured."""

    def __init__(self, nanoseconds: list[int], busy: Sequence[int] = (0,)) -> None:
        self.us = np.array(nanoseconds) / 1e3
        self.busy = float(np.median(busy)) / 1e3

    @property
    def median(self) -> float:
        return float(np.median(self.us))

    @property
    def p99(self) -> float:
        return float(np.quantile(self.us, 0.99))

    @property
    def mean(self) -> float:
        return float(self.us.mean())


def by_turns(
    calls: Mapping[str, Call],
    rounds: int,
    run: int = 5,
    warm: int = 3,
    tick: Callable[[], object] = lambda: None,
) -> dict[str, Times]:
    """How long each of `calls` takes.

    In each of `rounds` every call has its turn, the first being another one each time: `run` calls, one after
    the other, each about another customer (the same for all). The first of them, which finds the caches full
    of what the others left there, is not counted, unless `run` is 1. Garbage is collected between the turns
    and not within them. `warm`: rounds before, which are not counted; `tick` is called after each round.
    """
    taken: dict[str, list[int]] = {name: [] for name in calls}
    for name, number in _turns(list(calls), rounds, warm, tick):
        times = _turn(calls[name], (number + warm) * run, run)
        if number >= 0:
            taken[name] += times[1:] if run > 1 else times
    return {name: Times(times) for name, times in taken.items()}


async def by_turns_async(
    calls: Mapping[str, Callable[[int], Awaitable[object]]],
    rounds: int,
    run: int = 5,
    warm: int = 3,
    tick: Callable[[], object] = lambda: None,
) -> dict[str, Times]:
    """The same of what has to be awaited, one at a time; with the processor time that it takes."""
    taken: dict[str, list[int]] = {name: [] for name in calls}
    busy: dict[str, list[int]] = {name: [] for name in calls}
    for name, number in _turns(list(calls), rounds, warm, tick):
        times, spent = [], []
        with uncollected():
            for customer in range((number + warm) * run, (number + warm + 1) * run):
                began, busy_before = perf_counter_ns(), process_time_ns()
                await calls[name](customer)
                times.append(perf_counter_ns() - began)
                spent.append(process_time_ns() - busy_before)
        if number >= 0:
            taken[name] += times[1:] if run > 1 else times
            busy[name] += spent[1:] if run > 1 else spent
    return {name: Times(times, busy[name]) for name, times in taken.items()}


def _turns(
    names: Sequence[str], rounds: int, warm: int, tick: Callable[[], object]
) -> Iterator[tuple[str, int]]:
    """Whose turn it is, and the number of the round, those to warm up being negative."""
    for number in range(-warm, rounds):
        first = number % len(names)
        yield from ((name, number) for name in (*names[first:], *names[:first]))
        if number >= 0:
            tick()


@contextmanager
def uncollected() -> Iterator[None]:
    """Garbage is collected before, and not while this is open."""
    gc.collect(0)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _turn(call: Call, first: int, run: int) -> list[int]:
    times = []
    with uncollected():
        for customer in range(first, first + run):
            began = perf_counter_ns()
            call(customer)
            times.append(perf_counter_ns() - began)
    return times
