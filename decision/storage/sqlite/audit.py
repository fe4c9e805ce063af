"""The audit trail in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial

from decision.errors import Conflict, StoreUnavailable
from decision.storage import rows
from decision.storage.chain import Link, Walk, entry, linked, readable
from decision.storage.port import Entry, Event
from decision.storage.sqlite.connections import Connections

_LINK = (
    "seq, at, CAST(kind AS BLOB), CAST(actor AS BLOB), CAST(subject AS BLOB), CAST(detail AS BLOB), state,"
    " CAST(hash AS BLOB)"
)
_AT_ONCE = 5_000


class SqliteAudit(Connections):
    """Implements `decision.storage.port.Audit`."""

    async def append(self, events: Sequence[Event], at: datetime, expected: int | None = None) -> list[Entry]:
        operation = partial(append, tuple(events), rows.micros(at), expected)
        return await self._write(operation, len(events), brief=True)

    async def entries(
        self,
        after: int = 0,
        limit: int = 1000,
        *,
        state: bool = False,
        subjects: Collection[str] | None = None,
    ) -> list[Entry]:
        only = "AND state = 1" if state else ""
        only += "" if subjects is None else " AND subject IN (SELECT value FROM json_each(?3))"
        given = (after, limit) if subjects is None else (after, limit, rows.text(list(subjects)))
        found = self._read(f"SELECT {_LINK} FROM audit WHERE seq > ?1 {only} ORDER BY seq LIMIT ?2", given)
        return [readable(Link(*row)) for row in found]

    async def broken(self, since: int = 1, noted: tuple[int, str] | None = None) -> str | None:
        walk = Walk(since, await self.head(), *([] if noted is None else [noted]))
        while walk.fault is None:
            found = await self._read_aside(
                f"SELECT {_LINK} FROM audit WHERE seq >= ? ORDER BY seq LIMIT ?", (walk.least, _AT_ONCE)
            )
            walk.take([Link(*row) for row in found])
            if len(found) < _AT_ONCE:
                break
        return walk.end(await self.head())

    async def head(self) -> tuple[int, str]:
        row = self._read_one("SELECT seq, hash FROM audit_head")
        if row is None:
            raise StoreUnavailable("the head of the audit trail is missing: run `decision audit verify`")
        return row[0], row[1]

    async def secret(self) -> bytes:
        row = self._read_one("SELECT value FROM secrets WHERE name = 'marks'")
        assert row is not None
        return bytes(row[0])


def append(
    events: Sequence[Event], at: int, expected: int | None, connection: sqlite3.Connection
) -> list[Entry]:
    """As `Audit.append`, within a transaction of the writer's."""
    if expected is not None:
        (newest,) = connection.execute("SELECT coalesce(max(seq), 0) FROM audit WHERE state = 1").fetchone()
        if newest != expected:
            raise Conflict("expected", "another change came first")
    head = connection.execute("SELECT seq, hash FROM audit_head").fetchone()
    if head is None:
        raise StoreUnavailable("the head of the audit trail is missing: nothing is added to it")
    seq, hash = head
    links: list[Link] = []
    for event in events:
        seq += 1
        links.append(linked(event, seq, at, hash))
        hash = links[-1].hash.decode()
    connection.executemany(
        "INSERT INTO audit VALUES (?, ?, CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT), CAST(? AS TEXT),"
        " ?, CAST(? AS TEXT))",
        links,
    )
    connection.execute("UPDATE audit_head SET seq = ?, hash = ?", (seq, hash))
    return [entry(link) for link in links]
