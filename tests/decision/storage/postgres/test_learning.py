"""The learner's order of the ledger: places are given once, whoever looks."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from decision.storage.port import Cursor, DecisionRecord
from decision.storage.postgres.store import PostgresStore

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def decided(number: int) -> DecisionRecord:
    return DecisionRecord(f"d-{number}", f"c-{number % 7}", None, "", NOW, "web", "live", "v", {}, b"", b"")


async def test_several_that_look_at_once_give_each_one_place(postgres_url: str) -> None:
    stores = [PostgresStore(postgres_url) for _ in range(3)]
    await asyncio.gather(*(store.open() for store in stores))
    try:
        for turn in range(4):
            await stores[0].commit_decisions([decided(turn * 50 + number) for number in range(50)])
            await asyncio.gather(*(store.unread(Cursor(), 1) for store in stores * 2))
        found = await stores[0]._read("SELECT place FROM unread ORDER BY place")
        assert [place for (place,) in found] == list(range(1, 201))
        assert len((await stores[1].unread(Cursor(), 500))[0]) == 200
    finally:
        await asyncio.gather(*(store.close() for store in stores))


async def test_what_was_learned_is_not_kept_to_be_read(postgres_url: str) -> None:
    store = PostgresStore(postgres_url)
    await store.open()
    try:
        await store.commit_decisions([decided(number) for number in range(5)])
        decisions, _, cursor = await store.unread(Cursor(), 3)
        await store.commit_learning([], [], cursor, expected=Cursor(), lineages=[])
        left = await store._read("SELECT id FROM unread")
        assert {id for (id,) in left} == {f"d-{n}" for n in range(5)} - {
            each.decision_id for each in decisions
        }
    finally:
        await store.close()
