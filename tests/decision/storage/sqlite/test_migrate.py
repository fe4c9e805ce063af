from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from decision.errors import StoreUnavailable
from decision.storage import rows
from decision.storage.sqlite import migrate as module
from decision.storage.sqlite.migrate import migrate, migrations
from decision.storage.sqlite.store import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def applied(connection: sqlite3.Connection) -> list[int]:
    return [n for (n,) in connection.execute("SELECT version FROM schema_migrations ORDER BY version")]


def numbers() -> list[int]:
    return [number for number, _, _ in migrations()]


def test_migrations_are_numbered_without_gaps() -> None:
    assert numbers() == list(range(1, len(numbers()) + 1))


def test_every_migration_is_applied_once(connection: sqlite3.Connection) -> None:
    migrate(connection)
    migrate(connection)
    assert applied(connection) == numbers()


# Every process opens the same new files, one after the other, as soon as it is told to begin.
_OPENS = """
import sqlite3, sys
from contextlib import closing
from decision.storage.sqlite.migrate import migrate

print("ready", flush=True)
sys.stdin.readline()
for n in range(60):
    with closing(sqlite3.connect(f"{sys.argv[1]}/{n}.db", isolation_level=None)) as connection:
        migrate(connection)
"""


def test_many_processes_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    with ExitStack() as stack:
        command = [sys.executable, "-c", _OPENS, str(tmp_path)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes = [stack.enter_context(subprocess.Popen(command, **pipes)) for _ in range(4)]
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        errors = [process.communicate()[1] for process in processes]
    assert errors == [""] * 4
    for n in range(60):
        with closing(sqlite3.connect(tmp_path / f"{n}.db")) as connection:
            assert applied(connection) == numbers()


def test_a_failing_migration_leaves_nothing_behind(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(connection)
    newest = numbers()[-1]
    broken = (newest + 1, "broken.sql", "CREATE TABLE extra (n);\nINSERT INTO absent VALUES (';');\n")
    monkeypatch.setattr(module, "migrations", lambda: [*migrations(), broken])
    with pytest.raises(StoreUnavailable, match="no such table: absent"):
        migrate(connection)
    assert not connection.in_transaction
    assert applied(connection) == numbers()
    assert connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'extra'").fetchone() is None


async def test_a_newer_schema_is_refused_and_not_touched(path: Path, connection: sqlite3.Connection) -> None:
    migrate(connection)
    newer = numbers()[-1] + 1
    connection.execute("INSERT INTO schema_migrations VALUES (?, 'future.sql', 0)", (newer,))
    with pytest.raises(StoreUnavailable, match=f"version {newer}.*newer release"):
        await SqliteStore(path).open()
    assert applied(connection) == [*numbers(), newer]


async def test_a_file_that_is_not_a_database_is_unavailable(path: Path) -> None:
    path.write_bytes(b"not a database, but longer than the header of one" * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        await SqliteStore(path).open()


async def test_a_folder_that_is_absent_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be opened"):
        await SqliteStore(tmp_path / "absent" / "store.db").open()


def test_a_lock_that_stays_is_unavailable(path: Path, connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN EXCLUSIVE")
    with closing(sqlite3.connect(path, isolation_level=None)) as second, pytest.raises(StoreUnavailable):
        migrate(second, wait=0.05)


def test_labels_of_before_become_all_that_was_heard(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = migrations()[:3]
    with monkeypatch.context() as patch:
        patch.setattr(module, "migrations", lambda: before)
        migrate(connection)
    connection.execute(
        "INSERT INTO decisions (decision_id, customer_id, request_hash, decided_at, channel, mode,"
        " catalog_version, snapshots, inputs, reply)"
        " VALUES ('d', 'c', '', 5, 'web', 'live', 'v', '{}', x'', x'')"
    )
    answers = [
        ("late", "accepted", 0.1 + 0.2, 9),
        ("early", "click", None, 7),
        ("seen", "impression", None, 6),
        ("n", "no_response", None, 6),
        ("unread", "accepted", 5.0, 8),
    ]
    for id, outcome, value, at in answers:
        connection.execute(
            "INSERT INTO responses (response_id, decision_id, customer_id, treatment, outcome, value,"
            " occurred_at, received_at) VALUES (?, 'd', 'c', 't', ?, ?, ?, 20)",
            (id, outcome, value, at),
        )
    connection.execute("INSERT INTO learner_cursor VALUES (1, 1, 4, 1)")
    connection.execute("INSERT INTO labels VALUES ('d', 't', 'accepted', NULL)")
    connection.execute("INSERT INTO labels VALUES ('d', 'silent', 'no_response', NULL)")
    connection.execute("INSERT INTO labels VALUES ('d', 'open', NULL, 99)")
    migrate(connection)
    found = [rows.label(row) for row in connection.execute("SELECT * FROM labels ORDER BY treatment")]
    assert {label.treatment: label.outcomes for label in found} == {
        "open": None,
        "silent": (("no_response", None),),
        "t": (("click", None), ("accepted", 0.1 + 0.2)),
    }
