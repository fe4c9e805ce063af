"""Everything that is held of a customer, in one document."""

from __future__ import annotations

import copy
import json
import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from support import ANNA, DAY, NOW, Service, catalog_document, treatments

from decision.privacy import export as exporting
from decision.privacy.messages import CustomerExport
from decision.replaying import Replaying
from decision.storage.port import DecisionRecord

PATH = "/v1/customers/anna/export"


async def exported(service: Service, id: str = "anna") -> dict[str, Any]:
    """The document, which keeps its contract."""
    reply = await service.client.get(f"/v1/customers/{id}/export")
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/json"
    document: dict[str, Any] = reply.json()
    CustomerExport.model_validate(document)
    assert document.keys() == CustomerExport.model_fields.keys()
    return document


async def test_everything_is_in_it(service: Service) -> None:
    document = catalog_document()
    document["attributes"][0]["description"] = "How the customer is called"
    document["purposes"] = [{"id": "marketing", "description": "News by mail"}]
    document["control_groups"] = [{"id": "holdout", "share": 0.5, "behaviour": "random_eligible"}]
    document["contact_policies"] = [{"id": "rest", "gap": "1h"}]
    await service.publish(document)
    await service.client.put(
        "/v1/customers/twin",
        json={"attributes": {"spend": 3.5}, "identities": [{"type": "mail", "value": "t"}]},
    )
    of_twin = await service.decide("twin", "side")
    service.clock.now += DAY
    await service.client.patch(
        "/v1/customers/anna", json={"consents": {"marketing": {"status": "withdrawn", "source": "a form"}}}
    )
    stranger = await service.decide(None, "hero", identity={"type": "phone", "value": "7"})
    await service.client.post(
        "/v1/customers/anna/identities",
        json={"identities": [{"type": "mail", "value": "t"}, {"type": "phone", "value": "7"}]},
    )
    decision = await service.decide(request_id="r-1", context={"intent": "cancel"}, activation="deferred")
    await service.respond(decision, "accepted", "e-1", treatments(decision)[0])

    explained = await service.client.get(f"/v1/decisions/{decision['decision_id']}/explanation")
    found = await exported(service)
    assert found["customer_id"] == "anna"
    assert found["merged"] == ["twin"]
    assert {each["value"] for each in found["identities"]} == {"anna", "t", "7"}
    values = {each["name"]: each for each in found["values"]}
    assert values["attributes.first_name"] == {
        "name": "attributes.first_name",
        "value": "Anna",
        "source": "store",
        "told_at": NOW.isoformat().replace("+00:00", "Z"),
        "description": "How the customer is called",
        "pii": True,
    }
    assert values["attributes.spend"]["value"] == 3.5
    assert values["scores.churn"]["value"] == 0.5
    [consent] = found["consents"]
    assert (consent["purpose"], consent["status"], consent["source"]) == ("marketing", "withdrawn", "a form")
    assert consent["description"] == "News by mail"
    assert [each["decision_id"] for each in found["decisions"]] == [
        each["decision_id"] for each in (of_twin, stranger, decision)
    ]
    assert found["decisions"][0]["recorded_as"] == "twin"
    last = found["decisions"][2]
    assert last["reply"] == decision
    assert last["request_id"] == "r-1"
    assert last["inputs"]["facts"]["customer.first_name"] == "Anna"  # also what an explanation leaves out
    assert last["explanation"] == explained.json()
    assert [each["response_id"] for each in last["responses"]] == ["e-1"]
    assert {each["state"] for each in last["reservations"]} == {"firm", "reserved"}
    assert found["stops"]
    assert [each["contact_policy"] for each in found["held_back"]] == ["rest"]
    [membership] = found["control_groups"]
    assert (membership["control_group"], membership["share"]) == ("holdout", 0.5)
    kinds = [each["kind"] for each in found["audit"]]
    own = ["profile.put", "profile.put", "profile.patch", "profile.identify"]
    assert kinds == [*own, "decision.explain", "profile.export"]
    again = await exported(service, "twin")
    assert again["customer_id"] == "anna"
    assert len(again["audit"]) == len(kinds) + 1


async def test_rectification_revises_and_shows_when(service: Service) -> None:
    before = await service.decide(placement="hero")
    service.clock.now += DAY
    await service.client.patch("/v1/customers/anna", json={"attributes": {"first_name": "Ann", "nps": 9}})
    decision = await service.decide(placement="hero", explain=True)
    facts = {each["name"]: each["value"] for each in decision["explanation"]["facts"]}
    assert facts["customer.nps"] == 9  # the next decision sees it
    found = await exported(service)
    values = {each["name"]: each for each in found["values"]}
    assert values["attributes.first_name"]["value"] == "Ann"
    times = {name: values[f"attributes.{name}"]["told_at"] for name in ("first_name", "nps", "plan")}
    assert times["first_name"] == times["nps"] == decision["decided_at"]
    assert times["plan"] == before["decided_at"]
    # What was decided before was decided by what was known then.
    assert found["decisions"][0]["inputs"]["facts"]["customer.first_name"] == "Anna"


async def test_a_decision_that_cannot_be_made_again_says_why(service: Service) -> None:
    first = await service.decide()
    await service.respond(first, "accepted", "e-1", treatments(first)[0])
    await service.learner().step()
    await service.context.live.refresh()
    second = await service.decide()
    await service.publish(catalog_document() | {"name": "another"})
    third = await service.decide()
    with closing(sqlite3.connect(service.path)) as connection, connection:
        connection.execute("DELETE FROM snapshots")
        connection.execute("DELETE FROM catalogs WHERE version = ?", (first["catalog_version"],))
    live = service.context.live
    live._snapshots.clear()
    live._catalogs.clear()
    found = (await exported(service))["decisions"]
    assert [each["decision_id"] for each in found] == [each["decision_id"] for each in (first, second, third)]
    assert [each["unexplained"] for each in found] == [
        "unknown_catalog_version", "unknown_catalog_version", "snapshot_unavailable",
    ]  # fmt: skip
    assert all(each["explanation"] is None for each in found)
    assert all(each["reply"]["decision_id"] for each in found)


async def test_who_is_in_the_history_only_has_an_export_and_who_is_not_has_none(service: Service) -> None:
    assert (await service.client.get("/v1/customers/nobody/export")).status_code == 404
    await service.decide("zoe")
    assert len((await exported(service, "zoe"))["decisions"]) == 1
    await service.client.delete("/v1/customers/zoe")
    assert (await service.client.get("/v1/customers/zoe/export")).status_code == 404


async def test_a_long_history_is_written_piece_by_piece(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_DECISIONS_AT_ONCE", 3)
    for _ in range(8):
        await service.decide()
        service.clock.now += timedelta(minutes=1)
    context = service.context
    one = exporting.Exporting(context.store, context.live, context.replaying, context.clock)
    pieces = [piece async for piece in one.written(await one.held("anna"))]
    assert len(pieces) > 8
    found = json.loads(b"".join(pieces))
    assert len({each["decision_id"] for each in found["decisions"]}) == 8
    assert max(map(len, pieces)) < len(b"".join(pieces)) / 4


async def test_a_value_that_is_no_longer_declared_is_held_all_the_same(service: Service) -> None:
    document = copy.deepcopy(catalog_document())
    await service.client.patch("/v1/customers/anna", json={"attributes": {"spend": 7.5}})
    document["attributes"] = [each for each in document["attributes"] if each["id"] != "spend"]
    await service.publish(document)
    values = {each["name"]: each for each in (await exported(service))["values"]}
    assert (values["attributes.spend"]["value"], values["attributes.spend"]["description"]) == (7.5, None)
    assert len(values) == len(ANNA["attributes"]) + len(ANNA["scores"]) + 1


async def test_no_fault_cuts_the_document_off(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    await service.decide()
    await service.decide()
    explained, faults = Replaying.explained, [ValueError("a fault of ours")]

    async def faulty(replaying: Replaying, record: DecisionRecord) -> dict[str, Any]:
        if faults:
            raise faults.pop()
        return await explained(replaying, record)

    monkeypatch.setattr(Replaying, "explained", faulty)
    first, second = (await exported(service))["decisions"]
    assert (first["explanation"], first["unexplained"]) == (None, "internal_error")
    assert second["explanation"] is not None
