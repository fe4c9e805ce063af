"""Labels, snapshots and the learner's cursor in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from decision.errors import Conflict
from decision.storage import rows
from decision.storage.port import Cursor, DecisionRecord, Label, ResponseRecord, SnapshotRecord
from decision.storage.postgres.connections import CHANNEL, Connections
from decision.storage.postgres.erasing import BLANK

if TYPE_CHECKING:
    from decision.storage.postgres.connections import Connection

_LABEL = "decision_id, treatment, outcomes, due_at"
_SNAPSHOT = "version, lineage, created_at, content"
_CHUNK = 500
_PLACED_AT_ONCE = 20_000
_ALWAYS = (-(2**62), 2**62)
_LEARNED = f"""
    SELECT {_LABEL} FROM labels WHERE outcomes IS NOT NULL AND (decision_id, treatment) > ($1, $2)
     ORDER BY decision_id, treatment LIMIT $3
"""
_DECIDED = f"""
    SELECT {rows.DECISION} FROM decisions
     WHERE decision_id > $1 AND mode = 'live' AND decided_at >= $2 AND decided_at < $3
       AND decision_id NOT IN (SELECT decision_id FROM erasures)
     ORDER BY decision_id LIMIT $4
"""
# Gives what nobody has seen yet the next places, in the order in which it was recorded.
_PLACE = """
    UPDATE unread SET place = next.place FROM (
        SELECT customer_id, kind, id, row_number() OVER (PARTITION BY kind ORDER BY recorded_at, id)
               + CASE kind WHEN 'decision' THEN $1::bigint ELSE $2::bigint END AS place
          FROM (SELECT * FROM unread WHERE place IS NULL ORDER BY recorded_at LIMIT $3) AS new
    ) AS next
     WHERE unread.customer_id = next.customer_id AND unread.kind = next.kind AND unread.id = next.id
    RETURNING unread.kind
"""
_UNREAD_DECISIONS = f"""
    SELECT {rows.DECISION}, place
      FROM (SELECT customer_id, decision_id, place FROM unread
             WHERE kind = 'decision' AND place > $1 ORDER BY place LIMIT $2) AS unread
           JOIN decisions USING (customer_id, decision_id)
     ORDER BY place
"""
_UNREAD_RESPONSES = f"""
    SELECT {rows.RESPONSE}, place
      FROM (SELECT customer_id, decision_id, id AS response_id, place FROM unread
             WHERE kind = 'response' AND place > $1 ORDER BY place LIMIT $2) AS unread
           JOIN responses USING (customer_id, response_id, decision_id)
     ORDER BY place
"""


class PostgresLearning(Connections):
    """Implements `decision.storage.port.Learning`; `lead` is among the connections."""

    async def live_snapshots(self) -> dict[str, str]:
        return await self._versions(
            "SELECT lineage, coalesce(pins.version, live.version)"
            " FROM live_snapshots AS live LEFT JOIN pins USING (lineage) ORDER BY lineage"
        )

    async def newest_snapshots(self) -> dict[str, str]:
        return await self._versions("SELECT lineage, version FROM live_snapshots ORDER BY lineage")

    async def current_snapshots(self) -> dict[str, str]:
        return await self._versions(
            "SELECT lineage, version FROM live_snapshots"
            " WHERE rounds = (SELECT rounds FROM learner_cursor) ORDER BY lineage"
        )

    async def pins(self) -> dict[str, str]:
        return await self._versions("SELECT lineage, version FROM pins ORDER BY lineage")

    async def _versions(self, sql: str) -> dict[str, str]:
        return dict(map(tuple, await self._read(sql)))

    async def snapshot(self, version: str) -> SnapshotRecord | None:
        row = await self._read_one(f"SELECT {_SNAPSHOT} FROM snapshots WHERE version = $1", version)
        return None if row is None else rows.snapshot(tuple(row))

    async def snapshots(self, lineage: str, limit: int) -> list[tuple[str, datetime]]:
        found = await self._read(
            "SELECT version, created_at FROM snapshots WHERE lineage = $1"
            " ORDER BY rounds DESC, seq DESC LIMIT $2",
            lineage,
            limit,
        )
        return [(version, rows.moment(created)) for version, created in found]

    async def pin(self, lineage: str, version: str | None, at: datetime) -> None:
        async def pin(connection: Connection) -> None:
            await connection.execute("DELETE FROM pins WHERE lineage = $1", lineage)
            if version is not None:
                await connection.execute(
                    "INSERT INTO pins VALUES ($1, $2, $3)", lineage, version, rows.micros(at)
                )
            await connection.execute(f"NOTIFY {CHANNEL}")

        await self._transact(pin)

    async def cursor(self) -> Cursor:
        row = await self._read_one("SELECT decisions, responses, rounds FROM learner_cursor")
        assert row is not None
        return Cursor(*row)

    async def unread(
        self, cursor: Cursor, limit: int
    ) -> tuple[list[DecisionRecord], list[ResponseRecord], Cursor]:
        await self._place()
        decided = await self._read(_UNREAD_DECISIONS, cursor.decisions, limit, records=limit)
        answered = await self._read(_UNREAD_RESPONSES, cursor.responses, limit, records=limit)
        return (
            [rows.decision(tuple(row)[:-1]) for row in decided],
            [rows.response(tuple(row)[:-1]) for row in answered],
            Cursor(
                decided[-1][-1] if decided else cursor.decisions,
                answered[-1][-1] if answered else cursor.responses,
                cursor.rounds,
            ),
        )

    async def _place(self) -> None:
        if await self._read("SELECT 1 FROM unread WHERE place IS NULL LIMIT 1"):
            await self._transact(_place, _CHUNK)

    async def responses(self, decision_ids: Sequence[str]) -> list[ResponseRecord]:
        found = await self._read(
            f"SELECT {rows.RESPONSE} FROM responses WHERE decision_id = ANY($1)"
            " ORDER BY recorded_at, response_id",
            list(decision_ids),
            records=len(decision_ids),
        )
        return [rows.response(tuple(row)) for row in found]

    async def erasures(self, limit: int) -> list[str]:
        found = await self._read(
            "SELECT decision_id FROM erasures WHERE NOT unlearned ORDER BY decision_id LIMIT $1", limit
        )
        return [row[0] for row in found]

    async def erased(self, decision_ids: Sequence[str]) -> set[str]:
        found = await self._read(
            "SELECT decision_id FROM erasures WHERE decision_id = ANY($1)", list(decision_ids)
        )
        return {row[0] for row in found}

    async def labels(self, decision_ids: Sequence[str]) -> dict[tuple[str, str], Label]:
        found = await self._read(
            f"SELECT {_LABEL} FROM labels WHERE decision_id = ANY($1)",
            list(decision_ids),
            records=len(decision_ids),
        )
        return {(row[0], row[1]): rows.label(tuple(row)) for row in found}

    async def due_labels(self, now: datetime, limit: int) -> list[Label]:
        found = await self._read(
            f"SELECT {_LABEL} FROM labels WHERE due_at <= $1"
            " ORDER BY due_at, decision_id, treatment LIMIT $2",
            rows.micros(now),
            limit,
        )
        return [rows.label(tuple(row)) for row in found]

    async def learned(self) -> AsyncGenerator[tuple[DecisionRecord, Label], None]:
        """In the order of (decision_id, treatment). Not one state: labels written meanwhile may be met."""
        last = ("", "")
        while True:
            found = [
                rows.label(tuple(row)) for row in await self._read(_LEARNED, *last, _CHUNK, records=_CHUNK)
            ]
            decisions = await self._decisions({label.decision_id for label in found})
            for label in found:
                last = (label.decision_id, label.treatment)
                if label.decision_id in decisions:
                    yield decisions[label.decision_id], label
            if len(found) < _CHUNK:
                return

    async def _decisions(self, ids: Collection[str]) -> dict[str, DecisionRecord]:
        found = await self._read(
            f"SELECT {rows.DECISION} FROM decisions WHERE decision_id = ANY($1)", list(ids), records=len(ids)
        )
        return {row[0]: rows.decision(tuple(row)) for row in found}

    async def decided(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncGenerator[tuple[DecisionRecord, tuple[Label, ...]], None]:
        """Not one state: what is committed meanwhile may be met."""
        window = [
            open_end if end is None else rows.micros(end)
            for end, open_end in zip((since, until), _ALWAYS, strict=True)
        ]
        last = ""
        while True:
            found = await self._read(_DECIDED, last, *window, _CHUNK, records=_CHUNK)
            records = [rows.decision(tuple(row)) for row in found]
            labels: dict[str, list[Label]] = {record.decision_id: [] for record in records}
            for (decision_id, _), label in (await self.labels(list(labels))).items():
                labels[decision_id].append(label)
            for record in records:
                last = record.decision_id
                yield record, tuple(labels[record.decision_id])
            if len(found) < _CHUNK:
                return

    async def commit_learning(
        self,
        labels: Sequence[Label],
        snapshots: Sequence[SnapshotRecord],
        cursor: Cursor,
        *,
        expected: Cursor,
        lineages: Collection[str],
        unlearned: Collection[str] = (),
    ) -> Cursor:
        moved = replace(cursor, rounds=expected.rounds + 1)
        given = (tuple(labels), tuple(snapshots), moved, expected, tuple(lineages), tuple(unlearned))
        await self._transact(partial(_commit, *given), len(given[0]) + len(given[5]))
        return moved


async def _place(connection: Connection) -> None:
    # Whoever looks first; others wait, and find the places given.
    placed = await connection.fetchrow(
        "SELECT decisions_placed, responses_placed FROM learner_cursor FOR UPDATE"
    )
    assert placed is not None
    kinds = [row[0] for row in await connection.fetch(_PLACE, *placed, _PLACED_AT_ONCE)]
    await connection.execute(
        "UPDATE learner_cursor SET decisions_placed = decisions_placed + $1,"
        " responses_placed = responses_placed + $2",
        kinds.count("decision"),
        kinds.count("response"),
    )


async def _commit(
    labels: Sequence[Label],
    snapshots: Sequence[SnapshotRecord],
    cursor: Cursor,
    expected: Cursor,
    lineages: Sequence[str],
    unlearned: Sequence[str],
    connection: Connection,
) -> None:
    row = await connection.fetchrow("SELECT decisions, responses, rounds FROM learner_cursor FOR UPDATE")
    assert row is not None
    if Cursor(*row) != expected:
        raise Conflict("cursor", "another learner has moved the cursor")
    await connection.executemany(
        f"INSERT INTO labels ({_LABEL}) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (decision_id, treatment) DO UPDATE SET outcomes = excluded.outcomes,"
        " due_at = excluded.due_at",
        [rows.label_row(label) for label in labels],
    )
    await connection.execute("DELETE FROM labels WHERE decision_id = ANY($1)", list(unlearned))
    await connection.execute(
        "UPDATE erasures SET unlearned = true WHERE decision_id = ANY($1)", list(unlearned)
    )
    await connection.execute(BLANK, list(unlearned))
    for record in snapshots:
        await _keep(connection, record, cursor.rounds)
    await connection.execute(
        "UPDATE live_snapshots SET rounds = $1 WHERE lineage = ANY($2)", cursor.rounds, list(lineages)
    )
    await connection.execute(
        "UPDATE learner_cursor SET decisions = $1, responses = $2, rounds = $3",
        cursor.decisions,
        cursor.responses,
        cursor.rounds,
    )
    for kind, place in (("decision", cursor.decisions), ("response", cursor.responses)):
        await connection.execute("DELETE FROM unread WHERE kind = $1 AND place <= $2", kind, place)
    if snapshots:
        await connection.execute(f"NOTIFY {CHANNEL}")


async def _keep(connection: Connection, record: SnapshotRecord, rounds: int) -> None:
    """Stores a snapshot and makes it its lineage's newest. One stored before is written anew: should it
    have been damaged, it is whole again."""
    stored = await connection.fetchval(
        f"INSERT INTO snapshots ({_SNAPSHOT}, rounds) VALUES ($1, $2, $3, $4, $5)"
        " ON CONFLICT (version) DO UPDATE SET content = excluded.content, rounds = excluded.rounds"
        " WHERE snapshots.lineage = excluded.lineage RETURNING 1",
        *rows.snapshot_row(record),
        rounds,
    )
    if stored is None:
        raise Conflict("snapshots", f"snapshot {record.version} is of another lineage")
    await connection.execute(
        "INSERT INTO live_snapshots (lineage, version, rounds) VALUES ($1, $2, $3)"
        " ON CONFLICT (lineage) DO UPDATE SET version = excluded.version, rounds = excluded.rounds",
        record.lineage,
        record.version,
        rounds,
    )
