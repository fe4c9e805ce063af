"""What a fairness report asks a store, and what it is told: sums over customers, never a customer. Shared by
all backends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

import orjson

from arbitration.evaluation.ratios import Rate
from decision.storage import rows

Line = tuple[str, str]
"""(dimension, name): `("overall", "")`, `("group", …)`, `("action", …)`."""
Kind = Literal["text", "bool", "number", "time"]
Measured = tuple[str, int, str | None, Line]
"""(measure, number of the trait, level or None where it is not known, line)."""


@dataclass(frozen=True, slots=True)
class Trait:
    """How a fact, by its dotted name, is cut into levels: each of `values`; `true` and `false`; or, of
    numbers and times (in epoch seconds), the number of `edges` that are not above it. All else is not
    known."""

    fact: str
    kind: Kind
    values: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Counting:
    """What is counted: live decisions with since ≤ decided_at < until, on one channel or all, of customers
    that do not object to profiling.

    `lines`: each with the channels on which it could be shown: of its exposure, only decisions there count.
    `accepted`: of each (catalog version, channel): the outcomes that count as acceptance, and how long an
    answer is awaited. Only what was shown so long before `now` counts.
    """

    now: datetime
    traits: tuple[Trait, ...]
    lines: dict[Line, frozenset[str]]
    accepted: dict[tuple[str, str], tuple[frozenset[str], timedelta]]
    since: datetime | None = None
    until: datetime | None = None
    channel: str | None = None

    @property
    def scopes(self) -> list[frozenset[str]]:
        """The distinct sets of channels of the lines."""
        return list(dict.fromkeys(self.lines.values()))

    def parameters(self) -> tuple[int, int, str | None, str, str, str, str, int]:
        """since, until (micros), channel, then as JSON: traits; scopes, lists of channels; lines, as
        [dimension, name, scope]; accepted, as [version, channel, outcomes, micros]; and now (micros)."""
        scopes = self.scopes
        lines = [[*line, scopes.index(channels)] for line, channels in self.lines.items()]
        accepted = [
            [*key, sorted(outcomes), window // timedelta(microseconds=1)]
            for key, (outcomes, window) in self.accepted.items()
        ]
        return (
            -(2**62) if self.since is None else rows.micros(self.since),
            2**62 if self.until is None else rows.micros(self.until),
            self.channel,
            _json([[each.kind, list(each.values), list(each.edges)] for each in self.traits]),
            _json([sorted(scope) for scope in scopes]),
            _json(lines),
            _json(accepted),
            rows.micros(self.now),
        )


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


_CELLS = 1_000_000


def level_of_cell(traits: Sequence[Trait], cell: int) -> tuple[int, str | None]:
    """The trait, by its number, and the level that a store counts under one: a million times the trait, and,
    where the level is known, one more than its place."""
    trait, place = divmod(cell, _CELLS)
    match traits[trait].kind:
        case _ if place == 0:
            return trait, None
        case "text":
            return trait, traits[trait].values[place - 1]
        case "bool":
            return trait, ("false", "true")[place - 1]
    return trait, str(place - 1)


def measured(counting: Counting, found: Iterable[rows.Row]) -> dict[Measured, Rate]:
    """From rows (`all`, cell, scope, customers, Σ n, 0, Σ n², …): of decisions; and (`line`, cell, line,
    customers, Σ s, Σ n s, Σ s², and then of items: customers, Σ n, Σ s, Σ n², Σ n s, Σ s²)."""
    names, scopes = list(counting.lines), counting.scopes
    decisions: dict[tuple[int, int], Rate] = {}
    shown: dict[tuple[int, Line], Sequence[float]] = {}
    rates: dict[Measured, Rate] = {}
    for what, cell, number, customers, *sums in found:
        if what == "all":
            decisions[cell, number] = Rate(customers, float(sums[0]), 0.0, float(sums[2]), 0.0, 0.0)
            continue
        line = names[number]
        shown[cell, line] = [float(each) for each in sums[:3]]
        if sums[3]:
            trait, level = level_of_cell(counting.traits, cell)
            rates["acceptance", trait, level, line] = Rate(int(sums[3]), *map(float, sums[4:]))
    for (cell, number), base in decisions.items():
        trait, level = level_of_cell(counting.traits, cell)
        for line, channels in counting.lines.items():
            if scopes[number] == channels:
                taken, product, squared = shown.get((cell, line), (0.0, 0.0, 0.0))
                rates["exposure", trait, level, line] = replace(
                    base, taken=taken, product=product, taken_squared=squared
                )
    return rates
