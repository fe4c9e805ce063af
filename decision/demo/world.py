"""A SIMULATED telecom operator: its customers, their visits, and the hidden truth of what they accept.

No row describes a real person. It belongs to the catalog in `examples/telco` and gives the demo, the
tests and the benchmarks something to learn whose answer is known.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from decision.demo.tastes import SIGNALS, TASTES

_NAMES = ["Alex", "Robin", "Sam", "Kim", "Noa", "Charlie", "Sacha", "Luca", "Mika", "Toni", "Andrea", "Jules"]
_AGES = ["18-29", "30-44", "45-64", "65+"]
_REGIONS = ["north", "east", "south", "west", "capital"]
_INTERESTS = ["sport", "series", "music", "gaming", "travel"]
_ALLOWANCE_GB = {"Basic": 10.0, "Plus": 30.0, "Family": 60.0, "Max": 100.0}
_PRICE = {"Basic": 16.0, "Plus": 27.0, "Family": 48.0, "Max": 39.0}
_SOMETIMES_UNKNOWN = {
    "nps": 0.06, "contract_end": 0.04, "household_size": 0.1, "device_age_months": 0.05,
    "age_band": 0.05, "interests": 0.15, "roaming_days": 0.03, "first_name": 0.02, "upsell": 0.04,
}  # fmt: skip
_SUFFIX = re.compile(r"_(agent|hero|side|mail)(_[a-z])?$")
_INTENTS = ["information", "billing", "upgrade", "technical", "cancel", "moving"]
_PAGES = ["home", "plans", "devices", "support", "account", "cancel"]
_CAMPAIGNS = ["newsletter", "winter_sale", "service_update", "contract_review"]


def simulate_customers(count: int, seed: int, now: datetime) -> Iterator[dict[str, Any]]:
    """`count` simulated customers as the API takes them: JSON-ready, times in UTC ending in Z.

    The same seed and `now` give the same customers, and a greater count the same first ones. What is
    not known of a customer is an absent key.
    """
    rng = np.random.default_rng(seed)
    for number in range(1, count + 1):
        yield _customer(rng, f"sim-{number:06d}", now)


def facts_of(customer: Mapping[str, Any]) -> dict[str, object]:
    """The customer's attributes and scores in one flat mapping, as `Truth` reads them."""
    return {**customer["attributes"], **customer["scores"]}


class Truth:
    """The hidden probability of a positive answer, which no part of the product may look at.

    Mostly linear in the features that the catalog declares, so that a linear model can learn it, with
    products of two signals and the household's size beside, so that it never learns all of it.
    """

    def __init__(self, seed: int, now: datetime) -> None:
        self._seed, self._now = seed, now
        self._arms: dict[str, tuple[float, np.ndarray[Any, Any], np.ndarray[Any, Any]]] = {}

    def acceptance(self, treatment: str, facts: Mapping[str, object], context: Mapping[str, object]) -> float:
        """P(positive | treatment, customer, context), in 0.01..0.9. `facts` is as `facts_of` gives it."""
        base, linear, pairs = self._arms.get(treatment) or self._arm(treatment)
        x = np.array(_signals(facts, context, self._now))
        return max(0.01, min(0.9, float(base + linear @ x + x @ pairs @ x)))

    def _arm(self, treatment: str) -> tuple[float, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        action = _SUFFIX.sub("", treatment)
        rng = np.random.default_rng([self._seed, zlib.crc32(action.encode())])
        tastes = TASTES.get(action) or {"base": 0.08, **dict.fromkeys(rng.choice(SIGNALS, 3).tolist(), 0.08)}
        linear = np.array([tastes.get(signal, 0.0) for signal in SIGNALS])
        pairs = np.zeros((len(SIGNALS), len(SIGNALS)))
        for _ in range(2):
            i, j = rng.choice(len(SIGNALS), size=2, replace=False)
            pairs[i, j] = rng.normal(0.0, 0.04)
        # One presentation does better than another, and with other people.
        rng = np.random.default_rng([self._seed, zlib.crc32(treatment.encode())])
        base = tastes["base"] + rng.normal(0.0, 0.02)
        self._arms[treatment] = (float(base), linear + rng.normal(0.0, 0.022, len(SIGNALS)), pairs)
        return self._arms[treatment]


def visit(rng: np.random.Generator) -> tuple[str, tuple[str, ...], dict[str, Any]]:
    """A random occasion to decide: (channel, placements, context), valid for the telco catalog."""
    channel = _pick(rng, ["agent_desktop", "web", "email"], [0.35, 0.45, 0.2])
    if channel == "agent_desktop":
        intent = _pick(rng, _INTENTS, [0.25, 0.25, 0.15, 0.2, 0.1, 0.05])
        return channel, ("agent_panel",), {"intent": intent, "waited_minutes": int(rng.exponential(4.0))}
    if channel == "web":
        page = _pick(rng, _PAGES, [0.35, 0.2, 0.15, 0.1, 0.15, 0.05])
        device = _pick(rng, ["mobile", "desktop", "tablet"], [0.6, 0.3, 0.1])
        placements = ("hero", "sidebar") if page in ("home", "plans", "devices") else ("sidebar",)
        return channel, placements, {"page": page, "device": device}
    return channel, ("email_block",), {"campaign": _pick(rng, _CAMPAIGNS, [0.4, 0.25, 0.2, 0.15])}


def _customer(rng: np.random.Generator, customer_id: str, now: datetime) -> dict[str, Any]:
    content, wealth = rng.normal(size=2)  # two latent traits, from which the rest follows
    age = _pick(rng, _AGES, [0.22, 0.28, 0.32, 0.18])
    young, senior = age == "18-29", age == "65+"
    household = 1 + int(rng.binomial(4, 0.15 if senior else 0.3 if young else 0.42))
    plan = _plan(rng, household, wealth)
    resolved = int(rng.exponential(42.0)) if rng.random() < 0.6 else None
    hurt = resolved is not None and resolved <= 45
    days_left = _days_left(rng)
    usage = _ALLOWANCE_GB[plan] * float(rng.beta(2.2, 1.6)) * (1.25 if young else 0.7 if senior else 1.0)
    spend = _PRICE[plan] * float(np.exp(rng.normal(0.25 + 0.15 * wealth, 0.2)))
    ending = float(0 <= days_left < 90)
    churn = _sigmoid(-1.5 - 0.6 * content + 0.8 * ending + 0.7 * hurt + rng.normal(0.0, 0.4))
    upsell = _sigmoid(-1.1 + 0.5 * wealth + 0.3 * content + 0.5 * young + rng.normal(0.0, 0.5))
    risk = _sigmoid(-2.6 - 0.7 * wealth + 0.5 * young + rng.normal(0.0, 0.5))
    has_fibre = bool(rng.random() < 0.35 + 0.05 * wealth)
    attributes: dict[str, Any] = {
        "first_name": _pick(rng, _NAMES),
        "email": f"{customer_id}@example.com",
        "age_band": age,
        "household_size": household,
        "region": _pick(rng, _REGIONS),
        "language": _pick(rng, ["en", "fr", "de", "es"], [0.85, 0.05, 0.05, 0.05]),
        "interests": [interest for interest in _INTERESTS if rng.random() < 0.35],
        "plan": plan,
        "tenure_months": min(600, int(rng.gamma(2.0, 14.0 if young else 30.0))),
        "monthly_spend": round(spend, 2),
        "contract_end": (now + timedelta(days=days_left)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "has_fibre": has_fibre,
        "fibre_available": has_fibre or bool(rng.random() < 0.6),
        "device_age_months": int(rng.gamma(2.5, 7.0 if young else 10.0)),
        "payment_method": _pick(rng, ["direct_debit", "card", "invoice"], [0.6, 0.25, 0.15]),
        "late_payments": min(12, int(rng.poisson(4.0 * risk))),
        "app_user": bool(rng.random() < (0.8 if young else 0.3 if senior else 0.6)),
        "data_usage_gb": round(usage, 1),
        "data_allowance_gb": _ALLOWANCE_GB[plan],
        "roaming_days": min(366, int(rng.gamma(0.8, 8.0 * float(np.exp(0.3 * wealth))))),
        "outage_now": bool(rng.random() < 0.015),
        "nps": int(np.clip(round(7.9 + 1.7 * content - 2.8 * hurt + rng.normal(0.0, 1.0)), 0, 10)),
        "open_complaint": bool(rng.random() < (0.06 if content < 0 else 0.02)),
    }
    if resolved is not None:
        attributes["complaint_resolved_days"] = resolved
    scores = {
        "clv": round(min(5000.0, spend * 36 * 0.65 * (1 - churn) * float(np.exp(rng.normal(0.0, 0.2)))), 2),
        "churn": round(churn, 4),
        "upsell": round(upsell, 4),
        "credit_risk": round(risk, 4),
    }
    for name, share in _SOMETIMES_UNKNOWN.items():
        if rng.random() < share:
            (scores if name in scores else attributes).pop(name)
    digest = hashlib.sha256(attributes["email"].encode()).hexdigest()
    return {
        "customer_id": customer_id,
        "attributes": attributes,
        "scores": scores,
        "consents": {"marketing_email": "given" if rng.random() < 0.72 else "withdrawn"},
        "identities": [{"type": "email_sha256", "value": digest}],
    }


def _plan(rng: np.random.Generator, household: int, wealth: float) -> str:
    if household >= 3 and rng.random() < 0.4:
        return "Family"
    rank = wealth + rng.normal()
    return "Basic" if rank < -0.6 else "Plus" if rank < 0.9 else "Max"


def _days_left(rng: np.random.Generator) -> float:
    """Days until the contract ends; many are about to end, some ended and run on by the month."""
    kind = rng.random()
    if kind < 0.12:
        return -float(rng.uniform(1.0, 700.0))
    return float(rng.uniform(2.0, 90.0) if kind < 0.38 else rng.uniform(90.0, 720.0))


def _signals(facts: Mapping[str, object], context: Mapping[str, object], now: datetime) -> list[float]:
    """One number per name in `SIGNALS`, about -2..2; what is missing counts as average."""

    def scaled(name: str, center: float, scale: float) -> float:
        value = facts.get(name)
        return max(-2.0, min(2.0, (value - center) / scale)) if isinstance(value, int | float) else 0.0

    end, nps, age = facts.get("contract_end"), facts.get("nps"), facts.get("age_band")
    left = (datetime.fromisoformat(end) - now).total_seconds() / 86400 if isinstance(end, str) else 180.0
    return [
        scaled("churn", 0.3, 0.2), scaled("upsell", 0.3, 0.2), scaled("data_usage_gb", 20, 15),
        scaled("device_age_months", 20, 12), scaled("roaming_days", 6, 8),
        max(-1.0, min(1.0, (180.0 - left) / 180.0)),
        float(isinstance(nps, int) and nps < 7), float(isinstance(nps, int) and nps >= 9),
        float(age == "18-29"), float(age == "65+"), scaled("household_size", 2.2, 1.2),
        *(float(context.get("intent") == intent) for intent in ("cancel", "billing", "upgrade")),
        *(float(context.get("page") == page) for page in ("plans", "devices")),
    ]  # fmt: skip


def _pick(rng: np.random.Generator, options: list[str], shares: list[float] | None = None) -> str:
    return options[int(rng.choice(len(options), p=shares))]


def _sigmoid(x: float) -> float:
    return float(1.0 / (1.0 + np.exp(-x)))


def main() -> None:
    """Writes simulated customers as NDJSON, one a line."""
    parser = argparse.ArgumentParser(prog="decision.demo.world", description=main.__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--now", type=datetime.fromisoformat, default=datetime.now(UTC), help="RFC 3339")
    parser.add_argument("--out", type=Path, default=Path("customers.ndjson"))
    options = parser.parse_args()
    with options.out.open("w", encoding="utf-8") as file:
        for customer in simulate_customers(options.count, options.seed, options.now):
            file.write(json.dumps(customer) + "\n")


if __name__ == "__main__":
    main()
