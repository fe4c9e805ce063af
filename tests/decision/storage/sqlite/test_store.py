"""What is SQLite's own; what every backend promises is in tests/contracts/test_store_*.py."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from decision.errors import StoreUnavailable
from decision.storage.port import Change, ConsentDetail, Customer, DecisionRecord, Identity
from decision.storage.sqlite import log as logs
from decision.storage.sqlite import migrate as migrating
from decision.storage.sqlite.learning import _LEARNED
from decision.storage.sqlite.ledger import _INSERT_IF_STILL, _NEWEST
from decision.storage.sqlite.merges import NAMES, PROFILE
from decision.storage.sqlite.migrate import migrate, migrations
from decision.storage.sqlite.profiles import _CUSTOMER, _TOLD
from decision.storage.sqlite.standing import _BY_REQUEST_OF_ANY, _LOOK, _SITUATION
from decision.storage.sqlite.store import SqliteStore

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as connection:
        migrate(connection)
        yield connection


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT * FROM responses WHERE customer_id = ? ORDER BY seq DESC LIMIT 9", 1),
        ("SELECT * FROM decisions WHERE customer_id = ? AND request_id = ?", 2),
        ("SELECT * FROM labels WHERE due_at <= ? ORDER BY due_at, decision_id, treatment LIMIT 9", 1),
        (_LEARNED, 3),
    ],
)
def test_reads_search_an_index_and_sort_nothing(
    connection: sqlite3.Connection, sql: str, parameters: int
) -> None:
    plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", (None,) * parameters).fetchall()
    steps = [step for *_, step in plan]
    assert all(step.startswith("SEARCH") for step in steps), steps


@pytest.mark.parametrize(
    ("sql", "parameters", "by_index_alone"),
    [
        (NAMES, 1, 2),
        (PROFILE, 1, 1),
        (_CUSTOMER, 1, 1),
        (_TOLD, 1, 0),
        (_LOOK, 4, 1),
        (_SITUATION, 5, 8),
        (_INSERT_IF_STILL, 17, 1),
        (_BY_REQUEST_OF_ANY, 2, 1),
        (_NEWEST, 2, 1),
    ],
)
def test_no_read_goes_through_a_whole_table(
    connection: sqlite3.Connection, sql: str, parameters: int, by_index_alone: int
) -> None:
    plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", (None,) * parameters).fetchall()
    steps = [step for *_, step in plan]
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    assert not [step for step in steps if step.startswith("SCAN") and step.split()[1] in tables], steps
    assert sum("COVERING INDEX" in step for step in steps) == by_index_alone, steps


async def test_a_database_of_the_first_release_is_brought_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its values have no time until they are told again; one that has a time is newer than one without."""
    path, first = tmp_path / "old.db", migrations()[:1]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection, monkeypatch.context() as patch:
        patch.setattr(migrating, "migrations", lambda: first)
        migrate(connection)
        for id in ("c-1", "c-2", "c-3"):
            values = (id, f'{{"nps":3,"by":"{id}"}}', '{"clv":1.5}', '{"marketing":"given"}')
            connection.execute("INSERT INTO customers VALUES (?, ?, ?, ?)", values)
            connection.execute("INSERT INTO identities VALUES ('of', ?, ?)", (id, id))
    store = SqliteStore(path)
    await store.open()
    try:
        expected = Customer(
            "c-1", {"nps": 3, "by": "c-1"}, {"clv": 1.5}, {"marketing": "given"}, (Identity("of", "c-1"),)
        )
        assert await store.customer("c-1") == expected
        assert await store.as_of("c-1") == {}
        old = {"marketing": ConsentDetail(NOW - DAY, "letter")}
        change = Change(Customer("c-2", consents={"marketing": "withdrawn"}, consent_details=old))
        [told] = await store.patch_customers([change], NOW)
        assert (told.consents, told.consent_details) == ({"marketing": "withdrawn"}, old)
        await store.patch_customers([Change(Customer("c-2"), (("consents", "marketing"),))], NOW)
        await store.patch_customers([Change(Customer("c-1", {"nps": 4}))], NOW)
        assert await store.as_of("c-1") == {"attributes.nps": NOW}
        await store.merge("c-2", [Identity("of", "c-1")], NOW + DAY)
        joined = await store.customer("c-2")
        assert joined is not None
        assert joined.attributes == {"nps": 4, "by": "c-2"}
        assert await store.as_of("c-1") == {"attributes.nps": NOW}
        await store.put_customers([Customer("c-3", {"by": "c-3"})], NOW + DAY)
        await store.merge("c-3", [Identity("of", "c-2")], NOW + DAY)
        joined = await store.customer("c-3")
        assert joined is not None
        assert (joined.attributes, joined.scores) == ({"by": "c-3", "nps": 4}, {"clv": 1.5})
        assert await store.as_of("c-1") == {"attributes.by": NOW + DAY, "attributes.nps": NOW}
        assert store._read("SELECT customer_id FROM customers") == [("c-3",)]  # nothing is left behind
    finally:
        await store.close()


async def test_a_profile_told_at_once_lists_no_times(tmp_path: Path) -> None:
    """What is listed is what differs from the time most values have."""
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    await store.open()

    def listed() -> list[tuple[str]]:
        return store._read("SELECT told_apart FROM customers")

    many = Customer("c-1", {f"a{n}": n for n in range(9)})
    await store.put_customers([many], NOW)
    assert listed() == [("{}",)]
    await store.patch_customers([Change(Customer("c-1", {"a1": 1}))], NOW + DAY)
    later = int((NOW + DAY).timestamp()) * 1_000_000
    assert listed() == [(f'{{"attributes.a1":{later}}}',)]
    await store.patch_customers([Change(Customer("c-1"), (("attributes", "a1"),))], NOW + DAY)
    assert listed() == [("{}",)]
    await store.patch_customers([Change(many)], NOW + 2 * DAY)
    assert listed() == [("{}",)]
    await store.close()


async def test_a_damaged_file_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = SqliteStore(path)
    await store.open()
    await store.close()  # empties the write-ahead log into the file
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(StoreUnavailable, match="malformed"):
        await store.open()
    await store.close()


async def test_the_reading_connection_cannot_write(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    with pytest.raises(StoreUnavailable, match="readonly"):
        store._read("DELETE FROM customers")
    await store.close()


async def test_a_commit_is_written_ahead_and_synced_by_us(tmp_path: Path) -> None:
    """Seen on the connection that writes: SQLite itself syncs with checkpoints only; see `test_writer.py`."""

    def modes(connection: sqlite3.Connection) -> tuple[str, int, int, int]:
        names = ("journal_mode", "synchronous", "wal_autocheckpoint", "secure_delete")
        journal, *rest = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
        return journal, *rest

    normal, never, always = 1, 0, 1
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    assert await store._write(modes) == ("wal", normal, never, always)
    await store.close()
    await store.open()  # also on a file that is there already
    assert await store._write(modes) == ("wal", normal, never, always)
    await store.close()


async def test_an_answer_is_given_again_only_once_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have committed it, and not yet synced it."""
    syncs = 0
    sync = logs._sync

    def counted(file: int) -> None:
        nonlocal syncs
        syncs += 1
        sync(file)

    monkeypatch.setattr(logs, "_sync", counted)
    ours, other = SqliteStore(tmp_path / "store.db"), SqliteStore(tmp_path / "store.db")
    await other.open()
    await ours.open()
    given = ("c-1", "r-1", "h", NOW, "web", "live", "v1", {}, b"{}", b"{}")
    await other.commit_decisions([DecisionRecord("d-1", *given)])
    before = syncs
    assert (await ours.situation("c-1", NOW, request_id="r-2")).earlier is None
    assert syncs == before
    found = (await ours.situation("c-1", NOW, request_id="r-1")).earlier
    assert found is not None
    assert found.decision_id == "d-1"
    assert syncs == before + 1
    assert await ours.decision_of_request(("c-1",), "r-1") == found
    assert syncs == before + 2
    (repeated,) = await ours.commit_decisions([DecisionRecord("d-2", *given)])
    assert repeated == found
    assert syncs == before + 3
    await ours.close()
    await other.close()
