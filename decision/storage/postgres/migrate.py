"""Brings a PostgreSQL database to the schema this program was written for, and never touches a newer one."""

from __future__ import annotations

import time
from importlib.resources import files
from typing import TYPE_CHECKING

from decision.errors import StoreUnavailable

if TYPE_CHECKING:
    from decision.storage.postgres.connections import Connection

_LOCK = 0x6E62_615F_7363  # one process at a time looks what is missing, and makes it
_OLDEST = 140000


def migrations() -> list[tuple[int, str, str]]:
    """The numbered migrations in order: (number, file name, SQL)."""
    folder = files("decision.storage.postgres").joinpath("migrations")
    scripts = [
        entry for entry in folder.iterdir() if entry.name[:4].isdigit() and entry.name.endswith(".sql")
    ]
    return sorted((int(entry.name[:4]), entry.name, entry.read_text("utf-8")) for entry in scripts)


async def migrate(connection: Connection) -> None:
    """Applies what is missing, each migration and its record in one transaction. Several processes may do
    this at once: the others wait. Raises StoreUnavailable for a server too old and for a newer schema."""
    version = int(await connection.fetchval("SELECT current_setting('server_version_num')"))
    if version < _OLDEST:
        raise StoreUnavailable(f"PostgreSQL {version // 10000} is too old: 14 or newer is needed")
    found, newest = await _applied(connection), migrations()[-1][0]
    if found == newest:  # nearly always: nothing is locked then
        return
    for number, name, sql in migrations():
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            found = await _applied(connection)  # another may have been first
            if found > newest:
                raise StoreUnavailable(
                    f"the database schema is version {found}, this program knows versions up to {newest}:"
                    " it was written by a newer release; use that release or restore a backup"
                )
            if number > found:
                await connection.execute(sql)
                await connection.execute(
                    "CREATE TABLE IF NOT EXISTS schema_migrations"
                    " (version integer PRIMARY KEY, name text NOT NULL, applied_at bigint NOT NULL)"
                )
                await connection.execute(
                    "INSERT INTO schema_migrations VALUES ($1, $2, $3)", number, name, time.time_ns() // 1000
                )


async def _applied(connection: Connection) -> int:
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return 0
    return int(await connection.fetchval("SELECT coalesce(max(version), 0) FROM schema_migrations"))
