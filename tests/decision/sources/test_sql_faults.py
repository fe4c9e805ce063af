"""What a SQL source says when there is no answer: which cause, and nothing personal."""

from __future__ import annotations

import asyncio
import traceback
from pathlib import Path

import certifi
import pytest
from sqldatabases import Database, Opener, Postgres, Sqlite, wire
from test_sql import CUSTOMERS, NAME, NPS, QUERY

from decision.sources.port import Cause, SourceFault
from decision.sources.sql import Sql

SECRET = "anna.secret@example.org"


async def _fault(source: Sql, value: str = SECRET) -> SourceFault:
    async with asyncio.timeout(4):  # below what SQLite waits for a lock unless told otherwise
        with pytest.raises(SourceFault) as caught:
            await source.fetch([(value,)])
    return caught.value


@pytest.mark.parametrize(
    "query",
    [
        "SELEC nps FROM customers WHERE id = :customer_id",
        "SELECT nps FROM nowhere WHERE id = :customer_id",
        "SELECT age FROM customers WHERE id = :customer_id",
        "SELECT nps FROM customers WHERE id = :mail",
        "SELECT 1; DROP TABLE customers",
        "SELECT 1 AS nps) AS found; DROP TABLE customers; --",
        "DROP TABLE customers",
        "DELETE FROM customers WHERE id <> :customer_id RETURNING nps",
        "WITH gone AS (DELETE FROM customers RETURNING nps) SELECT nps FROM gone",
        "WITH gone AS (SELECT 1) DELETE FROM customers RETURNING nps",
    ],
)
async def test_a_wrong_statement_is_a_bad_reply_and_does_nothing(
    database: Database, opened: Opener, query: str
) -> None:
    await database.run(CUSTOMERS)
    fault = await _fault(opened(database.url, query, NPS))
    assert (fault.cause, fault.ill) == (Cause.BAD_REPLY, True)
    assert await opened(database.url, QUERY, NAME).fetch([("anna",)]) == [{"customer.name": "Anna"}]


async def test_a_function_cannot_write_either(postgres: Postgres, opened: Opener) -> None:
    await postgres.run(CUSTOMERS)
    await postgres.run(
        "CREATE FUNCTION harm() RETURNS int LANGUAGE sql AS 'DELETE FROM customers; SELECT 1'; SELECT 1;"
    )
    fault = await _fault(opened(postgres.url, "SELECT harm() AS nps", NPS))
    assert fault.cause == Cause.BAD_REPLY
    assert await postgres.ask("SELECT count(*) FROM customers") == 3


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1 AS nps WHERE 1 = CAST(:customer_id AS bigint)",
        "SELECT 1 AS nps WHERE gen_random_uuid() = CAST(:customer_id AS uuid)",
        "SELECT 1 / (length(:customer_id) - 23) AS nps",
        "SELECT (SELECT i FROM generate_series(1, length(:customer_id)) AS n(i)) AS nps",
    ],
)
async def test_what_is_due_to_one_customer_is_not_ill(postgres: Postgres, opened: Opener, query: str) -> None:
    fault = await _fault(opened(postgres.url, query, NPS))
    assert (fault.cause, fault.ill) == (Cause.BAD_REPLY, False)


@pytest.mark.parametrize("value", [SECRET, SECRET + "\ud800"])
@pytest.mark.parametrize(
    "query",
    [
        "SELECT nps FROM nowhere WHERE id = :customer_id",
        "SELECT :customer_id + AS nps",
        "SELECT :customer_id AS nps UNION SELECT 'more'",
    ],
)
async def test_nothing_personal_is_in_a_fault(
    database: Database, opened: Opener, query: str, value: str
) -> None:
    fault = await _fault(opened(database.url, query, NPS), value)
    assert SECRET not in "".join(traceback.format_exception(fault))


async def test_nothing_personal_is_in_a_fault_of_the_values(postgres: Postgres, opened: Opener) -> None:
    fault = await _fault(opened(postgres.url, "SELECT CAST(:customer_id AS bigint) AS nps", NPS))
    assert SECRET not in "".join(traceback.format_exception(fault))
    assert str(fault) == "InvalidTextRepresentationError"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://anna:secret@127.0.0.1:1/crm",
        "postgresql+asyncpg://anna:secret@/crm?host=/nowhere",
        "sqlite+aiosqlite:////nowhere/at/all.db",
    ],
)
async def test_no_connection_is_unavailable(opened: Opener, url: str) -> None:
    fault = await _fault(opened(url, QUERY, NPS))
    assert (fault.cause, fault.ill) == (Cause.UNAVAILABLE, True)
    assert "secret" not in "".join(traceback.format_exception(fault))


async def test_with_an_authority_nothing_is_said_in_plain(
    postgres: Postgres, opened: Opener, tmp_path: Path
) -> None:
    async with wire(postgres, tmp_path, tcp=True) as between:
        assert await opened(between.url, "SELECT 1 AS nps", NPS).fetch([("anna",)]) == [{"customer.nps": 1}]
        authority = Path(certifi.where())
        fault = await _fault(opened(between.url, "SELECT 1 AS nps", NPS, ca_file=authority))
        assert (fault.cause, str(fault)) == (Cause.UNAVAILABLE, "ConnectionError")


async def test_a_locked_database_is_unavailable(sqlite: Sqlite, opened: Opener) -> None:
    await sqlite.run(CUSTOMERS)
    source = opened(sqlite.url, QUERY, NPS, timeout="50ms")
    with sqlite.locked():
        assert (await _fault(source)).cause == Cause.UNAVAILABLE
    assert await source.fetch([("anna",)]) == [{"customer.nps": 9}]


async def test_no_free_connection_is_unavailable(database: Database, opened: Opener) -> None:
    source = opened(database.url, "SELECT 1 AS nps", NPS, calls=1, timeout="50ms")
    await source.fetch([("anna",)])
    assert source._engine is not None
    async with source._engine.connect():
        fault = await _fault(source)
    assert (fault.cause, str(fault)) == (Cause.UNAVAILABLE, "no connection is free")
    assert await source.fetch([("anna",)]) == [{"customer.nps": 1}]


async def test_the_server_itself_ends_what_takes_too_long(postgres: Postgres, opened: Opener) -> None:
    fault = await _fault(opened(postgres.url, postgres.slow, NPS, timeout="100ms"), "anna")
    assert (fault.cause, fault.ill) == (Cause.TIMEOUT, True)


async def test_a_server_that_was_stopped_and_started(postgres: Postgres, opened: Opener) -> None:
    await postgres.run(CUSTOMERS)
    source = opened(postgres.url, QUERY, NPS, calls=3)
    await asyncio.gather(*(source.fetch([("anna",)]) for _ in range(3)))
    under_way = opened(postgres.url, postgres.slow, NPS)
    slow = asyncio.create_task(under_way.fetch([("anna",)]))
    while not await postgres.running():
        await asyncio.sleep(0.01)
    await asyncio.to_thread(postgres.stop)
    with pytest.raises(SourceFault) as caught:
        await slow
    assert (caught.value.cause, caught.value.ill) == (Cause.UNAVAILABLE, True)
    assert (await _fault(source)).cause == Cause.UNAVAILABLE
    await asyncio.to_thread(postgres.start)
    for _ in range(4):
        assert await source.fetch([("anna",)]) == [{"customer.nps": 9}]


async def test_a_connection_closed_while_idle_costs_no_call(postgres: Postgres, opened: Opener) -> None:
    await postgres.run(CUSTOMERS)
    source = opened(postgres.url, QUERY, NPS, calls=3)
    await asyncio.gather(*(source.fetch([("anna",)]) for _ in range(3)))
    await postgres.ask(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    await asyncio.sleep(0.1)
    assert await source.fetch([("anna",)]) == [{"customer.nps": 9}]


async def test_a_table_that_grew_a_column_costs_at_most_one_call(postgres: Postgres, opened: Opener) -> None:
    await postgres.run(CUSTOMERS)
    source = opened(postgres.url, "SELECT * FROM customers WHERE id = :customer_id", NPS, calls=2)
    await asyncio.gather(*(source.fetch([("anna",)]) for _ in range(2)))
    await postgres.run("ALTER TABLE customers ADD COLUMN age int; SELECT 1;")
    faults = 0
    for _ in range(4):
        try:
            assert await source.fetch([("anna",)]) == [{"customer.nps": 9}]
        except SourceFault:
            faults += 1
    assert faults <= 1


async def test_a_connection_slower_than_calls_may_be_is_made_all_the_same(
    postgres: Postgres, opened: Opener, tmp_path: Path
) -> None:
    await postgres.run(CUSTOMERS)
    async with wire(postgres, tmp_path) as between:
        between.delay = 0.1
        source = opened(between.url, QUERY, NPS, calls=1)
        answers = []
        for _ in range(20):
            try:
                async with asyncio.timeout(0.3):
                    answers = list(await source.fetch([("anna",)]))
                break
            except TimeoutError:
                pass
        assert answers == [{"customer.nps": 9}]
        await source.close()
