"""What limits a customer, in SQLite: read for a decision, and held to when it is committed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import orjson

from arbitration.contact import Limits, moment
from decision.storage import rows
from decision.storage.claims import holds_still as still
from decision.storage.counting import basis
from decision.storage.port import (
    NO_LIMITS,
    BudgetPeriod,
    Claim,
    DecisionRecord,
    Membership,
    Reservation,
    Standing,
    Stop,
)
from decision.storage.sqlite.connections import Connections
from decision.storage.sqlite.contacts import contact, count, forget, move
from decision.storage.sqlite.merges import survivor_of

Read = Callable[[str, Sequence[Any]], list[rows.Row]]

_STOPS = """
    SELECT scope, target, until FROM json_each(?) AS keys CROSS JOIN stops
     WHERE customer_id = keys.value AND (until IS NULL OR until > ?)
     ORDER BY scope, target, until IS NULL, until
"""
_MEMBERSHIPS = """
    SELECT control_group, since, member, share FROM json_each(?) AS keys CROSS JOIN memberships
     WHERE customer_id = keys.value ORDER BY exposed_at DESC, keys.key DESC
"""
_USED = """
    SELECT budget, begins, used FROM json_each(?) AS wanted CROSS JOIN budgets
     WHERE budget = json_extract(wanted.value, '$[0]') AND begins = json_extract(wanted.value, '$[1]')
"""
_TAKE = """
    INSERT INTO budgets (budget, begins, used, reserved) VALUES (?, ?, ?, ?)
    ON CONFLICT (budget, begins) DO UPDATE
       SET used = used + excluded.used, reserved = reserved + excluded.reserved
"""
_DECIDED_FOR = "SELECT 1 FROM decisions WHERE customer_id IN (SELECT value FROM json_each(?)) LIMIT 1"
_DUE = """
    SELECT decision_id, treatment, customer_id, budget, begins, amount FROM reservations
     WHERE state = 'reserved' AND due_at <= ? ORDER BY due_at, decision_id LIMIT ?
"""


class SqliteStanding(Connections):
    """Implements this part of `decision.storage.port.Ledger`."""

    async def standing(
        self,
        keys: tuple[str, ...],
        now: datetime,
        limits: Limits = NO_LIMITS,
        budgets: Collection[BudgetPeriod] = (),
    ) -> Standing:
        at = rows.micros(now)
        if limits.limits and not self._counted(keys, limits):
            await self._write(partial(_count, keys, at, limits))
        with self._one_state():
            return _standing(self._read, keys, at, limits, budgets)

    async def release(self, now: datetime, limits: Limits, limit: int) -> int:
        at = rows.micros(now)
        if not self._read(_DUE, (at, 1)):  # most of the time; to write would wait for the disk
            return 0
        return await self._write(partial(_release, at, limits, limit))

    async def reservations(self, decision_ids: Sequence[str]) -> list[Reservation]:
        found = self._read(
            "SELECT decision_id, treatment, state, due_at, settled_at FROM reservations"
            " WHERE decision_id IN (SELECT value FROM json_each(?)) ORDER BY decision_id, treatment",
            (rows.text(list(decision_ids)),),
        )
        return [
            Reservation(id, treatment, state, rows.moment(due), rows.optional_moment(settled))
            for id, treatment, state, due, settled in found
        ]

    def _counted(self, keys: tuple[str, ...], limits: Limits) -> bool:
        row = self._read_one("SELECT basis FROM countings WHERE customer_id = ?", keys[:1])
        if row is not None:
            return bool(row[0] == basis(limits, len(keys)))
        # Who has never been decided for has no counters to count.
        return not self._read(_DECIDED_FOR, (rows.text(list(keys)),))


def holds_still(connection: sqlite3.Connection, record: DecisionRecord, claim: Claim) -> bool:
    """Whether what a decision rests on is still so."""
    now = rows.micros(record.decided_at)
    known = _names(connection, claim.keys[0]) == (claim.keys[0], len(claim.keys))
    if known and claim.limits.limits:
        count(connection, claim.keys, now, claim.limits)
    if claim.standing is None or not known:
        return claim.standing is None
    found = _standing(partial(_rows, connection), claim.keys, now, claim.limits, claim.ranges)
    return still(claim, found)


def lives(connection: sqlite3.Connection, record: DecisionRecord) -> bool:
    """Whether nobody was erased since what a decision rests on was read: it may have been this customer."""
    return record.life in (0, _life(partial(_rows, connection)))


def make_good(connection: sqlite3.Connection, record: DecisionRecord, claim: Claim) -> None:
    """Takes what a decision takes. It `holds_still`."""
    own, names = _names(connection, claim.keys[0])
    if claim.limits.limits and (own, names) == (claim.keys[0], len(claim.keys)):
        move(connection, own, claim.limits, None, claim.contact)
    else:
        forget(connection, own)
    taken = {treatment: (period, amount) for treatment, period, amount in claim.takes}
    waits = claim.due_at is not None
    for period, amount in taken.values():
        connection.execute(_TAKE, (*_period(period), amount, amount if waits else 0))
    if claim.due_at is not None:
        due = rows.micros(claim.due_at)
        for shown in claim.contact.items:
            budget, amount = taken.get(shown.treatment, (None, 0))
            connection.execute(
                "INSERT INTO reservations VALUES (?, ?, ?, ?, ?, ?, ?, 'reserved', NULL)",
                (
                    record.decision_id,
                    shown.treatment,
                    record.customer_id,
                    due,
                    *((None, None) if budget is None else _period(budget)),
                    amount,
                ),
            )
    connection.executemany(
        "INSERT INTO memberships VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [
            (
                claim.keys[0],
                join.control_group,
                join.since,
                join.member,
                join.share,
                rows.micros(record.decided_at),
            )
            for join in claim.joins
        ],
    )


def settle(connection: sqlite3.Connection, decision_id: str, treatment: str, state: str, at: int) -> bool:
    """Makes what an item reserved firm, or releases it, if it is still reserved; whether it was."""
    row = connection.execute(
        "UPDATE reservations SET state = ?, settled_at = ? WHERE decision_id = ? AND treatment = ?"
        " AND state = 'reserved' RETURNING budget, begins, amount",
        (state, at, decision_id, treatment),
    ).fetchone()
    if row is not None and row[0] is not None:
        budget, begins, amount = row
        connection.execute(_TAKE, (budget, begins, -amount if state == "released" else 0, -amount))
    return row is not None


def counted_by(connection: sqlite3.Connection, customer_id: str, limits: Limits) -> tuple[str, bool]:
    """The customer's own id, and whether the counters are counted by these limits and names."""
    own, names = _names(connection, customer_id)
    row = connection.execute("SELECT basis FROM countings WHERE customer_id = ?", (own,)).fetchone()
    return own, row == (basis(limits, names),)


def recount(
    connection: sqlite3.Connection,
    customer_id: str,
    limits: Limits,
    change: Callable[[], object],
    decision_id: str,
) -> None:
    """Makes a `change` of what the ledger has of a decision, and moves the counters with it. Where they are
    counted by other limits they are forgotten: the next decision counts them anew."""
    own, counted = counted_by(connection, customer_id, limits)
    before = contact(connection, decision_id) if counted else None
    change()
    after = None if before is None else contact(connection, decision_id)
    if after is None:
        forget(connection, own)
    else:
        move(connection, own, limits, before, after)


def _names(connection: sqlite3.Connection, key: str) -> tuple[str, int]:
    """The customer that a name stands for, and how many names it has."""
    own = survivor_of(connection, key)
    found = connection.execute("SELECT 1 + count(*) FROM merges WHERE survivor = ?", (own,)).fetchone()
    return own, found[0]


def _count(keys: tuple[str, ...], now: int, limits: Limits, connection: sqlite3.Connection) -> None:
    if connection.execute(_DECIDED_FOR, (rows.text(list(keys)),)).fetchone():  # not erased meanwhile
        count(connection, keys, now, limits)


def _release(now: int, limits: Limits, limit: int, connection: sqlite3.Connection) -> int:
    due = connection.execute(_DUE, (now, limit)).fetchall()
    for decision_id, treatment, customer_id, *_ in due:
        change = partial(settle, connection, decision_id, treatment, "released", now)
        recount(connection, customer_id, limits, change, decision_id)
    return len(due)


def _standing(
    read: Read, keys: Sequence[str], now: int, limits: Limits, budgets: Collection[BudgetPeriod]
) -> Standing:
    names = rows.text(list(keys))
    ends = {(scope, target): until for scope, target, until in read(_STOPS, (names, now))}
    holds: list[rows.Row] = []
    if limits.limits:
        held = "SELECT policy, target, until FROM counters WHERE customer_id = ? AND until > ?"
        holds = read(held, (keys[0], now))
    memberships = {
        (row[0], row[1]): Membership(row[0], row[1], bool(row[2]), row[3])
        for row in read(_MEMBERSHIPS, (names,))
    }
    return Standing(
        tuple(Stop(scope, target, rows.optional_moment(until)) for (scope, target), until in ends.items()),
        {(policy, target): moment(until) for policy, target, until in holds},
        _used(read, budgets),
        tuple(memberships.values()),
        life=_life(read),
    )


def _rows(connection: sqlite3.Connection, sql: str, parameters: Sequence[Any]) -> list[rows.Row]:
    return connection.execute(sql, parameters).fetchall()


def _life(read: Read) -> int:
    """One of everybody: whoever is erased meanwhile, all that are being decided for are decided for anew."""
    [(erasures,)] = read("SELECT coalesce(max(seq), 0) FROM tombstones", ())
    return 1 + int(erasures)


def _used(read: Read, budgets: Collection[BudgetPeriod]) -> dict[BudgetPeriod, int]:
    if not budgets:
        return {}
    wanted = rows.text([orjson.dumps(_period(period)).decode() for period in budgets])
    found = {(budget, begins): used for budget, begins, used in read(_USED, (wanted,))}
    return {period: found.get(_period(period), 0) for period in budgets}


def _period(period: BudgetPeriod) -> tuple[str, int]:
    return period.budget, 0 if period.begins is None else rows.micros(period.begins)
