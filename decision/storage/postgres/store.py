"""The production backend: PostgreSQL, for many processes on many machines."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from decision.storage import rows
from decision.storage.port import Event, Publication, Store
from decision.storage.postgres.audit import PostgresAudit, append
from decision.storage.postgres.connections import CHANNEL, Connections
from decision.storage.postgres.fairness import PostgresFairness
from decision.storage.postgres.learning import PostgresLearning
from decision.storage.postgres.ledger import PostgresLedger
from decision.storage.postgres.profiles import PostgresProfiles
from decision.storage.postgres.reports import PostgresReports

if TYPE_CHECKING:
    from decision.storage.postgres.connections import Connection


_KEEP = "INSERT INTO catalogs (version, document) VALUES ($1, $2) ON CONFLICT DO NOTHING"


class PostgresCatalogs(Connections):
    """Implements `decision.storage.port.Catalogs`; `news` is among the connections."""

    async def publish_catalog(
        self,
        version: str,
        document: bytes,
        at: datetime,
        events: Sequence[Event] = (),
        expected: int | None = None,
    ) -> None:
        async def publish(connection: Connection) -> None:
            if events or expected is not None:
                await append(events, rows.micros(at), expected, connection)
            await connection.execute(_KEEP, version, document)
            await connection.execute(
                "INSERT INTO publications (version, published_at) VALUES ($1, $2)", version, rows.micros(at)
            )
            await connection.execute(f"NOTIFY {CHANNEL}")

        await self._transact(publish)

    async def keep_catalog(self, version: str, document: bytes) -> None:
        async def keep(connection: Connection) -> None:
            await connection.execute(_KEEP, version, document)

        await self._transact(keep)

    async def live_catalog(self) -> Publication | None:
        newest = await self.publications(1)
        return newest[0] if newest else None

    async def catalog(self, version: str) -> bytes | None:
        row = await self._read_one("SELECT document FROM catalogs WHERE version = $1", version)
        return None if row is None else bytes(row[0])

    async def publications(self, limit: int = 100) -> list[Publication]:
        found = await self._read(
            "SELECT version, published_at FROM publications ORDER BY seq DESC LIMIT $1", limit
        )
        return [Publication(version, rows.moment(at)) for version, at in found]


class PostgresStore(
    PostgresProfiles,
    PostgresLedger,
    PostgresReports,
    PostgresFairness,
    PostgresCatalogs,
    PostgresLearning,
    PostgresAudit,
):
    """Implements `decision.storage.port.Store` on the database at a URL, as libpq has it.

    Any number of processes may use the same database. Every method raises StoreUnavailable where it cannot be
    reached, does not answer within seconds, or the store is not open.
    """


if TYPE_CHECKING:
    _: Store = PostgresStore("")  # held by mypy: the class is the port, exactly
