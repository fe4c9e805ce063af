"""From what the store has to what a decision is told: budgets, quiet hours, control groups."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support import NOW, catalog_document

from arbitration.catalog.compile import CompiledCatalog, compile_document
from arbitration.catalog.limits import ControlGroup
from arbitration.control import membership
from arbitration.facts import Facts
from decision.limiting import Limited, budget_periods, limited
from decision.storage.port import BudgetPeriod, Membership, Standing, Stop

NIGHT = [{"from": "20:00", "to": "08:00"}]


def catalog(**more: Any) -> CompiledCatalog:
    document = catalog_document()
    document["attributes"].append({"id": "zone", "type": "string"})
    for action in document["actions"]:
        action |= more.pop(action["id"], {})
    for channel in document["channels"]:
        channel |= more.pop(channel["id"], {})
    return compile_document(document | more)


def told(
    compiled: CompiledCatalog,
    standing: Standing | None = None,
    placements: tuple[str, ...] = ("panel",),
    channels: tuple[str, ...] = ("agent",),
    facts: Facts | None = None,
    now: datetime = NOW,
    key: str = "anna",
) -> Limited:
    memberships = () if standing is None else standing.memberships
    return limited(compiled, placements, channels, key, standing, memberships, facts or {}, now)


@pytest.mark.parametrize(
    ("budget", "time_zone", "now", "period"),
    [
        ({"total": 9}, "UTC", NOW, BudgetPeriod("check:times:ever")),
        ({"money": 9}, "UTC", NOW, BudgetPeriod("check:money:ever")),
        ({"total": 9, "each": "day"}, "UTC", NOW,
         BudgetPeriod("check:times:day", datetime(2026, 3, 1, tzinfo=UTC))),
        ({"total": 9, "each": "quarter"}, "UTC", NOW,
         BudgetPeriod("check:times:quarter", datetime(2026, 1, 1, tzinfo=UTC))),
        ({"total": 9, "each": "month"}, "Asia/Tokyo", NOW,
         BudgetPeriod("check:times:month", datetime(2026, 2, 28, 15, tzinfo=UTC))),
        ({"total": 9, "each": "month", "time_zone": "America/New_York"}, "Asia/Tokyo",
         datetime(2026, 3, 1, 4, 59, tzinfo=UTC),
         BudgetPeriod("check:times:month", datetime(2026, 2, 1, 5, tzinfo=UTC))),
    ],
)  # fmt: skip
def test_a_budget_has_an_account_for_each_of_its_periods(
    budget: dict[str, Any], time_zone: str, now: datetime, period: BudgetPeriod
) -> None:
    treatments = [{**t, "cost": 1.0} for t in catalog_document()["actions"][3]["treatments"]]
    compiled = catalog(check={"budget": budget, "treatments": treatments}, time_zone=time_zone)
    assert budget_periods(compiled, ["panel", "block"], now) == {"check": period}
    assert budget_periods(compiled, ["hero"], now) == {}


def test_each_budget_is_of_its_own_period() -> None:
    days = {"budget": {"total": 1, "each": "day"}}
    tokyo = {"budget": {"total": 1, "each": "day", "time_zone": "Asia/Tokyo"}}
    found = budget_periods(catalog(check=days, upgrade=tokyo, renew_24=days), ["panel"], NOW)
    assert {action: period.begins and period.begins.hour for action, period in found.items()} == {
        "renew_24": 0, "upgrade": 15, "check": 0,
    }  # fmt: skip


RANGES: list[tuple[dict[str, Any], list[float], int, int, int, int]] = [
    # budget, costs of the action's arms, used, what is left, least and most that would leave it as it is
    ({"total": 3}, [1.0], 0, 3, -(2**62), 2),
    ({"total": 3}, [1.0], 2, 1, -(2**62), 2),
    ({"total": 3}, [1.0], 3, 0, 3, 2**62),
    ({"total": 3}, [1.0], 5, -2, 3, 2**62),  # the catalog has lowered it
    ({"total": 0}, [1.0], 0, 0, 0, 2**62),
    ({"money": 10}, [2.5], 0, 100_000, -(2**62), 75_000),
    ({"money": 10}, [2.5], 75_000, 25_000, -(2**62), 75_000),
    ({"money": 10}, [2.5], 75_001, 24_999, 75_001, 2**62),
    # the dear arm is affordable up to 50,000, the cheap one up to 90,000
    ({"money": 10}, [1.0, 5.0], 50_000, 50_000, -(2**62), 50_000),
    ({"money": 10}, [1.0, 5.0], 50_001, 49_999, 50_001, 90_000),
    ({"money": 10}, [1.0, 5.0], 90_000, 10_000, 50_001, 90_000),
    ({"money": 10}, [1.0, 5.0], 90_001, 9_999, 90_001, 2**62),
]


@pytest.mark.parametrize(("budget", "costs", "used", "left", "least", "most"), RANGES)
def test_the_range_of_a_budget_is_where_the_same_arms_are_affordable(
    budget: dict[str, Any], costs: list[float], used: int, left: int, least: int, most: int
) -> None:
    arm = {"channel": "agent", "placement": "panel", "content": {"headline": "x"}}
    arms = [{"id": f"t{number}", "cost": cost, **arm} for number, cost in enumerate(costs)]
    compiled = catalog(check={"budget": budget, "treatments": arms})
    period = BudgetPeriod("check:times:ever" if "total" in budget else "check:money:ever")
    found = told(compiled, Standing(used={period: used}), ("panel", "panel"))
    takes = 1 if "total" in budget else max(costs) * 10_000
    assert found.budgets == ({"check": left} if left < takes else {})
    assert found.ranges == {period: (least, most)}


def test_the_range_is_of_the_arms_of_all_placements() -> None:
    document = catalog_document()["actions"][3]
    for cost, treatment in zip((1.0, 2.0, 3.0), document["treatments"], strict=True):
        treatment["cost"] = cost
    compiled = catalog(check={**document, "budget": {"money": 10}})
    period = BudgetPeriod("check:money:ever")
    standing = Standing(used={period: 75_000})
    for placements, bounds in (
        (("panel",), (-(2**62), 90_000)),
        (("panel", "block"), (70_001, 90_000)),
        (("panel", "block", "side"), (70_001, 80_000)),
    ):
        assert told(compiled, standing, placements, ("agent", "web", "mail")).ranges == {period: bounds}


def test_what_the_store_knows_is_passed_on() -> None:
    standing = Standing(
        (Stop("action", "check", NOW), Stop("group", "sales", None)),
        {("p", "check"): NOW, ("p", ""): NOW + timedelta(days=1), ("q", "mail"): NOW},
    )
    found = told(catalog(), standing)
    assert found.stops == (("action", "check"), ("group", "sales"))
    soon, later = "2026-03-01T12:30:15.250000Z", "2026-03-02T12:30:15.250000Z"
    assert found.holds == {"p": {"check": soon, "": later}, "q": {"mail": soon}}
    assert (found.budgets, found.ranges, found.joins, found.degraded) == ({}, {}, (), ())


def test_what_cannot_be_read_is_taken_to_limit() -> None:
    compiled = catalog(
        contact_policies=[{"id": "p", "gap": "1d"}, {"id": "q", "gap": "1d", "per": "action"}],
        control_groups=[{"id": "all", "share": 1.0, "behaviour": "no_action"}],
        check={"budget": {"total": 1}, "stop": [{"on": ["accepted"], "scope": ["check", "upgrade"]}]},
    )
    found = told(compiled, None)
    assert found.holds == {"p": {"*": None}, "q": {"*": None}}
    assert set(found.stops) == {
        ("group", "retention"), ("action", "upgrade"), ("action", "check")
    }  # fmt: skip
    assert (found.budgets, found.ranges) == (None, {})
    assert (found.controls, found.joins) == ({"all": True}, ())


EVENING = datetime(2026, 3, 1, 20, 30, tzinfo=UTC)  # in Tokyo half past five in the morning of Monday
QUIET: list[tuple[dict[str, Any], dict[str, Any], datetime, str | None, tuple[str, ...]]] = [
    # the catalog, facts, now, until when it is quiet, what is degraded
    ({}, {}, NOW, None, ()),
    ({}, {}, EVENING, "2026-03-02T08:00:00Z", ()),
    ({"time_zone": "America/New_York"}, {}, EVENING, None, ()),
    ({"time_zone": "Asia/Tokyo"}, {}, EVENING, "2026-03-01T23:00:00Z", ()),
    # the customer's own zone goes before, where it is asked for, known and there is one
    ({}, {"customer.zone": "Asia/Tokyo"}, EVENING, "2026-03-02T08:00:00Z", ()),
    ({"customer_time_zone": "zone"}, {"customer.zone": "Asia/Tokyo"}, EVENING, "2026-03-01T23:00:00Z", ()),
    ({"customer_time_zone": "zone"}, {"customer.zone": "America/New_York"}, EVENING, None, ()),
    ({"customer_time_zone": "zone"}, {}, EVENING, "2026-03-02T08:00:00Z", ()),
    ({"customer_time_zone": "zone"}, {"customer.zone": "Mars/Base"}, EVENING, "2026-03-02T08:00:00Z",
     ("customer.zone:bad_value",)),
    ({"customer_time_zone": "zone"}, {"customer.zone": ""}, EVENING, "2026-03-02T08:00:00Z",
     ("customer.zone:bad_value",)),
    ({"customer_time_zone": "zone"}, {"customer.zone": "../../etc/passwd"}, NOW, None,
     ("customer.zone:bad_value",)),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "facts", "now", "until", "degraded"), QUIET)
def test_quiet_hours_go_by_the_clock_of_the_customer(
    fields: dict[str, Any], facts: Facts, now: datetime, until: str | None, degraded: tuple[str, ...]
) -> None:
    compiled = catalog(**fields, mail={"quiet_hours": NIGHT})
    found = told(compiled, Standing(), ("block", "panel"), ("mail", "agent"), facts, now)
    assert found.quiet == ({} if until is None else {"mail": until})
    assert found.degraded == degraded
    assert told(compiled, Standing(), ("panel",), ("agent",), facts, now).quiet == {}


FEBRUARY = {"from": "2026-02-01", "to": "2026-02-28"}
MARCH = {"from": "2026-03-01", "to": "2026-03-31"}


class TestControlGroups:
    def test_only_those_in_their_window_count(self) -> None:
        group = {"share": 1.0, "behaviour": "no_levers"}
        controls = [{"id": "old", "valid": FEBRUARY, **group}, {"id": "new", "valid": MARCH, **group}]
        found = told(catalog(control_groups=controls), Standing())
        assert found.controls == {"new": True}
        assert found.joins == (Membership("new", "2026-03-01", True, 1.0),)

    def test_what_was_found_once_stays(self) -> None:
        """Though the share has changed; but what was found in another window, or of another group, not."""
        for share, member in ((0.0, True), (1.0, False)):
            control = {"id": "g", "share": share, "behaviour": "no_action", "valid": MARCH}
            compiled = catalog(control_groups=[control])
            kept = Membership("g", "2026-03-01", member, 0.5)
            found = told(compiled, Standing(memberships=(kept,)))
            assert (found.controls, found.joins) == ({"g": member}, ())
            for other in (
                Membership("g", "2026-02-01", member, 0.5),
                Membership("h", "2026-03-01", member, 1),
            ):
                found = told(compiled, Standing(memberships=(other,)))
                assert found.controls == {"g": not member}
                assert found.joins == (Membership("g", "2026-03-01", not member, share),)

    def test_whoever_is_in_is_a_hash_of_the_first_name(self) -> None:
        control = {"id": "g", "share": 0.5, "behaviour": "no_action", "salt": "s"}
        compiled = catalog(control_groups=[control])
        for number in range(50):
            member = membership(ControlGroup.model_validate(control), f"c-{number}")
            found = told(compiled, Standing(), key=f"c-{number}")
            assert (found.controls, found.joins) == (
                {"g": member},
                (Membership("g", "", member, 0.5),),  # who is not in is recorded too
            )

    def test_it_is_recorded_where_it_matters(self) -> None:
        control = {"id": "g", "share": 1.0, "behaviour": "no_action", "actions": ["upgrade"]}
        compiled = catalog(control_groups=[control])
        for placements, joins in ((("panel",), 1), (("hero",), 0), (("hero", "side"), 1)):
            found = told(compiled, Standing(), placements, ("agent", "web"))
            assert (found.controls, len(found.joins)) == ({"g": True}, joins)
