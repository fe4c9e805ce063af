"""What limits a customer, in PostgreSQL: read for a decision in one round trip."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from arbitration.contact import Limits, moment
from decision.storage import rows
from decision.storage.counting import UNCOUNTED, Counted, basis
from decision.storage.port import (
    NO_LIMITS,
    BudgetPeriod,
    DecisionRecord,
    Identity,
    Membership,
    Reservation,
    Situation,
    Standing,
    Stop,
    pseudonym,
)
from decision.storage.postgres.connections import Connections
from decision.storage.postgres.contacts import NOTHING, contact, count
from decision.storage.postgres.merges import SURVIVOR, lock, lock_named

if TYPE_CHECKING:
    from decision.storage.postgres.connections import Connection

# What limits those known by `keys.names`, `keys.id` being the customer's own; $1: now, $2 and $3: budgets.
_LIMITS = """
    coalesce(standings.revision, 0), coalesce(basis, CASE WHEN revision IS NULL THEN '' END),
    coalesce(counters, '[]'), coalesce(born, 0),
    (SELECT json_agg(json_build_array(scope, target, until) ORDER BY scope, target, until NULLS LAST)
       FROM stops WHERE stops.customer_id = ANY(keys.names) AND (until IS NULL OR until > $1::bigint))::text,
    (SELECT json_agg(json_build_array(control_group, since, member, share)
                     ORDER BY exposed_at DESC, array_position(keys.names, memberships.customer_id) DESC)
       FROM memberships WHERE memberships.customer_id = ANY(keys.names))::text,
    (SELECT json_agg(json_build_array(budget, begins, used))
       FROM unnest($2::text[], $3::bigint[]) AS asked(budget, begins)
            JOIN budgets USING (budget, begins))::text
"""
_LOOK = f"""
    SELECT {_LIMITS},
           coalesce((SELECT survivor FROM merges WHERE merges.customer_id = keys.id), keys.id),
           1 + (SELECT count(*) FROM merges WHERE survivor = keys.id)
      FROM (SELECT $4::text AS id, $5::text[] AS names) AS keys
           LEFT JOIN standings ON standings.customer_id = keys.id
"""
# $4: the name asked for, which is a pseudonym where the identity of type $6 and value $7 is: it leads to a
# customer, or is a stranger. $5: the request.
_SITUATION = f"""
    SELECT {_LIMITS}, keys.id, keys.names, known,
           (SELECT coalesce(json_agg(json_build_array(type, value)), '[]')
              FROM identities WHERE identities.customer_id = keys.id)::text,
           (SELECT decision_id FROM requests
             WHERE requests.customer_id = ANY(keys.names || $4::text) AND request_id = $5
             ORDER BY requests.customer_id <> $4, array_position(keys.names, requests.customer_id) LIMIT 1),
           customers.attributes, customers.scores, customers.consents, customers.restricted
      FROM (SELECT id, known, id || ARRAY(SELECT customer_id FROM merges WHERE survivor = id
                                           ORDER BY customer_id < ' ', customer_id COLLATE "C") AS names
              FROM (SELECT known, coalesce((SELECT survivor FROM merges WHERE merges.customer_id = asked.id),
                                           asked.id) AS id
                      FROM (SELECT coalesce(owner, $4) AS id, owner IS NOT NULL OR $6::text IS NULL AS known
                              FROM (SELECT (SELECT customer_id FROM identities WHERE type = $6 AND value = $7)
                                           AS owner) AS owned) AS asked) AS own) AS keys
           LEFT JOIN standings ON standings.customer_id = keys.id
           LEFT JOIN customers ON customers.customer_id = keys.id AND known
"""
BY_ID = f"SELECT {rows.DECISION} FROM decisions WHERE decision_id = $1"
_KEEP = "UPDATE standings SET basis = $2, counters = $3 WHERE customer_id = $1"
_LOCK_NAMED = f"""
    INSERT INTO standings (customer_id, revision, basis) SELECT {SURVIVOR}, 1, ''
        ON CONFLICT (customer_id) DO UPDATE SET revision = standings.revision + 1
    RETURNING customer_id
"""
_COUNTERS = f"""
    SELECT customer_id, revision, basis, counters, born,
           (SELECT count(*) FROM merges WHERE survivor = standings.customer_id)
      FROM standings WHERE customer_id = {SURVIVOR}
"""
_RELEASE = """
    SELECT decision_id, treatment, customer_id FROM reservations
     WHERE state = 'reserved' AND due_at <= $1 ORDER BY due_at, decision_id LIMIT $2
"""
_SETTLE = """
    UPDATE reservations SET state = $3, settled_at = $4
     WHERE decision_id = $1 AND treatment = $2 AND state = 'reserved'
    RETURNING budget, begins, amount
"""
_RESERVED = "SELECT 1 FROM reservations WHERE decision_id = $1 AND treatment = $2 AND customer_id = $3"
_TAKE = """
    INSERT INTO budgets (budget, begins, used, reserved) VALUES ($1, $2, $3, $4)
        ON CONFLICT (budget, begins) DO UPDATE
           SET used = budgets.used + excluded.used, reserved = budgets.reserved + excluded.reserved
         WHERE budgets.used BETWEEN $5 AND $6
    RETURNING used
"""


class Moved(Exception):
    """The customer was erased since it was read: all of a transaction is undone."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What was read of a customer. `revision` and `life`: of its row, 0 where there is none; `names`: how
    many it has, 0 where the name asked for is not its own; `settled`: the counters may be counted on."""

    revision: int
    life: int
    counted: Counted
    names: int
    settled: bool


class PostgresStanding(Connections):
    """Implements this part of `decision.storage.port.Ledger`."""

    async def standing(
        self,
        keys: tuple[str, ...],
        now: datetime,
        limits: Limits = NO_LIMITS,
        budgets: Collection[BudgetPeriod] = (),
    ) -> Standing:
        at = rows.micros(now)
        async with self._connected() as connection:
            found, looked = await look(connection, keys, at, limits, budgets)
        if looked.settled:
            return found
        with suppress(Moved):
            await self._transact(partial(_count, keys, at, limits))
        async with self._connected() as connection:
            return (await look(connection, keys, at, limits, budgets))[0]

    async def situation(
        self,
        who: str | Identity,
        now: datetime,
        limits: Limits = NO_LIMITS,
        budgets: Collection[BudgetPeriod] = (),
        request_id: str | None = None,
    ) -> Situation:
        at, budgets = rows.micros(now), tuple(budgets)
        name, type, value = who, None, None
        if isinstance(who, Identity):
            name, type, value = pseudonym(who), who.type, who.value
        row = await self._read_one(_SITUATION, at, *_asked(budgets), name, request_id, type, value)
        assert row is not None
        id, names, known, identities, earlier_id, *sections, restricted = row[7:]
        looked = _looked(row[:7], limits, len(names), len(names))
        standing = _standing(row[:7], limits, at, budgets, looked)
        if not looked.settled:
            standing = await self.standing(tuple(names), now, limits, budgets)
        profile = None if sections[0] is None else rows.customer((id, *sections, identities, restricted))
        keys = orjson.dumps(names[1:]).decode()
        return Situation(
            rows.names((id, keys, identities)),
            not known,
            profile,
            standing,
            None if earlier_id is None else await self.decision(earlier_id),
        )

    async def decision(self, decision_id: str) -> DecisionRecord | None:
        row = await self._read_one(BY_ID, decision_id)
        return None if row is None else rows.decision(tuple(row))

    async def release(self, now: datetime, limits: Limits, limit: int) -> int:
        at = rows.micros(now)
        due = await self._read(_RELEASE, at, limit)
        released = 0
        for each in due:
            with suppress(Moved):  # and nothing was written; it is released in another turn
                released += await self._transact(partial(_release, tuple(each), at, limits))
        return released

    async def reservations(self, decision_ids: Sequence[str]) -> list[Reservation]:
        found = await self._read(
            "SELECT decision_id, treatment, state, due_at, settled_at FROM reservations"
            " WHERE decision_id = ANY($1) ORDER BY decision_id, treatment",
            list(decision_ids),
        )
        return [
            Reservation(id, treatment, state, rows.moment(due), rows.optional_moment(settled))
            for id, treatment, state, due, settled in found
        ]


async def look(
    connection: Connection,
    keys: Sequence[str],
    now: int,
    limits: Limits,
    budgets: Collection[BudgetPeriod],
) -> tuple[Standing, Looked]:
    """What limits a customer, and by what it is known again when a decision is committed."""
    asked = _asked(budgets)
    row = await connection.fetchrow(_LOOK, now, *asked, keys[0] if keys else "", list(keys))
    assert row is not None
    *limiting, survivor, names = row
    looked = _looked(limiting, limits, len(keys), names if survivor in keys[:1] else 0)
    return _standing(limiting, limits, now, budgets, looked), looked


def _asked(budgets: Iterable[BudgetPeriod]) -> tuple[list[str], list[int]]:
    keys = [period_key(period) for period in budgets]
    return [budget for budget, _ in keys], [begins for _, begins in keys]


def _looked(limiting: Sequence[Any], limits: Limits, keys: int, names: int) -> Looked:
    revision, counted_by, counters, life = limiting[:4]
    if not limits.limits:
        return Looked(revision, life, UNCOUNTED, names, settled=True)
    wanted = basis(limits, keys)
    if counted_by == wanted:
        return Looked(revision, life, Counted.read(counted_by, counters), names, settled=True)
    return Looked(revision, life, Counted(wanted), names, settled=counted_by == NOTHING)


def _standing(
    limiting: Sequence[Any], limits: Limits, now: int, budgets: Collection[BudgetPeriod], looked: Looked
) -> Standing:
    stops, memberships, used = (orjson.loads(each or "[]") for each in limiting[4:])
    ends = {(scope, target): until for scope, target, until in stops}
    taken = {(budget, begins): amount for budget, begins, amount in used}
    found = {(each[0], each[1]): Membership(*each) for each in memberships}
    return Standing(
        tuple(Stop(scope, target, rows.optional_moment(until)) for (scope, target), until in ends.items()),
        {key: moment(until) for key, until in looked.counted.holds(now).items()},
        {period: taken.get(period_key(period), 0) for period in budgets},
        tuple(found.values()),
        looked,
        looked.life,
    )


async def look_counted(
    connection: Connection,
    keys: Sequence[str],
    now: int,
    limits: Limits,
    budgets: Collection[BudgetPeriod],
) -> tuple[Standing, Looked]:
    """As `look`, of a customer that is locked: counted anew where that has to be."""
    found, looked = await look(connection, keys, now, limits, budgets)
    if looked.settled:
        return found, looked
    counted = await count(connection, keys, now, limits)
    holds = {key: moment(until) for key, until in counted.holds(now).items()}
    return replace(found, holds=holds), replace(looked, counted=counted, settled=True)


async def take(
    connection: Connection, period: tuple[str, int], amount: int, reserved: int, within: tuple[int, int]
) -> bool:
    """Takes of a budget, if what is used of it is within bounds (inclusive) or nothing is recorded of it;
    whether it has."""
    return await connection.fetchval(_TAKE, *period, amount, reserved, *within) is not None


async def settle(connection: Connection, decision_id: str, treatment: str, state: str, at: int) -> bool:
    """Makes what an item reserved firm, or releases it, if it is still reserved; whether it was."""
    row = await connection.fetchrow(_SETTLE, decision_id, treatment, state, at)
    if row is not None and row[0] is not None:
        budget, begins, amount = row
        given_back = -amount if state == "released" else 0
        await take(connection, (budget, begins), given_back, -amount, UNBOUNDED)
    return row is not None


UNBOUNDED = (-(2**62), 2**62)


def period_key(period: BudgetPeriod) -> tuple[str, int]:
    """How a budget and its period are kept."""
    return period.budget, 0 if period.begins is None else rows.micros(period.begins)


async def lock_one(connection: Connection, name: str) -> tuple[str, Counted, int]:
    """Locks the customer that a name stands for, until the end of the transaction: its own id, its counters,
    and how many names it has."""
    locked = await connection.fetchval(_LOCK_NAMED, name)
    row = await connection.fetchrow(_COUNTERS, name)
    if row is None or row[0] != locked:  # it was merged while we waited
        await lock_named(connection, [name])
        row = await connection.fetchrow(_COUNTERS, name)
    assert row is not None
    return row[0], Counted.read(row[2], row[3]), 1 + row[5]


async def counters(connection: Connection, customer_id: str) -> tuple[int, int, Counted, int]:
    """Of a customer that is locked: the revision and the life of its row, its counters, and how many names it
    has."""
    row = await connection.fetchrow(_COUNTERS, customer_id)
    assert row is not None
    return row[1], row[4], Counted.read(row[2], row[3]), 1 + row[5]


async def keep(connection: Connection, customer_id: str, counted: Counted) -> None:
    """Writes the counters of a customer that is locked."""
    await connection.execute(_KEEP, customer_id, counted.basis, counted.text())


async def _count(keys: tuple[str, ...], now: int, limits: Limits, connection: Connection) -> None:
    if (await lock(connection, keys[:1]))[keys[0]][0] == 1:
        raise Moved  # there was a row when it was read
    _, looked = await look_counted(connection, keys, now, limits, ())
    await keep(connection, keys[0], looked.counted)


async def _release(due: rows.Row, now: int, limits: Limits, connection: Connection) -> bool:
    decision_id, treatment, customer_id = due
    own, counted, names = await lock_one(connection, customer_id)
    if not await connection.fetchval(_RESERVED, *due):
        raise Moved
    known = counted.basis == basis(limits, names)
    before = await contact(connection, decision_id) if known else None
    if not await settle(connection, decision_id, treatment, "released", now):
        return False  # another was faster
    after = await contact(connection, decision_id) if known else None
    await keep(connection, own, UNCOUNTED if after is None else counted.moved(limits, before, after))
    return True
