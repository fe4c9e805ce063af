"""What `Audit` promises, on every backend; and that nobody changes what it holds unnoticed."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing

import asyncpg
import pytest
from support import DAY, NOW

from decision.errors import Conflict, StoreUnavailable
from decision.storage.chain import BEGIN, linked
from decision.storage.port import Event, Store
from decision.storage.postgres.store import PostgresStore
from decision.storage.sqlite.store import SqliteStore

Past = Callable[[str], Awaitable[None]]
NOTED = Event("profile.read", "key:k1", "customer:ab", {"n": 1, "é": ["x"]})
STATED = Event("halt.begin", "cli:ops", "action:renew", {"why": "wrong price"}, state=True)


@pytest.fixture
def past(store: Store) -> Past:
    """Somebody with all rights who writes past the service."""

    async def write(sql: str) -> None:
        if isinstance(store, SqliteStore):
            with closing(sqlite3.connect(store._path)) as connection:
                names = ("audit_is_not_changed", "audit_is_not_shortened", "audit_is_only_continued")
                connection.executescript("".join(f"DROP TRIGGER IF EXISTS {name};" for name in names) + sql)
            return
        assert isinstance(store, PostgresStore)
        connection = await asyncpg.connect(store._url)
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(re.sub(r"substr\(detail", "substring(detail", sql))
        await connection.close()

    return write


async def test_events_come_back_in_their_order(store: Store) -> None:
    assert await store.head() == (0, BEGIN)
    assert await store.entries() == []
    [first] = await store.append([NOTED], NOW)
    second, third = await store.append([STATED, NOTED], NOW + DAY)
    assert [each.seq for each in (first, second, third)] == [1, 2, 3]
    assert [each.event for each in (first, second, third)] == [NOTED, STATED, NOTED]
    assert (first.at, third.at) == (NOW, NOW + DAY)
    assert await store.entries() == [first, second, third]
    assert await store.entries(1, 1) == [second]
    assert await store.entries(state=True) == [second]
    assert await store.entries(subjects=[STATED.subject, "customer:none"]) == [second]
    assert await store.entries(1, subjects=[NOTED.subject]) == [third]
    assert await store.entries(subjects=[]) == []
    assert await store.head() == (3, third.hash)
    assert len({first.hash, second.hash, third.hash}) == 3
    assert await store.broken() is None
    assert await store.append([], NOW) == []


async def test_who_rests_on_what_is_no_longer_so_is_refused(store: Store) -> None:
    [entry] = await store.append([STATED], NOW, expected=0)
    await store.append([NOTED], NOW)  # changes nothing that anyone could rest on
    with pytest.raises(Conflict):
        await store.append([STATED], NOW, expected=0)
    with pytest.raises(Conflict):
        await store.publish_catalog("v1", b"{}", NOW, [STATED], expected=0)
    assert await store.live_catalog() is None
    assert len(await store.entries()) == 2
    await store.publish_catalog("v1", b"{}", NOW, [STATED], expected=entry.seq)
    assert (await store.entries())[-1].event == STATED
    assert await store.live_catalog() is not None


async def test_many_may_append_at_once(new_store: Callable[[], Store], store: Store) -> None:
    other = new_store()
    await other.open()
    await asyncio.gather(*(each.append([NOTED, STATED], NOW) for each in [store, other] * 20))
    won = await asyncio.gather(
        *(each.append([STATED], NOW, expected=80) for each in [store, other] * 5), return_exceptions=True
    )
    await other.close()
    assert [entry.seq for entry in await store.entries()] == list(range(1, 82))
    assert sum(isinstance(each, Conflict) for each in won) == 9
    assert await store.broken() is None


async def test_the_database_itself_refuses_to_change_it(store: Store) -> None:
    await store.append([NOTED], NOW)
    refused = ["UPDATE audit SET actor = 'x'", "DELETE FROM audit"]
    if isinstance(store, SqliteStore):
        refused.append("INSERT OR REPLACE INTO audit SELECT seq, 7, 'k', 'a', '', '{}', 0, hash FROM audit")
    for sql in refused:
        if isinstance(store, SqliteStore):
            with closing(sqlite3.connect(store._path)) as direct, pytest.raises(sqlite3.Error, match="audit"):
                direct.execute(sql)
        elif isinstance(store, PostgresStore):
            connection = await asyncpg.connect(store._url)
            with pytest.raises(asyncpg.RaiseError, match="audit"):
                await connection.execute(sql)
            await connection.close()


FLIPPED = "UPDATE audit SET {0} WHERE seq = 3;"
TAMPERED = {
    "a byte of the detail": FLIPPED.format("detail = replace(detail, 'wrong', 'wronh')"),
    "space in the detail": FLIPPED.format("detail = replace(detail, ':', ': ')"),
    "the actor": FLIPPED.format("actor = 'cli:opt'"),
    "the kind": FLIPPED.format("kind = 'halt.begim'"),
    "the subject": FLIPPED.format("subject = subject || 'x'"),
    "a byte moved between two columns": FLIPPED.format("actor = 'cli:op', subject = 's' || subject"),
    "the time": FLIPPED.format("at = at + 1"),
    "what follows from it": "UPDATE audit SET state = NOT state WHERE seq = 3;",
    "a hash": FLIPPED.format("hash = replace(hash, substr(hash, 1, 1), 'x')"),
    "one removed": "DELETE FROM audit WHERE seq = 3;",
    "one removed, the others moved up": (
        "DELETE FROM audit WHERE seq = 3; UPDATE audit SET seq = 3 WHERE seq = 4;"
        "UPDATE audit SET seq = 4 WHERE seq = 5;"
    ),
    "the first removed": "DELETE FROM audit WHERE seq = 1;",
    "the last removed": "DELETE FROM audit WHERE seq = 5;",
    "one inserted before the first": (
        "INSERT INTO audit SELECT 0, at, kind, actor, subject, detail, state, hash FROM audit WHERE seq = 5;"
    ),
    "the head removed": "DELETE FROM audit_head;",
    "one inserted at the end": (
        "INSERT INTO audit SELECT 6, at, kind, actor, subject, detail, state, hash FROM audit WHERE seq = 5;"
    ),
    "one inserted between": (
        "UPDATE audit SET seq = 6 WHERE seq = 5; UPDATE audit SET seq = 5 WHERE seq = 4;"
        "INSERT INTO audit SELECT 4, at, kind, actor, subject, detail, state, hash FROM audit WHERE seq = 3;"
    ),
    "two in another order": (
        "UPDATE audit SET seq = 9 WHERE seq = 3; UPDATE audit SET seq = 3 WHERE seq = 4;"
        "UPDATE audit SET seq = 4 WHERE seq = 9;"
    ),
}


@pytest.mark.parametrize("sql", TAMPERED.values(), ids=TAMPERED)
async def test_what_was_tampered_with_is_found(store: Store, past: Past, sql: str) -> None:
    for event in (NOTED, NOTED, STATED, NOTED, NOTED):
        await store.append([event], NOW)
    assert await store.broken() is None
    await past(sql)
    try:
        fault = await store.broken()
    except StoreUnavailable as error:
        fault = str(error)
    assert fault is not None
    assert re.search(r"entry [1-6]\b|head of the audit trail is missing", fault)


@pytest.mark.parametrize(("seq", "fault"), [(3, "entry 4 was changed"), (6, "entry 6 was put at the end")])
async def test_who_knows_how_hashes_are_made_is_found_too(
    store: Store, past: Past, seq: int, fault: str
) -> None:
    entries = await store.append([NOTED] * 5, NOW)
    forged = linked(Event("halt.end", "cli:ops", "action:x"), seq, entries[0].at.year, entries[seq - 2].hash)
    values = [each.decode() for each in (forged.kind, forged.actor, forged.subject, forged.detail)]
    texts = ", ".join(f"'{each}'" for each in values)
    state = "false" if isinstance(store, PostgresStore) else "0"
    row = f"{seq}, {forged.at}, {texts}, {state}, '{forged.hash.decode()}'"
    await past(f"DELETE FROM audit WHERE seq = {seq}; INSERT INTO audit VALUES ({row});")
    found = await store.broken()
    assert found is not None
    assert found.startswith(fault)


async def test_a_chain_made_anew_is_found_by_what_was_noted(store: Store, past: Past) -> None:
    await store.append([NOTED, STATED], NOW)
    noted = await store.head()
    assert await store.broken(noted=noted) is None
    await past(f"DELETE FROM audit; UPDATE audit_head SET seq = 0, hash = '{BEGIN}';")
    assert await store.broken() is None
    assert await store.broken(noted=noted) == "the chain ends at entry 0, and not at 2 as it did"
    await store.append([NOTED, NOTED], NOW)
    assert await store.broken() is None
    assert await store.broken(noted=noted) == "entry 2 is another than was noted"


async def test_what_cannot_be_read_is_not_rested_on(store: Store, past: Past) -> None:
    await store.append([STATED, STATED], NOW)
    await past("UPDATE audit SET detail = 'no json' WHERE seq = 2;")
    with pytest.raises(StoreUnavailable, match="entry 2 of the audit trail cannot be read"):
        await store.entries(state=True)
    assert await store.broken() == "entry 2 was changed, or what is before it"
    await past("DELETE FROM audit_head;")
    with pytest.raises(StoreUnavailable, match="head"):
        await store.append([STATED], NOW)


async def test_a_part_of_it_may_be_walked(store: Store, past: Past) -> None:
    for _ in range(5):
        await store.append([NOTED], NOW)
    await past(FLIPPED.format("actor = 'x'"))
    assert await store.broken(since=2) is not None
    assert await store.broken(since=3) is not None
    assert await store.broken(since=5) is None


async def test_every_database_has_a_secret_of_its_own(new_store: Callable[[], Store], store: Store) -> None:
    other = new_store()
    with pytest.raises(StoreUnavailable):
        await other.secret()
    await other.open()
    assert await other.secret() == await store.secret()
    assert len(await store.secret()) == 32
    await other.close()
