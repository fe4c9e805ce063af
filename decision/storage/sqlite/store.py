"""The embedded backend: one SQLite file in WAL mode, nothing to start."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from decision.storage import rows
from decision.storage.port import Event, Publication, Store
from decision.storage.sqlite.audit import SqliteAudit, append
from decision.storage.sqlite.connections import Connections
from decision.storage.sqlite.fairness import SqliteFairness
from decision.storage.sqlite.learning import SqliteLearning
from decision.storage.sqlite.ledger import SqliteLedger
from decision.storage.sqlite.profiles import SqliteProfiles
from decision.storage.sqlite.reports import SqliteReports


class SqliteCatalogs(Connections):
    """Implements `decision.storage.port.Catalogs`."""

    async def publish_catalog(
        self,
        version: str,
        document: bytes,
        at: datetime,
        events: Sequence[Event] = (),
        expected: int | None = None,
    ) -> None:
        operation = partial(_publish, version, document, rows.micros(at), tuple(events), expected)
        await self._write(operation)

    async def keep_catalog(self, version: str, document: bytes) -> None:
        await self._write(partial(_keep, version, document))

    async def live_catalog(self) -> Publication | None:
        newest = await self.publications(1)
        return newest[0] if newest else None

    async def catalog(self, version: str) -> bytes | None:
        row = self._read_one("SELECT document FROM catalogs WHERE version = ?", (version,))
        return None if row is None else row[0]

    async def publications(self, limit: int = 100) -> list[Publication]:
        found = self._read(
            "SELECT version, published_at FROM publications ORDER BY seq DESC LIMIT ?", (limit,)
        )
        return [Publication(version, rows.moment(at)) for version, at in found]

    async def news(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SqliteStore(
    SqliteProfiles, SqliteLedger, SqliteReports, SqliteFairness, SqliteCatalogs, SqliteLearning, SqliteAudit
):
    """Implements `decision.storage.port.Store` on the file at `path`.

    Several processes may use the same file on one machine; their writes take turns. Every method
    raises StoreUnavailable where the file cannot be read or written, or is not open.
    """


def _publish(
    version: str,
    document: bytes,
    at: int,
    events: Sequence[Event],
    expected: int | None,
    connection: sqlite3.Connection,
) -> None:
    append(events, at, expected, connection)
    _keep(version, document, connection)
    connection.execute("INSERT INTO publications (version, published_at) VALUES (?, ?)", (version, at))


def _keep(version: str, document: bytes, connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT INTO catalogs (version, document) VALUES (?, ?) ON CONFLICT (version) DO NOTHING",
        (version, document),
    )


if TYPE_CHECKING:
    _: Store = SqliteStore("")  # held by mypy: the class is the port, exactly
