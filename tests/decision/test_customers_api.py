"""Profiles over HTTP: put, patch, delete, identities, history, import, push."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from support import ANNA, DAY, NOW, Service, actions, treatments

from arbitration.facts import rfc3339

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
    return {name: found[name] for name in ("customer_id", *ANNA, "consent_records", "restricted")}


def record(status: str, at: datetime, told_at: datetime, source: str | None = None) -> dict[str, Any]:
    return {"status": status, "at": rfc3339(at), "source": source, "told_at": rfc3339(told_at)}


async def test_put_replaces_and_get_returns_it(service: Service) -> None:
    records = {"marketing": record("given", NOW, NOW)}
    expected = {"customer_id": "anna", **ANNA, "consent_records": records, "restricted": False}
    assert await stored(service) == expected
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
    assert (await service.client.delete(PATH)).status_code == 204  # nothing is left; it is harmless
    assert (await service.client.delete("/v1/customers/nobody")).status_code == 404
    assert (await service.client.get(PATH)).status_code == 404
    assert (await service.decide())["degraded"] == ["profile:not_found"]
    assert (
        await service.client.put("/v1/customers/b", json={"identities": ANNA["identities"]})
    ).status_code == 200
    path = f"/v1/decisions/{decision['decision_id']}"
    for reply in (
        await service.client.get(path),
        await service.client.post(f"{path}/replay"),
        await service.client.get(f"{path}/explanation"),
    ):
        assert (reply.status_code, reply.json()["code"]) == (410, "erased")


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
    expected = {
        **ANNA,
        "customer_id": "bert",
        "attributes": {**ANNA["attributes"], "nps": 8},
        "consent_records": {"marketing": record("given", NOW, NOW)},
        "restricted": False,
    }
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
        "consent_records": {},
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


HOUR = timedelta(hours=1)
OTHER_ZONE = "2026-02-28T13:30:15.25+01:00"  # a day before NOW


def consent(status: str, at: datetime | None = None, source: str | None = None) -> dict[str, Any]:
    given = {"status": status, "at": None if at is None else rfc3339(at), "source": source}
    return {"marketing": {name: value for name, value in given.items() if value is not None}}


async def tell(service: Service, way: str, consents: dict[str, Any]) -> None:
    if way in ("PUT", "PATCH"):
        reply = await service.client.request(way, PATH, json={"consents": consents})
        assert reply.json() == await stored(service), "what is stored, also where it stayed as it was"
    else:
        reply = await send(service, f"/v1/customers:{way}", {"customer_id": "anna", "consents": consents})
        assert reply.json()["imported"] == 1


async def known(service: Service) -> dict[str, Any]:
    found = await stored(service)
    record: dict[str, Any] = found["consent_records"]["marketing"]
    assert found["consents"] == {"marketing": record["status"]}
    return record


@pytest.mark.parametrize("way", ["PUT", "PATCH", "import", "push"])
async def test_a_consent_has_its_time_and_source(service: Service, way: str) -> None:
    service.clock.now = told = NOW + DAY
    given = {"status": "withdrawn", "at": rfc3339(NOW + HOUR), "source": "web form, été"}
    await tell(service, way, {"marketing": given})
    assert await known(service) == record("withdrawn", NOW + HOUR, told, "web form, été")
    found = (await service.client.get(PATH)).json()
    (fact,) = (fact for fact in found["facts"] if fact["name"] == "consents.marketing")
    assert (fact["as_of"], fact["age_seconds"]) == (rfc3339(NOW + HOUR), (DAY - HOUR).total_seconds())
    service.clock.now = told = NOW + 2 * DAY
    await tell(service, way, consent("given", source="shop"))
    assert await known(service) == record("given", told, told, "shop")
    await tell(service, way, {"marketing": {"status": "withdrawn"}})
    assert await known(service) == record("withdrawn", told, told)


@pytest.mark.parametrize("way", ["PUT", "PATCH", "import", "push"])
async def test_an_older_consent_does_not_undo_a_newer_one(service: Service, way: str) -> None:
    await tell(service, way, {"marketing": {"status": "withdrawn", "at": OTHER_ZONE}})
    assert await known(service) == record("given", NOW, NOW), "the one told NOW is newer"
    await tell(service, way, consent("withdrawn", NOW, "letter"))
    assert await known(service) == record("withdrawn", NOW, NOW, "letter"), "of two at once"
    service.clock.now = told = NOW + DAY
    await tell(service, way, consent("given", NOW, "shop"))
    assert await known(service) == record("withdrawn", NOW, NOW, "letter")
    await tell(service, way, consent("given", NOW + HOUR, "shop"))
    assert await known(service) == record("given", NOW + HOUR, told, "shop")
    await tell(service, way, {"marketing": "withdrawn"})
    assert await known(service) == record("withdrawn", told, told)


async def test_a_consent_ahead_of_the_clock_is_of_now(service: Service) -> None:
    await tell(service, "PATCH", consent("given", NOW + DAY, "a clock that is fast"))
    assert await known(service) == record("given", NOW, NOW, "a clock that is fast")
    service.clock.now = NOW + HOUR
    await tell(service, "PATCH", consent("withdrawn", NOW + HOUR))
    assert (await known(service))["status"] == "withdrawn"


@pytest.mark.parametrize("way", ["PUT", "PATCH", "import", "push"])
@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"status": "perhaps"}, "marketing.status"),
        ({"at": "2026-01-31T08:00:00Z"}, "marketing.status"),
        ({"status": "given", "at": "2026-01-31T08:00:00"}, "marketing.at"),
        ({"status": "given", "at": "soon"}, "marketing.at"),
        ({"status": "given", "at": 1769846400}, "marketing.at"),
        ({"status": "given", "at": rfc3339(NOW + DAY + timedelta(microseconds=1))}, "marketing.at"),
        ({"status": "given", "source": "x" * 201}, "marketing.source"),
        ({"status": "given", "source": ""}, "marketing.source"),
        ({"status": "given", "source": "a\nb"}, "marketing.source"),
        ({"status": "given", "source": "a\0"}, "marketing.source"),
        ({"status": "given", "told_at": "2026-01-31T08:00:00Z"}, "marketing.told_at"),
        ("perhaps", "marketing"),
        (True, "marketing"),
        (["given"], "marketing"),
    ],
)
async def test_a_faulty_consent_changes_nothing(
    service: Service, way: str, given: object, field: str
) -> None:
    before = await stored(service)
    body = {"attributes": {"nps": 1}, "consents": {"marketing": given}}
    if way in ("PUT", "PATCH"):
        reply = await service.client.request(way, PATH, json=body)
        assert reply.status_code == 422
        found = reply.json()["errors"]
    else:
        reply = await send(service, f"/v1/customers:{way}", {"customer_id": "anna", **body})
        assert (reply.json()["imported"], reply.json()["rejected"]) == (0, 1)
        found = reply.json()["errors"][0]["errors"]
    assert [error["field"] for error in found] == [f"consents.{field}"]
    assert await stored(service) == before


async def test_what_a_patch_removes_has_no_record(service: Service) -> None:
    await tell(service, "PATCH", consent("withdrawn", NOW, "letter"))
    reply = await service.client.patch(PATH, json={"consents": {"marketing": None}})
    assert reply.json()["consents"] == reply.json()["consent_records"] == {}
    await tell(service, "PATCH", consent("given", NOW - DAY))
    assert await known(service) == record("given", NOW - DAY, NOW)
