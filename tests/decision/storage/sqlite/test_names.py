"""What is SQLite's own in the names of a customer: strangers of the first release, and how they are read."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from decision.storage.port import Customer, Identity, Names, pseudonym
from decision.storage.sqlite import migrate as migrating
from decision.storage.sqlite.ledger import _BY_REQUEST
from decision.storage.sqlite.merges import SHARED
from decision.storage.sqlite.migrate import migrate, migrations
from decision.storage.sqlite.store import SqliteStore

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TABLET, PHONE = Identity("cookie", 'größer "\x00'), Identity("phone", "1")


async def test_a_database_of_the_first_release_knows_its_strangers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, first = tmp_path / "old.db", migrations()[:1]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection, monkeypatch.context() as patch:
        patch.setattr(migrating, "migrations", lambda: first)
        migrate(connection)
        for id, known in (("c-1", TABLET), ("c-1", PHONE), ("c-2", Identity("phone", "2"))):
            connection.execute("INSERT INTO identities VALUES (?, ?, ?)", (known.type, known.value, id))
    store = SqliteStore(path)
    await store.open()
    try:
        keys = tuple(sorted(map(pseudonym, (TABLET, PHONE))))
        assert await store.names("c-1") == Names("c-1", (), keys, (TABLET, PHONE))
        await store.put_customers([Customer("c-1"), Customer("c-3", identities=(TABLET,))], NOW)
        assert await store.names("c-1") == Names("c-1", (), keys)
        assert await store.names("c-3") == Names("c-3", (), (), (TABLET,))
    finally:
        await store.close()


@pytest.mark.parametrize("sql", [_BY_REQUEST, SHARED])
def test_a_write_looks_for_names_by_index(tmp_path: Path, sql: str) -> None:
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as connection:
        migrate(connection)
        plan = connection.execute(
            f"EXPLAIN QUERY PLAN {sql}", (None,) * (1 + (sql == _BY_REQUEST))
        ).fetchall()
        steps = [step for *_, step in plan]
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
        assert not [step for step in steps if step.startswith("SCAN") and step.split()[1] in tables], steps
        assert any("COVERING INDEX merges_of_survivor" in step for step in steps), steps
