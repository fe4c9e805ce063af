"""The audit trail in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import asyncpg

from decision.errors import Conflict, StoreUnavailable
from decision.storage import rows
from decision.storage.chain import Link, Walk, entry, linked, readable
from decision.storage.port import Entry, Event
from decision.storage.postgres.connections import CHANNEL, Connections

if TYPE_CHECKING:
    from decision.storage.postgres.connections import Connection

_LINK = "seq, at, kind, actor, subject, detail, state, hash"
_AT_ONCE = 5_000


class PostgresAudit(Connections):
    """Implements `decision.storage.port.Audit`."""

    async def append(self, events: Sequence[Event], at: datetime, expected: int | None = None) -> list[Entry]:
        return await self._transact(partial(append, tuple(events), rows.micros(at), expected))

    async def entries(
        self,
        after: int = 0,
        limit: int = 1000,
        *,
        state: bool = False,
        subjects: Collection[str] | None = None,
    ) -> list[Entry]:
        only = "AND state" if state else ""
        only += "" if subjects is None else " AND subject = ANY($3)"
        given = (after, limit) if subjects is None else (after, limit, list(subjects))
        found = await self._read(
            f"SELECT {_LINK} FROM audit WHERE seq > $1 {only} ORDER BY seq LIMIT $2", *given
        )
        return [readable(_link(row)) for row in found]

    async def broken(self, since: int = 1, noted: tuple[int, str] | None = None) -> str | None:
        walk = Walk(since, await self.head(), *([] if noted is None else [noted]))
        while walk.fault is None:
            found = await self._read(
                f"SELECT {_LINK} FROM audit WHERE seq >= $1 ORDER BY seq LIMIT $2", walk.least, _AT_ONCE
            )
            walk.take([_link(row) for row in found])
            if len(found) < _AT_ONCE:
                break
        return walk.end(await self.head())

    async def head(self) -> tuple[int, str]:
        row = await self._read_one("SELECT seq, hash FROM audit_head")
        if row is None:
            raise StoreUnavailable("the head of the audit trail is missing: run `decision audit verify`")
        return row[0], row[1]

    async def secret(self) -> bytes:
        row = await self._read_one("SELECT value FROM secrets WHERE name = 'marks'")
        assert row is not None
        return bytes(row[0])


def _link(row: asyncpg.Record) -> Link:
    seq, at, kind, actor, subject, detail, state, hash = row
    return Link(
        seq, at, kind.encode(), actor.encode(), subject.encode(), detail.encode(), state, hash.encode()
    )


async def append(
    events: Sequence[Event], at: int, expected: int | None, connection: Connection
) -> list[Entry]:
    """As `Audit.append`, within a transaction; those that append take turns until it ends."""
    row = await connection.fetchrow("SELECT seq, hash FROM audit_head FOR UPDATE")
    if row is None:
        raise StoreUnavailable("the head of the audit trail is missing: nothing is added to it")
    seq, hash = row
    if expected is not None:
        newest = await connection.fetchval("SELECT coalesce(max(seq), 0) FROM audit WHERE state")
        if newest != expected:
            raise Conflict("expected", "another change came first")
    links: list[Link] = []
    for event in events:
        seq += 1
        links.append(linked(event, seq, at, hash))
        hash = links[-1].hash.decode()
    await connection.executemany(
        "INSERT INTO audit VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        [
            (each.seq, each.at, *(text.decode() for text in each[2:6]), each.state, each.hash.decode())
            for each in links
        ],
    )
    await connection.execute("UPDATE audit_head SET seq = $1, hash = $2", seq, hash)
    if any(event.state for event in events):
        await connection.execute(f"NOTIFY {CHANNEL}")
    return [entry(link) for link in links]
