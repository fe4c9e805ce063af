"""Everything known of a customer: each value with its source, age and freshness, and what happened lately."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from pydantic import SecretStr
from support import ANNA, Service, catalog_document, running, treatments

from decision.sources import web
from decision.sources.connections import Connection

CONNECTIONS = {"crm": Connection(url=SecretStr("http://crm.test"))}


class Crm:
    """A CRM within the process; `answer` is what it says of everybody, None that it knows nobody."""

    def __init__(self) -> None:
        self.answer: dict[str, Any] | None = {"nps": 4, "spend": "a lot", "mail": False}
        self.fails = False
        self.knows: str | None = None  # the path of the only customer it knows, if there is but one
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        if self.fails:
            return httpx.Response(500)
        if self.knows not in (None, request.url.path):
            return httpx.Response(404)
        body = httpx.ByteStream(orjson.dumps(self.answer))
        return httpx.Response(404 if self.answer is None else 200, stream=body)


@pytest.fixture
def crm(monkeypatch: pytest.MonkeyPatch) -> Crm:
    found = Crm()
    client = httpx.AsyncClient(transport=httpx.MockTransport(found))
    monkeypatch.setattr(web, "open_client", lambda *_: client)
    return found


def document() -> dict[str, Any]:
    source = {"id": "crm", "kind": "http", "path": "/{customer_id}", "cache": {"ttl": "1s", "stale": "1h"}}
    found = catalog_document()
    found["sources"] = [source]
    attributes = {part["id"]: part for part in found["attributes"]}
    attributes["nps"]["source"] = attributes["spend"]["source"] = "crm"
    found["attributes"].append({"id": "low", "type": "bool", "derive": "customer.nps <= 6"})
    found["purposes"].append({"id": "mail", "source": "crm"})
    return found


async def overview(service: Service, customer: str = "anna") -> dict[str, Any]:
    reply = await service.client.get(f"/v1/customers/{customer}")
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def facts(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {fact["name"]: fact for fact in found["facts"]}


async def test_each_value_says_where_it_is_from_and_how_old(tmp_path: Path, crm: Crm) -> None:
    stored = {**ANNA, "attributes": {k: v for k, v in ANNA["attributes"].items() if k != "nps"}}
    async with running(tmp_path / "db", connections=CONNECTIONS) as service:
        await service.publish(document())
        assert (await service.client.put("/v1/customers/anna", json=stored)).status_code == 200
        service.clock.now += timedelta(hours=2)
        decision = await service.decide()
        await service.respond(decision, "rejected", "r", treatments(decision)[0])
        found = await overview(service)
    told = facts(found)
    assert {name: (fact["value"], fact["source"], fact["freshness"]) for name, fact in told.items()} == {
        "customer.first_name": ("Anna", "store", "fresh"),
        "customer.nps": (4, "crm", "fresh"),
        "customer.plan": ("Basic", "store", "fresh"),
        "customer.contract_end": ("2026-04-01T00:00:00Z", "store", "fresh"),
        "customer.open_complaint": (False, "store", "fresh"),
        "customer.spend": (None, "crm", "missing"),
        "customer.interests": (["sport"], "store", "fresh"),
        "customer.low": (True, "derived", "fresh"),
        "scores.clv": (480.0, "store", "fresh"),
        "scores.churn": (0.5, "store", "fresh"),
        "consents.marketing": ("given", "store", "fresh"),
        "consents.mail": ("withdrawn", "crm", "fresh"),
    }
    assert told["customer.spend"]["cause"] == "bad_value"
    assert told["customer.plan"]["age_seconds"] == 7200
    assert told["customer.plan"]["as_of"] == "2026-03-01T12:30:15.250000Z"
    assert 0 <= told["customer.nps"]["age_seconds"] < 5
    assert found["degraded"] == ["customer.spend:bad_value"]
    assert found["attributes"] == stored["attributes"], "the profile itself is what is stored"
    (recent,) = found["decisions"]
    assert recent["decision_id"] == decision["decision_id"]
    assert [response["outcome"] for response in recent["responses"]] == ["rejected"]


async def test_an_explanation_says_where_facts_came_from(tmp_path: Path, crm: Crm) -> None:
    async with running(tmp_path / "db", connections=CONNECTIONS) as service:
        await service.publish(document())
        await service.decide("bert", profile={"plan": "Max"})
        (source,) = service.context.sources.of(service.context.live.serving.published.compiled).values()
        assert source is not None
        for key, (fetched, row) in source._answers.items():
            source._answers[key] = (fetched - 30, row)
        later = await service.decide("bert", profile={"plan": "Max"})
        assert "sources.crm:stale" in later["degraded"]
        path = f"/v1/decisions/{later['decision_id']}"
        found = facts((await service.client.get(f"{path}/explanation")).json())
        assert (await service.client.post(f"{path}/replay")).json()["identical"]
    assert {name: (fact["value"], fact["source"]) for name, fact in found.items()} == {
        "customer.nps": (4, "crm"),
        "customer.plan": ("Max", "request"),
        "customer.low": (True, "derived"),
        "consents.mail": ("withdrawn", "crm"),
    }
    assert 30 <= found["customer.nps"]["age_seconds"] < 60
    assert found["customer.plan"]["age_seconds"] is None


async def test_a_source_that_fails_is_named_with_its_cause(tmp_path: Path, crm: Crm) -> None:
    crm.fails = True
    async with running(tmp_path / "db", connections=CONNECTIONS) as service:
        await service.publish(document())
        await service.client.put("/v1/customers/anna", json={"attributes": {"plan": "Max"}})
        found = await overview(service)
    told = facts(found)
    assert found["degraded"] == ["sources.crm:unavailable"]
    assert (told["customer.nps"]["freshness"], told["customer.nps"]["cause"]) == ("missing", "unavailable")
    assert (told["customer.plan"]["freshness"], told["customer.plan"]["cause"]) == ("fresh", None)
    assert (told["customer.low"]["freshness"], told["customer.low"]["cause"]) == ("missing", None)


async def test_who_only_a_source_could_know_is_not_denied_while_it_is_gone(tmp_path: Path, crm: Crm) -> None:
    crm.fails = True
    async with running(tmp_path / "db", connections=CONNECTIONS) as service:
        await service.publish(document())
        assert (await overview(service, "bert"))["degraded"] == [
            "profile:not_found",
            "sources.crm:unavailable",
        ]


async def test_a_merged_customer_is_asked_for_by_the_id_a_source_knows(tmp_path: Path, crm: Crm) -> None:
    crm.knows = "/bert"
    async with running(tmp_path / "db", connections=CONNECTIONS) as service:
        await service.publish(document())
        await service.client.put("/v1/customers/bert", json={"identities": ANNA["identities"]})
        proof = {"identities": ANNA["identities"]}
        await service.client.post("/v1/customers/anna/identities", json=proof)
        for customer, paths in (("anna", ["/anna", "/bert"]), ("bert", ["/bert"])):
            crm.asked.clear()
            decision = await service.decide(customer)
            assert decision["customer_id"] == "anna"
            assert not any(each.startswith("sources") for each in decision["degraded"])
            assert crm.asked in (paths, [])  # the second time from the cache


async def test_a_value_older_than_its_ttl_is_stale(
    tmp_path: Path, crm: Crm, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path / "db", connections=CONNECTIONS) as service:
        await service.publish(document())
        first = facts(await overview(service))["customer.nps"]
        (source,) = service.context.sources.of(service.context.live.serving.published.compiled).values()
        monkeypatch.setattr(source, "_ttl", 0.0)
        told = facts(await overview(service))
        later, derived = told["customer.nps"], told["customer.low"]
    assert (first["freshness"], later["freshness"]) == ("fresh", "stale")
    assert later["value"] == 4
    assert (derived["freshness"], derived["as_of"]) == ("stale", later["as_of"]), "as old as what it is from"


async def test_a_customer_only_a_source_knows_is_known(tmp_path: Path, crm: Crm) -> None:
    async with running(tmp_path / "db", connections=CONNECTIONS) as service:
        await service.publish(document())
        assert facts(await overview(service, "bert"))["customer.nps"]["value"] == 4
        crm.answer = None
        assert (await service.client.get("/v1/customers/carl")).status_code == 404


async def test_what_comes_from_elsewhere_cannot_be_stored(tmp_path: Path, crm: Crm) -> None:
    async with running(tmp_path / "db", connections=CONNECTIONS) as service:
        await service.publish(document())
        change = {
            "attributes": {"nps": 3, "low": True, "plan": "Max"},
            "consents": {"mail": "given", "marketing": "given"},
        }
        crm_s = "this value comes from the source 'crm'; it is not stored here"
        for method in ("PUT", "PATCH"):
            reply = await service.client.request(method, "/v1/customers/anna", json=change)
            assert reply.status_code == 422
            assert [(e["field"], e["code"], e["message"]) for e in reply.json()["errors"]] == [
                ("attributes.nps", "not_stored", crm_s),
                ("attributes.low", "not_stored", "this value is derived from others; it is not stored here"),
                ("consents.mail", "not_stored", crm_s),
            ]
