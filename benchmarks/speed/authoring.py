"""The catalog that all is measured with, written as a team would write it.

One inbound channel with one placement of three slots; an action has one treatment, so there are as many
candidate arms as actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import numpy as np

from benchmarks.speed.clauses import Clause, pick, pool
from benchmarks.speed.population import FACTS, columns

CHANNEL, PLACEMENT, POLICY = "web", "hero", "default"
SLOTS, GROUPS = 3, 10
Width = Literal["features", "columns"]
"""`features`: 32 features of all kinds, the one-hot columns of which make x four times as long; `columns`:
just as many features as make x 32 columns long."""

_FORMULAS = (
    "scores.clv * 0.12",
    "scores.clv * 0.05 + 20.0",
    "scores.upsell * 150.0",
    "customer.spend_365d * 0.15",
    "customer.spend_90d * 0.4",
    "customer.basket * 1.5",
    "(1.0 - scores.churn) * 90.0",
    "scores.churn * scores.clv * 0.3",
    "customer.balance * 0.04 + 15.0",
    "scores.credit * 110.0",
)


def catalog(
    arms: int, width: Width = "features"
) -> tuple[dict[str, Any], tuple[tuple[Clause, Clause, Clause], ...]]:
    """A catalog document, and the clauses of its actions."""
    rng = np.random.default_rng([2, arms])
    clauses = pool()
    taken = [pick(rng, clauses, 3) for _ in range(arms)]
    actions = [_action(rng, number, three) for number, three in enumerate(taken)]
    groups = [
        {"id": f"g{number}"} | ({"consent": "marketing"} if number < 3 else {}) for number in range(GROUPS)
    ]
    document = {
        "attributes": [_declared(fact) for fact in FACTS if fact.name.startswith("customer.")],
        "scores": [{"id": f.name[7:]} for f in FACTS if f.name.startswith("scores.")],
        "context": [_declared(fact) for fact in FACTS if fact.name.startswith("context.")],
        "purposes": [{"id": "marketing"}],
        "groups": groups,
        "channels": [
            {
                "id": CHANNEL,
                "direction": "inbound",
                "rewards": {"click": 0.2, "accepted": 1.0},
                "response_window": "1d",
            }
        ],
        "placements": [
            {
                "id": PLACEMENT,
                "channel": CHANNEL,
                "slots": SLOTS,
                "content": [{"id": "title"}, {"id": "text"}],
            }
        ],
        "features": _features() if width == "features" else _columns(),
        "policies": [{"id": POLICY, "strategy": "thompson", "alpha": 1.0}],
        "context_weights": [
            {"id": "offers_page", "when": 'context.page == "offers"', "group": "g1", "weight": 1.4},
            {"id": "evening", "when": "context.hour >= 18", "group": "g4", "weight": 1.2},
            {"id": "leaving", "when": "scores.churn > 0.5", "group": "g7", "weight": 1.8},
        ],
        "contact_policies": [
            {"id": "same_action", "per": "action", "gap": "7d"},
            {"id": "same_group", "per": "group", "at_most": 3, "within": "7d"},
            {"id": "on_the_web", "per": "channel", "at_most": 100, "within": "1d"},
        ],
        "actions": actions,
    }
    return document, tuple((a, b, c) for a, b, c in taken)


def _action(rng: np.random.Generator, number: int, clauses: Sequence[Clause]) -> dict[str, Any]:
    value: float | str = round(float(np.clip(63 * np.exp(rng.normal(0, 0.6)), 20, 200)), 2)
    if rng.random() < 0.15:
        value = str(rng.choice(_FORMULAS))
    return {
        "id": f"a{number}",
        "group": f"g{rng.integers(GROUPS)}",
        "value": value,
        "lever": 1.0 if rng.random() < 0.9 else round(float(rng.uniform(1.1, 1.5)), 2),
        "eligibility": [clauses[0].cel],
        "applicability": [clauses[1].cel],
        "suitability": [clauses[2].cel],
        "treatments": [
            {
                "id": f"t{number}",
                "channel": CHANNEL,
                "placement": PLACEMENT,
                "content": {
                    "title": f"Offer {number}",
                    "text": f"More of it with {{{{ customer.plan | default: 'your plan' }}}}: offer {number}",
                },
            }
        ],
    }


def _declared(fact: Any) -> dict[str, Any]:
    declared = {"id": fact.name.split(".")[1], "type": fact.type}
    return declared | ({"values": list(fact.values)} if fact.values else {})


def _features() -> list[dict[str, Any]]:
    """12 numbers, 10 of four values, 8 in five ranges, and 2 crosses of two each."""
    sample, numbers = _numbers()
    texts = [fact for fact in FACTS if fact.type == "string"]
    bools = [fact.name for fact in FACTS if fact.type == "bool"]
    found = [_number(f"n{n}", name, sample[name]) for n, name in enumerate(numbers[:12])]
    found += [
        {"kind": "categorical", "id": f"c{n}", "source": fact.name, "values": list(fact.values)}
        for n, fact in enumerate(texts)
    ]
    found += [
        {"kind": "categorical", "id": f"b{n}", "source": name, "values": ["true", "false"]}
        for n, name in enumerate(bools[:2])
    ]
    for n, name in enumerate(numbers[12:20]):
        edges = sorted({float(f"{np.quantile(sample[name], q):.3g}") for q in (0.2, 0.4, 0.6, 0.8)})
        found.append({"kind": "bucketised", "id": f"r{n}", "source": name, "edges": edges})
    found.append({"kind": "cross", "id": "x0", "of": ["b0", "b1"]})
    found.append({"kind": "cross", "id": "x1", "of": ["n0", "b0"]})
    return found


def _columns() -> list[dict[str, Any]]:
    """13 numbers of two columns each and one of four values: with the bias, x of 32 columns."""
    sample, numbers = _numbers()
    found = [_number(f"n{n}", name, sample[name]) for n, name in enumerate(numbers[:13])]
    found.append(
        {
            "kind": "categorical",
            "id": "c0",
            "source": "customer.plan",
            "values": ["basic", "plus", "max", "family"],
        }
    )
    return found


@cache
def _numbers() -> tuple[dict[str, np.ndarray], list[str]]:
    """A sample of all facts, and the names of those that are numbers."""
    return columns(20_000, 98), [fact.name for fact in FACTS if fact.type in ("int", "double")]


def _number(id: str, name: str, drawn: np.ndarray) -> dict[str, Any]:
    middle, spread = float(np.median(drawn)), float(np.std(drawn))
    return {
        "kind": "numeric",
        "id": id,
        "source": name,
        "center": round(middle, 2),
        "scale": round(spread, 2),
        "clip": 3.0,
    }
