"""Cases in which a limit once gave: each is short, and each was a fault before it was a test."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from support import DAY, Service, actions, catalog_document, running

HOUR = timedelta(hours=1)
COOKIE = {"type": "cookie", "value": "c-77"}
ACTIONS = "/v1/decisions"


def document(*policies: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The small catalog with the two actions that everybody may have, and these contact policies."""
    found = {**catalog_document(), **more, "contact_policies": list(policies)}
    found["actions"] = found["actions"][2:]
    for action in found["actions"]:
        action |= {"eligibility": [], "value": 9.0}
    return found


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    async with running(tmp_path / "service.db") as started:
        yield started


async def shown(service: Service, customer: str = "anna", **more: Any) -> list[str]:
    return actions(await service.decide(customer, "side", **more))


async def answer(service: Service, decision: dict[str, Any], outcome: str, **more: Any) -> None:
    item = decision["placements"][0]["items"][0]
    message = {
        "response_id": f"{outcome}-{decision['decision_id']}",
        "decision_id": decision["decision_id"],
        "treatment": item["treatment"],
        "outcome": outcome,
    }
    reply = await service.client.post("/v1/responses", json=message | more)
    assert reply.status_code == 200, reply.text


async def test_a_rest_outlasts_its_window_also_where_it_is_counted_anew(service: Service) -> None:
    rest = {"id": "p", "at_most": 2, "within": "1d", "rest": "7d"}
    await service.publish(document(rest))
    assert await shown(service)
    service.clock.now += 23 * HOUR
    assert await shown(service)
    service.clock.now += 6 * DAY + 20 * HOUR
    assert not await shown(service)
    # Counted anew by other policies, and for another name.
    await service.publish(document(rest, {"id": "q", "gap": "1h"}))
    await service.client.patch("/v1/customers/anna", json={"identities": [COOKIE]})
    assert not await shown(service)
    service.clock.now += 5 * HOUR
    assert await shown(service)


async def test_what_is_still_reserved_is_counted_however_old_it_is(service: Service) -> None:
    """Else it would be taken away from what never held it."""
    day = {"id": "p", "at_most": 2, "within": "1d"}
    await service.publish(document(day))
    await service.client.put("/v1/customers/anna", json={"consents": {"marketing": "given"}})
    old = await service.decide("anna", "block", activation="deferred")
    service.clock.now += 2 * DAY
    await service.publish(document(day, {"id": "q", "gap": "1s"}))
    await service.decide("anna", "side", mode="dry_run")
    await answer(service, old, "click")
    count = 0
    for _ in range(4):
        service.clock.now += timedelta(seconds=2)
        count += bool(await shown(service))
    assert count == 2


async def test_a_late_answer_to_an_old_decision_is_counted_anew_too(service: Service) -> None:
    clicked = {"id": "p", "on": "click", "gap": "10d"}
    await service.publish(document(clicked))
    old = await service.decide("anna", "side")
    service.clock.now += 15 * DAY
    await answer(service, old, "click")
    await service.publish(document(clicked, {"id": "q", "gap": "1s"}))
    service.clock.now += 9 * DAY
    assert not await shown(service)
    service.clock.now += DAY
    assert await shown(service)


@pytest.mark.parametrize("off", [-30 * DAY, 20 * HOUR])
async def test_a_callers_clock_moves_no_limit(service: Service, off: timedelta) -> None:
    """An impression before its decision does not leave the window early; a click of tomorrow does not start
    counts anew until then."""
    seen = {"id": "seen", "on": "impression", "gap": "1d"}
    tired = {"id": "tired", "at_most": 2, "within": "7d", "unless": "click"}
    await service.publish(document(seen if off < timedelta() else tired))
    said = {"occurred_at": (service.clock.now + off).isoformat()}
    first = await service.decide("anna", "side", activation="deferred")
    await answer(service, first, "impression" if off < timedelta() else "click", **said)
    service.clock.now += timedelta(seconds=1)
    counted = [bool(await shown(service)) for _ in range(4)]
    assert counted == ([False] * 4 if off < timedelta() else [True, True, False, False])


@pytest.mark.parametrize("gone", ["deleted", "replaced"])
async def test_a_cookie_that_was_somebodys_is_decided_for_again(service: Service, gone: str) -> None:
    await service.publish(document({"id": "p", "at_most": 3, "within": "7d"}))
    await service.client.put("/v1/customers/anna", json={"identities": [COOKIE]})
    assert await shown(service)
    if gone == "deleted":
        await service.client.delete("/v1/customers/anna")
    else:
        await service.client.put("/v1/customers/anna", json={})
    asked = {"identity": COOKIE, "channel": "web", "placements": [{"id": "side"}]}
    replies = [(await service.client.post(ACTIONS, json=asked)).json() for _ in range(3)]
    assert all(reply["degraded"] == ["identity:not_found"] for reply in replies)
    assert all(reply["customer_id"] is None for reply in replies)
    # It is recorded among anna's, so her limit counts it, and it counts against hers. Where anna was erased,
    # nothing knows that it ever was hers.
    assert [bool(actions(reply)) for reply in replies] == [True, True, gone == "deleted"]
    assert bool(await shown(service)) == (gone == "deleted")


async def test_one_who_objects_is_not_scored(service: Service) -> None:
    await service.publish(document(purposes=[{"id": "marketing"}, {"id": "offers", "profiling": True}]))
    profile: dict[str, Any] = {"scores": {"churn": 0.9}, "attributes": {"first_name": "X"}}
    profile["consents"] = {"offers": "withdrawn"}
    await service.client.put("/v1/customers/anna", json=profile)
    decision = await service.decide("anna", "side", explain=True)
    assert {fact["name"] for fact in decision["explanation"]["facts"]} == {
        "customer.first_name", "consents.offers"
    }  # fmt: skip


async def test_what_was_recorded_before_limits_replays(service: Service) -> None:
    await service.publish(document())
    decision = await service.decide("anna", "side")
    with closing(sqlite3.connect(service.path)) as connection, connection:
        row = connection.execute("SELECT inputs, reply FROM decisions").fetchone()
        inputs, reply = map(orjson.loads, row)
        for name in ("objects", "holds", "quiet", "budgets", "controls", "activation"):
            del inputs[name]
        inputs["channel"] = inputs.pop("channels")[0]
        for name in ("channel", "not_before", "reserved_until"):
            del reply[name]
        connection.execute(
            "UPDATE decisions SET inputs = ?, reply = ?", (orjson.dumps(inputs), orjson.dumps(reply))
        )
    replayed = (await service.client.post(f"{ACTIONS}/{decision['decision_id']}/replay")).json()
    assert replayed["identical"]


async def test_a_budget_of_another_period_is_another_budget(service: Service) -> None:
    for each in ("month", "day"):  # which begin at the same moment today
        limited = document()
        for action in limited["actions"]:
            action["budget"] = {"total": 1, "each": each}
        await service.publish(limited)
        assert len(await shown(service)) == 2
        assert not await shown(service)


async def test_those_who_were_strangers_are_in_the_report_with_what_they_did(service: Service) -> None:
    held = document()
    held["control_groups"] = [{"id": "g", "share": 0.5, "behaviour": "random_eligible"}]
    await service.publish(held)
    for number in range(12):
        cookie = {"type": "cookie", "value": f"v-{number}"}
        asked = {"identity": cookie, "channel": "web", "placements": [{"id": "side"}]}
        stranger = (await service.client.post(ACTIONS, json=asked)).json()
        await service.client.put(f"/v1/customers/c-{number}", json={"identities": [cookie]})
        decision = await service.decide(f"c-{number}", "side")
        assert decision["control_group"] == stranger["control_group"]
        await answer(service, decision, "accepted")
    (group,) = (await service.client.get("/v1/reports/control-groups")).json()["control_groups"]
    sides = (group["members"], group["others"])
    assert sum(side["customers"] for side in sides) == 12
    assert sum(side["outcomes"].get("accepted", 0) for side in sides) == 12
