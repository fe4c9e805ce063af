"""The ledger in months: where a decision is kept, and what goes when a month does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from support import id_of

from decision.errors import StoreUnavailable
from decision.storage.months import month_after, month_of
from decision.storage.port import DecisionRecord, Label, ResponseRecord
from decision.storage.postgres.partitions import first_id, keep_partitions, make_partitions
from decision.storage.postgres.store import PostgresStore

JANUARY = datetime(2025, 1, 1, tzinfo=UTC)
FEBRUARY = month_after(JANUARY)
MILLISECOND = timedelta(milliseconds=1)


def decided(moment: datetime) -> DecisionRecord:
    id = id_of(moment)
    return DecisionRecord(id, "c-1", f"r-{id}", "h", moment, "web", "live", "v", {}, b"{}", b"{}")


@pytest.fixture
async def connection(postgres_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    opened = await asyncpg.connect(postgres_url)
    yield opened
    await opened.close()


@pytest.fixture
async def store(postgres_url: str, connection: Any) -> AsyncIterator[PostgresStore]:
    """With partitions for January and February 2025, which go with the test."""
    opened = PostgresStore(postgres_url)
    await opened.open()
    await make_partitions(connection, [JANUARY, FEBRUARY])
    yield opened
    await opened.close()
    for month in await months(connection):
        if "2025" in month:
            await connection.execute(f"DROP TABLE {month}")


async def months(connection: Any, table: str = "%") -> list[str]:
    found = await connection.fetch(
        f"SELECT relname FROM pg_class WHERE relname LIKE '{table}_2%' AND relkind = 'r' ORDER BY relname"
    )
    return [row[0] for row in found]


@pytest.mark.parametrize(
    "end", [FEBRUARY, datetime(2026, 11, 1, tzinfo=UTC), datetime(2091, 3, 1, tzinfo=UTC)]
)
def test_an_id_sorts_into_its_month(end: datetime) -> None:
    assert id_of(end - MILLISECOND) < first_id(end) <= id_of(end) < id_of(end + MILLISECOND)


def test_months_follow_each_other() -> None:
    there = datetime.fromisoformat("2026-12-31T23:30:00-05:00")
    assert month_of(there) == datetime(2027, 1, 1, tzinfo=UTC)
    assert month_after(datetime(2026, 12, 1, tzinfo=UTC)) == datetime(2027, 1, 1, tzinfo=UTC)


async def test_this_month_and_the_next_three_are_there(store: PostgresStore, connection: Any) -> None:
    month = month_of(datetime.now(UTC))
    for _ in range(4):
        for table in ("decisions", "responses", "labels"):
            assert f"{table}_{month:%Y_%m}" in await months(connection)
        month = month_after(month)
    before = await months(connection)
    await keep_partitions(connection)
    assert await months(connection) == before


async def test_a_decision_is_kept_in_the_month_of_its_id(store: PostgresStore, connection: Any) -> None:
    last, first = decided(FEBRUARY - MILLISECOND), decided(FEBRUARY)
    other = replace(last, decision_id="another-make", request_id=None)
    await store.commit_decisions([last, first, other])
    for table, record in (("2025_01", last), ("2025_02", first), ("other", other)):
        found = await connection.fetch(f"SELECT decision_id FROM decisions_{table}")
        assert [row[0] for row in found] == [record.decision_id]


async def test_a_look_up_by_id_meets_one_month(store: PostgresStore, connection: Any) -> None:
    plan = await connection.fetch(
        f"EXPLAIN SELECT reply FROM decisions WHERE decision_id = '{id_of(JANUARY)}'"
    )
    text = "\n".join(row[0] for row in plan)
    assert "decisions_2025_01" in text
    assert "decisions_2025_02" not in text
    assert "decisions_other" not in text


async def test_a_month_that_is_over_is_dropped(store: PostgresStore, connection: Any) -> None:
    old, kept = decided(FEBRUARY - MILLISECOND), decided(FEBRUARY)
    for record in (old, kept):
        await store.commit_decisions([record])
        said = ResponseRecord("e", record.decision_id, "c-1", "t", "click", None, JANUARY, JANUARY)
        await store.commit_responses([replace(said, response_id=record.decision_id)])
        label = Label(record.decision_id, "t", None, JANUARY)
        before = await store.cursor()
        *_, cursor = await store.unread(before, 9)
        await store.commit_learning([label], [], cursor, expected=before, lineages=[])
    assert await store.prune(FEBRUARY - MILLISECOND) == 0
    assert await store.prune(month_after(FEBRUARY) - MILLISECOND) == 1
    assert "decisions_2025_01" not in await months(connection)
    left = [month for month in await months(connection) if "2025" in month]
    assert left == ["decisions_2025_02", "labels_2025_02", "responses_2025_02"]
    ids = [old.decision_id, kept.decision_id]
    assert await store.decisions(ids) == {kept.decision_id: kept}
    assert [each.decision_id for each in await store.responses(ids)] == [kept.decision_id]
    assert [each.decision_id for each in await store.due_labels(FEBRUARY, 9)] == [kept.decision_id]
    found = await connection.fetch("SELECT DISTINCT decision_id FROM requests")
    assert [row[0] for row in found] == [kept.decision_id]


async def test_a_busy_ledger_is_not_made_to_wait_for_long(store: PostgresStore, connection: Any) -> None:
    async with connection.transaction():
        await connection.execute("LOCK TABLE decisions_2025_01 IN ROW EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable, match="lock"):
            async with asyncio.timeout(10):
                await store.prune(FEBRUARY)
    assert "decisions_2025_01" in await months(connection)
    await store.prune(FEBRUARY)
    assert "decisions_2025_01" not in await months(connection)
