"""Labels, snapshots and the learner's cursor in SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from decision.errors import Conflict
from decision.storage import rows
from decision.storage.port import Cursor, DecisionRecord, Label, ResponseRecord, SnapshotRecord
from decision.storage.sqlite.connections import Connections
from decision.storage.sqlite.erasing import blank

_LABEL = "decision_id, treatment, outcomes, due_at"
_SNAPSHOT = "version, lineage, created_at, content"
_CHUNK = 500
_LEARNED = f"""
    SELECT treatment, outcomes, {rows.DECISION} FROM labels CROSS JOIN decisions USING (decision_id)
     WHERE outcomes IS NOT NULL AND (decision_id, treatment) > (?, ?)
     ORDER BY decision_id, treatment LIMIT ?
"""  # CROSS: the planner keeps labels outside, so that a chunk is a range of its primary key
_DECIDED = f"""
    SELECT seq, {rows.DECISION} FROM decisions
     WHERE seq > ? AND mode = 'live' AND decided_at >= ? AND decided_at < ?
       AND decision_id NOT IN (SELECT decision_id FROM erasures)
     ORDER BY seq LIMIT ?
"""
_ALWAYS = (-(2**62), 2**62)


class SqliteLearning(Connections):
    """Implements `decision.storage.port.Learning`."""

    async def lead(self) -> bool:
        return self._lead()

    async def live_snapshots(self) -> dict[str, str]:
        return dict(
            self._read(
                "SELECT lineage, coalesce(pins.version, live.version)"
                " FROM live_snapshots AS live LEFT JOIN pins USING (lineage) ORDER BY lineage"
            )
        )

    async def newest_snapshots(self) -> dict[str, str]:
        return dict(self._read("SELECT lineage, version FROM live_snapshots ORDER BY lineage"))

    async def current_snapshots(self) -> dict[str, str]:
        return dict(
            self._read(
                "SELECT lineage, version FROM live_snapshots"
                " WHERE rounds = (SELECT rounds FROM learner_cursor) ORDER BY lineage"
            )
        )

    async def snapshot(self, version: str) -> SnapshotRecord | None:
        row = self._read_one(f"SELECT {_SNAPSHOT} FROM snapshots WHERE version = ?", (version,))
        return None if row is None else rows.snapshot(row)

    async def snapshots(self, lineage: str, limit: int) -> list[tuple[str, datetime]]:
        found = self._read(
            "SELECT version, created_at FROM snapshots WHERE lineage = ?"
            " ORDER BY rounds DESC, seq DESC LIMIT ?",
            (lineage, limit),
        )
        return [(version, rows.moment(created)) for version, created in found]

    async def pins(self) -> dict[str, str]:
        return dict(self._read("SELECT lineage, version FROM pins ORDER BY lineage"))

    async def pin(self, lineage: str, version: str | None, at: datetime) -> None:
        await self._write(partial(_pin, lineage, version, rows.micros(at)))

    async def cursor(self) -> Cursor:
        row = self._read_one("SELECT decisions, responses, rounds FROM learner_cursor")
        return Cursor() if row is None else Cursor(*row)

    async def unread(
        self, cursor: Cursor, limit: int
    ) -> tuple[list[DecisionRecord], list[ResponseRecord], Cursor]:
        after = "WHERE seq > ? ORDER BY seq LIMIT ?"
        # One state, so that no response is seen whose decision was committed but not yet visible.
        with self._one_state():
            decided = self._read(
                f"SELECT {rows.DECISION}, seq FROM decisions {after}", (cursor.decisions, limit)
            )
            answered = self._read(
                f"SELECT {rows.RESPONSE}, seq FROM responses {after}", (cursor.responses, limit)
            )
        return (
            [rows.decision(row[:-1]) for row in decided],
            [rows.response(row[:-1]) for row in answered],
            Cursor(
                decided[-1][-1] if decided else cursor.decisions,
                answered[-1][-1] if answered else cursor.responses,
                cursor.rounds,
            ),
        )

    async def responses(self, decision_ids: Sequence[str]) -> list[ResponseRecord]:
        found = self._read(
            f"SELECT {rows.RESPONSE} FROM responses"
            " WHERE decision_id IN (SELECT value FROM json_each(?)) ORDER BY seq",
            (rows.text(list(decision_ids)),),
        )
        return [rows.response(row) for row in found]

    async def erasures(self, limit: int) -> list[str]:
        found = self._read(
            "SELECT decision_id FROM erasures WHERE unlearned = 0 ORDER BY decision_id LIMIT ?", (limit,)
        )
        return [id for (id,) in found]

    async def erased(self, decision_ids: Sequence[str]) -> set[str]:
        found = self._read(
            "SELECT decision_id FROM erasures WHERE decision_id IN (SELECT value FROM json_each(?))",
            (rows.text(list(decision_ids)),),
        )
        return {id for (id,) in found}

    async def labels(self, decision_ids: Sequence[str]) -> dict[tuple[str, str], Label]:
        found = self._read(
            f"SELECT {_LABEL} FROM labels WHERE decision_id IN (SELECT value FROM json_each(?))",
            (rows.text(list(decision_ids)),),
        )
        return {(row[0], row[1]): rows.label(row) for row in found}

    async def due_labels(self, now: datetime, limit: int) -> list[Label]:
        found = self._read(
            f"SELECT {_LABEL} FROM labels WHERE due_at <= ? ORDER BY due_at, decision_id, treatment LIMIT ?",
            (rows.micros(now), limit),
        )
        return [rows.label(row) for row in found]

    async def learned(self) -> AsyncGenerator[tuple[DecisionRecord, Label], None]:
        """In the order of (decision_id, treatment). Not one state: labels written meanwhile may be met."""
        last = ("", "")
        while True:
            found = self._read(_LEARNED, (*last, _CHUNK))
            for treatment, outcomes, *row in found:
                record = rows.decision(tuple(row))
                last = (record.decision_id, treatment)
                yield record, rows.label((*last, outcomes, None))
            if len(found) < _CHUNK:
                return
            await asyncio.sleep(0)  # a long read must not keep others from the event loop

    async def decided(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncGenerator[tuple[DecisionRecord, tuple[Label, ...]], None]:
        """Not one state: what is committed meanwhile may be met."""
        window = [
            open_end if end is None else rows.micros(end)
            for end, open_end in zip((since, until), _ALWAYS, strict=True)
        ]
        last = 0
        while True:
            found = self._read(_DECIDED, (last, *window, _CHUNK))
            records = [rows.decision(tuple(row)) for _, *row in found]
            labels: dict[str, list[Label]] = {record.decision_id: [] for record in records}
            for (decision_id, _), label in (await self.labels(list(labels))).items():
                labels[decision_id].append(label)
            for record in records:
                yield record, tuple(labels[record.decision_id])
            if len(found) < _CHUNK:
                return
            last = found[-1][0]
            await asyncio.sleep(0)

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
        await self._write(partial(_commit, *given))
        if unlearned:
            await self._checkpoint()  # else the log beside the file would still have what was erased
        return moved


def _pin(lineage: str, version: str | None, at: int, connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM pins WHERE lineage = ?", (lineage,))
    if version is not None:
        connection.execute("INSERT INTO pins VALUES (?, ?, ?)", (lineage, version, at))


def _commit(
    labels: Sequence[Label],
    snapshots: Sequence[SnapshotRecord],
    cursor: Cursor,
    expected: Cursor,
    lineages: Sequence[str],
    unlearned: Sequence[str],
    connection: sqlite3.Connection,
) -> None:
    row = connection.execute("SELECT decisions, responses, rounds FROM learner_cursor").fetchone()
    if (Cursor() if row is None else Cursor(*row)) != expected:
        raise Conflict("cursor", "another learner has moved the cursor")
    connection.executemany(
        f"INSERT INTO labels ({_LABEL}) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (decision_id, treatment) DO UPDATE SET outcomes = excluded.outcomes,"
        " due_at = excluded.due_at",
        [rows.label_row(label) for label in labels],
    )
    for decision_id in unlearned:
        connection.execute("DELETE FROM labels WHERE decision_id = ?", (decision_id,))
        connection.execute("UPDATE erasures SET unlearned = 1 WHERE decision_id = ?", (decision_id,))
        blank(connection, decision_id)
    for record in snapshots:
        _keep(connection, record, cursor.rounds)
    connection.execute(
        "UPDATE live_snapshots SET rounds = ? WHERE lineage IN (SELECT value FROM json_each(?))",
        (cursor.rounds, rows.text(list(lineages))),
    )
    connection.execute(
        "INSERT INTO learner_cursor (id, decisions, responses, rounds) VALUES (1, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET decisions = excluded.decisions,"
        " responses = excluded.responses, rounds = excluded.rounds",
        (cursor.decisions, cursor.responses, cursor.rounds),
    )


def _keep(connection: sqlite3.Connection, record: SnapshotRecord, rounds: int) -> None:
    """Stores a snapshot and makes it its lineage's newest. One stored before is written anew: should it
    have been damaged, it is whole again."""
    stored = connection.execute(
        f"INSERT INTO snapshots ({_SNAPSHOT}, rounds) VALUES (?, ?, ?, ?, ?) ON CONFLICT (version) DO UPDATE"
        " SET content = excluded.content, rounds = excluded.rounds WHERE lineage = excluded.lineage",
        (*rows.snapshot_row(record), rounds),
    ).rowcount
    if not stored:
        raise Conflict("snapshots", f"snapshot {record.version} is of another lineage")
    connection.execute(
        "INSERT INTO live_snapshots (lineage, version, rounds) VALUES (?, ?, ?)"
        " ON CONFLICT (lineage) DO UPDATE SET version = excluded.version, rounds = excluded.rounds",
        (record.lineage, record.version, rounds),
    )
