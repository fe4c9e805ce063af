"""Explanations: every removal with its rule and values, every number the decision was made with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support import NOW, catalog_document

from arbitration import PRIOR, Inputs, compile_document, decide, explain, serve
from arbitration.explain import REASONS

CUSTOMER: dict[str, Any] = {"customer.nps": 3, "customer.plan": "Max", "scores.clv": 100.0}
ACTIONS: list[tuple[dict[str, Any], str, str, str | None, dict[str, Any]]] = [
    # fields of the action, stage, reason, rule, values
    ({"eligibility": ["true", "customer.nps > 6"]}, "eligibility", "rule_false", "customer.nps > 6",
     {"customer.nps": 3}),
    ({"applicability": ["customer.spend > 1.0"]}, "applicability", "rule_missing_value",
     "customer.spend > 1.0", {"customer.spend": None}),
    ({"suitability": [{"rule": "1 / (customer.nps - 3) > 0", "why": "w"}]}, "suitability", "rule_error",
     "1 / (customer.nps - 3) > 0", {"customer.nps": 3}),
    ({"valid": {"from": "2026-04-01"}}, "validity", "not_yet_valid", "from 2026-04-01 to …",
     {"now": "2026-03-01T12:30:15.250000Z"}),
    ({"valid": {"to": "2026-02-01"}}, "validity", "expired", "from … to 2026-02-01",
     {"now": "2026-03-01T12:30:15.250000Z"}),
    ({"group": "retention"}, "stop", "stopped", "group:retention", {}),
    ({"group": "asked"}, "consent", "consent:marketing", "withdrawn", {}),
    ({"group": "asked_too"}, "consent", "consent:other", "unknown", {}),
    ({"group": "rested"}, "contact", "contact:weekly", '{"of":{"groups":["rested"]},"gap":"7d"}',
     {"counted": "customer", "until": "2026-03-05T08:00:00Z"}),
    ({"exempt": []}, "quiet_hours", "quiet_hours", "quiet hours of agent", {"until": "2026-03-02T07:00:00Z"}),
    ({"budget": {"total": 3, "each": "day"}}, "budget", "budget", '{"total":3,"each":"day"}', {"left": 0}),
    ({"group": "held_out"}, "control", "control:holdout", "0.05 of customers: no_action", {}),
    ({"value": "scores.clv - 101.0"}, "value", "no_value", "scores.clv - 101.0", {"scores.clv": 100.0}),
    ({"value": "customer.spend"}, "value", "no_value", "customer.spend", {"customer.spend": None}),
    ({"group": "frozen"}, "halt", "halted", "group:frozen", {}),
]  # fmt: skip
LEFT: list[dict[str, Any]] = [{"lever": 2.0}, {"value": 3}, {"tier": 4}]


@pytest.fixture(scope="module")
def explained() -> dict[str, Any]:
    document = catalog_document()
    document["purposes"].append({"id": "other"})
    document["groups"] += [
        {"id": "asked", "consent": "marketing"},
        {"id": "asked_too", "consent": "other"},
        {"id": "rested"},
        {"id": "held_out"},
        {"id": "frozen"},
    ]
    document["contact_policies"] = [{"id": "weekly", "gap": "7d", "of": {"groups": ["rested"]}}]
    document["control_groups"] = [
        {"id": "holdout", "share": 0.05, "behaviour": "no_action", "groups": ["held_out"]}
    ]
    document["actions"] = [
        {
            "id": f"a{number}", "group": "sales", "exempt": ["quiet_hours"], **fields,
            "treatments": [{"id": f"t{number}", "channel": "agent", "placement": "panel",
                            "content": {"headline": "x"}}],
        }
        for number, fields in enumerate([*(case[0] for case in ACTIONS), *LEFT])
    ]  # fmt: skip
    catalog = compile_document(document)
    inputs = Inputs(
        "d", NOW, "c", ("agent",), (("panel", 3),), {**CUSTOMER, "context.intent": "cancel"},
        {"marketing": "withdrawn"}, (("group", "retention"),),
        holds={"weekly": {"": "2026-03-05T08:00:00Z"}}, quiet={"agent": "2026-03-02T07:00:00Z"},
        controls={"holdout": True}, budgets={"a10": 0}, halts=(("group", "frozen"),),
    )  # fmt: skip
    snapshots = {name: serve(catalog, name, None, PRIOR) for name in catalog.policies}
    decision = decide(inputs, catalog, snapshots)
    (placement,) = explain(decision, catalog)["placements"]
    (objecting,) = explain(decide(replace(inputs, objects=True), catalog, snapshots), catalog)["placements"]
    return {**placement, "items": decision.slates[0].items, "to_objectors": objecting["removed"]}


@pytest.mark.parametrize("number", range(len(ACTIONS)))
def test_a_removal_tells_stage_reason_rule_and_values(explained: dict[str, Any], number: int) -> None:
    _, stage, reason, rule, values = ACTIONS[number]
    (removed,) = [item for item in explained["removed"] if item["treatment"] == f"t{number}"]
    assert removed == {
        "treatment": f"t{number}", "action": f"a{number}", "stage": stage, "reason": reason, "rule": rule,
        "values": values,
    }  # fmt: skip


def test_the_list_of_reasons_is_closed_and_each_is_reached(explained: dict[str, Any]) -> None:
    removed = [*explained["removed"], *explained["to_objectors"]]
    reached = {item["reason"].split(":")[0] for item in removed}
    assert reached == {reason.split(":")[0] for reason in REASONS}


def test_the_funnel_adds_up(explained: dict[str, Any]) -> None:
    remaining = [step["remaining"] for step in explained["funnel"]]
    assert [step["stage"] for step in explained["funnel"]] == [
        "candidates", "halt", "eligibility", "applicability", "suitability", "validity", "stop", "contact",
        "quiet_hours", "consent", "budget", "control", "value"
    ]  # fmt: skip
    assert (remaining[0], remaining[-1]) == (18, 3)
    assert len(explained["removed"]) + len(explained["ranked"]) == remaining[0]
    for stage, before, after in zip(explained["funnel"][1:], remaining, remaining[1:], strict=False):
        lost = [item for item in explained["removed"] if item["stage"] == stage["stage"]]
        assert before - after == len(lost)


def test_the_factors_multiply_to_the_priority(explained: dict[str, Any]) -> None:
    assert len(explained["ranked"]) == 3
    for arm in explained["ranked"]:
        product = arm["propensity"] * arm["context_weight"] * arm["value"] * arm["lever"]
        assert arm["priority"] == pytest.approx(product)
    assert [arm["tier"] for arm in explained["ranked"]] == [1, 1, 4]
    assert sum(arm["selection_probability"] for arm in explained["ranked"]) == pytest.approx(1)
    assert explained["ranked"][-1]["selection_probability"] == 0


def test_the_slots_tell_how_each_was_drawn(explained: dict[str, Any]) -> None:
    assert [len(slot["probabilities"]) for slot in explained["slots"]] == [2, 1]  # two of a group at most
    for slot, item in zip(explained["slots"], explained["items"], strict=True):
        assert sum(slot["probabilities"].values()) == pytest.approx(1)
        assert slot["treatment"] == item.arm.treatment.id
        assert slot["probabilities"][slot["treatment"]] == pytest.approx(item.selection_probability)
        assert 0 <= slot["draw"] < 1


def test_values_marked_pii_are_left_out() -> None:
    document = catalog_document()
    document["attributes"][1]["pii"] = True
    catalog = compile_document(document)
    snapshots = {policy: serve(catalog, policy, None, PRIOR) for policy in catalog.policies}
    facts: dict[str, Any] = {"customer.nps": 9, "customer.contract_end": NOW}
    inputs = Inputs("d", NOW, "c", ("agent",), (("panel", 3),), facts)
    removed = explain(decide(inputs, catalog, snapshots), catalog)["placements"][0]["removed"]
    seen = [arm["values"]["customer.nps"] for arm in removed if "customer.nps" in arm["values"]]
    assert set(seen) == {"(pii)"}


def test_what_was_known_says_from_where_and_how_old() -> None:
    document = catalog_document()
    document["sources"] = [{"id": "crm", "kind": "http", "path": "/{customer_id}"}]
    attributes = {part["id"]: part for part in document["attributes"]}
    attributes["nps"]["source"] = attributes["first_name"]["source"] = "crm"
    document["attributes"].append({"id": "low", "type": "bool", "derive": "customer.nps <= 6"})
    document["purposes"].append({"id": "mail", "source": "crm"})
    catalog = compile_document(document)
    inputs = Inputs(
        decision_id="d",
        now=NOW,
        customer_id="anna",
        channels=("agent",),
        placements=(("panel", 3),),
        facts={
            "customer.nps": 3,
            "customer.first_name": "Anna",
            "customer.plan": "Max",
            "customer.spend": 2.5,
            "context.intent": "cancel",
            "customer.low": True,
        },
        consents={"mail": "withdrawn", "marketing": "given"},
        degraded=("sources.crm:stale",),
        fetched={"crm": 12.5},
        given=("context.intent", "customer.spend"),
    )
    snapshots = {name: serve(catalog, name, None, PRIOR) for name in catalog.policies}
    found = explain(decide(inputs, catalog, snapshots), catalog)
    assert [(f["name"], f["value"], f["source"], f["age_seconds"]) for f in found["facts"]] == [
        ("customer.first_name", "(pii)", "crm", 12.5),
        ("customer.nps", 3, "crm", 12.5),
        ("customer.plan", "Max", "store", None),
        ("customer.spend", 2.5, "request", None),
        ("customer.low", True, "derived", None),
        ("context.intent", "cancel", "request", None),
        ("consents.marketing", "given", "store", None),
        ("consents.mail", "withdrawn", "crm", 12.5),
    ]
    assert found["degraded"] == ["sources.crm:stale"]
    assert Inputs.from_json(inputs.to_json()) == inputs


def test_what_is_left_but_held_back_says_why() -> None:
    document = catalog_document()
    for action in document["actions"]:
        action |= {"eligibility": [], "applicability": [], "suitability": [], "value": 1.0}
    side = {"channel": "web", "placement": "side", "content": {"title": "again"}}
    document["actions"][0]["treatments"].append({"id": "renew_12_side", **side})
    document["actions"][1]["tier"] = 0
    catalog = compile_document(document)
    snapshots = {policy: serve(catalog, policy, None, PRIOR) for policy in catalog.policies}
    inputs = Inputs("d", NOW, "c", ("web",), (("hero", 1), ("side", 1)))
    hero, side = explain(decide(inputs, catalog, snapshots), catalog)["placements"]
    assert [arm["held_back"] for arm in hero["ranked"]] == [None]
    held = {arm["treatment"]: arm["held_back"] for arm in side["ranked"]}
    assert held == {
        "renew_24_side": None,
        "renew_12_side": "shown_already",
        "upgrade_side": "lower_tier",
        "check_side": "lower_tier",
    }
    for arm in side["ranked"]:
        assert (arm["selection_probability"] == 0) == (arm["held_back"] is not None)
