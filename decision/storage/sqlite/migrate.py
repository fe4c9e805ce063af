"""Brings an SQLite file to the schema this program was written for, and never touches a newer one."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from importlib.resources import files

from decision.errors import StoreUnavailable
from decision.storage.port import Identity, pseudonym

_OLDEST_SQLITE = (3, 37, 0)  # STRICT tables


def migrations() -> list[tuple[int, str, str]]:
    """The numbered migrations in order: (number, file name, SQL)."""
    folder = files("decision.storage.sqlite").joinpath("migrations")
    scripts = [
        entry for entry in folder.iterdir() if entry.name[:4].isdigit() and entry.name.endswith(".sql")
    ]
    return sorted((int(entry.name[:4]), entry.name, entry.read_text("utf-8")) for entry in scripts)


def migrate(connection: sqlite3.Connection, wait: float = 5.0) -> None:
    """Applies what is missing. Each migration and its record are one transaction.

    `connection` must be in autocommit mode (`isolation_level=None`). Several processes may do this on
    the same new file at once: each migration is applied by whoever gets the write lock first. Waits up
    to `wait` seconds for that lock. Raises StoreUnavailable where the file cannot be used.

    Migrations may call `pseudonym(type, value)`, which SQL cannot work out; `connection` knows it from then
    on. Tables, indexes and triggers must not: no other connection knows it.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreUnavailable(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed")
    try:
        connection.execute(f"PRAGMA busy_timeout = {int(wait * 1000)}")
        connection.create_function("pseudonym", 2, _pseudonym, deterministic=True)
        _refuse_newer(connection)
        _use_wal(connection, wait)
        for number, name, sql in migrations():
            if number > _applied(connection):
                _apply(connection, number, name, sql)
        _refuse_newer(connection)
    except sqlite3.Error as error:
        raise StoreUnavailable(f"the database cannot be prepared: {error}") from error


def _pseudonym(type: str, value: str) -> str:
    return pseudonym(Identity(type, value))


def _use_wal(connection: sqlite3.Connection, wait: float) -> None:
    # SQLite does not wait (busy_timeout) when two connections switch the journal mode at once.
    deadline = time.monotonic() + wait
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
            continue
        if mode != "wal":
            raise StoreUnavailable(f"the database cannot use write-ahead logging here (journal mode: {mode})")
        return


def _apply(connection: sqlite3.Connection, number: int, name: str, sql: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if number > _applied(connection):  # asked again under the lock: another process may have been first
            for statement in _statements(sql):
                connection.execute(statement)
            connection.execute(
                "CREATE TABLE IF NOT EXISTS schema_migrations"
                " (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT"
            )
            connection.execute(
                "INSERT INTO schema_migrations VALUES (?, ?, ?)", (number, name, time.time_ns() // 1000)
            )
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _statements(sql: str) -> Iterator[str]:
    """Single statements. `executescript` would commit by itself and so break the transaction."""
    pending = ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip():
        raise ValueError(f"a migration ends in the middle of a statement: {pending.strip()[:80]}")


def _applied(connection: sqlite3.Connection) -> int:
    known = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'schema_migrations'").fetchone()
    if known is None:
        return 0
    (version,) = connection.execute("SELECT coalesce(max(version), 0) FROM schema_migrations").fetchone()
    return int(version)


def _refuse_newer(connection: sqlite3.Connection) -> None:
    found, newest = _applied(connection), migrations()[-1][0]
    if found > newest:
        raise StoreUnavailable(
            f"the database schema is version {found}, this program knows versions up to {newest}:"
            " it was written by a newer release; use that release or restore a backup"
        )
