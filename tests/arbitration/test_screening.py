"""Screening is each stage applied to each arm alone, whatever way is taken to work it out together."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from support import NOW, catalog_document

from arbitration import CompiledCatalog, Inputs, compile_document
from arbitration.catalog.compile import Candidates
from arbitration.catalog.scalars import LARGEST
from arbitration.facts import personal
from arbitration.rules import Case, Truth
from arbitration.screening import STAGES, Stage, screen

UNTIL = "2026-03-02T07:00:00Z"
RULES = (
    "customer.nps <= 6", "customer.nps > 7", "customer.nps in [1, 3, 9]", 'customer.plan == "Basic"',
    'customer.plan in ["Plus", "Max"] || customer.nps < 3', "!customer.open_complaint", "has(customer.spend)",
    "!has(customer.nps)", 'customer.contract_end - now < duration("2160h")', "scores.clv > 400.0",
    "scores.clv * scores.churn > 100.0", '"sport" in customer.interests', 'customer.plan.startsWith("B")',
    "100 / customer.nps > 20", 'context.intent == "cancel"', 'has(context.intent) ? customer.nps < 9 : true',
    'now < timestamp("2026-06-01T00:00:00Z")', 'customer.nps < 8 && customer.plan.endsWith("c")', "true",
)  # fmt: skip
VALUES: tuple[float | str, ...] = (
    5.0, 70.0, "scores.clv * 0.12", "scores.clv * scores.churn + 5.0", "1.0 / scores.churn",
    "customer.nps * 10",
    "100.0 - scores.clv / 2.0", "-(scores.churn) + 1.0", "double(customer.nps) * 2.5",
    'customer.plan == "Basic" ? 3.0 : 30.0', "scores.clv * 1e300 * 1e300",
    "scores.clv * 1e290", "1.0 / (1.0 / scores.churn)",
)  # fmt: skip
WEIGHTS = (
    ('context.intent == "cancel"', {"group": "retention"}), ("customer.nps < 5", {}),
    ("scores.churn > 0.3", {}),
    ('customer.plan.startsWith("B")', {"group": "sales"}), ("customer.nps < 8", {"action": "a3"}),
)  # fmt: skip
POLICIES: list[dict[str, Any]] = [
    {"id": "all", "gap": "1d"}, {"id": "by_channel", "gap": "1d", "per": "channel"},
    {"id": "by_group", "gap": "1d", "per": "group"}, {"id": "by_treatment", "gap": "1d", "per": "treatment"},
    {"id": "by_action", "gap": "1d", "per": "action", "of": {"groups": ["sales", "service"]}},
]  # fmt: skip
GROUPS = ("retention", "sales", "service")


def document(dice: random.Random, actions: int = 12) -> dict[str, Any]:
    """A catalog with some of everything; of all stages, some arms fail each."""
    found = catalog_document()
    found["contact_policies"] = POLICIES
    found["control_groups"] = [
        {"id": "nothing", "share": 0.1, "behaviour": "no_action", "groups": ["sales"]},
        {"id": "level", "share": 0.1, "behaviour": "no_levers"},
    ]
    found["context_weights"] = [
        {"id": f"w{n}", "when": when, "weight": round(dice.uniform(0.5, 3), 3), **of}
        for n, (when, of) in enumerate(WEIGHTS)
    ]
    found["actions"] = [_action(dice, number) for number in range(actions)]
    return found


def _action(dice: random.Random, number: int) -> dict[str, Any]:
    places = [("agent", "panel", {"headline": "x"}), ("web", "side", {"title": "x"})]
    action = {
        "id": f"a{number}",
        "group": dice.choice(GROUPS),
        "value": dice.choice(VALUES),
        "treatments": [
            {"id": f"a{number}_{n}", "channel": channel, "placement": placement, "content": content}
            | ({"cost": dice.choice([1.0, 0.25])} if dice.random() < 0.4 else {})
            for n, (channel, placement, content) in enumerate(places)
        ],
    }
    for stage in ("eligibility", "applicability", "suitability"):
        action[stage] = dice.sample(RULES, dice.choice([0, 0, 1, 1, 2]))
    if dice.random() < 0.3:
        action["valid"] = (
            {"from": "2026-03-01", "to": "2026-04-01"} if dice.random() < 0.7 else {"to": "2026-01-01"}
        )
    if dice.random() < 0.3:
        action["budget"] = {"total": 500}
    if dice.random() < 0.3:
        action["exempt"] = dice.sample(["quiet_hours", "all", "by_group", "nothing"], 2)
    return action


def asked(dice: random.Random, document: dict[str, Any], placement: str = "panel") -> Inputs:
    """Inputs of a customer."""
    facts = {
        "customer.nps": dice.choice([0, 1, 3, 5, 7, 8, 9]),
        "customer.plan": dice.choice(["Basic", "Plus", "Max"]),
        "customer.open_complaint": dice.random() < 0.2, "customer.spend": 3.5,
        "customer.contract_end": NOW + timedelta(days=dice.choice([10, 89, 90, 91, 300])),
        "customer.interests": tuple(dice.sample(["sport", "music"], dice.choice([0, 1, 2]))),
        "scores.clv": dice.choice([0.0, 100.0, 480.0, 1e9]), "scores.churn": dice.choice([0.0, 0.5, 0.25]),
        "context.intent": dice.choice(["cancel", "browse"]),
    }  # fmt: skip
    actions = [action["id"] for action in document["actions"]]

    def some(values: list[Any], chance: float) -> list[Any]:
        return [value for value in values if dice.random() < chance]

    return Inputs(
        f"d{dice.random()}",
        NOW + timedelta(days=dice.choice([0, 0, 0, 60])),
        "c",
        ("agent" if placement == "panel" else "web",),
        ((placement, 2),),
        {name: value for name, value in facts.items() if dice.random() < 0.93},
        consents={"marketing": "given"},
        objects=dice.random() < 0.15,
        stops=tuple(("action", each) for each in some(actions, 0.1))
        + tuple(("group", each) for each in some(["sales", "gone"], 0.1)),
        holds={
            policy: dict.fromkeys(targets, UNTIL)
            for policy, targets in (
                ("all", some(["", "*"], 0.05)),
                ("by_channel", some(["agent", "web", "mail"], 0.1)),
                ("by_group", some([*GROUPS, "gone"], 0.15)),
                ("by_action", some([*actions, "gone"], 0.1)),
                ("by_treatment", some([f"{action}_0" for action in actions], 0.1)),
                ("gone", ["*"]),
            )
            if targets
        },
        quiet={"agent": UNTIL} if dice.random() < 0.1 else {},
        budgets=None if dice.random() < 0.1 else dict.fromkeys(some(actions, 0.2), dice.choice([0, 1])),
        controls={"nothing": dice.random() < 0.2, "level": dice.random() < 0.2},
        halts=tuple(dice.sample([("action", "a1"), ("group", "service"), ("channel", "agent")], 1))
        if dice.random() < 0.15
        else (),
    )


def alone(
    arm: int, inputs: Inputs, catalog: CompiledCatalog, candidates: Candidates
) -> tuple[list[bool], float, float]:
    """Which stages one arm passes, its value and its context weight; rule by rule, by the reference."""
    of = candidates.arms[arm]
    action, group, channel = of.action.id, of.group.id, candidates.channel.id
    facts = {name: each for name, each in inputs.facts.items() if not (inputs.objects and personal(name))}
    rules, activation = catalog.rules, catalog.rules.language.activation(facts, inputs.now)

    def holds(clause: int) -> bool:
        names = rules.programs[clause].names
        if inputs.objects and any(personal(name) for name in names if name != "now"):
            return False
        return bool(rules.evaluate(facts, activation, [clause])[clause] == Truth.TRUE)

    value, weight = candidates.value[arm], 1.0
    for number, rows in candidates.value_programs:
        if rows[arm]:
            found = catalog.values[number].number(activation)
            value = np.nan if found is None else found
    net = value - candidates.cost[arm] if value - candidates.cost[arm] >= 0 and value <= LARGEST else np.nan
    for clause, weights in zip(candidates.weight_clauses, candidates.weights, strict=True):
        weight *= weights[arm] if holds(int(clause)) else 1.0
    if inputs.objects:
        net = weight = 1.0
    held = []
    for policy, targets in inputs.holds.items():
        if policy in candidates.held and candidates.held[policy].covered[arm]:
            keys = {"customer": "", "channel": channel, "group": group, "action": action}
            held.append("*" in targets or keys.get(candidates.held[policy].level, of.treatment.id) in targets)
    left = None if inputs.budgets is None else inputs.budgets.get(action, 10)
    passes = {
        Stage.HALT: not {("action", action), ("group", group), ("channel", channel)} & {*inputs.halts},
        **{
            stage: all(holds(int(clause)) for clause in clauses[arm] if clause >= 0)
            for stage, clauses in zip(STAGES[1:4], candidates.clauses, strict=True)
        },
        Stage.VALIDITY: candidates.valid_from[arm] <= inputs.now.timestamp() < candidates.valid_to[arm],
        Stage.STOP: not {("action", action), ("group", group)} & {*inputs.stops},
        Stage.CONTACT: not any(held),
        Stage.QUIET_HOURS: channel not in inputs.quiet or "quiet_hours" in of.action.exempt,
        Stage.CONSENT: True,
        Stage.BUDGET: of.action.budget is None if left is None else of.action.budget is None or left >= 1,
        Stage.CONTROL: not (
            inputs.controls["nothing"] and group == "sales" and "nothing" not in of.action.exempt
        ),
        Stage.VALUE: bool(np.isfinite(net)),
    }
    return [bool(passes[stage]) for stage in STAGES], float(net), float(weight)


@pytest.mark.parametrize("seed", range(8))
def test_all_arms_together_are_each_alone(seed: int) -> None:
    dice = random.Random(seed)
    made = document(dice)
    catalog = compile_document(made)
    for number in range(12):
        placement = ("panel", "side")[number % 2]
        candidates = catalog.candidates[placement]
        inputs = asked(dice, made, placement)
        case = Case(catalog.rules, inputs.facts, inputs.now, inputs.objects)
        screening = screen(inputs, candidates, case)
        wanted = [alone(arm, inputs, catalog, candidates) for arm in range(len(candidates))]
        assert screening.passes.T.tolist() == [passes for passes, _, _ in wanted]
        assert screening.alive.tolist() == [all(passes) for passes, _, _ in wanted]
        assert repr(screening.value.tolist()) == repr([value for _, value, _ in wanted])
        assert repr(screening.context_weight.tolist()) == repr([weight for _, _, weight in wanted])
        others = np.delete(screening.passes, STAGES.index(Stage.QUIET_HOURS), axis=0).all(axis=0)
        assert screening.only_quiet == bool((others & ~screening.alive).any())


def test_a_catalog_of_nothing_is_screened() -> None:
    catalog = compile_document(document(random.Random(0)))
    for placement in ("block", "hero"):
        candidates = catalog.candidates[placement]
        screening = screen(Inputs("d", NOW, "c", ("mail",), ()), candidates, Case(catalog.rules, {}, NOW))
        assert screening.alive.tolist() == screening.value.tolist() == []
        assert screening.emptied_by() == "no_candidates"
