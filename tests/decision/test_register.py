"""What is in force follows from the trail, in every process, and changes in one order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from support import NOW

from decision.access.keys import Wanted, make, revoked
from decision.errors import Conflict, Rejected
from decision.register import Register
from decision.storage.port import Event
from decision.storage.sqlite.store import SqliteStore


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "a.db")
    await store.open()
    yield store
    await store.close()


async def test_one_process_sees_what_another_did(store: SqliteStore) -> None:
    here, there = Register(store), Register(store)
    made = make(Wanted("a", ["decide"]), "cli:test")
    await here.act(lambda _: [made.event], NOW)
    assert len(there.keys) == 0
    await store.append([Event("profile.read", "key:x")], NOW)
    await there.refresh()
    assert there.keys.found(made.token) == here.keys.found(made.token) is not None
    await there.act(lambda register: revoked(register.keys, made.id, "cli:test"), NOW)
    await here.refresh()
    key = here.keys.get(made.id)
    assert key is not None
    assert key.refusal(NOW) == "revoked"
    assert here.seq == there.seq == 3


async def test_of_two_that_change_the_same_the_second_looks_again(store: SqliteStore) -> None:
    """As of a budget: each may take one of the three that are left."""
    registers = [Register(store) for _ in range(8)]

    def take(register: Register) -> Sequence[Event]:
        if len(register.keys) >= 3:
            raise Rejected(409, "full", "No more.")
        return [make(Wanted("a", ["decide"]), "cli:test").event]

    done = await asyncio.gather(*(register.act(take, NOW) for register in registers), return_exceptions=True)
    assert sum(isinstance(each, Rejected) for each in done) == 5
    last = Register(store)
    await last.refresh()
    assert len(last.keys) == 3
    assert await store.broken() is None


async def test_what_is_carried_out_in_the_store_is_one_with_its_record(store: SqliteStore) -> None:
    register = Register(store)
    event = Event("catalog.publish", "cli:test", "catalog:v1", state=True)

    async def publish(events: Sequence[Event], expected: int) -> None:
        await store.publish_catalog("v1", b"{}", NOW, events, expected)

    await register.act(lambda _: [event], NOW, publish)
    assert [entry.event for entry in await store.entries()] == [event]

    async def fail(events: Sequence[Event], expected: int) -> None:
        raise Conflict("version", "another")

    with pytest.raises(Conflict, match="another"):
        await register.act(lambda _: [event], NOW, fail)
    assert len(await store.entries()) == 1


async def test_where_others_are_always_faster_it_gives_up(store: SqliteStore) -> None:
    register = Register(store)
    tried = 0

    async def late(_: Sequence[Event], __: int) -> None:
        nonlocal tried
        tried += 1
        raise Conflict("expected", "late")

    with pytest.raises(Conflict):
        await register.act(lambda _: [], NOW, late)
    assert tried == 20
