"""Decisions and responses in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from functools import partial

from arbitration.contact import Contact, Limits
from decision.errors import Conflict
from decision.storage import rows
from decision.storage.counting import UNCOUNTED, answered, basis
from decision.storage.months import month_of
from decision.storage.port import ERASED, MOST_RESPONSES, NO_LIMITS, Claim, DecisionRecord, ResponseRecord
from decision.storage.sqlite.contacts import contact, keep
from decision.storage.sqlite.merges import SURVIVOR
from decision.storage.sqlite.standing import (
    Looked,
    SqliteStanding,
    counted_for,
    counters_of,
    lives,
    make_good,
    period_key,
    settle,
)

_VACUUM_SECONDS = 60.0
_INSERT_DECISION = f"INSERT INTO decisions ({rows.DECISION}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# ?13: the customer, ?14 to ?16: its revision, how many other names it has, and who was erased, as they were
# read: while these are the same, nothing has changed that a decision rests on, but for budgets, ?17.
_INSERT_IF_STILL = f"""
    INSERT INTO decisions ({rows.DECISION}) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12
     WHERE coalesce((SELECT revision FROM standings WHERE standings.customer_id = ?13), 0) = ?14
       AND (SELECT count(*) FROM merges WHERE survivor = ?13) = ?15
       AND (SELECT coalesce(max(seq), 0) FROM tombstones) = ?16
       AND NOT EXISTS (SELECT 1 FROM merges WHERE merges.customer_id = ?13)
       AND NOT EXISTS (SELECT 1 FROM json_each(?17) LEFT JOIN budgets
                           ON budget = json_extract(value, '$[0]') AND begins = json_extract(value, '$[1]')
                        WHERE coalesce(used, 0) NOT BETWEEN json_extract(value, '$[2]')
                                                        AND json_extract(value, '$[3]'))
        ON CONFLICT DO NOTHING
"""
_BY_ID = f"SELECT {rows.DECISION} FROM decisions WHERE decision_id = ?"
_BY_REQUEST = f"""
    SELECT {rows.DECISION} FROM decisions WHERE seq = (
        SELECT seq FROM (
            SELECT ?1 AS name UNION ALL SELECT {SURVIVOR}
            UNION ALL SELECT customer_id FROM merges WHERE survivor = {SURVIVOR}
        ) CROSS JOIN decisions
         WHERE customer_id = name AND request_id = ?2 ORDER BY customer_id <> ?1, seq LIMIT 1
    )
"""
# The newest are found in the index alone: only they are read, however many there are.
_NEWEST = f"""
    SELECT {rows.DECISION} FROM decisions WHERE seq IN (
        SELECT seq FROM decisions WHERE customer_id IN (SELECT value FROM json_each(?))
         ORDER BY seq DESC LIMIT ?
    ) ORDER BY seq DESC
"""


# What the learner has not read, or not unlearned, of decisions before a time.
_NEEDED = """
    WITH old AS (SELECT decision_id, seq FROM decisions WHERE decided_at < ?),
         read AS (SELECT coalesce(max(decisions), 0) AS decisions, coalesce(max(responses), 0) AS responses
                    FROM learner_cursor)
    SELECT 1 FROM old, read WHERE old.seq > read.decisions
     UNION ALL
    SELECT 1 FROM responses, read WHERE responses.seq > read.responses
       AND decision_id IN (SELECT decision_id FROM old)
     UNION ALL
    SELECT 1 FROM erasures WHERE unlearned = 0 AND decision_id IN (SELECT decision_id FROM old)
     LIMIT 1
"""


class SqliteLedger(SqliteStanding):
    """Implements `decision.storage.port.Ledger`."""

    async def commit_decisions(self, records: Sequence[DecisionRecord]) -> list[DecisionRecord | None]:
        given = [(record, rows.decision_row(record)) for record in records]
        return await self._write(partial(_commit_decisions, given), len(given), brief=True)

    async def decision(self, decision_id: str) -> DecisionRecord | None:
        row = self._read_one(_BY_ID, (decision_id,))
        return None if row is None else rows.decision(row)

    async def decisions(self, decision_ids: Sequence[str]) -> dict[str, DecisionRecord]:
        found = self._read(
            f"SELECT {rows.DECISION} FROM decisions WHERE decision_id IN (SELECT value FROM json_each(?))",
            (rows.text(list(decision_ids)),),
        )
        return {row[0]: rows.decision(row) for row in found}

    async def commit_responses(
        self, records: Sequence[ResponseRecord], limits: Limits = NO_LIMITS
    ) -> list[bool]:
        return await self._write(partial(_commit_responses, tuple(records), limits), len(records), brief=True)

    async def history(
        self, keys: tuple[str, ...], limit: int
    ) -> tuple[list[DecisionRecord], list[ResponseRecord]]:
        with self._one_state():
            decided = self._read(_NEWEST, (rows.text(list(keys)), limit))
            decisions = [rows.decision(row) for row in decided]
            answered = self._read(
                f"SELECT {rows.RESPONSE} FROM responses"
                " WHERE decision_id IN (SELECT value FROM json_each(?)) ORDER BY seq DESC",
                (rows.text([record.decision_id for record in decisions]),),
            )
        return decisions, [rows.response(row) for row in answered]

    async def recorded(self, keys: tuple[str, ...]) -> list[str]:
        found = self._read(
            "SELECT decision_id FROM decisions WHERE customer_id IN (SELECT value FROM json_each(?))"
            " ORDER BY seq",
            (rows.text(list(keys)),),
        )
        return [id for (id,) in found]

    async def prune_snapshots(self, before: datetime) -> int:
        return await self._write(partial(_drop_snapshots, rows.micros(before)))

    async def scrub(self) -> None:
        await self._aside("VACUUM", timeout=_VACUUM_SECONDS)
        await self._checkpoint()

    async def prune(self, before: datetime) -> int:
        month, pruned = rows.micros(month_of(before)), 0
        if self._read(_NEEDED, (month,)):
            message = "the learner has not done with all of these decisions yet: try again later"
            raise Conflict("before", message)
        while some := await self._write(partial(_prune, month)):  # others write between
            pruned += some
        await self._write(partial(_prune_snapshots, month))
        return pruned


def _prune(month: int, connection: sqlite3.Connection) -> int:
    found = connection.execute(
        "SELECT decision_id FROM decisions WHERE decided_at < ? LIMIT 1000", (month,)
    ).fetchall()
    ids = rows.text([id for (id,) in found])
    for table in ("responses", "labels", "reservations", "erasures", "decisions"):
        connection.execute(
            f"DELETE FROM {table} WHERE decision_id IN (SELECT value FROM json_each(?))", (ids,)
        )
    return len(found)


def _drop_snapshots(before: int, connection: sqlite3.Connection) -> int:
    return connection.execute(
        "DELETE FROM snapshots WHERE created_at < ? AND version NOT IN"
        " (SELECT version FROM live_snapshots UNION ALL SELECT version FROM pins)",
        (before,),
    ).rowcount


def _prune_snapshots(month: int, connection: sqlite3.Connection) -> None:
    connection.execute(
        "DELETE FROM snapshots WHERE created_at < ? AND version NOT IN ("
        " SELECT version FROM live_snapshots UNION ALL SELECT version FROM pins UNION ALL"
        " SELECT value FROM (SELECT DISTINCT snapshots FROM decisions) AS used, json_each(used.snapshots))",
        (month,),
    )


def _commit_decisions(
    given: Sequence[tuple[DecisionRecord, rows.Row]], connection: sqlite3.Connection
) -> list[DecisionRecord | None]:
    return [_commit_decision(connection, record, row) for record, row in given]


def _commit_decision(
    connection: sqlite3.Connection, record: DecisionRecord, row: rows.Row
) -> DecisionRecord | None:
    claim = record.claim
    looked = None if claim is None else _seen(record, claim)
    if claim is not None and looked is not None and _insert_if_still(connection, record, row, looked, claim):
        make_good(connection, record, claim, looked.own, looked.counted)
        return record
    if record.request_id is not None:
        earlier = connection.execute(_BY_REQUEST, (record.customer_id, record.request_id)).fetchone()
        if earlier is not None:
            return rows.decision(earlier)
    if not lives(connection, record):
        return None
    counted = None if claim is None else counted_for(connection, record, claim)
    if claim is not None and counted is None:
        return None
    if connection.execute(f"{_INSERT_DECISION} ON CONFLICT DO NOTHING", row).rowcount:
        if claim is not None and counted is not None:
            make_good(connection, record, claim, *counted)
        return record
    same = rows.decision(connection.execute(_BY_ID, (record.decision_id,)).fetchone())
    if same != record:
        raise Conflict("decision_id", f"decision {record.decision_id} is in the ledger with other content")
    return same


def _seen(record: DecisionRecord, claim: Claim) -> Looked | None:
    """What was read that a decision rests on; None where all of it has to be compared."""
    looked = None if claim.standing is None else claim.standing.read
    if claim.standing is None or not isinstance(looked, Looked):
        return None
    own, names = claim.keys[0], len(claim.keys)
    counted_by = basis(claim.limits, names) if claim.limits.limits else None
    same = (own, names, counted_by) == (looked.own, looked.names, looked.counted.basis)
    joins_others = bool(claim.joins and claim.standing.memberships)
    if not same or joins_others or not looked.settled or looked.at != rows.micros(record.decided_at):
        return None
    return looked if record.life in (0, looked.life) else None


def _insert_if_still(
    connection: sqlite3.Connection, record: DecisionRecord, row: rows.Row, looked: Looked, claim: Claim
) -> bool:
    """Records a decision if nothing has changed since, and its request was not answered; whether it has."""
    many = looked.names > 1 and record.request_id is not None  # under one name the index tells
    if many and connection.execute(_BY_REQUEST, (record.customer_id, record.request_id)).fetchone():
        return False
    ranges = [(*period_key(period), *within) for period, within in claim.ranges.items()]
    still = (looked.own, looked.revision, looked.names - 1, looked.life - 1)
    given = (*row, *still, rows.text(ranges) if ranges else None)
    return bool(connection.execute(_INSERT_IF_STILL, given).rowcount)


def _commit_responses(
    records: Sequence[ResponseRecord], limits: Limits, connection: sqlite3.Connection
) -> list[bool]:
    heard: dict[str, Contact] = {}
    return [
        _commit_response(connection, index, record, limits, heard) for index, record in enumerate(records)
    ]


def _commit_response(
    connection: sqlite3.Connection,
    index: int,
    record: ResponseRecord,
    limits: Limits,
    heard: dict[str, Contact],
) -> bool:
    """`heard`: of decisions, all that has come of them so far, as limits count it."""
    if _settled_of_nobody(connection, record):
        return False
    known = connection.execute(
        "SELECT decision_id, treatment, outcome, value, corrects FROM responses"
        " WHERE customer_id = ? AND response_id = ?",
        (record.customer_id, record.response_id),
    ).fetchone()
    if known is not None:
        said = (record.decision_id, record.treatment, record.outcome, record.value, record.corrects)
        if known != said:
            raise Conflict(
                f"[{index}].response_id", f"response {record.response_id} was used before for something else"
            )
        return False
    (many,) = connection.execute(
        "SELECT count(*) FROM responses WHERE decision_id = ?", (record.decision_id,)
    ).fetchone()
    if many >= MOST_RESPONSES:
        raise Conflict(f"[{index}].decision_id", f"it has {MOST_RESPONSES} responses already")
    own, counted = counters_of(connection, record.customer_id, limits)
    before = None
    if counted is not UNCOUNTED:
        before = heard.get(record.decision_id) or contact(connection, record.decision_id)
    settled = _take_in(connection, record)
    if before is None:
        keep(connection, own, UNCOUNTED)
        return True
    times = rows.micros(record.occurred_at), rows.micros(record.received_at)
    after = answered(before, (record.treatment, record.outcome, *times), settled=settled)
    keep(connection, own, counted.moved(limits, before, after))
    heard[record.decision_id] = after
    return True


def _settled_of_nobody(connection: sqlite3.Connection, record: ResponseRecord) -> bool:
    """Whether the customer was erased: then only what was reserved is made firm."""
    row = connection.execute(
        "SELECT customer_id FROM decisions WHERE decision_id = ?", (record.decision_id,)
    ).fetchone()
    if row is None or not row[0].startswith(ERASED):
        return False
    if record.outcome != "no_response":
        settle(connection, record.decision_id, record.treatment, "firm", rows.micros(record.received_at))
    return True


def _take_in(connection: sqlite3.Connection, record: ResponseRecord) -> bool:
    """Whether it made firm what the item had reserved."""
    settled = False
    connection.execute(
        f"INSERT INTO responses ({rows.RESPONSE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows.response_row(record),
    )
    if record.outcome != "no_response":
        at = rows.micros(record.received_at)
        settled = settle(connection, record.decision_id, record.treatment, "firm", at)
    # The later end wins, and NULL (for good) over all: max() of anything with NULL is NULL.
    connection.executemany(
        "INSERT INTO stops (customer_id, scope, target, until) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (customer_id, scope, target) DO UPDATE SET until = max(stops.until, excluded.until)",
        [
            (record.customer_id, stop.scope, stop.target, rows.optional_micros(stop.until))
            for stop in record.stops
        ],
    )
    return settled
