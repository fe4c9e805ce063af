"""One request from the door to the ledger: idempotent, isolated, in time, and within every limit."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support import ANNA, DAY, Service, SlowStore, actions, asking, catalog_document, running, treatments

DECIDE, BATCH = "/v1/decisions", "/v1/decisions:batch"
RENEWALS = {"renew_12", "renew_24"}
COOKIE = {"type": "cookie", "value": "anna"}


async def test_a_repeated_request_gets_the_same_bytes(service: Service) -> None:
    first = await service.client.post(DECIDE, json=asking(request_id="r"))
    service.clock.now += DAY
    assert (await service.client.post(DECIDE, json=asking(request_id="r"))).content == first.content
    by_name = {key: value for key, value in asking(request_id="r").items() if key != "customer_id"}
    other = await service.client.post(DECIDE, json=by_name | {"identity": COOKIE})
    assert other.content == first.content, "the same customer, asked for in another way"
    assert service.rows()["decisions"] == 1


async def test_a_repeated_request_outlives_a_new_catalog(service: Service) -> None:
    asked = asking(request_id="r", context={"intent": "cancel"})
    first = await service.client.post(DECIDE, json=asked)
    document = catalog_document()
    document["context"] = document["context"][1:]
    document["context_weights"] = []
    await service.publish(document)
    assert (await service.client.post(DECIDE, json=asked)).content == first.content
    assert (await service.client.post(DECIDE, json=asked | {"request_id": "s"})).status_code == 422


async def test_concurrent_repeats_make_one_decision(service: Service) -> None:
    asked = asking(request_id="r")
    replies = await asyncio.gather(*(service.client.post(DECIDE, json=asked) for _ in range(20)))
    assert len({reply.content for reply in replies}) == 1
    batch = await service.client.post(BATCH, json={"requests": [asked] * 20})
    assert {item["decision"]["decision_id"] for item in batch.json()["results"]} == {
        replies[0].json()["decision_id"]
    }
    assert service.rows()["decisions"] == 1


async def test_a_request_id_names_one_request_of_one_customer(service: Service) -> None:
    first = await service.decide(request_id="r")
    reused = await service.client.post(DECIDE, json=asking(request_id="r", profile={"nps": 9}))
    assert reused.status_code == 409
    assert reused.json()["errors"][0]["field"] == "request_id"
    assert (await service.decide("bert", request_id="r"))["decision_id"] != first["decision_id"]


async def test_concurrent_reuse_answers_one_and_refuses_the_others(service: Service) -> None:
    asked = [asking(request_id="r", profile={"nps": number}) for number in range(10)]
    replies = await asyncio.gather(*(service.client.post(DECIDE, json=body) for body in asked))
    assert sorted(reply.status_code for reply in replies) == [200] + [409] * 9
    results = (await service.client.post(BATCH, json={"requests": asked})).json()["results"]
    assert sorted(item["status"] for item in results) == [200] + [409] * 9
    assert service.rows()["decisions"] == 1


async def test_a_batch_keeps_its_order_and_its_neighbours(service: Service) -> None:
    requests: list[Any] = [
        asking("a"), None, asking("b", request_id="r"), asking("c") | {"channel": "fax"}, [],
        asking("d", zork=1),
        asking("b", request_id="r"), asking("b", request_id="r", explain=True), asking("e"),
    ]  # fmt: skip
    results = (await service.client.post(BATCH, json={"requests": requests})).json()["results"]
    assert [item["status"] for item in results] == [200, 422, 200, 422, 422, 422, 200, 409, 200]
    assert [item["decision"]["customer_id"] for item in results if "decision" in item] == ["a", "b", "b", "e"]
    assert all(("problem" in item) != ("decision" in item) for item in results)
    assert service.rows()["decisions"] == 3


async def test_what_was_answered_is_what_is_kept(service: Service) -> None:
    for body in (asking(), asking(explain=True), asking("x", "hero"), asking(mode="dry_run")):
        given = await service.client.post(DECIDE, json=body)
        path = f"{DECIDE}/{given.json()['decision_id']}"
        assert (await service.client.get(path)).content == given.content
        replayed = await service.client.post(f"{path}/replay")
        assert replayed.json()["identical"]
        assert given.content in replayed.content


async def test_a_dry_run_takes_no_responses(service: Service) -> None:
    decision = await service.decide(mode="dry_run")
    reply = await service.respond(decision, "accepted", "r", treatments(decision)[0])
    assert reply.status_code == 422
    assert service.rows()["responses"] == service.rows()["stops"] == 0


async def test_accepting_a_renewal_stops_all_renewals_everywhere(service: Service) -> None:
    called = await service.decide(context={"intent": "cancel"})
    taken = next(item["treatment"] for item in called["placements"][0]["items"] if item["action"] in RENEWALS)
    assert (await service.respond(called, "rejected", "no", taken)).status_code == 200
    assert await offered(service) == RENEWALS
    assert (await service.respond(called, "accepted", "yes", taken)).status_code == 200
    assert await offered(service) == set()  # the very next decision, on every channel
    assert await offered(service, "bert") >= RENEWALS
    service.clock.now += timedelta(days=365) - timedelta(microseconds=1)
    assert await offered(service) == set()
    service.clock.now += timedelta(microseconds=1)
    assert await offered(service) == RENEWALS


async def offered(service: Service, customer: str = "anna") -> set[str]:
    """The renewals that are shown or could have been, on all channels, as explanations tell."""
    facts = {**ANNA["attributes"], "contract_end": (service.clock.now + DAY).isoformat()}
    if customer != "anna":
        await service.client.put(f"/v1/customers/{customer}", json={**ANNA, "identities": []})
    found: set[str] = set()
    for placement in ("panel", "hero", "side", "block"):
        decision = await service.decide(customer, placement, profile=facts, explain=True)
        left = {arm["action"] for arm in decision["explanation"]["placements"][0]["ranked"]}
        assert RENEWALS & set(actions(decision)) <= left
        found |= RENEWALS & left
    return found


async def test_consent_is_asked_for_where_the_channel_needs_it(service: Service) -> None:
    assert (await service.decide(placement="block"))["placements"][0]["items"]
    await service.client.patch("/v1/customers/anna", json={"consents": {"marketing": "withdrawn"}})
    assert (await service.decide(placement="block"))["placements"][0]["no_action_reason"] == "no_consent"
    assert (await service.decide(placement="panel"))["placements"][0]["items"]
    await service.client.patch("/v1/customers/anna", json={"consents": {"marketing": None}})
    assert (await service.decide(placement="block"))["placements"][0]["no_action_reason"] == "no_consent"


async def test_a_profile_overrides_what_is_stored_for_one_decision(service: Service) -> None:
    calm = await service.decide(profile={"nps": 10, "first_name": "<b>"})
    assert not RENEWALS & set(actions(calm))
    assert (await service.client.get("/v1/customers/anna")).json()["attributes"]["nps"] == 3
    assert RENEWALS & set(actions(await service.decide()))


async def test_an_identity_finds_the_customer(service: Service) -> None:
    asked = {key: value for key, value in asking().items() if key != "customer_id"}
    reply = (await service.client.post(DECIDE, json=asked | {"identity": COOKIE})).json()
    assert (reply["customer_id"], reply["degraded"]) == ("anna", [])
    reply = (
        await service.client.post(DECIDE, json=asked | {"identity": {"type": "phone", "value": "anna"}})
    ).json()
    assert (reply["customer_id"], reply["degraded"]) == (None, ["identity:not_found"])


async def test_a_stranger_who_becomes_known_keeps_requests_and_stops(service: Service) -> None:
    phone = {"type": "phone", "value": "555-0100"}
    asked = {key: value for key, value in asking().items() if key != "customer_id"} | {"identity": phone}
    asked["profile"] = {**ANNA["attributes"], "open_complaint": False}
    first = await service.client.post(DECIDE, json=asked | {"request_id": "r"})
    assert first.json()["customer_id"] is None
    service_profile = {"nps": 9, "plan": "Max"}
    decision = (await service.client.post(DECIDE, json=asked | {"profile": service_profile})).json()
    item = decision["placements"][0]["items"][0]
    await service.respond(decision, "accepted", "a", item["treatment"])
    await service.client.put("/v1/customers/ben", json={"identities": [phone]})
    again = await service.client.post(DECIDE, json=asked | {"request_id": "r"})
    assert again.content == first.content
    known = (await service.client.post(DECIDE, json=asked)).json()
    assert known["customer_id"] == "ben"


async def test_stops_of_a_stranger_hold_when_they_become_known(service: Service) -> None:
    await service.publish(catalog_document() | {"actions": free_renewals()})
    phone = {"type": "phone", "value": "555-0100"}
    asked = {key: value for key, value in asking().items() if key != "customer_id"} | {"identity": phone}
    decision = (await service.client.post(DECIDE, json=asked)).json()
    renewal = next(item for item in decision["placements"][0]["items"] if item["group"] == "retention")
    await service.respond(decision, "accepted", "a", renewal["treatment"])
    assert not RENEWALS & set(actions((await service.client.post(DECIDE, json=asked)).json()))
    await service.client.put("/v1/customers/ben", json={"identities": [phone]})
    assert not RENEWALS & set(actions((await service.client.post(DECIDE, json=asked)).json()))


async def test_what_is_stored_wrongly_is_left_out(service: Service) -> None:
    document = catalog_document()
    document["attributes"][1]["max"] = 2
    await service.publish(document)
    decision = await service.decide()
    assert decision["degraded"] == ["customer.nps:bad_value"]
    assert not RENEWALS & set(actions(decision))


@pytest.mark.parametrize("slow", ["customer", "standing", "resolve"])
async def test_when_the_store_is_too_slow_it_is_decided_without(tmp_path: Path, slow: str) -> None:
    """With every limit kept that there could be."""
    store = SlowStore(tmp_path / "slow.db")
    async with running(tmp_path / "slow.db", store=store) as service:
        await service.publish(catalog_document() | {"actions": free_renewals()})
        await service.client.put("/v1/customers/anna", json=ANNA)
        store.slow = frozenset({slow})
        asked = {key: value for key, value in asking(timeout_ms=60).items() if key != "customer_id"}
        started = time.monotonic()
        reply = await service.client.post(DECIDE, json=asked | {"identity": COOKIE})
        assert time.monotonic() - started < 1
        assert reply.json()["degraded"] == ["store:timeout"]
        assert actions(reply.json()) == ["check"]
        path = f"{DECIDE}/{reply.json()['decision_id']}"
        assert (await service.client.post(f"{path}/replay")).json()["identical"]


def free_renewals() -> list[Any]:
    """Renewals for everyone, so that only a stop can hold them back."""
    kept = [action for action in catalog_document()["actions"] if action["id"] != "upgrade"]
    for action in kept:
        if action["group"] == "retention":
            action |= {"eligibility": [], "applicability": [], "value": 10}
    return kept
