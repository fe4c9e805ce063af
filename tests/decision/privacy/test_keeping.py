"""What was kept long enough is erased, each kind of data after its time."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
from support import ANNA, NOW, Service, catalog_document, id_of, treatments

from arbitration.catalog.keeping import EraseAfter
from decision.privacy.keeping import EVERY, Keeping
from decision.storage.port import Event

YEAR = timedelta(days=365)


def document(**after: str) -> dict[str, Any]:
    return catalog_document() | {"retention": "30d", "erase_after": after}


async def trail(service: Service) -> list[Event]:
    return [entry.event for entry in await service.context.store.entries() if entry.event.actor == "service"]


async def there(service: Service, *ids: str) -> list[str]:
    return [id for id in ids if await service.context.store.customer(id) is not None]


@pytest.mark.parametrize("name", ["profiles", "decisions", "snapshots"])
async def test_nothing_is_erased_before_limits_are_done_with_it(service: Service, name: str) -> None:
    faulty = document(**{name: "29d"})
    reply = await service.client.post("/v1/catalog/validate", json=faulty)
    [problem] = reply.json()["problems"]
    assert (problem["field"], problem["code"]) == (f"erase_after.{name}", "within_retention")
    faulty["erase_after"] = {name: "soon"}
    reply = await service.client.post("/v1/catalog/validate", json=faulty)
    assert [each["field"] for each in reply.json()["problems"]] == [f"erase_after.{name}"]
    assert (await service.client.post("/v1/catalog/validate", json=document(**{name: "30d"}))).json()["valid"]


async def test_each_kind_goes_in_its_time(service: Service) -> None:
    store, clock = service.context.store, service.clock
    service.context.deciding._new_id = lambda: id_of(clock.now)
    after = EraseAfter(profiles="400d", decisions="60d", snapshots="90d")
    keeping = Keeping(store, clock)
    await service.publish(document())
    old = await service.decide()
    await service.respond(old, "accepted", "e-1", treatments(old)[0])
    learner = service.learner()
    while await learner.step():
        pass
    first = set((await store.live_snapshots()).values())
    assert await keeping.enforce(after) == {}
    assert await trail(service) == []
    clock.now = NOW.replace(month=4)
    await service.context.live.refresh()  # it is made with what was learned of the first
    new = await service.decide("bert")
    await service.respond(new, "accepted", "e-2", treatments(new)[0])
    await service.client.put("/v1/customers/bert", json=ANNA | {"identities": []})
    while await learner.step():
        pass
    clock.now = NOW.replace(month=6)
    assert await keeping.enforce(after) == {"decisions": 1, "snapshots": 1}
    assert await store.decision(old["decision_id"]) is None
    assert await store.decision(new["decision_id"]) is not None
    assert [await store.snapshot(version) for version in first] == [None] * len(first)
    assert await there(service, "anna", "bert") == ["anna", "bert"]
    clock.now = NOW + timedelta(days=401)
    done = await keeping.enforce(after)
    assert done["profiles"] == 1
    assert await there(service, "anna", "bert") == ["bert"]
    assert (await service.client.delete("/v1/customers/anna")).status_code == 204  # it was
    events = await trail(service)
    assert [each.kind for each in events] == ["retention.erase"] * 2
    assert events[0].detail == {"decisions": 1, "snapshots": 1}
    assert events[1].detail == done
    assert await keeping.enforce(after) == {}
    assert len(await trail(service)) == 2


async def test_who_is_active_again_meanwhile_stays_and_so_does_whoever_is_restricted(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = service.context.store
    for id, more in {"idle": {}, "held": {"restricted": True}}.items():
        await service.client.put(f"/v1/customers/{id}", json=ANNA | {"identities": []} | more)
    service.clock.now += YEAR
    look = store.idle_customers

    async def told_meanwhile(before: datetime, limit: int) -> list[str]:
        found = await look(before, limit)
        await service.client.patch(
            "/v1/customers/anna", json={"consents": {"marketing": {"status": "withdrawn"}}}
        )
        return found

    monkeypatch.setattr(store, "idle_customers", told_meanwhile)
    done = await Keeping(store, service.clock).enforce(EraseAfter(profiles="60d"))
    assert done == {"profiles": 1}
    assert await there(service, "anna", "held", "idle") == ["anna", "held"]


async def test_what_a_release_before_erased_by_half_is_finished_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = service.context.store
    looked = []

    async def half_erased(limit: int) -> list[str]:
        looked.append(limit)
        return [id for id in ("anna",) if await store.customer(id)]

    monkeypatch.setattr(store, "half_erased", half_erased)
    keeping = Keeping(store, service.clock)
    assert await keeping.enforce(EraseAfter()) == {}  # it was told of just now: another time
    service.clock.now += timedelta(seconds=1)
    assert await keeping.enforce(EraseAfter()) == {"half_erased": 1}
    assert await there(service, "anna") == []
    [event] = await trail(service)
    assert event.detail == {"half_erased": 1}
    looked.clear()
    assert await keeping.enforce(EraseAfter()) == {}
    assert looked == []


async def test_what_is_not_named_is_kept(service: Service) -> None:
    service.clock.now += 10 * YEAR
    assert await Keeping(service.context.store, service.clock).enforce(EraseAfter()) == {}
    assert await there(service, "anna") == ["anna"]


async def test_decisions_that_are_not_learned_from_yet_wait(service: Service) -> None:
    service.context.deciding._new_id = lambda: id_of(service.clock.now)
    decision = await service.decide()
    keeping, after = Keeping(service.context.store, service.clock), EraseAfter(decisions="30d")
    service.clock.now += YEAR
    assert await keeping.enforce(after) == {}
    learner = service.learner()
    while await learner.step():
        pass
    assert await keeping.enforce(after) == {"decisions": 1}
    assert await service.context.store.decision(decision["decision_id"]) is None


async def test_it_is_looked_for_once_an_hour(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    keeping, looked = Keeping(service.context.store, service.clock), []

    async def enforce(after: EraseAfter) -> dict[str, int]:
        looked.append(after)
        return {}

    monkeypatch.setattr(keeping, "enforce", enforce)
    for minutes in (0, 1, 58, 2, 1, 30):
        service.clock.now += timedelta(minutes=minutes)
        await keeping.due(EraseAfter())
    assert len(looked) == 2
    service.clock.now -= 10 * EVERY  # a clock that was ahead does not put it off
    await keeping.due(EraseAfter())
    assert len(looked) == 3


async def test_the_learner_that_leads_does_it(service: Service) -> None:
    await service.publish(document(profiles="30d"))
    service.clock.now += timedelta(days=31)
    running = asyncio.create_task(service.learner().run(0.01))
    try:
        async with asyncio.timeout(5):
            while await there(service, "anna"):
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
