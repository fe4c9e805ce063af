from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cel_expr_python import cel

from arbitration.catalog.model import Catalog
from decision.catalog_files import read_catalog
from decision.demo.tastes import SIGNALS, TASTES
from decision.demo.world import Truth, _signals, facts_of, simulate_customers, visit

TELCO = Path(__file__).parents[3] / "examples" / "telco"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
COUNT = 2000
_CEL = {
    "bool": cel.Type.BOOL,
    "int": cel.Type.INT,
    "double": cel.Type.DOUBLE,
    "string": cel.Type.STRING,
    "timestamp": cel.Type.TIMESTAMP,
    "strings": cel.Type.List(cel.Type.STRING),
}
_PYTHON = {"bool": bool, "int": int, "double": float, "string": str, "timestamp": str, "strings": list}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    source, problems = read_catalog(TELCO)
    assert problems == []
    return Catalog.model_validate(source.document)


@pytest.fixture(scope="module")
def customers() -> list[dict[str, Any]]:
    return list(simulate_customers(COUNT, seed=7, now=NOW))


@pytest.fixture(scope="module")
def eligible(catalog: Catalog, customers: list[dict[str, Any]]) -> list[set[str]]:
    """Per customer the actions whose every rule holds, straight from the reference rule language."""
    variables = {f"customer.{item.id}": _CEL[item.type] for item in catalog.attributes}
    variables |= {f"scores.{item.id}": cel.Type.DOUBLE for item in catalog.scores}
    env = cel.NewEnv(variables=variables | {"now": cel.Type.TIMESTAMP})
    rules = {
        action.id: [
            env.compile(clause if isinstance(clause, str) else clause.rule)
            for clause in (*action.eligibility, *action.applicability, *action.suitability)
        ]
        for action in catalog.actions
    }
    result = []
    for customer in customers:
        data = {f"customer.{name}": value for name, value in customer["attributes"].items()}
        data |= {f"scores.{name}": value for name, value in customer["scores"].items()} | {"now": NOW}
        if "customer.contract_end" in data:
            data["customer.contract_end"] = datetime.fromisoformat(data["customer.contract_end"])
        result.append(
            {
                name
                for name, clauses in rules.items()
                if all(r.eval(data=data).value() is True for r in clauses)
            }
        )
    return result


@pytest.fixture(scope="module")
def occasions(
    catalog: Catalog, customers: list[dict[str, Any]], eligible: list[set[str]]
) -> list[dict[str, float]]:
    """One random visit a customer, and per placement the true acceptance of each arm in tier 1."""
    truth, rng, result = Truth(11, NOW), np.random.default_rng(3), []
    for customer, actions in zip(customers, eligible, strict=True):
        _, placements, context = visit(rng)
        facts = facts_of(customer)
        result += [
            {
                treatment.id: truth.acceptance(treatment.id, facts, context)
                for action in catalog.actions
                if action.id in actions and action.tier is None
                for treatment in action.treatments
                if treatment.placement == placement
            }
            for placement in placements
        ]
    return result


def test_same_seed_same_customers(customers: list[dict[str, Any]]) -> None:
    again = simulate_customers(COUNT * 2, seed=7, now=NOW)
    assert list(islice(again, COUNT)) == customers
    assert list(simulate_customers(3, seed=8, now=NOW)) != customers[:3]
    assert json.loads(json.dumps(customers)) == customers


def test_every_fact_is_declared_and_fits(catalog: Catalog, customers: list[dict[str, Any]]) -> None:
    attributes = {item.id: item for item in catalog.attributes}
    scores = {item.id: item for item in catalog.scores}
    seen: set[str] = set()
    for customer in customers:
        for name, value in customer["attributes"].items():
            fact = attributes[name]
            assert type(value) is _PYTHON[fact.type], name
            if fact.values is not None:
                assert set(value if fact.type == "strings" else [value]) <= set(fact.values), name
            if fact.type == "timestamp":
                assert value.endswith("Z")
                assert datetime.fromisoformat(value).tzinfo is not None
            if fact.type in ("int", "double"):
                assert fact.min is not None, name
                assert fact.max is not None, name
                assert fact.min <= value <= fact.max, name
        for name, value in customer["scores"].items():
            score = scores[name]
            assert type(value) is float
            assert score.min is not None
            assert score.max is not None
            assert score.min <= value <= score.max, name
        seen |= set(customer["attributes"]) | set(customer["scores"])
    assert seen == set(attributes) | set(scores)


def test_every_visit_fits_the_catalog(catalog: Catalog) -> None:
    rng = np.random.default_rng(5)
    placements = {item.id: item.channel for item in catalog.placements}
    context = {item.id: item for item in catalog.context}
    reached = set()
    for _ in range(500):
        channel, asked, values = visit(rng)
        reached |= set(asked)
        assert {placements[placement] for placement in asked} == {channel}
        for name, value in values.items():
            fact = context[name]
            assert channel in (fact.channels or ())
            assert fact.values is None or value in fact.values
            assert type(value) is _PYTHON[fact.type]
    assert reached == set(placements)


def test_the_renewal_case_is_there(eligible: list[set[str]]) -> None:
    share = sum("renew_12m" in actions for actions in eligible) / COUNT
    assert 0.02 <= share <= 0.05


def test_everybody_has_a_choice_everywhere(catalog: Catalog, eligible: list[set[str]]) -> None:
    for placement in catalog.placements:
        offered = [
            {
                action.id
                for action in catalog.actions
                for t in action.treatments
                if t.placement == placement.id
            }
            & actions
            for actions in eligible
        ]
        assert min(map(len, offered)) >= 3
        assert np.mean([len(actions) for actions in offered]) >= 6


def test_the_truth_knows_every_action_and_is_a_probability(
    catalog: Catalog, customers: list[dict[str, Any]], occasions: list[dict[str, float]]
) -> None:
    assert set(TASTES) == {action.id for action in catalog.actions}
    assert all(set(tastes) <= {"base", *SIGNALS} for tastes in TASTES.values())
    assert len(_signals(facts_of(customers[0]), {}, NOW)) == len(SIGNALS)
    assert all(0.0 < p < 1.0 for arms in occasions for p in arms.values())
    one, other = Truth(1, NOW), Truth(2, NOW)
    facts = facts_of(customers[0])
    assert one.acceptance("anything", facts, {}) == Truth(1, NOW).acceptance("anything", facts, {})
    arms = [treatment.id for action in catalog.actions for treatment in action.treatments]
    assert [one.acceptance(a, facts, {}) for a in arms] != [other.acceptance(a, facts, {}) for a in arms]


def test_a_random_arm_does_badly_and_the_best_one_well(occasions: list[dict[str, float]]) -> None:
    random = np.mean([np.mean(list(arms.values())) for arms in occasions])
    best = np.mean([max(arms.values()) for arms in occasions])
    assert 0.06 <= random <= 0.12
    assert 2.5 <= best / random <= 5.0


def test_customers_differ_in_their_best_arm(occasions: list[dict[str, float]]) -> None:
    """So no single ranking of the arms, whatever the customer, comes near what knowing them gives."""
    best = [max(arms, key=arms.__getitem__) for arms in occasions]
    assert len(set(best)) >= 40
    seen: dict[str, list[float]] = {}
    for arms in occasions:
        for treatment, p in arms.items():
            seen.setdefault(treatment, []).append(p)
    average = {treatment: np.mean(values) for treatment, values in seen.items()}
    ranked = np.mean([arms[max(arms, key=lambda treatment: average[treatment])] for arms in occasions])
    assert ranked < 0.7 * np.mean([max(arms.values()) for arms in occasions])
