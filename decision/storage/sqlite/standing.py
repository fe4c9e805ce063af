"""What limits a customer, in SQLite: read for a decision in one statement, and held to when it commits."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import orjson

from arbitration.contact import Limits, moment
from decision.storage import rows
from decision.storage.claims import holds_still
from decision.storage.counting import UNCOUNTED, Counted, basis
from decision.storage.port import (
    NO_LIMITS,
    BudgetPeriod,
    Claim,
    DecisionRecord,
    Identity,
    Membership,
    Reservation,
    Situation,
    Standing,
    Stop,
    pseudonym,
)
from decision.storage.sqlite.connections import Connections
from decision.storage.sqlite.contacts import contact, count, keep, read
from decision.storage.sqlite.merges import RESOLVE, survivor_of


def _limits(names: str) -> str:
    """What limits the customer whose own id is ?1, known by `names`, at ?2; with what is taken of budgets ?3.
    JSON would round a share, so it is a text."""
    return f"""
        standings.revision, basis, counters, (SELECT max(seq) FROM tombstones),
        (SELECT json_group_array(json_array(scope, target, until)) FROM {names} CROSS JOIN stops
          WHERE stops.customer_id = name AND (until IS NULL OR until > ?2)),
        (SELECT json_group_array(json_array(control_group, since, member, printf('%!.17g', share),
                                            exposed_at, name))
           FROM {names} CROSS JOIN memberships WHERE memberships.customer_id = name),
        (SELECT json_group_array(json_array(budget, begins, used)) FROM json_each(?3) CROSS JOIN budgets
          WHERE budget = json_extract(value, '$[0]') AND begins = json_extract(value, '$[1]')),
        CASE WHEN standings.revision IS NULL
             THEN EXISTS (SELECT 1 FROM {names} CROSS JOIN decisions WHERE decisions.customer_id = name) END
    """


_LIMITING = 8  # columns
_LOOK = f"""
    SELECT {_limits("(SELECT value AS name FROM json_each(?4))")}
      FROM (SELECT 1) LEFT JOIN standings ON standings.customer_id = ?1
"""
_NAMES = "(SELECT ?1 AS name UNION ALL SELECT customer_id FROM merges WHERE survivor = ?1)"
# ?1: whom it is about, if the name is still its own; ?4: the request; ?5: the name asked for.
_SITUATION = f"""
    SELECT {_limits(_NAMES)},
           (SELECT survivor FROM merges WHERE merges.customer_id = ?1),
           (SELECT json_group_array(customer_id) FROM merges WHERE survivor = ?1),
           (SELECT json_group_array(json_array(type, value)) FROM identities
             WHERE identities.customer_id = ?1),
           CASE WHEN ?4 IS NOT NULL THEN EXISTS (
                SELECT 1 FROM (SELECT ?5 AS name UNION ALL SELECT name FROM {_NAMES}) CROSS JOIN decisions
                 WHERE decisions.customer_id = name AND request_id = ?4) END,
           attributes, scores, consents, restricted
      FROM (SELECT 1) LEFT JOIN standings ON standings.customer_id = ?1
                      LEFT JOIN customers ON customers.customer_id = ?1
"""
_BY_REQUEST_OF_ANY = f"""
    SELECT {rows.DECISION} FROM decisions WHERE seq = (
        SELECT seq FROM json_each(?) AS keys CROSS JOIN decisions
         WHERE customer_id = keys.value AND request_id = ? ORDER BY keys.key LIMIT 1
    )
"""
_LIFE = "SELECT max(seq) FROM tombstones"
_TAKE = """
    INSERT INTO budgets (budget, begins, used, reserved) VALUES (?, ?, ?, ?)
    ON CONFLICT (budget, begins) DO UPDATE
       SET used = used + excluded.used, reserved = reserved + excluded.reserved
"""
_DUE = """
    SELECT decision_id, treatment, customer_id, budget, begins, amount FROM reservations
     WHERE state = 'reserved' AND due_at <= ? ORDER BY due_at, decision_id LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Looked:
    """What was read of a customer, known by so many `names`, the first of which is its `own`, `at` a time.
    `revision`: of its row, 0 where there is none; `settled`: the counters may be counted on."""

    own: str
    names: int
    at: int
    revision: int
    life: int
    counted: Counted
    settled: bool


class SqliteStanding(Connections):
    """Implements this part of `decision.storage.port.Ledger`, and what is read for a decision."""

    async def standing(
        self,
        keys: tuple[str, ...],
        now: datetime,
        limits: Limits = NO_LIMITS,
        budgets: Collection[BudgetPeriod] = (),
    ) -> Standing:
        at = rows.micros(now)
        asked = (keys[0] if keys else "", at, _asked(budgets), rows.text(list(keys)))
        row = self._look(_LOOK, asked)
        looked = _looked(row, keys, at, limits)
        if not looked.settled:
            await self._write(partial(_count, keys, at, limits))
            row = self._look(_LOOK, asked)
            looked = _looked(row, keys, at, limits)
        return _standing(row, keys, budgets, looked)

    async def situation(
        self,
        who: str | Identity,
        now: datetime,
        limits: Limits = NO_LIMITS,
        budgets: Collection[BudgetPeriod] = (),
        request_id: str | None = None,
    ) -> Situation:
        stranger = False
        if isinstance(who, Identity):
            owner = self._read_one(RESOLVE, (who.type, who.value))
            asked, stranger = pseudonym(who), owner is None
            id = asked if owner is None else owner[0]
        else:
            id = asked = who
        at, wanted = rows.micros(now), _asked(budgets)
        while True:
            row = self._look(_SITUATION, (id, at, wanted, request_id, asked))
            survivor, others, identities, answered, *sections, restricted = row[_LIMITING:]
            if survivor is None:
                break
            id = survivor
        names = rows.names((id, others, identities))
        keys = names.keys
        looked = _looked(row, keys, at, limits)
        if looked.settled:
            standing = _standing(row, keys, budgets, looked)
        else:
            standing = await self.standing(keys, now, limits, budgets)
        profile = None
        if sections[0] is not None and not stranger:
            profile = rows.customer((id, *sections, identities, restricted))
        earlier = None
        if answered and request_id is not None:
            first = (asked, *(key for key in keys if key != asked))
            earlier = await self.decision_of_request(first, request_id)
        return Situation(names, stranger, profile, standing, earlier)

    async def decision_of_request(self, keys: tuple[str, ...], request_id: str) -> DecisionRecord | None:
        row = self._read_one(_BY_REQUEST_OF_ANY, (rows.text(list(keys)), request_id))
        if row is None:
            return None
        await self._settle()  # else an answer given again could be lost, though it was given twice
        return rows.decision(row)

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


def lives(connection: sqlite3.Connection, record: DecisionRecord) -> bool:
    """Whether nobody was erased since what a decision rests on was read: it may have been this customer."""
    return record.life in (0, _life(connection.execute(_LIFE).fetchone()[0]))


def counted_for(
    connection: sqlite3.Connection, record: DecisionRecord, claim: Claim
) -> tuple[str, Counted] | None:
    """If what a decision rests on is still so: the customer's own id, and its counters."""
    now, keys = rows.micros(record.decided_at), claim.keys
    own, names = _names(connection, keys[0])
    if (own, names) != (keys[0], len(keys)):
        return (own, UNCOUNTED) if claim.standing is None else None
    asked = (own, now, _asked(claim.ranges), rows.text(list(keys)))
    row = connection.execute(_LOOK, asked).fetchone()
    looked = _looked(row, keys, now, claim.limits)
    if not looked.settled:
        looked = replace(looked, counted=count(connection, keys, now, claim.limits))
    if claim.standing is not None and not holds_still(claim, _standing(row, keys, claim.ranges, looked)):
        return None
    return own, looked.counted


def make_good(
    connection: sqlite3.Connection, record: DecisionRecord, claim: Claim, own: str, counted: Counted
) -> None:
    """Takes what a decision takes, of a customer with these counters."""
    if counted.basis is not None:  # else the next decision counts them
        counted = counted.moved(claim.limits, None, claim.contact)
    keep(connection, own, counted)
    taken = {treatment: (period, amount) for treatment, period, amount in claim.takes}
    waits = claim.due_at is not None
    for period, amount in taken.values():
        connection.execute(_TAKE, (*period_key(period), amount, amount if waits else 0))
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
                    *((None, None) if budget is None else period_key(budget)),
                    amount,
                ),
            )
    if claim.joins:
        at = rows.micros(record.decided_at)
        connection.executemany(
            "INSERT INTO memberships VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [
                (claim.keys[0], join.control_group, join.since, join.member, join.share, at)
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


def counters_of(connection: sqlite3.Connection, customer_id: str, limits: Limits) -> tuple[str, Counted]:
    """The customer's own id, and its counters; `UNCOUNTED` where they are not counted by these limits and
    names."""
    own, names = _names(connection, customer_id)
    counted = read(connection, own)
    return own, counted if counted.basis == basis(limits, names) else UNCOUNTED


def recount(
    connection: sqlite3.Connection,
    customer_id: str,
    limits: Limits,
    change: Callable[[], object],
    decision_id: str,
) -> None:
    """Makes a `change` of what the ledger has of a decision, and moves the counters with it. Where they are
    counted by other limits they are forgotten: the next decision counts them anew."""
    own, counted = counters_of(connection, customer_id, limits)
    before = None if counted is UNCOUNTED else contact(connection, decision_id)
    change()
    after = None if before is None else contact(connection, decision_id)
    keep(connection, own, UNCOUNTED if after is None else counted.moved(limits, before, after))


def _names(connection: sqlite3.Connection, key: str) -> tuple[str, int]:
    """The customer that a name stands for, and how many names it has."""
    own = survivor_of(connection, key)
    found = connection.execute("SELECT 1 + count(*) FROM merges WHERE survivor = ?", (own,)).fetchone()
    return own, found[0]


def _count(keys: tuple[str, ...], now: int, limits: Limits, connection: sqlite3.Connection) -> None:
    row = connection.execute(_LOOK, (keys[0], now, None, rows.text(list(keys)))).fetchone()
    if not _looked(row, keys, now, limits).settled:  # not erased meanwhile
        keep(connection, keys[0], count(connection, keys, now, limits))


def _release(now: int, limits: Limits, limit: int, connection: sqlite3.Connection) -> int:
    due = connection.execute(_DUE, (now, limit)).fetchall()
    for decision_id, treatment, customer_id, *_ in due:
        change = partial(settle, connection, decision_id, treatment, "released", now)
        recount(connection, customer_id, limits, change, decision_id)
    return len(due)


def _asked(budgets: Iterable[BudgetPeriod]) -> str | None:
    return rows.text([period_key(period) for period in budgets]) if budgets else None


def _looked(row: rows.Row, keys: Sequence[str], at: int, limits: Limits) -> Looked:
    revision, counted_by, counters, erasures = row[:4]
    own, life, counted, settled = keys[0] if keys else "", _life(erasures), UNCOUNTED, True
    if limits.limits:
        wanted = basis(limits, len(keys))
        if settled := counted_by == wanted:
            counted = Counted.read(wanted, counters)
        else:  # for whom nothing was ever decided there is nothing to count
            counted, settled = Counted(wanted), not row[7] and revision is None
    return Looked(own, len(keys), at, revision or 0, life, counted, settled)


def _standing(
    row: rows.Row, keys: Sequence[str], budgets: Collection[BudgetPeriod], looked: Looked
) -> Standing:
    stops, memberships, used = row[4:7]
    return Standing(
        () if stops == "[]" else _stops(orjson.loads(stops)),
        {key: moment(until) for key, until in looked.counted.holds(looked.at).items()},
        _used(orjson.loads(used), budgets) if budgets else {},
        () if memberships == "[]" else _memberships(orjson.loads(memberships), keys),
        looked,
        looked.life,
    )


def _stops(found: list[rows.Row]) -> tuple[Stop, ...]:
    ordered = sorted(found, key=lambda each: (each[0], each[1], each[2] is None, each[2] or 0))
    ends = {(scope, target): until for scope, target, until in ordered}
    return tuple(Stop(scope, target, rows.optional_moment(until)) for (scope, target), until in ends.items())


def _memberships(found: list[rows.Row], keys: Sequence[str]) -> tuple[Membership, ...]:
    place = {key: number for number, key in enumerate(keys)}
    found.sort(key=lambda each: (each[4], place[each[5]]), reverse=True)
    earliest = {(each[0], each[1]): each for each in found}
    return tuple(
        Membership(group, since, bool(member), float(share))
        for group, since, member, share, *_ in earliest.values()
    )


def _life(erasures: int | None) -> int:
    """One of everybody: whoever is erased meanwhile, all that are being decided for are decided for anew."""
    return 1 + (erasures or 0)


def _used(found: list[rows.Row], budgets: Collection[BudgetPeriod]) -> dict[BudgetPeriod, int]:
    taken = {(budget, begins): used for budget, begins, used in found}
    return {period: taken.get(period_key(period), 0) for period in budgets}


def period_key(period: BudgetPeriod) -> tuple[str, int]:
    """How a budget and its period are kept."""
    return period.budget, 0 if period.begins is None else rows.micros(period.begins)
