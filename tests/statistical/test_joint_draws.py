"""Placements of one decision are drawn independently: picks come as often as the product of what was stated.

Whole decisions with two placements of two slots each, by the engine's front door. One action may be shown
in either placement, so what the second states depends on what the first picked; beyond that, no pick may
know of another. A generator that gave two placements the same numbers would have every single slot right
and be caught only here.

Two comparisons, each at level 1e-8: false-alarm rate 2e-8 for the file. Decision ids are fixed, and all
randomness comes from them, so it cannot flake.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from arbitration import Inputs, compile_document, decide, serve
from arbitration.policy.state import State
from arbitration.snapshot import fingerprint

LEVEL = 1e-8
DECISIONS = 8_000
NOW = datetime(2026, 3, 1, tzinfo=UTC)
PLACEMENTS = (("left", 2), ("right", 2))
POLICY = {"id": "tested", "strategy": "softmax", "temperature": 0.8, "features": []}
# Arm: of 100 events, how many were answered. `either` is one action, shown at most once in a decision.
CLICKS = {"l1": 30, "l2": 20, "either_l": 25, "r1": 15, "r2": 35, "either_r": 30}

Picks = tuple[str, ...]


def _action(name: str, *shown: tuple[str, str]) -> dict[str, Any]:
    treatments = [
        {"id": arm, "channel": "web", "placement": placement, "content": {"title": arm}}
        for arm, placement in shown
    ]
    return {"id": name, "group": "all", "treatments": treatments}


def _document() -> dict[str, Any]:
    rewards = {"click": 1.0, "no_response": 0.0}
    channel = {"id": "web", "direction": "inbound", "rewards": rewards, "response_window": "1h"}
    return {
        "groups": [{"id": "all"}],
        "channels": [channel],
        "placements": [
            {"id": name, "channel": "web", "slots": slots, "content": [{"id": "title"}]}
            for name, slots in PLACEMENTS
        ],
        "policies": [POLICY],
        "actions": [
            _action("l1", ("l1", "left")),
            _action("l2", ("l2", "left")),
            _action("r1", ("r1", "right")),
            _action("r2", ("r2", "right")),
            _action("either", ("either_l", "left"), ("either_r", "right")),
        ],
    }


@cache
def drawn() -> tuple[Counter[Picks], dict[Picks, dict[str, float]]]:
    """How often each sequence of picks came, and what was stated of the next slot after each sequence."""
    catalog = compile_document(_document())
    state = State(fingerprint(catalog, "tested"), 1)
    for arm, clicks in CLICKS.items():
        state.add([arm] * 100, np.ones((100, 1)), (np.arange(100) < clicks).astype(float), np.ones(100))
    snapshots = {"tested": serve(catalog, "tested", state, "fixed")}
    count: Counter[Picks] = Counter()
    stated: dict[Picks, dict[str, float]] = {}
    for number in range(DECISIONS):
        made = decide(Inputs(f"d-{number}", NOW, "c-1", ("web",), PLACEMENTS), catalog, snapshots)
        picks: Picks = ()
        for slate in made.slates:
            names = [arm.treatment.id for arm in slate.candidates.arms]
            for slot in slate.slots:
                chances = dict(
                    zip((names[arm] for arm in slot.pool), slot.probabilities.tolist(), strict=True)
                )
                assert stated.setdefault(picks, chances) == chances
                picks = (*picks, names[slot.pool[slot.picked]])
        count[picks] += 1
    return count, stated


def product(stated: Mapping[Picks, Mapping[str, float]]) -> dict[Picks, float]:
    """The probability of each full sequence of picks: of each slot given those above it, multiplied. What
    never came is not followed further: it is a cell of its own, in which nothing was seen."""
    chance: dict[Picks, float] = {(): 1.0}
    for _ in range(sum(slots for _, slots in PLACEMENTS)):
        chance = {
            (*above, *arm): so_far * p
            for above, so_far in chance.items()
            for arm, p in (
                [((name,), p) for name, p in stated[above].items()] if above in stated else [((), 1.0)]
            )
        }
    return chance


def chi_square(observed: Mapping[Any, int], chance: Mapping[Any, float]) -> float:
    """p-value of Pearson's test, in cells that all expect enough."""
    assert set(observed) <= set(chance), "something came that was said to be impossible"
    expected = np.array(list(chance.values())) * DECISIONS
    assert expected.min() > 10
    seen = np.array([observed.get(cell, 0) for cell in chance])
    return float(chi2.sf(((seen - expected) ** 2 / expected).sum(), len(chance) - 1))


def test_all_slots_of_both_placements_come_as_the_product_of_what_was_stated() -> None:
    count, stated = drawn()
    chance = product(stated)
    p_value = chi_square(count, chance)
    print(f"p = {p_value:.3f}")
    assert p_value > LEVEL
    # Left: 3 × 2 ways. Right: 3 × 2 where the left did not show `either` (2 ways), else 2 × 1 (4 ways).
    assert len(chance) == 2 * 6 + 4 * 2
    assert sum(chance.values()) == pytest.approx(1, abs=1e-12)


def test_the_first_picks_of_both_placements_come_as_the_product_of_what_was_stated() -> None:
    """First slots only: few cells, so the test is at its most powerful where the generators would meet."""
    count, stated = drawn()
    seen: Counter[Picks] = Counter()
    chance: dict[Picks, float] = {}
    for picks, times in count.items():
        seen[picks[::2]] += times
    for picks, p in product(stated).items():
        chance[picks[::2]] = chance.get(picks[::2], 0.0) + p
    p_value = chi_square(seen, chance)
    print(f"p = {p_value:.3f}")
    assert p_value > LEVEL
