"""Emergency stops: in force everywhere at once, whatever is published, in what is decided and replayed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support import ANNA, Service, actions, catalog_document, running

from decision.register import Register
from decision.storage.sqlite.store import SqliteStore

OPEN = {"profile": {"nps": 9}}
"""With which `upgrade` and `check` are what the panel shows."""
HERO = {"profile": {"nps": 9, "plan": "Max"}}


async def halt(service: Service, scope: str, target: str, status: int = 201) -> dict[str, Any]:
    body = {"scope": scope, "target": target, "why": "wrong price"}
    reply = await service.client.post("/v1/halts", json=body)
    assert reply.status_code == status, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def resume(service: Service, id: str) -> None:
    reply = await service.client.delete(f"/v1/halts/{id}", params={"why": "mended"})
    assert reply.status_code == 200, reply.text


async def test_from_the_call_on_nothing_of_it_is_shown_and_all_replays(service: Service) -> None:
    before = await service.decide(explain=True, **OPEN)
    assert set(actions(before)) == {"upgrade", "check"}
    begun = await halt(service, "action", "check")
    assert (begun["by"], begun["why"]) == ("local", "wrong price")
    during = await service.decide(explain=True, **OPEN)
    assert actions(during) == ["upgrade"]
    (removed,) = [
        arm for arm in during["explanation"]["placements"][0]["removed"] if arm["action"] == "check"
    ]
    assert (removed["stage"], removed["reason"], removed["rule"]) == ("halt", "halted", "action:check")
    listed = (await service.client.get("/v1/halts")).json()["halts"]
    assert listed == [begun]
    await resume(service, begun["id"])
    after = await service.decide(explain=True, **OPEN)
    assert set(actions(after)) == {"upgrade", "check"}
    assert (await service.client.get("/v1/halts")).json()["halts"] == []
    # Each replays as it was, whatever is in force now.
    for decision, halted in ((before, False), (during, True), (after, False)):
        replayed = (await service.client.post(f"/v1/decisions/{decision['decision_id']}/replay")).json()
        assert replayed == {"identical": True, "decision": decision}
        funnel = decision["explanation"]["placements"][0]["funnel"]
        assert (funnel[1]["stage"] == "halt") == halted
        record = await service.context.store.decision(decision["decision_id"])
        assert record is not None
        assert (b'"halts":[["action","check"]]' in record.inputs) == halted
        assert (b"halts" in record.inputs) == halted


async def test_a_halted_channel_shows_nothing_at_all_and_says_so(service: Service) -> None:
    shown = (await service.decide(placement="hero", **HERO))["placements"][0]
    assert shown["items"][0]["is_fallback"]
    group = await halt(service, "group", "retention")
    for profile in ({}, HERO):  # with somebody who could be shown it, and with somebody who could not
        (placement,) = (await service.decide(placement="hero", **profile))["placements"]
        assert placement["items"][0]["is_fallback"]  # of a halted group: the fallback still shows
    await halt(service, "channel", "web")
    for profile in ({}, HERO):
        decision = await service.decide(placement="hero", **profile)
        assert decision["placements"] == [{"id": "hero", "items": [], "no_action_reason": "halted"}]
        replayed = await service.client.post(f"/v1/decisions/{decision['decision_id']}/replay")
        assert replayed.json()["identical"]
    await resume(service, group["id"])


async def test_responses_to_what_was_shown_before_still_count(service: Service) -> None:
    decision = await service.decide()
    await halt(service, "channel", "agent")
    treatment = decision["placements"][0]["items"][0]["treatment"]
    reply = await service.respond(decision, "accepted", "r1", treatment)
    assert reply.json() == {"recorded": 1, "duplicates": 0}


async def test_a_halt_outlives_catalogs_with_and_without_its_target(service: Service) -> None:
    first = service.context.live.serving.published.version
    await halt(service, "action", "check")
    document = catalog_document()
    del document["actions"][3]
    await service.publish(document)
    assert actions(await service.decide(**OPEN)) == ["upgrade"]
    reply = await service.client.post("/v1/catalog/rollback", json={"version": first})
    assert reply.status_code == 200
    assert actions(await service.decide(**OPEN)) == ["upgrade"]
    assert len((await service.client.get("/v1/halts")).json()["halts"]) == 1


@pytest.mark.parametrize("scope", ["action", "group", "channel"])
async def test_what_the_live_catalog_does_not_have_cannot_be_halted(service: Service, scope: str) -> None:
    problem = await halt(service, scope, "zork", status=422)
    assert (problem["code"], problem["errors"][0]["field"]) == ("unknown_target", "target")
    known = {"action": "check, renew_12", "group": "retention, sales", "channel": "agent, mail, web"}[scope]
    assert known in problem["errors"][0]["message"]
    assert service.context.register.halts.in_force == ()


async def test_a_halt_is_begun_once_and_ended_once(service: Service) -> None:
    begun = await halt(service, "action", "check")
    assert (await halt(service, "action", "check", status=409))["code"] == "already_halted"
    await halt(service, "group", "service")  # where the action is in: either is enough
    await resume(service, begun["id"])
    assert actions(await service.decide(**OPEN)) == ["upgrade"]
    again = await service.client.delete(f"/v1/halts/{begun['id']}", params={"why": "x"})
    assert (again.status_code, again.json()["code"]) == (404, "unknown_halt")
    assert (await service.client.delete(f"/v1/halts/{begun['id']}")).status_code == 422  # and why?


async def test_another_process_follows_and_of_two_at_once_one_wins(tmp_path: Path) -> None:
    async with (
        running(tmp_path / "a.db", poll=0.05) as first,
        running(tmp_path / "a.db", poll=0.05) as second,
    ):
        await first.publish(catalog_document())
        await second.context.live.refresh()
        await first.client.put("/v1/customers/anna", json=ANNA)
        body = {"scope": "group", "target": "service", "why": "now"}
        replies = await asyncio.gather(
            *(each.client.post("/v1/halts", json=body) for each in (first, second, first, second))
        )
        assert sorted(reply.status_code for reply in replies) == [201, 409, 409, 409]
        async with asyncio.timeout(2):
            while {each.context.register.halts.in_force for each in (first, second)} != {
                (("group", "service"),)
            }:
                await asyncio.sleep(0.01)
        for each in (first, second):
            assert actions(await each.decide(**OPEN)) == ["upgrade"]


async def test_what_is_in_force_does_not_wait_for_a_catalog_that_is_being_compiled(tmp_path: Path) -> None:
    async with running(tmp_path / "a.db", poll=0.05) as service:
        await service.publish(catalog_document())
        store = SqliteStore(tmp_path / "a.db")
        await store.open()
        other = Register(store)
        async with service.context.live._refreshing:  # it is being compiled
            await other.act(lambda now: [now.halts.begin("x", "h", "action", "check", "w")], service.clock())
            async with asyncio.timeout(2):
                while not service.context.register.halts.in_force:
                    await asyncio.sleep(0.01)
        await store.close()
