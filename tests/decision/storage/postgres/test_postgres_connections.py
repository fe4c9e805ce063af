"""What is the matter with a database, and what comes of it: connections, news, the learner's lock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from decision.errors import StoreUnavailable
from decision.settings import open_store
from decision.storage.postgres.connections import Connections
from decision.storage.postgres.migrate import migrate, migrations
from decision.storage.postgres.store import PostgresStore

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    opened = PostgresStore(postgres_url)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def other(postgres_url: str, store: PostgresStore) -> AsyncIterator[PostgresStore]:
    opened = PostgresStore(postgres_url)
    await opened.open()
    yield opened
    await opened.close()


async def cut(url: str) -> None:
    """Has the server end every session but this one."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://nobody@127.0.0.1:1/store",
        "postgresql://nobody@/store?host=/nowhere",
        "postgresql://nobody@256.256.256.256/store",
        "postgresql://nobody@localhost:port/store",
    ],
)
async def test_a_database_that_is_not_there_is_said_to_be(url: str) -> None:
    store = open_store(url)
    with pytest.raises(StoreUnavailable, match="cannot be"):
        await store.open()
    with pytest.raises(StoreUnavailable, match="not open"):
        await store.ping()


async def test_no_such_user_or_database(postgres_url: str) -> None:
    for wrong in (postgres_url.replace("/store?", "/other?"), postgres_url.replace("postgres@", "stranger@")):
        with pytest.raises(StoreUnavailable, match="does not exist"):
            await PostgresStore(wrong).open()


async def test_a_role_without_its_rights_and_an_option_that_is_none_are_said_in_a_line(
    postgres_url: str,
) -> None:
    connection = await asyncpg.connect(postgres_url)
    stranger = postgres_url.replace("postgres@", "stranger@").replace("/store?", "/closed?")
    try:
        await connection.execute("CREATE ROLE stranger LOGIN")
        await connection.execute("CREATE DATABASE closed")
        with pytest.raises(StoreUnavailable, match="permission denied"):
            await PostgresStore(stranger).open()
        with pytest.raises(StoreUnavailable, match="sslmod"):
            await PostgresStore(f"{postgres_url}&sslmod=require").open()
    finally:
        await connection.execute("DROP DATABASE closed WITH (FORCE)")
        await connection.execute("DROP ROLE stranger")
        await connection.close()


def test_a_url_that_names_no_store_does_not_show_what_may_be_a_password() -> None:
    with pytest.raises(StoreUnavailable) as refused:
        open_store("postgresq://user:marker@host/store")
    assert "marker" not in str(refused.value)


async def test_sessions_that_were_cut_are_opened_again(store: PostgresStore, postgres_url: str) -> None:
    await asyncio.gather(*(store.ping() for _ in range(20)))
    await cut(postgres_url)
    refused = 0
    for _ in range(12):  # those that were not noticed to be gone yet
        try:
            await store.ping()
        except StoreUnavailable:
            refused += 1
    assert refused <= 8
    await asyncio.gather(*(store.ping() for _ in range(20)))


async def test_more_at_once_than_there_are_connections_take_turns(store: PostgresStore) -> None:
    assert store.waiting() == 0
    many = asyncio.gather(*(store.ping() for _ in range(200)))
    await asyncio.sleep(0)
    assert store.waiting() == 200
    await many
    assert store.waiting() == 0


async def test_news_are_heard_at_once(store: PostgresStore, other: PostgresStore) -> None:
    async def heard() -> None:
        async with asyncio.timeout(10):
            await store.news(60)

    await asyncio.gather(store.news(0.05), store.news(0.05))  # now it listens
    for publish in (
        other.publish_catalog("v", b"{}", NOW),
        other.pin("default", None, NOW),
    ):
        waiting = asyncio.create_task(heard())
        await publish
        await waiting


async def test_news_are_waited_for_where_nothing_can_be_heard(
    store: PostgresStore, other: PostgresStore, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server without LISTEN, and one that is gone and comes again."""

    async def add_listener(*_: Any) -> None:
        raise asyncpg.FeatureNotSupportedError("LISTEN")

    monkeypatch.setattr(asyncpg.Connection, "add_listener", add_listener)
    await store.news(0.05)
    monkeypatch.undo()
    await cut(postgres_url)
    await store.news(0.05)
    await store.news(0.05)
    waiting = asyncio.create_task(store.news(60))
    async with asyncio.timeout(10):
        while not waiting.done():
            await other.publish_catalog("v", b"{}", NOW)
            await asyncio.sleep(0.01)


async def leads(store: PostgresStore) -> bool:
    try:
        return await store.lead()
    except StoreUnavailable:
        return False


async def test_a_learner_whose_session_is_cut_leads_no_more(
    store: PostgresStore, other: PostgresStore, postgres_url: str
) -> None:
    assert await store.lead()
    assert not await other.lead()
    await cut(postgres_url)
    async with asyncio.timeout(10):
        while not await leads(other):
            pass
    assert not await leads(store)
    assert not await store.lead()
    assert await other.lead()


async def test_what_meets_another_is_tried_again(
    store: PostgresStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Two transactions that wait for each other: one is undone by the server, and goes again."""
    both = asyncio.Barrier(2)

    def work(first: str, second: str) -> Any:
        waited = False

        async def take(connection: Any) -> None:
            nonlocal waited
            insert = "INSERT INTO pins VALUES ($1, '', 0) ON CONFLICT (lineage) DO UPDATE SET pinned_at = 1"
            await connection.execute(insert, first)
            if not waited:
                waited = True
                await both.wait()
            await connection.execute(insert, second)

        return store._transact(take)

    with caplog.at_level(logging.INFO):
        await asyncio.gather(work("a", "b"), work("b", "a"))
    assert "met another" in caplog.text
    assert await store.pins() == {"a": "", "b": ""}


async def test_a_newer_schema_is_refused_and_an_older_server_too(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    newer = migrations()[-1][0] + 1
    try:
        await connection.execute("INSERT INTO schema_migrations VALUES ($1, 'later', 0)", newer)
        with pytest.raises(StoreUnavailable, match="newer release"):
            await PostgresStore(postgres_url).open()
    finally:
        await connection.execute("DELETE FROM schema_migrations WHERE version = $1", newer)
        await connection.close()

    class Old:
        async def fetchval(self, _: str) -> str:
            return "130012"

    with pytest.raises(StoreUnavailable, match="14 or newer"):
        await migrate(Old())  # type: ignore[arg-type]


async def test_many_processes_may_make_the_schema_at_once(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("CREATE DATABASE fresh")
    fresh = postgres_url.replace("/store?", "/fresh?")
    try:
        stores = [PostgresStore(fresh) for _ in range(4)]
        await asyncio.gather(*(store.open() for store in stores))
        assert await stores[0].live_catalog() is None
        await asyncio.gather(*(store.close() for store in stores))
    finally:
        await connection.execute("DROP DATABASE fresh WITH (FORCE)")
        await connection.close()


async def test_what_was_never_opened_may_be_closed() -> None:
    await Connections("postgresql://nobody@/store").close()


async def test_a_database_that_is_read_only_refuses_writes_until_it_is_not(
    store: PostgresStore, postgres_url: str
) -> None:
    """As a standby is, or one on whose disk somebody saves room."""
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute("ALTER DATABASE store SET default_transaction_read_only = on")
        await cut(postgres_url)
        assert "read-only" in await refusal(store)
        assert await store.publications() == []
    finally:
        await connection.close()
        connection = await asyncpg.connect(postgres_url)
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute("ALTER DATABASE store RESET default_transaction_read_only")
        await connection.close()
    assert "read-only" in await refusal(store)  # the session that was left; it is given up
    await store.publish_catalog("v", b"{}", NOW)
    assert len(await store.publications()) == 1


async def refusal(store: PostgresStore) -> str:
    """Why nothing can be published, once those sessions are gone that were cut."""
    async with asyncio.timeout(10):
        while True:
            try:
                await store.publish_catalog("v", b"{}", NOW)
            except StoreUnavailable as error:
                if "connection" not in str(error):
                    return str(error)


async def test_a_query_that_takes_too_long_costs_its_connection_and_no_other(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("decision.storage.postgres.connections._SECONDS", 0.2)
    with pytest.raises(StoreUnavailable):
        async with asyncio.timeout(5):
            await store._read("SELECT pg_sleep(60)")
    await store.ping()


async def test_who_does_not_wait_any_more_is_not_held_back(store: PostgresStore) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await store._read("SELECT pg_sleep(60)")
    assert loop.time() - began < 2
    await store.ping()
    assert store.waiting() == 0


async def test_who_gives_up_does_not_leave_sessions_behind(store: PostgresStore, postgres_url: str) -> None:
    """Never more than the pool has, however many give up on a server that is slow."""
    connection = await asyncpg.connect(postgres_url)
    blocking = connection.transaction()
    await blocking.start()
    await connection.execute("LOCK TABLE standings IN ACCESS EXCLUSIVE MODE")
    most = 0
    for _ in range(10):
        waiting = [asyncio.wait_for(store.situation("anna", NOW), 0.05) for _ in range(20)]
        assert {type(each) for each in await asyncio.gather(*waiting, return_exceptions=True)} <= {
            TimeoutError,
            StoreUnavailable,
        }
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        most = max(most, await connection.fetchval(count))
    await blocking.rollback()
    await connection.close()
    assert most <= 8 + 2  # the pool, and what looks
    assert (await store.situation("anna", NOW)).profile is None


async def test_a_long_read_does_not_keep_a_process_from_starting(
    store: PostgresStore, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """To make a month, the ledger has to be locked: that is tried for a moment, and again another time."""
    connection = await asyncpg.connect(postgres_url)
    months = (
        "SELECT relname FROM pg_class WHERE relname ~ '^labels_2' AND relkind = 'r' ORDER BY relname DESC"
    )
    newest = await connection.fetchval(months)
    await connection.execute(f"DROP TABLE {newest}")
    async with connection.transaction():
        await connection.fetch("SELECT count(*) FROM labels")
        async with asyncio.timeout(4):
            another = PostgresStore(postgres_url)
            await another.open()
            await another.close()
    assert "were not made" in caplog.text
    await another.open()
    await another.close()
    assert await connection.fetchval(months) == newest
    await connection.close()
