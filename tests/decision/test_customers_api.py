"""Profiles over HTTP: put, patch, delete, history, import."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from support import ANNA, Service, actions, treatments

PATH = "/v1/customers/anna"


async def test_put_replaces_and_get_returns_it(service: Service) -> None:
    assert (await service.client.get(PATH)).json() == {"customer_id": "anna", **ANNA}
    reply = await service.client.put(PATH, json={"attributes": {"nps": 8}})
    assert reply.json() == (await service.client.get(PATH)).json()
    assert reply.json()["scores"] == reply.json()["consents"] == {}
    assert reply.json()["identities"] == []
    moved = await service.client.put("/v1/customers/bert", json={"identities": ANNA["identities"]})
    assert moved.status_code == 200


async def test_patch_merges_removes_and_the_next_decision_sees_it(service: Service) -> None:
    assert "upgrade" in actions(await service.decide(profile={"nps": 9}))
    change = {"attributes": {"plan": "Max", "nps": None}, "identities": [{"type": "phone", "value": "1"}]}
    reply = (await service.client.patch(PATH, json=change)).json()
    assert "nps" not in reply["attributes"]
    assert reply["attributes"]["first_name"] == "Anna"
    assert {identity["type"] for identity in reply["identities"]} == {"cookie", "phone"}
    assert reply == (await service.client.get(PATH)).json()
    assert actions(await service.decide()) == ["check"]


async def test_an_attribute_no_longer_declared_can_still_be_removed(service: Service, document: dict) -> None:
    document["attributes"] = [item for item in document["attributes"] if item["id"] != "spend"]
    await service.client.patch(PATH, json={"attributes": {"spend": 3.5}})
    await service.publish(document)
    assert (await service.client.patch(PATH, json={"attributes": {"spend": 1}})).status_code == 422
    reply = await service.client.patch(PATH, json={"attributes": {"spend": None}})
    assert "spend" not in reply.json()["attributes"]


async def test_delete_forgets_the_profile_and_its_names(service: Service) -> None:
    decision = await service.decide()
    assert (await service.client.delete(PATH)).status_code == 204
    assert (await service.client.delete(PATH)).status_code == 404
    assert (await service.client.get(PATH)).status_code == 404
    assert (await service.decide())["degraded"] == ["profile:not_found"]
    assert (
        await service.client.put("/v1/customers/b", json={"identities": ANNA["identities"]})
    ).status_code == 200
    path = f"/v1/decisions/{decision['decision_id']}/replay"
    assert (await service.client.post(path)).json()["identical"]


async def test_history_is_newest_first(service: Service) -> None:
    first, second = await service.decide(), await service.decide(mode="dry_run")
    taken = treatments(first)[0]
    await service.respond(first, "accepted", "r", taken)
    found = (await service.client.get(f"{PATH}/history")).json()
    assert [item["decision_id"] for item in found["decisions"]] == [
        second["decision_id"],
        first["decision_id"],
    ]
    assert [item["mode"] for item in found["decisions"]] == ["dry_run", "live"]
    assert found["decisions"][1]["treatments"] == treatments(first)
    assert found["decisions"][1]["responses"][0]["outcome"] == "accepted"
    assert len((await service.client.get(f"{PATH}/history?limit=1")).json()["decisions"]) == 1
    assert (await service.client.get("/v1/customers/nobody/history")).json()["decisions"] == []


async def test_an_import_takes_what_is_sound(service: Service) -> None:
    long = '{"customer_id": "long", "attributes": {"first_name": "' + "x" * 3_000_000 + '"}}'
    lines = [
        json.dumps({"customer_id": "b", **ANNA, "identities": []}),
        "",
        "{bad",
        '{"customer_id": "c", "scores": {"clv": NaN}}',
        '{"customer_id": "d", "attributes": {"nps": "3"}}',
        '{"customer_id": "e", "identities": [{"type": "cookie", "value": "anna"}]}',
        long,
        '{"customer_id": "f", "zork": 1}',
        "[1]",
        '{"customer_id": "g"}',
    ]

    async def chunks() -> AsyncIterator[bytes]:
        body = "\n".join(lines).encode()
        for start in range(0, len(body), 10_007):
            yield body[start : start + 10_007]

    refused = await service.client.post("/v1/customers:import", content=chunks())
    assert refused.status_code == 415
    headers = {"content-type": "application/x-ndjson"}
    reply = (await service.client.post("/v1/customers:import", content=chunks(), headers=headers)).json()
    assert (reply["imported"], reply["rejected"]) == (2, 7)
    by_line = {item["line"]: item["errors"][0]["field"] for item in reply["errors"]}
    assert by_line == {
        3: "body", 4: "scores.clv", 5: "attributes.nps", 6: "identities", 7: "body", 8: "zork", 9: "body"
    }  # fmt: skip
    assert (await service.client.get("/v1/customers/g")).status_code == 200
    assert (await service.client.get("/v1/customers/e")).status_code == 404
