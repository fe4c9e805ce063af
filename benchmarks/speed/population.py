"""Generated customers: 30 attributes, 4 scores and 4 values of the situation each, of which 3% are not known.

The same seed gives the same customers. Amounts are skewed as money is, and what is bought more often is
bought more recently; otherwise facts are independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from arbitration.facts import Value, rfc3339

NOW = datetime(2026, 3, 1, 18, 30, tzinfo=UTC)
MISSING = 0.03
OBJECTING = 0.1
"""Share of customers who have not agreed to marketing."""

Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Fact:
    """A declared fact and how it is distributed. `draw`: (random numbers, how many) → array (n,); of a
    string, positions in `values`, and of a timestamp, days from now."""

    name: str
    type: str
    draw: Draw
    values: tuple[str, ...] = ()


def _money(middle: float, spread: float) -> Draw:
    return lambda rng, n: np.round(middle * np.exp(rng.normal(0, spread, n)), 2)


def _share(a: float, b: float) -> Draw:
    return lambda rng, n: np.round(rng.beta(a, b, n), 3)


def _count(mean: float) -> Draw:
    """Poisson, with a rate that differs by customer."""
    return lambda rng, n: rng.poisson(rng.gamma(2, mean / 2, n))


def _one_of(size: int) -> Draw:
    """Positions in a list, the first the most frequent."""
    odds = 1 / np.arange(2, size + 2)
    return lambda rng, n: rng.choice(size, n, p=odds / odds.sum())


def _chance(p: float) -> Draw:
    return lambda rng, n: rng.random(n) < p


def _days(low: float, high: float) -> Draw:
    return lambda rng, n: np.round(rng.uniform(low, high, n), 4)


def _text(name: str, *values: str) -> Fact:
    return Fact(name, "string", _one_of(len(values)), values)


FACTS = (
    *(
        Fact(f"customer.{name}", "double", _money(middle, spread))
        for name, middle, spread in (
            ("spend_30d", 45, 0.8),
            ("spend_90d", 130, 0.8),
            ("spend_365d", 520, 0.7),
            ("basket", 38, 0.5),
            ("balance", 900, 1.2),
            ("income", 3_200, 0.5),
            ("data_gb", 12, 0.9),
            ("call_minutes", 180, 0.8),
        )
    ),
    Fact("customer.discount_share", "double", _share(2, 6)),
    Fact("customer.open_rate", "double", _share(2, 4)),
    *(
        Fact(f"customer.{name}", "int", _count(mean))
        for name, mean in (
            ("tenure_months", 40),
            ("products", 4),
            ("visits_30d", 9),
            ("orders_365d", 14),
            ("complaints_365d", 3),
            ("days_since_visit", 21),
        )
    ),
    Fact("customer.age", "int", lambda rng, n: np.clip(rng.normal(44, 15, n), 18, 95).astype(int)),
    _text("customer.plan", "basic", "plus", "max", "family"),
    _text("customer.segment", "value", "core", "premium", "dormant"),
    _text("customer.region", "north", "west", "south", "east"),
    _text("customer.language", "de", "en", "fr", "it"),
    _text("customer.device", "phone", "tablet", "desktop", "tv"),
    _text("customer.acquired_by", "search", "shop", "friend", "advert"),
    Fact("customer.opted_in", "bool", _chance(0.72)),
    Fact("customer.paperless", "bool", _chance(0.66)),
    Fact("customer.open_complaint", "bool", _chance(0.27)),
    Fact("customer.in_arrears", "bool", _chance(0.3)),
    Fact("customer.contract_end", "timestamp", _days(-30, 720)),
    Fact("customer.joined", "timestamp", _days(-3_000, -10)),
    Fact("customer.last_order", "timestamp", _days(-365, 0)),
    Fact("scores.clv", "double", _money(600, 0.6)),
    Fact("scores.churn", "double", _share(2, 5)),
    Fact("scores.upsell", "double", _share(2, 3)),
    Fact("scores.credit", "double", _share(5, 2)),
    _text("context.page", "home", "account", "offers", "basket"),
    _text("context.referrer", "direct", "search", "mail", "partner"),
    Fact("context.hour", "int", lambda rng, n: rng.integers(0, 24, n)),
    Fact("context.session_minutes", "double", _money(4, 0.9)),
)
BY_NAME = {fact.name: fact for fact in FACTS}


def columns(n: int, seed: int) -> dict[str, np.ndarray]:
    """Each fact of n customers, as it is drawn: arrays (n,)."""
    rng = np.random.default_rng(seed)
    return {fact.name: fact.draw(rng, n) for fact in FACTS}


@dataclass(frozen=True, slots=True)
class Customer:
    """One customer in one situation. `facts`: all that is known, by dotted name, context values included."""

    id: str
    facts: Mapping[str, Value]
    consents: Mapping[str, str]

    def profile(self) -> dict[str, Any]:
        """The line of an import."""
        return {
            "customer_id": self.id,
            "attributes": self._of("customer."),
            "scores": self._of("scores."),
            "consents": dict(self.consents),
        }

    def context(self) -> dict[str, Any]:
        """What a request says of the situation."""
        return self._of("context.")

    def _of(self, prefix: str) -> dict[str, Any]:
        return {
            name.removeprefix(prefix): rfc3339(value) if isinstance(value, datetime) else value
            for name, value in self.facts.items()
            if name.startswith(prefix)
        }


def customers(n: int, seed: int = 1, now: datetime = NOW) -> list[Customer]:
    """n customers, `c1-0` onwards (1 being the seed); `now`: from which their timestamps are counted."""
    drawn = columns(n, seed)
    rng = np.random.default_rng([seed, 1])
    known = rng.random((n, len(FACTS))) >= MISSING
    agrees = rng.random(n) >= OBJECTING
    plain = [_plain(fact, drawn[fact.name], now) for fact in FACTS]
    names = [fact.name for fact in FACTS]
    return [
        Customer(
            f"c{seed}-{number}",
            {name: value for name, value, there in zip(names, row, which, strict=True) if there},
            {"marketing": "given" if agreed else "withdrawn"},
        )
        for number, (row, which, agreed) in enumerate(
            zip(zip(*plain, strict=True), known.tolist(), agrees.tolist(), strict=True)
        )
    ]


def _plain(fact: Fact, drawn: np.ndarray, now: datetime) -> list[Any]:
    if fact.type == "string":
        return [fact.values[each] for each in drawn]
    if fact.type == "timestamp":
        return [now + timedelta(seconds=round(each * 86_400)) for each in drawn.tolist()]
    return drawn.tolist()
