"""What is wrong with limits is told when the catalog is checked, at the place where it was written."""

from __future__ import annotations

from typing import Any

import pytest
from support import catalog_document

from arbitration.catalog.problems import Source
from decision.publishing import check_document

CONTROL = {"id": "holdout", "share": 0.1, "behaviour": "no_action"}
ACCEPTED = {"on": ["accepted"]}


def problems(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [(problem.code, problem.path) for problem in check_document(Source(document)).problems]


def with_policy(**fields: Any) -> dict[str, Any]:
    return {"contact_policies": [{"id": "p", "gap": "1d"} | fields]}


def ending(scope: Any, *others: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Stops of the first action, of which the first ends."""
    return {"actions.0.stop": [{**ACCEPTED, "for": "30d", "scope": scope, **more}, *others]}


P = "contact_policies[0]"
SOUND: list[dict[str, Any]] = [
    {"contact_policies": [{"id": "p", "at_most": 1, "within": "365d", "rest": "365d"}]},
    {"contact_policies": [{"id": "p", "at_most": 1, "each": "year", "time_zone": "Asia/Tokyo"}]},
    {"retention": "10d", **with_policy(gap="10d")},
    {"retention": "32d", "contact_policies": [{"id": "p", "at_most": 1, "each": "month"}]},
    with_policy(on="click", unless="accepted", of={"channels": ["agent", "web"]}),
    with_policy(of={"groups": ["sales"]}, holds={"channels": ["mail"], "actions": ["check"]}),
    {"customer_time_zone": "plan", "time_zone": "Asia/Kolkata"},
    {"channels.0.quiet_hours": [{"days": ["mon", "tue", "wed", "thu", "fri", "sat"]}, {"to": "23:59"}]},
    {"control_groups": [CONTROL | {"share": share, "id": f"c{share:g}"} for share in (0.0, 1.0)]},
    {"control_groups": [CONTROL | {"valid": {"from": "2026-01-01", "to": "2026-01-01"}}]},
    {**with_policy(), "control_groups": [CONTROL], "actions.0.exempt": ["p", "holdout", "quiet_hours"]},
    {"actions.0.stop": {**ACCEPTED, "scope": ["renew_12", "check"], "for": "1d"}},
    # what ends, ends: another covers less, or something else, or after something else
    ending("group", {**ACCEPTED, "scope": "action"}),
    ending("action", {**ACCEPTED, "scope": ["renew_24"]}),
    ending("action", {"on": ["rejected"]}),
    ending("action", {**ACCEPTED, "for": "90d"}),
    {"actions.3.budget": {"total": 0}},
    {"actions.3.budget": {"total": 5, "each": "day", "time_zone": "Asia/Tokyo"}},
    {"actions.3.budget": {"money": 0.0001}, "actions.3.treatments.0.cost": 0.5,
     "actions.3.treatments.1.cost": 0.5, "actions.3.treatments.2.incentives": [{"id": "a", "cost": 1}]},
    {"actions.3.treatments.0.incentives": [{"id": "a", "content": {"headline": "{{ customer.plan }}"}}]},
]  # fmt: skip

FAULTS: list[tuple[dict[str, Any], str, str]] = [
    # changes of a sound catalog, code, path
    # --- contact policies: exactly one limit
    ({"contact_policies": [{"id": "p"}]}, "value_error", P),
    ({"contact_policies": [{"id": "p", "at_most": 1}]}, "value_error", P),
    (with_policy(within="1d"), "value_error", P),
    (with_policy(at_most=1), "value_error", P),
    ({"contact_policies": [{"id": "p", "within": "1d"}]}, "value_error", P),
    (with_policy(rest="1d"), "value_error", P),
    (with_policy(time_zone="UTC"), "value_error", P),
    (with_policy(on="click", unless="click"), "value_error", P),
    (with_policy(per="group", holds={"groups": ["sales"]}), "value_error", P),
    (with_policy(gap="a while"), "value_error", f"{P}.gap"),
    (with_policy(zork=1), "extra_forbidden", f"{P}.zork"),
    (with_policy(on="zork"), "literal_error", f"{P}.on"),
    (with_policy(of={"channels": []}), "too_short", f"{P}.of.channels"),
    (with_policy(of={"chanels": ["web"]}), "extra_forbidden", f"{P}.of.chanels"),
    ({"contact_policies": [{"id": "p", "at_most": 0, "within": "1d"}]}, "greater_than_equal", f"{P}.at_most"),
    ({"contact_policies": [{"id": "p", "at_most": 1, "each": "day", "time_zone": "Mars/Base"}]},
     "value_error", f"{P}.time_zone"),
    # --- and what they name
    (with_policy(of={"channels": ["web", "zork"]}), "unknown_channel", f"{P}.of.channels[1]"),
    (with_policy(of={"groups": ["zork"]}), "unknown_group", f"{P}.of.groups[0]"),
    (with_policy(of={"actions": ["zork"]}), "unknown_action", f"{P}.of.actions[0]"),
    (with_policy(holds={"actions": ["check", "zork"]}), "unknown_action", f"{P}.holds.actions[1]"),
    (with_policy(on="click", of={"channels": ["agent"]}), "unheard_outcome", f"{P}.on"),
    (with_policy(on="click", of={"directions": ["inbound"], "channels": ["mail"]}), "covers_nothing",
     f"{P}.of"),
    ({"control_groups": [CONTROL | {"groups": ["sales"], "actions": ["check"]}]}, "covers_nothing",
     "control_groups[0]"),
    (with_policy(gap="0d"), "value_error", P),
    ({"actions.3.value": 3.0, "actions.3.treatments.1.incentives": [{"id": "a", "cost": 4}]},
     "never_worth_it", "actions[3].treatments[1]"),
    (with_policy(unless="converted"), "unheard_outcome", f"{P}.unless"),
    # --- and how far they look back
    (with_policy(gap="731d"), "beyond_retention", f"{P}.gap"),
    ({"contact_policies": [{"id": "p", "at_most": 1, "within": "731d"}]}, "beyond_retention", f"{P}.within"),
    ({"contact_policies": [{"id": "p", "at_most": 1, "within": "1d", "rest": "731d"}]}, "beyond_retention",
     f"{P}.rest"),
    ({"retention": "10d", **with_policy(gap="11d")}, "beyond_retention", f"{P}.gap"),
    ({"retention": "31d", "contact_policies": [{"id": "p", "at_most": 1, "each": "month"}]},
     "beyond_retention", f"{P}.each"),
    # --- ids
    ({"contact_policies": [{"id": "p", "gap": "1d"}] * 2}, "duplicate_id", "contact_policies[1].id"),
    ({"control_groups": [CONTROL] * 2}, "duplicate_id", "control_groups[1].id"),
    ({**with_policy(id="holdout"), "control_groups": [CONTROL]}, "duplicate_id", "control_groups[0].id"),
    (with_policy(id="quiet_hours"), "reserved_id", f"{P}.id"),
    ({"control_groups": [CONTROL | {"id": "quiet_hours"}]}, "reserved_id", "control_groups[0].id"),
    # --- time zones and quiet hours
    ({"time_zone": "Mars/Base"}, "value_error", "time_zone"),
    ({"retention": "long"}, "value_error", "retention"),
    ({"customer_time_zone": "zork"}, "unknown_attribute", "customer_time_zone"),
    ({"customer_time_zone": "nps"}, "time_zone", "customer_time_zone"),
    ({"channels.0.quiet_hours": [{}]}, "always_quiet", "channels[0].quiet_hours"),
    ({"channels.1.quiet_hours": [{"from": "08:00", "to": "20:00"}, {"from": "20:00", "to": "08:00"}]},
     "always_quiet", "channels[1].quiet_hours"),
    ({"channels.0.quiet_hours": [{"to": "8:00"}]}, "value_error", "channels[0].quiet_hours[0].to"),
    ({"channels.0.quiet_hours": [{"from": "24:00", "to": "08:00"}]}, "value_error",
     "channels[0].quiet_hours[0]"),
    ({"channels.0.quiet_hours": [{"from": "08:00", "to": "08:00"}]}, "value_error",
     "channels[0].quiet_hours[0]"),
    ({"channels.0.quiet_hours": [{"days": ["monday"]}]}, "literal_error",
     "channels[0].quiet_hours[0].days[0]"),
    # --- control groups
    ({"control_groups": [CONTROL | {"share": 1.01}]}, "less_than_equal", "control_groups[0].share"),
    ({"control_groups": [CONTROL | {"share": -0.1}]}, "greater_than_equal", "control_groups[0].share"),
    ({"control_groups": [CONTROL | {"behaviour": "nothing"}]}, "literal_error",
     "control_groups[0].behaviour"),
    ({"control_groups": [CONTROL | {"groups": ["zork"]}]}, "unknown_group", "control_groups[0].groups[0]"),
    ({"control_groups": [CONTROL | {"actions": ["zork"]}]}, "unknown_action",
     "control_groups[0].actions[0]"),
    ({"control_groups": [CONTROL | {"valid": {"from": "2026-02-01", "to": "2026-01-01"}}]}, "empty_validity",
     "control_groups[0].valid"),
    ({"actions.0.exempt": ["zork"]}, "unknown_exemption", "actions[0].exempt[0]"),
    # --- purposes
    ({"groups.0.consent": "zork"}, "unknown_purpose", "groups[0].consent"),
    ({"channels.0.consent": "zork"}, "unknown_purpose", "channels[0].consent"),
    # --- stops
    ({"actions.0.stop": {"on": ["zork"]}}, "literal_error", "actions[0].stop.on[0]"),
    ({"actions.0.stop": {**ACCEPTED, "fro": "1d"}}, "extra_forbidden", "actions[0].stop.fro"),
    ({"actions.0.stop": [ACCEPTED, {**ACCEPTED, "for": "x"}]}, "value_error", "actions[0].stop[1].for"),
    ({"actions.0.stop": {**ACCEPTED, "scope": ["check", "zork"]}}, "unknown_action",
     "actions[0].stop.scope[1]"),
    ({"actions.0.stop": [{"on": ["accepted", "converted"]}]}, "unheard_outcome", "actions[0].stop[0].on[1]"),
    (ending("action", ACCEPTED), "endless_stop", "actions[0].stop[0].for"),
    (ending("action", {**ACCEPTED, "scope": "group"}), "endless_stop", "actions[0].stop[0].for"),
    (ending("group", {"on": ["rejected", "accepted"], "scope": ["renew_12", "renew_24"]}), "endless_stop",
     "actions[0].stop[0].for"),
    # two that are for good may cover together what one that ends covers
    (
        ending(["check", "upgrade"], {**ACCEPTED, "scope": ["check"]}, {**ACCEPTED, "scope": ["upgrade"]}),
        "endless_stop",
        "actions[0].stop[0].for",
    ),
    ({"actions.0.stop": [{"on": ["rejected"]}, ACCEPTED, {**ACCEPTED, "for": "1d"}]}, "endless_stop",
     "actions[0].stop[2].for"),
    # --- budgets and money
    ({"actions.3.budget": {}}, "value_error", "actions[3].budget"),
    ({"actions.3.budget": {"total": 1, "money": 1.0}}, "value_error", "actions[3].budget"),
    ({"actions.3.budget": {"total": 1, "time_zone": "UTC"}}, "value_error", "actions[3].budget"),
    ({"actions.3.budget": {"total": -1}}, "greater_than_equal", "actions[3].budget.total"),
    ({"actions.3.budget": {"total": 1.5}}, "int_type", "actions[3].budget.total"),
    ({"actions.3.budget": {"money": 1.00001}}, "money", "actions[3].budget.money"),
    ({"actions.3.budget": {"money": 5}}, "budget_without_cost", "actions[3].budget.money"),
    ({"actions.3.treatments.1.cost": 0.00001}, "money", "actions[3].treatments[1].cost"),
    ({"actions.3.treatments.1.incentives": [{"id": "a"}, {"id": "b", "cost": 0.12345}]}, "money",
     "actions[3].treatments[1].incentives[1].cost"),
    # --- incentives: each is checked as the treatment it stands for
    ({"actions.3.treatments.1.incentives": [{"id": "a"}, {"id": "a"}]}, "duplicate_id",
     "actions[3].treatments[1].incentives[1].id"),
    ({"actions.3.treatments.1.incentives": [{"id": "a", "content": {"zork": "x"}}]}, "unknown_content",
     "actions[3].treatments[1].incentives[0].content.zork"),
    ({"actions.3.treatments.1.incentives": [{"id": "a", "content": {"title": "{{ zork }}"}}]},
     "template_name", "actions[3].treatments[1].incentives[0].content.title"),
    ({"actions.3.treatments.1.content": {}, "actions.3.treatments.1.incentives": [{"id": "a"}]},
     "missing_content", "actions[3].treatments[1].incentives[0].content"),
]  # fmt: skip


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    document = catalog_document()
    for path, value in changes.items():
        *way, last = path.split(".")
        node: Any = document
        for step in way:
            node = node[int(step) if step.isdigit() else step]
        node[last] = value
    return document


@pytest.mark.parametrize("changes", SOUND)
def test_what_is_sound_is_taken(changes: dict[str, Any]) -> None:
    assert problems(changed(changes)) == []


@pytest.mark.parametrize(("changes", "code", "path"), FAULTS)
def test_each_fault_is_told_where_it_was_written(changes: dict[str, Any], code: str, path: str) -> None:
    found = problems(changed(changes))
    assert (code, path) in found
    assert all(place.startswith(path) or path.startswith(place) for _, place in found), "and nothing else is"


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"actions.0.stop": {"on": ["zork"]}}, "actions[0].stop.on[0]"),
        ({"actions.0.stop": {**ACCEPTED, "for": "x"}}, "actions[0].stop.for"),
        ({"actions.0.stop": [ACCEPTED, {**ACCEPTED, "for": "x"}]}, "actions[0].stop[1].for"),
        ({"actions.0.stop": {**ACCEPTED, "scope": ["not an id"]}}, "actions[0].stop.scope[0]"),
        (with_policy(on="click", of={"channels": ["zork"]}), f"{P}.of.channels[0]"),
        (ending("action", ACCEPTED, ACCEPTED), "actions[0].stop[0].for"),
    ],
)
def test_one_fault_is_one_problem(changes: dict[str, Any], path: str) -> None:
    assert [place for _, place in problems(changed(changes))] == [path]


def test_messages_say_what_to_do() -> None:
    document = changed(
        {
            **with_policy(gap="731d"),
            **ending("action", ACCEPTED),
            "channels.0.quiet_hours": [{}],
            "actions.3.budget": {"money": 5},
            "control_groups": [CONTROL | {"groups": ["zork"]}],
        }
    )
    found = {problem.code: problem.message for problem in check_document(Source(document)).problems}
    assert found == {
        "beyond_retention": "looks back 731 days, but the ledger is kept for 730d (`retention`)",
        "endless_stop": "after 'accepted' this stop of 30d can never end: another stop of the action covers"
        " the same for good",
        "always_quiet": "no minute of the week is left",
        "budget_without_cost": "'check_agent' costs nothing, so a budget of money would never limit it",
        "unknown_group": "unknown group 'zork' (there are: retention, sales, service)",
    }
