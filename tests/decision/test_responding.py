"""Responses: all or none, each once, and in force for the next decision."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from support import NOW, Service, asking, treatments

RESPOND = "/v1/responses"
CALM = {"profile": {"nps": 9, "plan": "Max"}}


async def test_a_response_counts_once(service: Service) -> None:
    decision = await service.decide(**CALM)
    replies = await asyncio.gather(
        *(service.respond(decision, "accepted", "r", "check_agent") for _ in range(9))
    )
    assert sorted(reply.json()["recorded"] for reply in replies) == [0] * 8 + [1]
    service.clock.now += timedelta(days=1)
    assert (await service.respond(decision, "accepted", "r", "check_agent")).json()["duplicates"] == 1
    assert service.rows()["responses"] == 1


async def test_a_response_id_names_one_response_of_one_customer(service: Service) -> None:
    decision, other = await service.decide(**CALM), await service.decide("bert", **CALM)
    assert (await service.respond(decision, "accepted", "r", "check_agent")).status_code == 200
    assert (await service.respond(decision, "rejected", "r", "check_agent")).status_code == 409
    assert (await service.respond(other, "rejected", "r", "check_agent")).status_code == 200
    again = await service.decide(**CALM)
    assert (await service.respond(again, "accepted", "r", "check_agent")).status_code == 409


async def test_concurrent_contradictions_record_one(service: Service) -> None:
    decision = await service.decide(**CALM)
    outcomes = ["accepted", "rejected", "no_response", "impression"]
    replies = await asyncio.gather(*(service.respond(decision, o, "r", "check_agent") for o in outcomes))
    assert sorted(reply.status_code for reply in replies) == [200, 409, 409, 409]


async def test_a_list_is_all_or_nothing(service: Service) -> None:
    decision = await service.decide(**CALM)
    good = {
        "response_id": "a", "decision_id": decision["decision_id"], "treatment": "check_agent",
        "outcome": "impression",
    }  # fmt: skip
    bad = good | {"response_id": "b", "outcome": "click"}
    reply = await service.client.post(RESPOND, json=[good, bad, good | {"treatment": "zork"}])
    assert [error["field"] for error in reply.json()["errors"]] == ["[1].outcome", "[2].treatment"]
    assert service.rows()["responses"] == 0
    stopping = good | {"response_id": "c", "outcome": "accepted"}
    reply = await service.client.post(RESPOND, json=[good, stopping, good | {"outcome": "rejected"}])
    assert reply.status_code == 409
    assert service.rows()["responses"] == service.rows()["stops"] == 0


async def test_a_fallback_and_a_treatment_not_shown_take_none(service: Service) -> None:
    decision = await service.decide(placement="hero", profile={"nps": 9})
    assert decision["placements"][0]["items"][0]["is_fallback"]
    assert (await service.respond(decision, "click", "r", "renew_12_hero")).status_code == 422


async def test_a_stop_is_counted_from_when_it_happened(service: Service) -> None:
    decision = await service.decide(context={"intent": "cancel"})
    taken = next(t for t in treatments(decision) if t.startswith("renew"))
    # Which was after its decision, whatever a caller's clock says.
    message = {
        "response_id": "r", "decision_id": decision["decision_id"], "treatment": taken, "outcome": "accepted",
        "occurred_at": (NOW - timedelta(days=7)).isoformat(),
    }  # fmt: skip
    service.clock.now += timedelta(days=364)
    assert (await service.client.post(RESPOND, json=message)).status_code == 200
    service.clock.now = NOW
    (stop,) = (await service.context.store.standing(("anna",), NOW)).stops
    assert (stop.scope, stop.target, stop.until) == ("group", "retention", NOW + timedelta(days=365))
    assert (await service.context.store.standing(("anna",), NOW + timedelta(days=365))).stops == ()


async def test_an_old_decision_answers_to_the_catalog_of_then(service: Service, document: dict) -> None:
    decision = await service.decide(**CALM)
    document["actions"] = document["actions"][:3]
    document["channels"][0]["rewards"] = {"rejected": 0.0, "accepted": 0.5}
    await service.publish(document)
    assert (await service.respond(decision, "no_response", "r", "check_agent")).status_code == 200


async def test_an_anonymous_visitor_may_answer(service: Service) -> None:
    asked = {key: value for key, value in asking(placement="side").items() if key != "customer_id"}
    reply = await service.client.post("/v1/decisions", json=asked | {"identity": {"type": "c", "value": "z"}})
    assert (await service.respond(reply.json(), "click", "r", "check_side")).json()["recorded"] == 1
