"""Reports: the size of control groups, and what is left of budgets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import DAY, Clock, Service, actions, catalog_document, running

DAILY = {"total": 5, "each": "day", "time_zone": "Europe/Amsterdam"}


def document(share: float = 0.25) -> dict[str, Any]:
    found = catalog_document()
    found["control_groups"] = [
        {"id": "holdout", "share": share, "behaviour": "no_action", "groups": ["sales"]}
    ]
    check = found["actions"][3]
    check["budget"] = DAILY
    return found


async def reported(service: Service, name: str) -> list[dict[str, Any]]:
    reply = await service.client.get(f"/v1/reports/{name}")
    assert reply.status_code == 200, reply.text
    (found,) = reply.json().values()
    return list(found)


async def test_control_groups_count_customers_once_and_what_they_did(tmp_path: Path) -> None:
    async with running(tmp_path / "x.db") as service:
        await service.publish(document())
        assert await reported(service, "control-groups") == []
        members, clicks = set(), 0
        for number in range(40):
            for _ in range(2):
                decision = await service.decide(f"c-{number}", "side")
                if decision["control_group"]:
                    members.add(number)
            if "check" in actions(decision):
                clicks += 1
                await service.respond(decision, "click", f"r-{number}", "check_side")
        (group,) = await reported(service, "control-groups")
    assert (group["members"]["customers"], group["others"]["customers"]) == (len(members), 40 - len(members))
    assert group["share"] == len(members) / 40
    assert group["expected_share"] == 0.25
    assert not group["sample_ratio_mismatch"]
    assert group["members"]["outcomes"].keys() <= {"click"}
    assert sum(side["outcomes"].get("click", 0) for side in (group["members"], group["others"])) == clicks > 0


async def test_a_group_of_the_wrong_size_is_said_to_be(tmp_path: Path) -> None:
    """As where one side is lost on the way, here: where the customers were chosen by hand."""
    async with running(tmp_path / "x.db") as service:
        await service.publish(document(0.5))
        taken = 0
        for number in range(200):
            dry = await service.decide(f"c-{number}", "side", mode="dry_run")
            if dry["control_group"] and taken < 40:
                await service.decide(f"c-{number}", "side")
                taken += 1
        (group,) = await reported(service, "control-groups")
    assert group["others"] == {"customers": 0, "outcomes": {}}
    assert group["p_value"] == pytest.approx(2 * 0.5**40)
    assert group["sample_ratio_mismatch"]


async def test_shares_that_changed_are_expected_as_they_were(tmp_path: Path) -> None:
    async with running(tmp_path / "x.db") as service:
        for share, customers in ((0.0, range(30)), (1.0, range(30, 40))):
            await service.publish(document(share))
            for number in customers:
                await service.decide(f"c-{number}", "side")
        (group,) = await reported(service, "control-groups")
    assert (group["share"], group["expected_share"], group["p_value"]) == (0.25, 0.25, 1.0)


async def test_budgets_by_period(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path / "x.db", clock) as service:
        await service.publish(document(0.0))
        assert await reported(service, "budgets") == []
        for number in range(7):
            await service.decide(f"c-{number}", "side", activation="deferred" if number == 3 else "immediate")
        clock.now += DAY
        await service.decide("c-1", "side")
        used = await reported(service, "budgets")
        first = {"action": "check", "unit": "times", "each": "day", "total": 5}
        assert used == [
            {**first, "begins": "2026-03-01T23:00:00Z", "used": 1, "reserved": 0, "left": 4},
            {**first, "begins": "2026-02-28T23:00:00Z", "used": 5, "reserved": 1, "left": 0},
        ]
        assert await service.context.releasing.release() > 0
        assert (await reported(service, "budgets"))[1] == {**used[1], "used": 4, "reserved": 0, "left": 1}
        await service.publish(catalog_document())
        assert {(use["total"], use["left"]) for use in await reported(service, "budgets")} == {(None, None)}


async def test_money_is_reported_as_money(tmp_path: Path) -> None:
    async with running(tmp_path / "x.db") as service:
        money = catalog_document()
        money["actions"][3] |= {"budget": {"money": 10}}
        for treatment in money["actions"][3]["treatments"]:
            treatment["cost"] = 3.3
        await service.publish(money)
        for number in range(5):
            await service.decide(f"c-{number}", "side")
        (use,) = await reported(service, "budgets")
    assert (use["unit"], use["total"], use["used"], use["left"]) == ("EUR", 10, 9.9, 0.1)


async def test_the_360_view_and_the_history_show_what_limits(tmp_path: Path) -> None:
    async with running(tmp_path / "x.db") as service:
        limits = document(0.0) | {"contact_policies": [{"id": "once", "at_most": 1, "within": "7d"}]}
        limits["actions"][3]["stop"] = {"on": ["accepted"]}
        await service.publish(limits)
        await service.client.put("/v1/customers/anna", json={})
        decision = await service.decide("anna", "side", activation="deferred")
        await service.respond(decision, "accepted", "r-1", "check_side")
        found = (await service.client.get("/v1/customers/anna")).json()
        (entry,) = found["decisions"]
    assert found["held_back"] == [
        {"contact_policy": "once", "target": "", "until": "2026-03-08T12:30:15.250000Z"}
    ]
    assert found["stops"] == [{"scope": "action", "target": "check", "until": None}]
    assert found["control_groups"] == {"holdout": False}
    assert (entry["activation"], [each["state"] for each in entry["reservations"]]) == ("deferred", ["firm"])
