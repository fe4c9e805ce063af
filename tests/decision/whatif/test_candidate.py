"""What the inputs of then are for another catalog."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support import ANNA, DAY, NOW, catalog_document

from arbitration import CompiledCatalog, Inputs
from arbitration.catalog.compile import compile_document
from arbitration.control import challenger, membership
from arbitration.facts import admit, rfc3339
from decision.storage.port import BudgetPeriod
from decision.whatif.candidate import Candidate, Reworked

UNTIL = rfc3339(NOW + DAY)


def logged(**changes: Any) -> Inputs:
    catalog = compile_document(changes.pop("document", catalog_document()))
    raw = {f"customer.{name}": value for name, value in ANNA["attributes"].items()}
    raw |= {f"scores.{name}": value for name, value in ANNA["scores"].items()}
    facts = {name: admit(name, value, catalog.declared[name]) for name, value in raw.items()}
    asked = Inputs(
        decision_id="d",
        now=NOW,
        customer_id="anna",
        channels=("agent",),
        placements=(("panel", 3),),
        facts=facts,
        consents={"marketing": "given"},
    )
    return replace(asked, **changes)


def rework(
    inputs: Inputs, after: dict[str, Any], before: dict[str, Any] | None = None, **more: Any
) -> Reworked:
    return Candidate(compile_document(after)).rework(
        inputs, compiled(before), "anna", more.get("holds", {}), more.get("used", {})
    )


def compiled(document: dict[str, Any] | None) -> CompiledCatalog:
    return compile_document(document or catalog_document())


def asked(found: Reworked) -> Inputs:
    assert found.inputs is not None
    return found.inputs


def test_the_same_catalog_asks_the_same(document: dict[str, Any]) -> None:
    document["contact_policies"] = [{"id": "calls", "at_most": 1, "within": "7d"}]
    document["control_groups"] = [{"id": "held", "share": 0.5, "behaviour": "no_levers"}]
    document["actions"][2]["budget"] = {"total": 5}
    inputs = logged(
        stops=(("action", "check"),),
        holds={"calls": {"": UNTIL}},
        budgets={"upgrade": 0},
        controls={"held": not membership(compiled(document).model.control_groups[0], "anna")},
    )
    found = rework(inputs, document, document)
    assert asked(found) == inputs
    assert found.missing == found.lacking == ()


def test_unread_limits_stay_unread(document: dict[str, Any]) -> None:
    document["contact_policies"] = [{"id": "calls", "at_most": 1, "within": "7d"}]
    found = asked(rework(logged(budgets=None), document))
    assert found.budgets is None
    assert found.holds == {"calls": {"*": None}}


def test_derived_attributes_follow_the_rules_of_the_candidate(document: dict[str, Any]) -> None:
    before = catalog_document()
    before["attributes"].append({"id": "angry", "type": "bool", "derive": "customer.nps <= 2"})
    document["attributes"].append({"id": "angry", "type": "bool", "derive": "customer.nps <= 6"})
    inputs = logged()
    inputs = replace(inputs, facts={**inputs.facts, "customer.angry": False})
    assert asked(rework(inputs, document, before)).facts["customer.angry"] is True
    stated = replace(inputs, given=("customer.angry",))
    assert asked(rework(stated, document, before)).facts["customer.angry"] is False
    assert rework(inputs, document, before).missing == ()


def test_what_the_log_lacks_is_named_and_what_does_not_fit_is_missing(document: dict[str, Any]) -> None:
    document["attributes"].append({"id": "vip", "type": "bool"})
    document["attributes"][1] = {"id": "nps", "type": "int", "min": 5, "max": 10}
    document["purposes"].append({"id": "calls"})
    found = rework(logged(), document)
    assert found.missing == ("customer.vip", "consents.calls")
    assert "customer.nps" not in asked(found).facts
    assert asked(found).facts["customer.contract_end"] == logged().facts["customer.contract_end"]


def test_who_withdrew_what_now_means_profiling_objects(document: dict[str, Any]) -> None:
    document["purposes"] = [{"id": "marketing", "profiling": True}]
    inputs = logged(consents={"marketing": "withdrawn"})
    found = asked(rework(inputs, document))
    assert found.objects
    assert not any(name.startswith("scores.") for name in found.facts)
    assert not asked(rework(replace(found, facts=inputs.facts), catalog_document(), document)).objects


def test_placements_and_slots_are_those_of_the_candidate(document: dict[str, Any]) -> None:
    document["placements"][0]["slots"] = 2
    assert asked(rework(logged(), document)).placements == (("panel", 2),)
    document["placements"][0]["slots"] = 5
    assert asked(rework(logged(), document)).placements == (("panel", 3),)
    assert Candidate(compiled(document)).departures(compiled(None)).slots == ("panel",)
    document["placements"] = document["placements"][1:]
    for action in document["actions"]:
        action["treatments"] = [each for each in action["treatments"] if each["placement"] != "panel"]
    found = rework(logged(), document)
    assert found.inputs is None
    assert found.lacking == ("panel",)


def test_only_changed_contact_policies_are_counted_anew(document: dict[str, Any]) -> None:
    before = catalog_document()
    before["contact_policies"] = [
        {"id": "same", "at_most": 1, "within": "7d"},
        {"id": "other", "at_most": 2, "within": "7d"},
    ]
    document["contact_policies"] = [
        {"id": "same", "at_most": 1, "within": "7d", "description": "said better"},
        {"id": "other", "at_most": 1, "within": "7d"},
    ]
    candidate = Candidate(compiled(document))
    assert candidate.departures(compiled(before)).contact_policies == {"other"}
    inputs = logged(holds={"same": {"": UNTIL}, "other": {"": UNTIL}})
    later = NOW + 2 * DAY
    found = candidate.rework(inputs, compiled(before), "anna", {("other", ""): later}, {})
    assert asked(found).holds == {"same": {"": UNTIL}, "other": {"": rfc3339(later)}}
    found = candidate.rework(inputs, compiled(before), "anna", {}, {})
    assert asked(found).holds == {"same": {"": UNTIL}}


def test_a_changed_budget_is_what_was_counted(document: dict[str, Any]) -> None:
    before = catalog_document()
    before["actions"][2]["budget"] = {"total": 5}
    document["actions"][2]["budget"] = {"total": 3}
    inputs = logged(budgets={"upgrade": 0})
    used = {BudgetPeriod("upgrade:times:ever"): 2}
    assert asked(rework(inputs, document, before, used=used)).budgets == {}
    used = {BudgetPeriod("upgrade:times:ever"): 3}
    assert asked(rework(inputs, document, before, used=used)).budgets == {"upgrade": 0}


def test_control_groups_and_challengers_that_changed_are_found_by_hash(document: dict[str, Any]) -> None:
    before = catalog_document()
    before["control_groups"] = [{"id": "held", "share": 0.5, "behaviour": "no_action"}]
    document["control_groups"] = [
        {"id": "held", "share": 0.5, "behaviour": "random_eligible"},
        {"id": "fresh", "share": 0.5, "behaviour": "no_levers"},
    ]
    document["policies"][0]["challengers"] = [{"policy": "plain", "share": 0.5}]
    groups = compiled(document).model.control_groups
    recorded = not membership(groups[0], "anna")
    found = asked(rework(logged(controls={"held": recorded}), document, before))
    assert found.controls == {"held": recorded, "fresh": membership(groups[1], "anna")}
    policy = compiled(document).policies["default"]
    expected = challenger(policy, "anna")
    assert found.assigned == ({} if expected is None else {"default": expected})
    document["control_groups"][0]["share"] = 0.25
    found = asked(rework(logged(controls={"held": recorded}), document, before))
    assert found.controls["held"] == membership(compiled(document).model.control_groups[0], "anna")


def test_quiet_hours_are_those_of_the_candidate(document: dict[str, Any]) -> None:
    document["channels"][0]["quiet_hours"] = [{"from": "00:00", "to": "24:00", "days": ["sun"]}]
    assert set(asked(rework(logged(), document)).quiet) == {"agent"}
    assert NOW.strftime("%a") == "Sun"
    assert asked(rework(logged(quiet={"agent": UNTIL}), catalog_document(), document)).quiet == {}


@pytest.mark.parametrize("changed", [True, False])
def test_changed_stops_are_noticed(document: dict[str, Any], changed: bool) -> None:
    if changed:
        document["actions"][2]["stop"] = {"on": ["rejected"]}
    assert Candidate(compiled(document)).departures(compiled(None)).stops is changed
