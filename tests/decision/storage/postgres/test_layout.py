"""How the tables can be laid out over several machines, and what a decision asks of them.

No distributed database is started here. What one needs is looked up in the schema, and in the statements.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from support import ANNA, NOW, Clock, Ids, Service, catalog_document, running

from decision.storage.port import Customer, Identity, ResponseRecord, Stop
from decision.storage.postgres.merges import lock, merge
from decision.storage.postgres.store import PostgresStore

# As docs/decisions/0017 has it: the column a table is distributed by, or None for a copy on every machine.
LAYOUT = {
    **dict.fromkeys(
        ("customers", "standings", "stops", "memberships", "reservations"),
        "customer_id",
    ),
    **dict.fromkeys(("decisions", "responses", "requests", "unread"), "customer_id"),
    "identities": "value",
    "labels": "decision_id",
    "erasures": "decision_id",
    **dict.fromkeys(("merges", "budgets", "learner_cursor", "catalogs", "publications"), None),
    **dict.fromkeys(("snapshots", "live_snapshots", "pins", "schema_migrations"), None),
    "tombstones": "mark",
    **dict.fromkeys(("audit", "audit_head", "secrets"), None),
}


@pytest.fixture
async def connection(postgres_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    opened = await asyncpg.connect(postgres_url)
    yield opened
    await opened.close()


async def test_every_table_has_its_place(connection: Any) -> None:
    found = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition"
    )
    assert {row[0] for row in found} == LAYOUT.keys()


async def test_what_is_unique_holds_the_column_a_table_is_distributed_by(connection: Any) -> None:
    """Else no machine could tell alone that it is."""
    found = await connection.fetch(
        "SELECT relname, array_agg(attname) FROM pg_index JOIN pg_class ON pg_class.oid = indrelid"
        " JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey)"
        " WHERE indisunique AND NOT relispartition AND relnamespace = 'public'::regnamespace"
        " GROUP BY indexrelid, relname"
    )
    assert len(found) >= len(LAYOUT)
    for table, columns in found:
        column = LAYOUT[table]
        assert column is None or column in columns, (table, columns)
        if column == "customer_id":
            assert columns, table


async def test_customers_keys_begin_with_the_customer(connection: Any) -> None:
    found = await connection.fetch(
        "SELECT relname, attname FROM pg_index JOIN pg_class ON pg_class.oid = indrelid"
        " JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]"
        " WHERE indisprimary AND NOT relispartition AND relnamespace = 'public'::regnamespace"
    )
    first = dict(map(tuple, found))
    for table, column in LAYOUT.items():
        if column == "customer_id":
            assert first[table] == "customer_id", table


async def test_no_sequence_is_on_the_path_of_a_decision(connection: Any) -> None:
    found = await connection.fetch(
        "SELECT relname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
        " LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
        " WHERE relnamespace = 'public'::regnamespace"
        " AND (attidentity <> '' OR pg_get_expr(adbin, adrelid) LIKE '%nextval%')"
    )
    assert {row[0] for row in found} == {"publications", "snapshots"}


class Listening(PostgresStore):
    """Keeps what is asked of the database."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked: list[str] = []

    async def _pooled(self, *args: Any, **more: Any) -> Any:
        connection = await super()._pooled(*args, **more)
        connection.add_query_logger(lambda each: self.asked.append(each.query))
        return connection

    async def since(self) -> list[str]:
        """What was asked since the last time: the first words."""
        await asyncio.sleep(0)  # the driver tells of a query in the next turn of the loop
        asked, self.asked = self.asked, []
        return [" ".join(query.split()[:2]) for query in asked]


@pytest.fixture
async def service(postgres_url: str, tmp_path: Any) -> AsyncIterator[Service]:
    document = catalog_document()
    document["contact_policies"] = [{"id": "often", "at_most": 50, "within": "30d"}]
    next(each for each in document["actions"] if each["id"] == "upgrade")["budget"] = {"total": 100}
    async with running(tmp_path, Clock(), Ids(), store=Listening(postgres_url)) as started:
        await started.publish(document)
        await started.client.put("/v1/customers/anna", json=ANNA)
        await started.decide()  # statements are prepared, and the customer's contacts counted
        await store(started).since()
        yield started


def store(service: Service) -> Listening:
    found = service.context.store
    assert isinstance(found, Listening)
    return found


async def test_a_decision_is_two_round_trips(service: Service) -> None:
    await service.decide(placement="hero", request_id="r-1")
    assert await store(service).since() == ["SELECT coalesce(standings.revision,", "WITH gate"]
    # Also of somebody who was never met, by an identity.
    await service.decide(None, "hero", identity={"type": "cookie", "value": "zz"})
    assert await store(service).since() == ["SELECT coalesce(standings.revision,", "WITH gate"]


async def test_a_budget_makes_it_a_transaction_of_four(service: Service) -> None:
    decision = await service.decide()
    assert "upgrade" in {item["action"] for item in decision["placements"][0]["items"]}
    assert await store(service).since() == [
        "SELECT coalesce(standings.revision,", "BEGIN;", "WITH gate", "INSERT INTO", "COMMIT;"
    ]  # fmt: skip


async def test_a_retry_is_one_more_read_and_no_write(service: Service) -> None:
    first = await service.decide(request_id="r-2")
    await store(service).since()
    assert await service.decide(request_id="r-2") == first
    assert await store(service).since() == ["SELECT coalesce(standings.revision,", "SELECT decision_id,"]


async def test_who_is_overtaken_takes_the_long_way_and_is_right(service: Service) -> None:
    """Two that read the same state: the second finds the row moved, looks again, and counts on from there."""

    await asyncio.gather(*(service.decide() for _ in range(8)))
    assert "INSERT INTO" in (await store(service).since())
    found = await service.context.store.budgets()
    counters = await store(service)._read("SELECT counters FROM standings WHERE customer_id = 'anna'")
    assert counters[0][0].count(",") > 8
    decisions, _ = await service.context.store.history(("anna",), 100)
    assert sum(b'"upgrade_agent"' in each.reply for each in decisions) == found[0].used


async def test_who_is_merged_while_a_response_waits_is_locked_by_the_new_name(
    service: Service, connection: Any
) -> None:
    """What the response changes must show to whoever decides for the survivor."""
    mine, cookie = store(service), Identity("cookie", "bert")
    await mine.put_customers([Customer("bert", identities=(cookie,))], NOW)
    merging = connection.transaction()
    await merging.start()
    await lock(connection, ["bert"])
    said = ResponseRecord("e-1", "d-1", "bert", "", "accepted", None, NOW, NOW, (Stop("group", "g", None),))
    waiting = asyncio.create_task(mine.commit_responses([said]))
    while not await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        await asyncio.sleep(0.01)
    names = await merge(connection, "anna", [cookie], 0)
    revision = "SELECT revision FROM standings WHERE customer_id = 'anna'"
    moved = await connection.fetchval(revision)
    await merging.commit()
    await waiting
    assert Stop("group", "g", None) in (await mine.standing(names.keys, NOW)).stops
    assert await connection.fetchval(revision) == moved + 1
