"""Every look at personal data, and every change, is written down before it is done."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support import ANNA, NOW, Service

from decision.access.scopes import NEEDED
from decision.auditing import Auditing
from decision.errors import StoreUnavailable
from decision.storage.port import Audit, Entry, Event


async def trail(service: Service) -> list[tuple[str, str, str]]:
    """Kind, actor and subject of each entry."""
    entries = await service.context.store.entries(0, 1000)
    return [(each.event.kind, each.event.actor, each.event.subject) for each in entries]


async def test_who_looks_at_a_customer_or_changes_one_is_written_down(service: Service) -> None:
    client, decision = service.client, await service.decide()
    id, before = decision["decision_id"], len(await trail(service))
    mark = await service.context.auditing.mark("anna")
    await client.get("/v1/customers/anna")
    await client.get("/v1/customers/anna/history")
    await client.put("/v1/customers/anna", json=ANNA)
    await client.patch("/v1/customers/anna", json={"attributes": {"nps": 4}})
    await client.post("/v1/customers/anna/identities", json={"identities": [{"type": "t", "value": "v"}]})
    await client.get(f"/v1/decisions/{id}")
    await client.get(f"/v1/decisions/{id}/explanation")
    await client.post(f"/v1/decisions/{id}/replay")
    for way in ("import", "push"):
        headers = {"content-type": "application/x-ndjson"}
        await client.post(f"/v1/customers:{way}", content=b'{"customer_id": "ben"}\n', headers=headers)
    await client.get("/v1/catalog")  # nothing of anybody
    assert (await trail(service))[before:] == [
        ("profile.read", "local", mark),
        ("profile.history", "local", mark),
        ("profile.put", "local", mark),
        ("profile.patch", "local", mark),
        ("profile.identify", "local", mark),
        ("decision.read", "local", f"decision:{id}"),
        ("decision.explain", "local", f"decision:{id}"),
        ("decision.replay", "local", f"decision:{id}"),
        ("profiles.import", "local", ""),
        ("profiles.push", "local", ""),
    ]
    assert await service.context.store.broken() is None


def test_whatever_needs_a_right_to_profiles_is_written_down() -> None:
    silent = {
        operation
        for operation, need in NEEDED.items()
        if need.scope in ("profiles:read", "profiles:write", "privacy") and need.audit is None
    }
    assert not silent


async def test_it_holds_no_customer_id(service: Service) -> None:
    await service.client.get("/v1/customers/anna")
    entries = await service.context.store.entries(0, 1000)
    assert entries
    assert not [each for each in entries if "anna" in repr(each).lower()]


async def test_what_came_to_nothing_is_written_down_too(service: Service) -> None:
    before = len(await trail(service))
    assert (await service.client.get("/v1/customers/nobody")).status_code == 404
    assert (await service.client.put("/v1/customers/anna", json={"attributes": {"x": 1}})).status_code == 422
    assert (await service.client.put("/v1/customers/anna", json=[])).status_code == 422
    entries = (await service.context.store.entries(before, 10))[:]
    assert [(each.event.kind, each.event.detail) for each in entries] == [
        ("profile.read", {}),
        ("profile.read.refused", {"problem": "unknown_customer"}),
        ("profile.put", {}),
        ("profile.put.refused", {"problem": "invalid_profile"}),
        ("profile.put", {}),
        ("profile.put.refused", {"problem": "invalid_request"}),
    ]


async def test_what_cannot_be_written_down_is_not_done(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def append(*_: Any) -> list[Entry]:
        raise StoreUnavailable("no disk")

    before = service.rows()
    monkeypatch.setattr(service.context.store, "append", append)
    for method, path in (("PUT", "/v1/customers/anna"), ("GET", "/v1/customers/anna")):
        reply = await service.client.request(method, path, json={"attributes": {"nps": 9}})
        assert reply.status_code == 503
        assert "Anna" not in reply.text
    assert service.rows() == before
    monkeypatch.undo()
    assert (await service.client.get("/v1/customers/anna")).json()["attributes"]["nps"] == 3


async def test_the_trail_can_be_read(service: Service) -> None:
    await service.client.get("/v1/customers/anna")
    await service.client.get("/v1/customers/ben")
    whole = (await service.client.get("/v1/audit", params={"limit": 1000})).json()["entries"]
    assert [each["seq"] for each in whole] == list(range(1, len(whole) + 1))
    assert whole[-1]["kind"] == "audit.read"
    annas = (await service.client.get("/v1/audit", params={"customer_id": "anna"})).json()["entries"]
    assert {each["subject"] for each in annas} == {await service.context.auditing.mark("anna")}
    assert "profile.read" in [each["kind"] for each in annas]
    page = (await service.client.get("/v1/audit", params={"after": 2, "limit": 1})).json()["entries"]
    assert [each["seq"] for each in page] == [3]


class Slow(Audit):  # type: ignore[misc]
    """Takes its time, and keeps what it is given together."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.fail = False

    async def append(self, events: Any, at: Any, expected: int | None = None) -> list[Entry]:
        await asyncio.sleep(0.01)
        if self.fail:
            raise StoreUnavailable("no")
        self.batches.append(len(events))
        return []


async def test_those_that_come_at_once_are_written_together() -> None:
    store = Slow()
    auditing = Auditing(store, lambda: NOW)
    events = [Event("profile.read", f"key:{n}") for n in range(50)]
    await asyncio.gather(*(auditing.record(event) for event in events))
    assert sum(store.batches) == 50
    assert len(store.batches) <= 2
    await auditing.record(events[0])
    assert sum(store.batches) == 51


async def test_whoever_waits_hears_of_a_failure_and_the_next_goes_well() -> None:
    store = Slow()
    auditing = Auditing(store, lambda: NOW)
    store.fail = True
    found = await asyncio.gather(
        *(auditing.record(Event("x", "y")) for _ in range(3)), return_exceptions=True
    )
    assert [type(each) for each in found] == [StoreUnavailable] * 3
    store.fail = False
    gone = asyncio.create_task(auditing.record(Event("x", "y")))
    await asyncio.sleep(0)
    gone.cancel()
    await auditing.record(Event("x", "y"))
    assert sum(store.batches) == 2, "who does not wait for it has it written all the same"
