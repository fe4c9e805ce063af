"""What limits a customer, in PostgreSQL: read for a decision in one round trip."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import orjson

from arbitration.contact import Limits, moment
from decision.storage import rows
from decision.storage.counting import basis
from decision.storage.port import NO_LIMITS, BudgetPeriod, Membership, Reservation, Standing, Stop
from decision.storage.postgres.connections import Connections
from decision.storage.postgres.contacts import UNCOUNTED, Counted, contact, count
from decision.storage.postgres.merges import lock, lock_named

if TYPE_CHECKING:
    from decision.storage.postgres.connections import Connection

_LOOK = """
    SELECT coalesce(standings.revision, 0), basis, coalesce(counters, '[]'),
           coalesce((SELECT survivor FROM merges WHERE merges.customer_id = own.id), own.id),
           1 + (SELECT count(*) FROM merges WHERE survivor = own.id),
           (SELECT json_agg(json_build_array(scope, target, until) ORDER BY scope, target, until NULLS LAST)
              FROM stops WHERE stops.customer_id = ANY($2) AND (until IS NULL OR until > $3))::text,
           (SELECT json_agg(json_build_array(control_group, since, member, share)
                            ORDER BY exposed_at DESC, array_position($2, memberships.customer_id) DESC)
              FROM memberships WHERE memberships.customer_id = ANY($2))::text,
           (SELECT json_agg(json_build_array(budget, begins, used))
              FROM unnest($4::text[], $5::bigint[]) AS asked(budget, begins)
                   JOIN budgets USING (budget, begins))::text,
           CASE WHEN basis IS DISTINCT FROM $6
                THEN EXISTS (SELECT 1 FROM decisions WHERE decisions.customer_id = ANY($2)) END
      FROM (SELECT $1::text AS id) AS own LEFT JOIN standings ON standings.customer_id = own.id
"""
_KEEP = "UPDATE standings SET basis = $2, counters = $3 WHERE customer_id = $1"
_RELEASE = """
    SELECT decision_id, treatment, customer_id FROM reservations
     WHERE state = 'reserved' AND due_at <= $1 ORDER BY due_at, decision_id LIMIT $2
"""
_SETTLE = """
    UPDATE reservations SET state = $3, settled_at = $4
     WHERE decision_id = $1 AND treatment = $2 AND state = 'reserved'
    RETURNING budget, begins, amount
"""
_TAKE = """
    INSERT INTO budgets (budget, begins, used, reserved) VALUES ($1, $2, $3, $4)
        ON CONFLICT (budget, begins) DO UPDATE
           SET used = budgets.used + excluded.used, reserved = budgets.reserved + excluded.reserved
         WHERE budgets.used BETWEEN $5 AND $6
    RETURNING used
"""


@dataclass(frozen=True, slots=True)
class Looked:
    """What was read of a customer. `revision`: of its row, 0 where there is none; `names`: how many it has,
    0 where the name asked for is not its own; `settled`: the counters may be counted on."""

    revision: int
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
        await self._transact(partial(_count, keys, at, limits))
        async with self._connected() as connection:
            return (await look(connection, keys, at, limits, budgets))[0]

    async def release(self, now: datetime, limits: Limits, limit: int) -> int:
        at = rows.micros(now)
        due = await self._read(_RELEASE, at, limit)
        return sum([await self._transact(partial(_release, tuple(each), at, limits)) for each in due])

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
    asked = [period_key(period) for period in budgets]
    wanted = basis(limits, len(keys))
    row = await connection.fetchrow(
        _LOOK,
        keys[0] if keys else "",
        list(keys),
        now,
        [budget for budget, _ in asked],
        [begins for _, begins in asked],
        wanted if limits.limits else None,
    )
    assert row is not None
    revision, counted_by, counters, survivor, names, stops, memberships, used, decided = row
    counted = Counted.read(counted_by, counters)
    settled = True
    if limits.limits and counted_by != wanted:
        # Who has never been decided for has no counters to count.
        counted, settled = Counted(wanted), not decided
    looked = Looked(revision, counted, names if survivor in keys[:1] else 0, settled)
    ends = {(scope, target): until for scope, target, until in orjson.loads(stops or "[]")}
    taken = {(budget, begins): amount for budget, begins, amount in orjson.loads(used or "[]")}
    found = {(each[0], each[1]): Membership(*each) for each in orjson.loads(memberships or "[]")}
    standing = Standing(
        tuple(Stop(scope, target, rows.optional_moment(until)) for (scope, target), until in ends.items()),
        {key: moment(until) for key, until in counted.holds(now).items()} if limits.limits else {},
        {period: taken.get(key, 0) for period, key in zip(budgets, asked, strict=True)},
        tuple(found.values()),
        looked,
    )
    return standing, looked


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
    """Takes of a budget what is used of it is within bounds (inclusive); whether it was."""
    used = await connection.fetchval(_TAKE, *period, amount, reserved, *within)
    fresh = used == amount  # it was 0, or nothing was recorded of it
    return used is not None and (not fresh or within[0] <= 0 <= within[1])


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


async def counters(connection: Connection, customer_id: str) -> tuple[int, Counted, int]:
    """Of a customer that is locked: the revision of its row, its counters, and how many names it has."""
    row = await connection.fetchrow(
        "SELECT revision, basis, counters, (SELECT count(*) FROM merges WHERE survivor = $1) FROM standings"
        " WHERE customer_id = $1",
        customer_id,
    )
    assert row is not None
    return row[0], Counted.read(row[1], row[2]), 1 + row[3]


async def keep(connection: Connection, customer_id: str, counted: Counted) -> None:
    """Writes the counters of a customer that is locked."""
    await connection.execute(_KEEP, customer_id, counted.basis, counted.text())


async def _count(keys: tuple[str, ...], now: int, limits: Limits, connection: Connection) -> None:
    await lock(connection, keys[:1])
    _, looked = await look_counted(connection, keys, now, limits, ())
    await keep(connection, keys[0], looked.counted)


async def _release(due: rows.Row, now: int, limits: Limits, connection: Connection) -> bool:
    decision_id, treatment, customer_id = due
    own = (await lock_named(connection, [customer_id]))[customer_id]
    _, counted, names = await counters(connection, own)
    known = counted.basis == basis(limits, names)
    before = await contact(connection, decision_id) if known else None
    if not await settle(connection, decision_id, treatment, "released", now):
        return False  # another was faster
    after = await contact(connection, decision_id) if known else None
    await keep(connection, own, UNCOUNTED if after is None else counted.moved(limits, before, after))
    return True
