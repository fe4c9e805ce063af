"""What is SQLite's own; what every backend promises is in tests/contracts/test_store_*.py."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from decision.errors import StoreUnavailable
from decision.storage.migrate import migrate
from decision.storage.sqlite import SqliteStore
from decision.storage.sqlite_learning import _LEARNED


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as connection:
        migrate(connection)
        yield connection


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT * FROM decisions WHERE customer_id = ? ORDER BY seq DESC LIMIT 9", 1),
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


async def test_a_commit_is_written_ahead_and_synced(tmp_path: Path) -> None:
    """Seen on the connection that writes: the default in WAL mode would lose commits with the power."""

    def modes(connection: sqlite3.Connection) -> tuple[str, int]:
        (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
        (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
        return journal, synchronous

    full = 2
    store = SqliteStore(tmp_path / "store.db")
    await store.open()
    assert await store._write(modes) == ("wal", full)
    await store.close()
    await store.open()  # also on a file that is there already
    assert await store._write(modes) == ("wal", full)
    await store.close()
