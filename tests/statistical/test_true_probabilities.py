"""Logged probabilities are true: what is stated of each slot is how often each arm is picked there.

The real engine, on a catalog with rules, consent, tiers, values, levers, a context weight and at most one
item per group, on a fixed posterior, for every strategy: 2,000 whole decisions, and 7,000 draws (with
`-m long` 200,000) of a slate of 3 where only the slots are filled anew, since rules and scores cannot differ
between them. In the latter the strategy's answer to equal questions is remembered; that this changes nothing
is tested too.

There are fewer than 100 comparisons, each at level 1e-8: false-alarm rate below 1e-6 for the file.
Decision ids are fixed, and all randomness comes from them, so it cannot flake.
"""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import chi2, norm

from arbitration import CompiledCatalog, Decision, Inputs, Snapshot, compile_document, decide, serve
from arbitration.catalog.learning import Policy
from arbitration.decide import Field, Slate, Slot, _draw, _fill
from arbitration.policy.state import State
from arbitration.policy.strategies import selection_probabilities
from arbitration.snapshot import fingerprint

Floats = npt.NDArray[np.float64]

engine = importlib.import_module("arbitration.decide")  # the package has a function of this name

LEVEL = 1e-8
DRAWS = 200_000
FEWER_DRAWS = 7_000
WHOLE = 2_000
NOW = datetime(2026, 3, 1, tzinfo=UTC)
FACTS = {"customer.nps": 4, "customer.complaint": False, "scores.clv": 500.0, "context.intent": "cancel"}
STRATEGIES: dict[str, dict[str, Any]] = {
    "thompson": {"alpha": 1.0},
    "epsilon_greedy": {"epsilon": 0.2},
    "softmax": {"temperature": 0.4},
    "squarecb": {"gamma": 5.0},
    "ucb": {"alpha": 1.0, "floor": 0.2},
}
ARMS = {  # treatment: weight = context weight × value × lever, and tier, of those that may be shown
    "renew_a": (2 * 60.0 * 1.0, 0),
    "renew_b": (2 * 60.0 * 1.0, 0),
    "save": (2 * 500.0 * 0.1 * 0.8, 0),
    "upsell": (70.0 * 1.5, 0),
    "addon": (90.0, 0),
    "checkup": (1.0, 1),
    "survey": (0.5, 1),
    "tips": (0.8, 1),
}
GROUPS = {"renew_a": "retention", "renew_b": "retention", "save": "retention", "upsell": "sales"}
GROUPS |= {"addon": "sales", "checkup": "service", "survey": "service", "tips": "loyalty"}
REMOVED = {"grow", "never", "partner_offer", "worthless"}  # by two rules, by consent, by having no value
# (clicks, events) by which the posterior was learned; an arm left out has its prior.
LEARNED = {
    "renew_a": (12, 60),
    "renew_b": (30, 120),
    "save": (60, 200),
    "upsell": (30, 150),
    "checkup": (8, 40),
    "survey": (14, 30),
    "grow": (90, 100),
    "partner_offer": (99, 100),
}


def _action(name: str, group: str, *treatments: str, **more: Any) -> dict[str, Any]:
    shown = [
        {"id": t, "channel": "agent", "placement": "panel", "content": {"headline": t}}
        for t in treatments or (name,)
    ]
    return {"id": name, "group": group, "treatments": shown, **more}


@cache
def catalog(strategy: str) -> CompiledCatalog:
    return compile_document(
        {
            "attributes": [{"id": "nps", "type": "int"}, {"id": "complaint", "type": "bool"}],
            "scores": [{"id": "clv"}, {"id": "growth"}],
            "context": [{"id": "intent", "type": "string"}],
            "purposes": [{"id": "partners"}],
            "groups": [
                {"id": "retention"},
                {"id": "sales"},
                {"id": "partner", "consent": "partners"},
                {"id": "service", "tier": 1},
                {"id": "loyalty", "tier": 1},
            ],
            "channels": [
                {
                    "id": "agent",
                    "direction": "inbound",
                    "rewards": {"accepted": 1.0, "no_response": 0.0},
                    "response_window": "1d",
                }
            ],
            "placements": [
                {
                    "id": "panel",
                    "channel": "agent",
                    "slots": 3,
                    "max_per_group": 1,
                    "content": [{"id": "headline"}],
                }
            ],
            "features": [{"id": "nps", "kind": "numeric", "source": "customer.nps", "scale": 10}],
            "policies": [{"id": "tested", "strategy": strategy, **STRATEGIES[strategy]}],
            "context_weights": [
                {"id": "leaving", "when": "context.intent == 'cancel'", "weight": 2, "group": "retention"},
                {"id": "staying", "when": "context.intent == 'browse'", "weight": 9, "group": "sales"},
            ],
            "actions": [
                _action("renew", "retention", "renew_a", "renew_b", value=60.0),
                _action("save", "retention", value="scores.clv * 0.1", lever=0.8),
                _action("grow", "sales", value=900.0, eligibility=["customer.nps >= 9"]),
                _action("upsell", "sales", value=70.0, lever=1.5, applicability=["customer.nps < 9"]),
                _action("addon", "sales", value=90.0, suitability=["!customer.complaint"]),
                _action("never", "sales", value=900.0, eligibility=["scores.growth > 0.0"]),
                _action("partner_offer", "partner", value=900.0),
                _action("worthless", "sales", value="scores.growth"),
                _action("checkup", "service"),
                _action("survey", "service", value=0.5),
                _action("tips", "loyalty", value=0.8),
            ],
        }
    )


@cache
def snapshots(strategy: str) -> dict[str, Snapshot]:
    made = catalog(strategy)
    encoder = made.encoders["tested"]
    state = State(fingerprint(made, "tested"), encoder.size)
    for arm, (clicks, events) in LEARNED.items():
        x = np.array([encoder.encode({"customer.nps": n % 11}, NOW) for n in range(events)])
        state.add([arm] * events, x, np.arange(events) % events < clicks, np.ones(events))
    return {"tested": serve(made, "tested", state, "fixed")}


def decided(strategy: str, decision_id: str) -> Decision:
    inputs = Inputs(decision_id, NOW, "c-1", ("agent",), (("panel", 3),), FACTS, {"partners": "withdrawn"})
    return decide(inputs, catalog(strategy), snapshots(strategy))


@dataclass(frozen=True)
class Drawn:
    """All slates drawn with one strategy.

    `count`: how often each sequence of picks came. `stated`: after each sequence of picks above it, what
    was stated of the next slot: its pool and the probability of each arm in it.
    """

    names: tuple[str, ...]
    count: Counter[tuple[str, ...]] = field(default_factory=Counter)
    stated: dict[tuple[str, ...], Slot] = field(default_factory=dict)

    def record(self, slots: tuple[Slot, ...]) -> None:
        picks: tuple[str, ...] = ()
        for slot in slots:
            first = self.stated.setdefault(picks, slot)
            assert (slot.pool == first.pool).all()
            same = slot.probabilities is first.probabilities
            assert same or (slot.probabilities == first.probabilities).all()
            picks = (*picks, self.names[slot.pool[slot.picked]])
        self.count[picks] += 1

    @property
    def total(self) -> int:
        return self.count.total()

    def chances(self, above: tuple[str, ...]) -> dict[str, float]:
        slot = self.stated[above]
        return {self.names[arm]: float(p) for arm, p in zip(slot.pool, slot.probabilities, strict=True)}

    def picked(self, length: int) -> Counter[tuple[str, ...]]:
        """How often each sequence of the first `length` picks came."""
        found: Counter[tuple[str, ...]] = Counter()
        for picks, count in self.count.items():
            found[picks[:length]] += count
        return found


@cache
def whole(strategy: str) -> Drawn:
    """WHOLE decisions by the engine's front door."""
    drawn = Drawn(catalog(strategy).arm_ids)
    for number in range(WHOLE):
        drawn.record(decided(strategy, f"d-{number}").slates[0].slots)
    return drawn


def filled(decision_id: str, slate: Slate) -> tuple[Slot, ...]:
    """The slots of a slate filled for another decision; of its inputs only this much matters."""
    inputs: Any = SimpleNamespace(decision_id=decision_id, objects=False, controls={})
    believed = (slate.mean, slate.sd, slate.lever, slate.weight)
    field = Field(slate.candidates, slate.policy, slate.apprentice, 3, slate.screening, *believed)
    _fill(_draw, inputs, field, 0, set())
    return tuple(field.slots)


@cache
def many(strategy: str, draws: int) -> Drawn:
    """Slates of one decision, its slots filled anew for each id."""
    slate = decided(strategy, "d-0").slates[0]
    drawn = Drawn(catalog(strategy).arm_ids)
    known: dict[bytes, Floats] = {}

    def remembered(policy: Policy, mean: Floats, sd: Floats, weight: Floats) -> Floats:
        question = mean.tobytes() + sd.tobytes() + weight.tobytes()
        if question not in known:
            known[question] = selection_probabilities(policy, mean, sd, weight)
        return known[question]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "selection_probabilities", remembered)
        for number in range(draws):
            drawn.record(filled(f"d-{number}", slate))
    return drawn


def deviation(observed: float, chances: Floats) -> float:
    """(observed - expected) / standard deviation of a sum of independent or martingale draws."""
    spread = math.sqrt(float((chances * (1 - chances)).sum()))
    return (observed - float(chances.sum())) / spread if spread > 0 else observed - float(chances.sum())


def chi_square(observed: Mapping[Any, int], chance: Mapping[Any, float], total: int) -> float:
    """p-value of Pearson's test; cells with fewer than 10 expected are put together."""
    assert set(observed) <= set(chance), "something came that was said to be impossible"
    rare = [cell for cell in chance if chance[cell] * total < 10]
    cells = [(observed.get(cell, 0), chance[cell] * total) for cell in chance if cell not in rare]
    if sum(chance[cell] for cell in rare) * total >= 10:
        cells.append((sum(observed.get(c, 0) for c in rare), sum(chance[c] for c in rare) * total))
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    return float(chi2.sf(statistic, len(cells) - 1))


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _cases() -> Iterator[Any]:
    for strategy in STRATEGIES:
        yield pytest.param((strategy, FEWER_DRAWS), id=f"{strategy}-{FEWER_DRAWS}")
        yield pytest.param((strategy, DRAWS), id=f"{strategy}-{DRAWS}", marks=pytest.mark.long)


@pytest.fixture(params=_cases())
def drawn(request: pytest.FixtureRequest) -> Drawn:
    return many(*request.param)


def test_the_stage_is_set(strategy: str) -> None:
    """Who may be shown, with what weight and in which tier, worked out by hand."""
    slate = decided(strategy, "d-0").slates[0]
    names = catalog(strategy).arm_ids
    assert {n for n, alive in zip(names, slate.screening.alive, strict=True) if not alive} == REMOVED
    found = dict(zip(names, zip(slate.weight, slate.candidates.tier, strict=True), strict=True))
    assert {name: found[name] for name in ARMS} == ARMS


def test_only_the_eligible_arms_of_the_first_tier_have_any_probability(drawn: Drawn) -> None:
    for above in drawn.stated:
        groups = {GROUPS[name] for name in above}
        left = {name: tier for name, (_, tier) in ARMS.items() if GROUPS[name] not in groups}
        expected = {name for name, tier in left.items() if tier == min(left.values())}
        chances = drawn.chances(above)
        assert set(chances) == expected
        assert sum(chances.values()) == pytest.approx(1, abs=1e-12)
        assert min(chances.values()) > 0  # the floor
    assert len(drawn.stated) == 1 + 5 + (3 * 2 + 2 * 3)  # nothing, one pick, two picks of two groups
    assert not REMOVED & {name for picks in drawn.count for name in picks}


def test_filling_slots_is_all_that_a_decision_adds(strategy: str) -> None:
    """The first 2,000 of the many are those of whole decisions, and one by one."""
    drawn, reference = many(strategy, WHOLE), whole(strategy)
    assert drawn.count == reference.count
    assert set(drawn.stated) == set(reference.stated)
    for above, slot in reference.stated.items():
        assert (drawn.stated[above].pool == slot.pool).all()
        assert drawn.stated[above].probabilities.tobytes() == slot.probabilities.tobytes()
    for number in range(0, WHOLE, 20):
        decision = decided(strategy, f"d-{number}")
        slate = decision.slates[0]
        again = filled(f"d-{number}", slate)
        assert [slot.picked for slot in again] == [slot.picked for slot in slate.slots]


def test_a_decision_says_of_each_pick_what_its_slot_said(strategy: str) -> None:
    for number in range(0, WHOLE, 20):
        slate = decided(strategy, f"d-{number}").slates[0]
        assert [item.rank for item in slate.items] == [1, 2, 3]
        for item, slot in zip(slate.items, slate.slots, strict=True):
            assert item.arm is slate.candidates.arms[slot.pool[slot.picked]]
            assert item.selection_probability == pytest.approx(slot.probabilities[slot.picked], abs=1e-12)


def test_the_first_slot_is_drawn_as_stated(drawn: Drawn) -> None:
    _compare_first_slot(drawn)


def test_the_first_slot_of_whole_decisions_is_drawn_as_stated(strategy: str) -> None:
    _compare_first_slot(whole(strategy))


def _compare_first_slot(drawn: Drawn) -> None:
    observed = {picks[0]: count for picks, count in drawn.picked(1).items()}
    p_value = chi_square(observed, drawn.chances(()), drawn.total)
    print(f"p = {p_value:.3f}")
    assert p_value > LEVEL


def test_slates_come_as_often_as_the_product_of_what_was_stated(drawn: Drawn) -> None:
    """All three slots at once: a draw that knew of another slot's draw would show here."""
    chance = {
        (one, two, three): first * second * third
        for one, first in drawn.chances(()).items()
        for two, second in drawn.chances((one,)).items()
        for three, third in drawn.chances((one, two)).items()
    }
    assert sum(chance.values()) == pytest.approx(1, abs=1e-12)
    p_value = chi_square(drawn.count, chance, drawn.total)
    print(f"p = {p_value:.3f}")
    assert p_value > LEVEL


@pytest.mark.parametrize("slot", [1, 2, 3])
def test_each_arm_is_picked_as_often_as_stated_in_each_slot(drawn: Drawn, slot: int) -> None:
    """Over all draws, picks less stated probabilities are a martingale: its end is Normal."""
    limit = float(norm.isf(LEVEL / 2 / len(ARMS)))
    above = drawn.picked(slot - 1)
    for arm in ARMS:
        chances = [drawn.chances(picks).get(arm, 0.0) for picks in above]
        stated = np.repeat(chances, list(above.values()))
        observed = sum(count for picks, count in drawn.picked(slot).items() if picks[-1] == arm)
        assert abs(deviation(observed, stated)) < limit, arm
