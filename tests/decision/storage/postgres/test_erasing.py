"""An erasure that meets the learner in PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg

from decision.storage.port import DecisionRecord
from decision.storage.postgres.erasing import erase
from decision.storage.postgres.store import PostgresStore

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DECISION = DecisionRecord("", "", None, "", NOW, "mail", "live", "v1", {}, b"{}", b'{"placements":[]}')


async def test_the_learner_loses_nothing_where_an_erasure_comes_between(postgres_url: str) -> None:
    """It counts the places that it gives: a row that goes meanwhile must not be counted, or one that comes
    later gets a place that was read already."""
    store = PostgresStore(postgres_url)
    await store.open()
    connection = await asyncpg.connect(postgres_url)
    try:
        for number in range(3):
            await store.commit_decisions(
                [replace(DECISION, decision_id=f"d-{number}", customer_id=f"c-{number}")]
            )
        erasing = connection.transaction()
        await erasing.start()
        await erase("c-1", lambda id: id, 0, None, connection)
        reading = asyncio.create_task(store.unread(await store.cursor(), 9))
        while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0.01)
        await erasing.commit()
        decisions, _, cursor = await reading
        assert [each.decision_id for each in decisions] == ["d-0", "d-2"]
        at = await store.cursor()
        await store.commit_learning([], [], cursor, expected=at, lineages=[])
        await store.commit_decisions([replace(DECISION, decision_id="d-3", customer_id="c-3")])
        decisions, *_ = await store.unread(await store.cursor(), 9)
        assert [each.decision_id for each in decisions] == ["d-3"]
    finally:
        await connection.close()
        await store.close()
