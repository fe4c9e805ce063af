"""Who has it restricted is decided for without what is known of them; who objects is not profiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from pydantic import SecretStr
from support import ANNA, DAY, Service, actions, catalog_document, running, treatments

from decision.gathering import RESTRICTED
from decision.learner import Learner
from decision.sources import web
from decision.sources.connections import Connection

PATH = "/v1/customers/anna"


async def restrict(service: Service, restricted: bool | None = True) -> dict[str, Any]:
    reply = await service.client.patch(PATH, json={"restricted": restricted})
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def facts(service: Service, decision: dict[str, Any]) -> dict[str, Any]:
    record = await service.context.store.decision(decision["decision_id"])
    assert record is not None
    found: dict[str, Any] = orjson.loads(record.inputs)
    return found


async def test_the_next_decision_uses_and_learns_nothing_of_what_is_stored(service: Service) -> None:
    before = await service.decide()
    assert "renew_12" in actions(before)
    assert (await restrict(service))["restricted"] is True
    decision = await service.decide(context={"intent": "cancel"}, explain=True)
    assert decision["degraded"] == [RESTRICTED]
    recorded = await facts(service, decision)
    assert recorded["facts"] == {"context.intent": "cancel"}
    assert recorded["objects"] is True
    assert decision["explanation"]["objects_to_profiling"] is True
    assert {item["propensity"] for item in decision["placements"][0]["items"]} == {None}
    replayed = await service.client.post(f"/v1/decisions/{decision['decision_id']}/replay")
    assert replayed.json()["identical"]

    learner = service.learner()
    while await learner.step():
        pass
    count = events(learner)
    await service.respond(decision, "accepted", "e-1", treatments(decision)[0])
    while await learner.step():
        pass
    assert events(learner) == count
    # What was stored is still there, and used again when it is lifted.
    assert (await service.client.get(PATH)).json()["attributes"] == ANNA["attributes"]
    assert (await restrict(service, False))["restricted"] is False
    assert (await service.decide())["degraded"] == []


def events(learner: Learner) -> float:
    assert learner._learned is not None
    return sum(state.count.sum() for state in learner._learned.states.values())  # type: ignore[union-attr]


async def test_put_does_not_lift_it_unless_it_says_so(service: Service) -> None:
    await restrict(service)
    for body in (ANNA, {"attributes": {"nps": 5}}):
        assert (await service.client.put(PATH, json=body)).json()["restricted"] is True
    assert (await restrict(service, None))["restricted"] is True
    assert (await service.client.get(PATH)).json()["restricted"] is True
    assert (await service.client.get(f"{PATH}/export")).json()["restricted"] is True
    assert (await service.client.put(PATH, json=ANNA | {"restricted": False})).json()["restricted"] is False
    imported = orjson.dumps({"customer_id": "anna", "restricted": True})
    await service.client.post(
        "/v1/customers:import", content=imported, headers={"content-type": "application/x-ndjson"}
    )
    assert (await service.client.get(PATH)).json()["restricted"] is True
    bad = await service.client.patch(PATH, json={"restricted": "yes"})
    assert (bad.status_code, bad.json()["errors"][0]["field"]) == (422, "restricted")


async def test_what_protects_the_customer_still_does(service: Service) -> None:
    document = catalog_document()
    document["contact_policies"] = [{"id": "rest", "gap": "30d", "of": {"channels": ["web"]}}]
    await service.publish(document)
    side = await service.decide(placement="side")
    await service.respond(side, "impression", "e-0", treatments(side)[0])
    panel = await service.decide()
    assert "upgrade" in actions(panel)
    await service.respond(panel, "accepted", "e-1", "upgrade_agent")  # it rests from now on
    await restrict(service)
    assert "upgrade" not in actions(await service.decide())
    assert treatments(await service.decide(placement="side")) == []  # too soon
    # Given consents are not used: nothing goes out that needs one.
    assert treatments(await service.decide(placement="block")) == []
    await service.client.patch(PATH, json={"consents": {"marketing": "withdrawn"}})
    decision = await service.decide(placement="block")
    assert (await facts(service, decision))["consents"] == {"marketing": "withdrawn"}


async def test_no_source_is_asked_about_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for decisions, and not to be looked at."""
    asked: list[str] = []

    def crm(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, stream=httpx.ByteStream(b'{"nps": 4, "mail": true}'))

    client = httpx.AsyncClient(transport=httpx.MockTransport(crm))
    monkeypatch.setattr(web, "open_client", lambda *_: client)
    document = catalog_document()
    document["sources"] = [{"id": "crm", "kind": "http", "path": "/{customer_id}", "timeout": "30s"}]
    document["attributes"][1]["source"] = "crm"
    document["purposes"].append({"id": "mail", "source": "crm"})
    connections = {"crm": Connection(url=SecretStr("http://crm.test"))}
    async with running(tmp_path / "s.db", connections=connections) as service:
        await service.publish(document)
        await service.client.put(PATH, json={"attributes": {"plan": "Basic"}})
        assert (await facts(service, await service.decide()))["facts"]["customer.nps"] == 4
        assert asked == ["/anna"]
        await restrict(service)
        service.clock.now += DAY
        decision = await service.decide()
        assert decision["degraded"] == [RESTRICTED]
        assert (await facts(service, decision))["facts"] == {}
        assert (await facts(service, decision))["consents"] == {}
        seen = (await service.client.get(PATH)).json()
        assert (seen["attributes"], seen["restricted"]) == ({"plan": "Basic"}, True)
        assert asked == ["/anna"]


@pytest.mark.parametrize("merged_into", ["anna", "bert"])
async def test_a_merge_keeps_it(service: Service, merged_into: str) -> None:
    await restrict(service)
    phone = {"type": "phone", "value": "7"}
    await service.client.put("/v1/customers/bert", json={"attributes": {"nps": 1}, "identities": [phone]})
    proof = phone if merged_into == "anna" else ANNA["identities"][0]
    await service.client.post(f"/v1/customers/{merged_into}/identities", json={"identities": [proof]})
    for who in ("anna", "bert"):
        assert (await service.decide(who))["degraded"] == [RESTRICTED]


async def test_an_objection_to_profiling_is_honoured_by_the_next_decision(service: Service) -> None:
    document = catalog_document()
    document["purposes"].append({"id": "profiling", "profiling": True})
    await service.publish(document)
    assert (await service.decide(explain=True))["explanation"]["objects_to_profiling"] is False
    await service.client.patch(PATH, json={"consents": {"profiling": "withdrawn"}})
    decision = await service.decide(explain=True)
    assert decision["explanation"]["objects_to_profiling"] is True
    assert not [each for each in decision["explanation"]["facts"] if each["name"].startswith("scores.")]
    assert {item["propensity"] for item in decision["placements"][0]["items"]} == {None}
