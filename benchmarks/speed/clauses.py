"""The pool that actions take their rules from: about 250 clauses, each true of about 70% of customers.

Where a threshold lies is read off a sample of the customers. Few clauses are used by many actions and many
by few, as in catalogs where every action says `!customer.open_complaint`: by Zipf's law.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
import orjson

from benchmarks.speed.population import FACTS, columns

SHIFT = 2
"""The clause of rank r, from 0, is used with a probability ∝ 1 / (r + SHIFT)."""


@dataclass(frozen=True)
class Clause:
    """A rule in CEL, and the same for zen-engine, where instants are epoch seconds and null is what is not
    known. `column` and `test`: the same again as a cell of a decision table, where it is about one fact."""

    cel: str
    zen: str
    column: str | None = None
    test: str = ""


@cache
def pool() -> tuple[Clause, ...]:
    """All of them, in the order of how often they are used."""
    distinct = {clause.cel: clause for clause in _all()}
    order = np.random.default_rng(5).permutation(len(distinct))
    found = list(distinct.values())
    return tuple(found[position] for position in order)


def pick(rng: np.random.Generator, clauses: tuple[Clause, ...], count: int) -> list[Clause]:
    """So many different ones of the pool."""
    odds = 1 / (np.arange(len(clauses)) + SHIFT)
    return [clauses[each] for each in rng.choice(len(clauses), count, replace=False, p=odds / odds.sum())]


def _all() -> Iterator[Clause]:
    sample = columns(20_000, 99)
    for fact in FACTS:
        drawn = sample[fact.name]
        match fact.type:
            case "int" | "double":
                for share in (0.2, 0.27, 0.33, 0.4):
                    yield _compared(fact.name, ">=", _threshold(drawn, share))
                    yield _compared(fact.name, "<=", _threshold(drawn, 1 - share))
            case "string":
                yield from _named(fact.name, fact.values, drawn)
            case "bool":
                yes = drawn.mean() > 0.5
                yield _cell(fact.name, "", f"== {str(yes).lower()}", fact.name if yes else f"!{fact.name}")
            case "timestamp":
                for share in (0.2, 0.25, 0.3, 0.35, 0.4):
                    yield _timed(fact.name, round(float(np.quantile(drawn, 1 - share)) * 24))
    yield from _of_two(sample)


def _threshold(drawn: np.ndarray, share: float) -> str:
    found = float(np.quantile(drawn, share))
    return str(round(found)) if drawn.dtype.kind == "i" else repr(float(f"{found:.2g}"))


def _cell(name: str, cel: str, test: str, whole: str = "") -> Clause:
    return Clause(whole or f"{name} {cel or test}", f"{name} != null and {name} {test}", name, test)


def _compared(name: str, sign: str, threshold: str) -> Clause:
    return _cell(name, "", f"{sign} {threshold}")


def _named(name: str, values: tuple[str, ...], drawn: np.ndarray) -> Iterator[Clause]:
    """One of some values, or not a certain one."""
    for size in (2, 3):
        for chosen in combinations(range(len(values)), size):
            if 0.6 <= np.isin(drawn, chosen).mean() <= 0.8:
                listed = orjson.dumps([values[each] for each in chosen]).decode()
                yield _cell(name, "", f"in {listed}")
    for number, value in enumerate(values):
        if 0.6 <= (drawn != number).mean() <= 0.8:
            clause = _cell(name, "", f'!= "{value}"')
            yield Clause(clause.cel, clause.zen)  # as a cell it would be true of null as well


def _timed(name: str, hours: int) -> Clause:
    """Before a time that is so many hours from now."""
    return Clause(
        f'{name} - now < duration("{hours}h")',
        f"{name} != null and {name} - now < {hours * 3600}",
    )


def _of_two(sample: dict[str, np.ndarray]) -> Iterator[Clause]:
    """Clauses about two facts, some of them with arithmetic."""
    pairs = (
        ("customer.spend_30d", "customer.spend_90d"),
        ("customer.balance", "customer.income"),
        ("customer.basket", "customer.spend_365d"),
        ("customer.data_gb", "customer.call_minutes"),
    )
    for a, b in pairs:
        known = f"{a} != null and {b} != null and "
        ratio = float(f"{np.quantile(sample[b] / sample[a], 0.3):.2g}")
        total = float(f"{np.quantile(sample[a] + sample[b], 0.3):.3g}")
        low, high = _threshold(sample[a], 0.15), _threshold(sample[b], 0.85)
        rare = _threshold(sample[a], 0.45)
        yield Clause(f"{b} > {a} * {ratio}", f"{known}{b} > {a} * {ratio}")
        yield Clause(f"{a} + {b} > {total}", f"{known}{a} + {b} > {total}")
        yield Clause(f"{a} > {low} && {b} < {high}", f"{known}{a} > {low} and {b} < {high}")
        either = f"{a} > {rare} || customer.opted_in"
        yield Clause(
            either, f"({a} != null and {a} > {rare}) or (customer.opted_in != null and customer.opted_in)"
        )
