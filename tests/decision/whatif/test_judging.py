"""What is found out of one logged decision after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support import ANNA, DAY, NOW, catalog_document

from arbitration import CompiledCatalog, Inputs, decide, serve
from arbitration.catalog.compile import compile_document
from arbitration.facts import admit, rfc3339
from arbitration.snapshot import Snapshot
from decision.whatif.judging import Asked, Judgement, distance, logged

TODAY = compile_document(catalog_document())


def snapshots(catalog: CompiledCatalog) -> dict[str, Snapshot]:
    return {policy: serve(catalog, policy, None, "prior") for policy in catalog.policies}


def inputs(number: int, channels: str, *placements: tuple[str, int]) -> Inputs:
    raw = {f"customer.{name}": value for name, value in ANNA["attributes"].items()}
    raw |= {f"scores.{name}": value for name, value in ANNA["scores"].items()}
    return Inputs(
        decision_id=f"d{number}",
        now=NOW,
        customer_id=f"c{number}",
        channels=tuple(channels.split()),
        placements=placements,
        facts={name: admit(name, value, TODAY.declared[name]) for name, value in raw.items()},
        consents={"marketing": "given"},
    )


def judged(
    catalog: CompiledCatalog, count: int, channels: str, *placements: tuple[str, int], **changes: Any
) -> Judgement:
    """`count` decisions of today; `changes`: to the inputs of the target."""
    judgement = Judgement(2)
    mine, theirs = snapshots(TODAY), snapshots(catalog)
    for number in range(count):
        asked = inputs(number, channels, *placements)
        made = decide(asked, TODAY, mine)
        heard = {item.arm.treatment.id: (1.0, 0.0) for slate in made.slates for item in slate.items}
        was = logged(made, TODAY, str(asked.customer_id), heard)
        judgement.add(was, Asked(replace(asked, **changes), catalog, theirs))
    return judgement


def lever(document: dict[str, Any], factor: float) -> CompiledCatalog:
    document["actions"][3]["lever"] = factor
    return compile_document(document)


def test_the_distance_of_two_draws() -> None:
    one, other = ("p", "a"), ("p", "b")
    assert distance({one: 1.0}, {one: 1.0}) == 0
    assert distance({one: 0.75, other: 0.25}, {one: 0.25, other: 0.75}) == 0.5
    assert distance({one: 1.0}, {other: 1.0}) == 1
    assert distance({}, {one: 1.0}) == distance({one: 1.0}, {}) == 1
    assert distance({}, {}) == 0


def test_as_many_items_are_expected_as_are_shown(document: dict[str, Any]) -> None:
    judgement = judged(lever(document, 5.0), 60, "agent", ("panel", 3))
    arms = judgement.arms
    today, target = (sum(getattr(each, of) for each in arms.values()) for of in ("today", "target"))
    assert today == pytest.approx(180)
    assert target == pytest.approx(180)
    check = arms["panel", "check_agent"]
    assert check.target > check.today
    groups = judgement.groups
    assert groups["service"].target == pytest.approx(check.target)
    assert sum(each.target for each in groups.values()) == pytest.approx(180)
    assert judgement.contacts["agent"].today == judgement.contacts["agent"].target == pytest.approx(60)
    (share,) = judgement.channels.values()
    assert (share.decisions, share.changed) == (60, 60)


def test_where_a_channel_is_chosen_its_contacts_move(document: dict[str, Any]) -> None:
    document["actions"][3]["treatments"] = [
        each for each in document["actions"][3]["treatments"] if each["placement"] != "block"
    ]
    document["actions"][0]["treatments"][1]["content"]["title"] = "Another"
    judgement = judged(compile_document(document), 40, "web mail", ("hero", 1), ("block", 1))
    assert set(judgement.channels) == {"web or mail"}
    contacts = judgement.contacts
    assert contacts["web"].today + contacts["mail"].today == pytest.approx(40)
    assert contacts["web"].target + contacts["mail"].target == pytest.approx(40)
    assert contacts["mail"].target < contacts["mail"].today
    assert judgement.arms["block", "check_mail"].target == 0


def test_examples_are_of_different_kinds_and_say_why(document: dict[str, Any]) -> None:
    document["actions"][0]["eligibility"].append("scores.clv > 1000.0")
    judgement = judged(compile_document(document), 30, "agent", ("panel", 3))
    examples = judgement.examples()
    assert len(examples) == 1  # all customers are alike
    (example,) = examples
    assert example.why["renew_12_agent"] == "goes: rule_false (scores.clv > 1000.0)"
    assert "renew_12_agent" in example.before
    assert "renew_12_agent" not in example.after
    back = Judgement(1)
    catalog = compile_document(document)
    asked = inputs(1, "agent", ("panel", 1))
    was = logged(decide(asked, catalog, snapshots(catalog)), catalog, "c", {})
    back.add(was, Asked(asked, TODAY, snapshots(TODAY)))
    assert back.examples()[0].why["renew_12_agent"] == "comes: rule_false (scores.clv > 1000.0) before"
    shift = back.arms["panel", "renew_12_agent"]
    assert shift.unsupported == shift.target > 0


def test_a_target_without_the_placement_shows_nothing() -> None:
    judgement = Judgement(1)
    asked = inputs(1, "agent", ("panel", 3))
    was = logged(decide(asked, TODAY, snapshots(TODAY)), TODAY, "c", {})
    judgement.add(was, Asked(None, TODAY, snapshots(TODAY)))
    assert judgement.channels["agent"].other_pick == 1
    assert all(each.target == 0 for each in judgement.arms.values())
    (example,) = judgement.examples()
    assert example.after == {}
    assert set(example.why.values()) == {"goes: no such placement"}


def test_what_contact_policies_hold_back_and_count(document: dict[str, Any]) -> None:
    document["contact_policies"] = [
        {"id": "sold", "per": "group", "of": {"groups": ["sales"]}, "at_most": 1, "within": "7d"}
    ]
    catalog = compile_document(document)
    held = {"sold": {"sales": rfc3339(NOW + DAY)}}
    judgement = judged(catalog, 10, "agent", ("panel", 3), holds=held)
    load = judgement.load["sold"]
    assert (load.decisions, load.arms) == ([0, 10], [0, 10])
    counted = judgement.counted(catalog)["sold"]
    assert counted.today == pytest.approx(judgement.arms["panel", "upgrade_agent"].today)
    assert counted.target == 0


def test_who_objects_is_worth_what_an_action_is_worth_for_all() -> None:
    asked = replace(inputs(1, "agent", ("panel", 3)), objects=True)
    made = decide(asked, TODAY, snapshots(TODAY))
    heard = {item.arm.treatment.id: (1.0, 2.5) for slate in made.slates for item in slate.items}
    was = logged(made, TODAY, "c", heard)
    assert {pick.treatment: each.value for pick, each in zip(was.picks, was.earned, strict=True)} == {
        "check_agent": 20.0
    }
    assert was.earned[0].money == 2.5
