"""Challengers and shadows as the service decides with them: recorded, explained, replayed."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from support import Service, catalog_document

from arbitration.control import challenger


async def test_challengers_decide_for_their_customers_and_shadows_are_explained(service: Service) -> None:
    document = catalog_document()
    document["policies"][0]["challengers"] = [
        {"policy": "tried", "share": 0.5},
        {"policy": "plain", "shadow": True},
    ]
    document["policies"].append({"id": "tried", "strategy": "squarecb"})
    await service.publish(document)
    champion = service.context.live.serving.published.compiled.policies["default"]
    deciding = set()
    for number in range(12):
        customer = f"c-{number}"
        decision = await service.decide(customer, profile={"nps": 9, "plan": "Max"})
        id = decision["decision_id"]
        record = await service.context.store.decision(id)
        assert record is not None
        wanted = challenger(champion, customer) or "default"
        deciding.add(wanted)
        assert set(record.snapshots) == {wanted, "plain"}
        explained = (await service.client.get(f"/v1/decisions/{id}/explanation")).json()
        assert explained["placements"][0]["policy"] == wanted
        assert [shadow["policy"] for shadow in explained["shadows"]] == ["plain"]
        assert [arm["treatment"] for arm in explained["shadows"][0]["ranked"]] == ["check_agent"]
        assert (await service.client.post(f"/v1/decisions/{id}/replay")).json()["identical"]
        again = await service.decide(customer, profile={"nps": 9, "plan": "Max"})
        repeated = await service.context.store.decision(again["decision_id"])
        assert repeated is not None
        assert set(repeated.snapshots) == set(record.snapshots)
    assert deciding == {"default", "tried"}


async def test_a_shadow_that_is_lost_costs_only_its_own_part(service: Service) -> None:
    document = catalog_document()
    document["policies"][0]["challengers"] = [{"policy": "plain", "shadow": True}]
    await service.publish(document)
    decision = await service.decide(profile={"nps": 9, "plan": "Max"})
    await service.respond(decision, "accepted", "a", "check_agent")
    while await service.learner().step():
        pass
    await service.context.live.refresh()
    decision = await service.decide(profile={"nps": 9, "plan": "Max"})
    record = await service.context.store.decision(decision["decision_id"])
    assert record is not None
    for policy, status in (("plain", 200), ("default", 410)):
        with closing(sqlite3.connect(service.path)) as connection, connection:
            connection.execute(
                "UPDATE snapshots SET content = x'00' WHERE version = ?", (record.snapshots[policy],)
            )
        service.context.live._snapshots.clear()
        path = f"/v1/decisions/{decision['decision_id']}"
        replayed = await service.client.post(f"{path}/replay")
        explained = await service.client.get(f"{path}/explanation")
        assert (replayed.status_code, explained.status_code) == (status, status)
        if status == 200:
            assert replayed.json()["identical"]
            (shadow,) = explained.json()["shadows"]
            assert (shadow["policy"], shadow["ranked"]) == ("plain", [])
            assert "truncated" in shadow["unavailable"]
        else:
            assert replayed.json()["code"] == "snapshot_unavailable"
