"""What the demo has seen so far: sums over the items shown, in the order they were shown."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, fields

RECENT = 1_000
"""Items that count as recent."""
REFERENCE = 5_000
"""Items over which random and best arms are averaged: they are worked out for a sample of visits only."""
_FINEST = 20
_MOST_STEPS = 160


@dataclass(slots=True)
class Sums:
    """Over items: how many, how many were accepted, what those were worth.

    Beside that, over the slots of the visits that were looked at more closely (`sampled`): the true
    acceptance and expected worth of a random eligible arm and of the best one.
    """

    items: float = 0.0
    accepted: float = 0.0
    worth: float = 0.0
    sampled: float = 0.0
    random: float = 0.0
    best: float = 0.0
    random_worth: float = 0.0
    best_worth: float = 0.0

    def add(self, other: Sums) -> None:
        """Adds the other's sums to these."""
        for part in fields(self):
            setattr(self, part.name, getattr(self, part.name) + getattr(other, part.name))

    @property
    def acceptance(self) -> float:
        """Share of items accepted."""
        return self.accepted / self.items if self.items else 0.0

    @property
    def random_acceptance(self) -> float:
        """What a random eligible arm would have had."""
        return self.random / self.sampled if self.sampled else 0.0

    @property
    def best_acceptance(self) -> float:
        """What knowing the hidden truth would have had."""
        return self.best / self.sampled if self.sampled else 0.0

    @property
    def per_100(self) -> tuple[float, float, float]:
        """Worth per 100 items: achieved, of random arms, of the best arms."""
        sampled = self.sampled or 1.0
        achieved = 100 * self.worth / (self.items or 1.0)
        return achieved, 100 * self.random_worth / sampled, 100 * self.best_worth / sampled


def total(parts: list[Sums]) -> Sums:
    """The sum of many."""
    whole = Sums()
    for part in parts:
        whole.add(part)
    return whole


class Tally:
    """Counts visits. `steps` are consecutive stretches of the run, of equal length in items: they get
    coarser as it goes on, so that a run of any length is drawn from 80 to 160 of them."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.visits = 0
        self.whole = Sums()
        self.by_channel: dict[str, Sums] = {}
        self.recent_by_channel: dict[str, deque[bool]] = {}
        self.recent: deque[tuple[str, bool]] = deque(maxlen=RECENT)
        self.latencies: deque[float] = deque(maxlen=5_000)
        self.finished: deque[float] = deque(maxlen=1_000)
        self.steps = [Sums()]
        self._step_items = float(_FINEST)

    def visit(self, channel: str, seconds: float, sums: Sums, shown: list[tuple[str, bool]]) -> None:
        """Counts one visit: how long its decision took, its sums, its (treatment, accepted) pairs."""
        self.visits += 1
        self.latencies.append(seconds)
        self.finished.append(time.monotonic())
        self.whole.add(sums)
        self.by_channel.setdefault(channel, Sums()).add(sums)
        self.recent_by_channel.setdefault(channel, deque(maxlen=RECENT)).extend(yes for _, yes in shown)
        self.recent.extend(shown)
        if self.steps[-1].items >= self._step_items:
            self.steps.append(Sums())
        self.steps[-1].add(sums)
        if len(self.steps) > _MOST_STEPS:
            self.steps = [total(self.steps[at : at + 2]) for at in range(0, len(self.steps), 2)]
            self._step_items *= 2

    def last(self, items: float) -> Sums:
        """The last `items`, or up to one step more."""
        count = 1
        while count < len(self.steps) and sum(step.items for step in self.steps[-count:]) < items:
            count += 1
        return total(self.steps[-count:])

    def rate(self) -> float:
        """Decisions a second, over the last thousand."""
        if len(self.finished) < 2:
            return 0.0
        return len(self.finished) / max(time.monotonic() - self.finished[0], 1e-9)

    def latency(self, share: float) -> float:
        """The quantile of recent latencies, in milliseconds."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
