"""Profiles over HTTP: put, patch, delete, identities, history, import, push."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from support import ANNA, DAY, NOW, Service, actions, treatments

PATH = "/v1/customers/anna"
BERT = "/v1/customers/bert"
COOKIE = {"type": "cookie", "value": "anna"}
PHONE = {"type": "phone", "value": "1"}
NDJSON = {"content-type": "application/x-ndjson"}


async def send(service: Service, path: str, *lines: Any) -> httpx.Response:
    """Lines of NDJSON; a text goes as it is."""
    body = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return await service.client.post(path, content=body.encode(), headers=NDJSON)


async def stored(service: Service, path: str = PATH) -> dict[str, Any]:
    """A profile as stored, without what else is known."""
    found = (await service.client.get(path)).json()
    return {name: found[name] for name in ("customer_id", *ANNA)}


async def test_put_replaces_and_get_returns_it(service: Service) -> None:
    assert await stored(service) == {"customer_id": "anna", **ANNA}
    reply = await service.client.put(PATH, json={"attributes": {"nps": 8}})
    assert reply.json() == await stored(service)
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
    assert reply == await stored(service)
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
    reply = (await service.client.post("/v1/customers:import", content=chunks(), headers=NDJSON)).json()
    assert (reply["imported"], reply["rejected"]) == (2, 7)
    by_line = {item["line"]: item["errors"][0]["field"] for item in reply["errors"]}
    assert by_line == {
        3: "body", 4: "scores.clv", 5: "attributes.nps", 6: "identities", 7: "body", 8: "zork", 9: "body"
    }  # fmt: skip
    assert (await service.client.get("/v1/customers/g")).status_code == 200
    assert (await service.client.get("/v1/customers/e")).status_code == 404


async def test_an_identity_of_another_makes_two_customers_one(service: Service) -> None:
    decision = await service.decide()
    await service.respond(decision, "accepted", "r", treatments(decision)[0])
    mine = {"attributes": {"nps": 9, "plan": "Max"}, "identities": [PHONE]}
    service.clock.now = NOW - DAY  # bert told us before anna did
    assert (await service.client.put(BERT, json=mine)).status_code == 200
    service.clock.now = NOW + DAY
    reply = await service.client.post(f"{BERT}/identities", json={"identities": [COOKIE]})
    assert reply.status_code == 200
    names = {"customer_id": "bert", "merged": ["anna"], "identities": [COOKIE, PHONE]}
    assert reply.json() == names
    again = await service.client.post(f"{PATH}/identities", json={"identities": [PHONE]})
    assert again.json() == names
    found = (await service.client.get(PATH)).json()
    assert found == (await service.client.get(BERT)).json()
    assert found["customer_id"] == "bert"
    assert found["attributes"] == {**ANNA["attributes"], "nps": 3, "plan": "Basic"}
    told = await service.context.store.as_of("bert")
    assert set(told.values()) == {NOW}
    for path in (PATH, BERT):
        history = (await service.client.get(f"{path}/history")).json()
        assert history["customer_id"] == "bert"
        assert [item["decision_id"] for item in history["decisions"]] == [decision["decision_id"]]
        assert history["decisions"][0]["responses"][0]["response_id"] == "r"


async def test_every_reply_has_the_id_of_the_survivor(service: Service) -> None:
    await service.client.post(f"{BERT}/identities", json={"identities": [COOKIE]})
    put = await service.client.put(PATH, json={"attributes": {"nps": 8}})
    assert put.json() == await stored(service, BERT)
    expected = {**ANNA, "customer_id": "bert", "attributes": {**ANNA["attributes"], "nps": 8}}
    assert put.json() == expected, "what is stored, as nothing is taken from a profile of several"
    patched = await service.client.patch(PATH, json={"scores": {"clv": 1.0}})
    assert patched.json() == await stored(service, BERT)
    assert patched.json() == {**expected, "scores": {**ANNA["scores"], "clv": 1.0}}
    assert (await service.client.delete(PATH)).status_code == 204
    assert (await service.client.get(BERT)).status_code == 404


async def test_identities_make_a_customer(service: Service) -> None:
    reply = await service.client.post(f"{BERT}/identities", json={"identities": [PHONE]})
    assert reply.json() == {"customer_id": "bert", "merged": [], "identities": [PHONE]}
    assert (await service.client.get(BERT)).json()["identities"] == [PHONE]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"identities": []}, "identities"),
        ({"identities": [PHONE] * 65}, "identities"),
        ({}, "identities"),
        ({"identities": [COOKIE, {"type": "E mail", "value": "v"}]}, "identities[1].type"),
        ({"identities": [COOKIE, {"type": "mail", "value": "a\0"}]}, "identities[1].value"),
        ({"identities": [COOKIE], "merged": []}, "merged"),
    ],
)
async def test_faulty_identities_change_nothing(service: Service, body: dict[str, Any], field: str) -> None:
    reply = await service.client.post(f"{BERT}/identities", json=body)
    assert reply.status_code == 422
    assert [error["field"] for error in reply.json()["errors"]] == [field]
    assert (await service.client.get(BERT)).status_code == 404
    assert (await service.client.get(PATH)).json()["customer_id"] == "anna"


async def test_values_are_told_when_the_clock_says(service: Service) -> None:
    store = service.context.store
    assert set((await store.as_of("anna")).values()) == {NOW}
    service.clock.now = NOW + DAY
    await service.client.patch(PATH, json={"attributes": {"nps": 3, "plan": None}})
    told = await store.as_of("anna")
    assert told["attributes.nps"] == NOW + DAY
    assert "attributes.plan" not in told
    assert told["scores.clv"] == NOW
    service.clock.now = NOW + 2 * DAY
    await service.client.put(PATH, json={"attributes": {"nps": 3}})
    assert await store.as_of("anna") == {"attributes.nps": NOW + 2 * DAY}
    service.clock.now = NOW + 3 * DAY
    await send(service, "/v1/customers:push", {"customer_id": "anna", "scores": {"clv": 1.0}})
    await send(service, "/v1/customers:import", {"customer_id": "bert", "scores": {"clv": 1.0}})
    assert await store.as_of("anna") == {"attributes.nps": NOW + 2 * DAY, "scores.clv": NOW + 3 * DAY}
    assert await store.as_of("bert") == {"scores.clv": NOW + 3 * DAY}


async def test_a_push_merges_each_line_and_null_removes(service: Service) -> None:
    before = await stored(service)
    reply = await send(
        service,
        "/v1/customers:push",
        {"customer_id": "anna", "attributes": {"nps": 9, "plan": None}, "identities": [PHONE]},
        {"customer_id": "bert", "attributes": {"nps": 1}},
        "",
        {"customer_id": "anna", "attributes": {"plan": "Max"}, "scores": {"clv": None},
         "consents": {"marketing": None}},
        {"customer_id": "bert", "attributes": {"spend": None, "zork": None}},
    )  # fmt: skip
    assert reply.status_code == 200
    assert reply.json() == {"imported": 4, "rejected": 0, "errors": []}
    assert await stored(service) == before | {
        "attributes": {**before["attributes"], "nps": 9, "plan": "Max"},
        "scores": {"churn": 0.5},
        "consents": {},
        "identities": [COOKIE, PHONE],
    }
    assert (await service.client.get(BERT)).json()["attributes"] == {"nps": 1}


async def test_a_push_takes_what_is_sound(service: Service) -> None:
    reply = await send(
        service,
        "/v1/customers:push",
        {"customer_id": "anna", "attributes": {"nps": 1}},
        "{bad",
        {"customer_id": "anna", "attributes": {"nps": 99}},
        {"customer_id": "anna", "attributes": {"first_name": "Ann"}},
        {"customer_id": "bert", "attributes": {"nps": 2}, "identities": [COOKIE]},
        {"customer_id": "anna", "consents": {"marketing": "perhaps"}},
        {"customer_id": "anna", "attributes": {"zork": 1}},
        {"attributes": {"nps": 2}},
        {"customer_id": "anna", "attributes": None},
        {"customer_id": "anna", "scores": {"clv": 7.5}},
        {"customer_id": "bert", "attributes": {"nps": 4}},
    )
    assert (reply.json()["imported"], reply.json()["rejected"]) == (4, 7)
    by_line = {item["line"]: item["errors"][0]["field"] for item in reply.json()["errors"]}
    assert by_line == {
        2: "body", 3: "attributes.nps", 5: "identities", 6: "consents.marketing", 7: "attributes.zork",
        8: "customer_id", 9: "attributes",
    }  # fmt: skip
    found = (await service.client.get(PATH)).json()
    assert found["attributes"] == {**ANNA["attributes"], "nps": 1, "first_name": "Ann"}
    assert found["scores"] == {"clv": 7.5, "churn": 0.5}
    bert = (await service.client.get(BERT)).json()
    assert (bert["attributes"], bert["identities"]) == ({"nps": 4}, [])


async def test_a_push_of_another_type_is_refused(service: Service) -> None:
    line = {"customer_id": "anna", "attributes": {"nps": 1}}
    for headers in ({}, {"content-type": "application/json"}):
        content = json.dumps(line).encode()
        reply = await service.client.post("/v1/customers:push", content=content, headers=headers)
        assert reply.status_code == 415
        assert reply.json()["errors"][0]["field"] == "Content-Type"
    assert (await service.client.get(PATH)).json()["attributes"]["nps"] == 3


async def test_a_push_may_be_longer_than_any_other_body(service: Service) -> None:
    many = [{"customer_id": f"c-{n}", "attributes": {"first_name": "x" * 1000}} for n in range(1_200)]
    reply = await send(service, "/v1/customers:push", *many)
    assert reply.status_code == 200, reply.text
    assert reply.json()["imported"] == 1_200
