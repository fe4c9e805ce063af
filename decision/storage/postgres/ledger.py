"""Decisions and responses in PostgreSQL. One transaction for each customer; none spans several.

A decision alone is committed by one statement, which says all it takes. It is gated by the revision of the
customer's row as it was read: where another was faster, or anything is in the way, nothing is written, and
the decision takes the long way: the customer is locked, and what the decision rests on is compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import asyncpg

from arbitration.contact import Limits
from decision.errors import Conflict
from decision.storage import rows
from decision.storage.counting import answered, basis
from decision.storage.months import month_of
from decision.storage.port import (
    NO_LIMITS,
    BudgetPeriod,
    Claim,
    DecisionRecord,
    ResponseRecord,
    Standing,
)
from decision.storage.postgres.connections import AGAIN
from decision.storage.postgres.contacts import UNCOUNTED, Counted, contact
from decision.storage.postgres.merges import survivors
from decision.storage.postgres.partitions import drop_partitions
from decision.storage.postgres.standing import (
    UNBOUNDED,
    Looked,
    PostgresStanding,
    counters,
    keep,
    lock_one,
    look_counted,
    period_key,
    take,
)

if TYPE_CHECKING:
    from decision.storage.postgres.connections import Connection

T = TypeVar("T")

_BY_ID = f"SELECT {rows.DECISION} FROM decisions WHERE decision_id = $1"
_BY_IDS = f"SELECT {rows.DECISION} FROM decisions WHERE decision_id = ANY($1)"
_BY_REQUEST = f"""
    SELECT {rows.DECISION} FROM decisions WHERE (customer_id, decision_id) IN (
        SELECT customer_id, decision_id FROM requests WHERE customer_id = ANY($1) AND request_id = $2
         ORDER BY array_position($1, customer_id) LIMIT 1
    )
"""
# All names of a customer that is locked: the one recorded under first, then as they were decided.
_BY_REQUEST_OF_LOCKED = f"""
    SELECT {rows.DECISION} FROM decisions WHERE (customer_id, decision_id) IN (
        SELECT customer_id, decision_id FROM requests
         WHERE request_id = $3 AND (customer_id IN ($1, $2)
            OR customer_id IN (SELECT customer_id FROM merges WHERE survivor = $2))
    ) ORDER BY customer_id <> $1, recorded_at LIMIT 1
"""
_NEWEST = f"""
    SELECT {rows.DECISION} FROM decisions WHERE customer_id = ANY($1)
     ORDER BY recorded_at DESC, decision_id DESC LIMIT $2
"""
_ANSWERS = f"""
    SELECT {rows.RESPONSE} FROM responses WHERE decision_id = ANY($1)
     ORDER BY recorded_at DESC, response_id DESC
"""
# $1: the customer, $2: the revision that was read, $3 and $4: its counters. Without a row, one is made.
_GATE = {
    False: """
        UPDATE standings SET revision = revision + 1, basis = $3, counters = $4
         WHERE customer_id = $1 AND revision = $2 AND {holds} RETURNING 1""",
    True: """
        INSERT INTO standings (customer_id, revision, basis, counters)
        SELECT $1, $2::bigint + 1, $3, $4 WHERE {holds}
            ON CONFLICT (customer_id) DO NOTHING RETURNING 1""",
}
_HOLDS = """
    NOT EXISTS (SELECT 1 FROM requests WHERE customer_id = ANY($5) AND request_id = $8)
    AND NOT EXISTS (SELECT 1 FROM unnest($18::text[], $19::bigint[], $20::bigint[], $21::bigint[])
                                  AS within(budget, begins, least, most)
                           LEFT JOIN budgets USING (budget, begins)
                     WHERE coalesce(used, 0) NOT BETWEEN least AND most)
"""
_COMMIT = {
    fresh: f"""
    WITH gate AS ({gate.format(holds=_HOLDS)}),
    made AS (
        INSERT INTO decisions ({rows.DECISION})
        SELECT $6, $7, $8, $9, $10::bigint, $11, $12, $13, $14, $15::bytea, $16::bytea, $17 FROM gate
        RETURNING customer_id, decision_id, request_id, decided_at
    ),
    asked AS (
        INSERT INTO requests SELECT customer_id, request_id, decision_id FROM made
         WHERE request_id IS NOT NULL
    ),
    news AS (
        INSERT INTO unread (customer_id, kind, id, decision_id)
        SELECT customer_id, 'decision', decision_id, decision_id FROM made
    ),
    held AS (
        INSERT INTO reservations
        SELECT customer_id, decision_id, treatment, $22::bigint, budget, begins, amount, 'reserved', NULL
          FROM made, unnest($23::text[], $24::text[], $25::bigint[], $26::bigint[])
                     AS held(treatment, budget, begins, amount)
    ),
    joined AS (
        INSERT INTO memberships SELECT $1, control_group, since, member, share, decided_at
          FROM made, unnest($27::text[], $28::text[], $29::boolean[], $30::double precision[])
                     AS joined(control_group, since, member, share)
            ON CONFLICT DO NOTHING
    )
    SELECT 1 FROM made
"""
    for fresh, gate in _GATE.items()
}
# With an answer, what the item had reserved becomes firm; who has answered nothing has not.
_RESPOND = f"""
    WITH made AS (
        INSERT INTO responses ({rows.RESPONSE}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        RETURNING customer_id, response_id, decision_id
    ),
    stopped AS (
        INSERT INTO stops SELECT customer_id, scope, target, until
          FROM made, unnest($10::text[], $11::text[], $12::bigint[]) AS stopped(scope, target, until)
            ON CONFLICT (customer_id, scope, target) DO UPDATE SET until = CASE
                WHEN stops.until IS NOT NULL AND excluded.until IS NOT NULL
                THEN greatest(stops.until, excluded.until) END
    ),
    news AS (
        INSERT INTO unread (customer_id, kind, id, decision_id)
        SELECT customer_id, 'response', response_id, decision_id FROM made
    )
    UPDATE reservations SET state = 'firm', settled_at = $8
     WHERE decision_id = $2 AND treatment = $4 AND state = 'reserved' AND $5 <> 'no_response'
    RETURNING budget, begins, amount
"""
_PRUNE_SNAPSHOTS = """
    DELETE FROM snapshots WHERE version NOT IN (
        SELECT version FROM live_snapshots UNION ALL SELECT version FROM pins UNION ALL
        SELECT value FROM (SELECT DISTINCT snapshots FROM decisions) AS used,
                          json_each_text(used.snapshots::json)
    )
"""
_SAID = "SELECT decision_id, treatment, outcome, value, corrects FROM responses"


class PostgresLedger(PostgresStanding):
    """Implements `decision.storage.port.Ledger`."""

    async def commit_decisions(self, records: Sequence[DecisionRecord]) -> list[DecisionRecord | None]:
        of = await self._survivors({record.customer_id for record in records})
        groups: dict[str, list[int]] = {}
        for number, record in enumerate(records):
            groups.setdefault(of.get(record.customer_id, record.customer_id), []).append(number)
        results: list[DecisionRecord | None] = [None] * len(records)
        work = [self._commit([records[number] for number in numbers]) for numbers in groups.values()]
        for numbers, kept in zip(groups.values(), await _all(work), strict=True):
            for number, each in zip(numbers, kept, strict=True):
                results[number] = each
        return results

    async def _survivors(self, ids: Collection[str]) -> dict[str, str]:
        """Which of several are names of one customer."""
        if len(ids) < 2:
            return {}
        async with self._connected() as connection:
            return await survivors(connection, list(ids))

    async def _commit(self, records: Sequence[DecisionRecord]) -> list[DecisionRecord | None]:
        if len(records) == 1 and await self._commit_at_once(records[0]):
            return [records[0]]
        return await self._transact(partial(_commit_in_turn, records))

    async def _commit_at_once(self, record: DecisionRecord) -> bool:
        claim = record.claim
        looked = None if claim is None or claim.standing is None else claim.standing.read
        if claim is None or not isinstance(looked, Looked) or looked.names != len(claim.keys):
            return False
        counted = _moved(looked.counted, claim)
        try:
            async with self._connected() as connection:
                if not claim.takes:
                    return await _write(connection, record, claim.keys[0], looked.revision, counted)
                async with connection.transaction():
                    if not await _write(connection, record, claim.keys[0], looked.revision, counted):
                        return False
                    await _take_all(connection, claim)
        except (_Overtaken, asyncpg.UniqueViolationError, *AGAIN):
            return False  # nothing was written; the long way finds out what there is
        return True

    async def decisions(self, decision_ids: Sequence[str]) -> dict[str, DecisionRecord]:
        found = await self._read(_BY_IDS, list(decision_ids))
        return {row[0]: rows.decision(tuple(row)) for row in found}

    async def decision_of_request(self, keys: tuple[str, ...], request_id: str) -> DecisionRecord | None:
        row = await self._read_one(_BY_REQUEST, list(keys), request_id)
        return None if row is None else rows.decision(tuple(row))

    async def commit_responses(
        self, records: Sequence[ResponseRecord], limits: Limits = NO_LIMITS
    ) -> list[bool]:
        groups: dict[str, list[tuple[int, ResponseRecord]]] = {}
        for number, record in enumerate(records):
            groups.setdefault(record.customer_id, []).append((number, record))
        if len(groups) > 1:
            await self._refuse_conflicts(records)
        new = dict[int, bool]()
        for group in groups.values():
            new |= await self._transact(partial(_commit_responses, group, limits))
        return [new[number] for number in range(len(records))]

    async def _refuse_conflicts(self, records: Sequence[ResponseRecord]) -> None:
        found = await self._read(
            f"{_SAID.replace('SELECT', 'SELECT customer_id, response_id,')}"
            " JOIN unnest($1::text[], $2::text[]) AS given(customer_id, response_id)"
            " USING (customer_id, response_id)",
            [record.customer_id for record in records],
            [record.response_id for record in records],
        )
        said = {(row[0], row[1]): tuple(row)[2:] for row in found}
        for number, record in enumerate(records):
            if said.setdefault((record.customer_id, record.response_id), _content(record)) != _content(
                record
            ):
                raise _conflict(number, record)

    async def history(
        self, keys: tuple[str, ...], limit: int
    ) -> tuple[list[DecisionRecord], list[ResponseRecord]]:
        async with self._connected() as connection, connection.transaction(isolation="repeatable_read"):
            decided = await connection.fetch(_NEWEST, list(keys), limit)
            decisions = [rows.decision(tuple(row)) for row in decided]
            answered = await connection.fetch(_ANSWERS, [record.decision_id for record in decisions])
        return decisions, [rows.response(tuple(row)) for row in answered]

    async def prune(self, before: datetime) -> int:
        async with self._aside() as connection, connection.transaction():
            dropped = await drop_partitions(connection, month_of(before))
            await connection.execute(_PRUNE_SNAPSHOTS)
        return dropped


class _Overtaken(Exception):
    """What is used of a budget has left its range: all of a transaction is undone."""


async def _all(work: Sequence[Awaitable[T]]) -> list[T]:
    """The results of all, when all are over; raises what the first that failed did."""
    if len(work) == 1:
        return [await work[0]]
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


async def _commit_in_turn(
    records: Sequence[DecisionRecord], connection: Connection
) -> list[DecisionRecord | None]:
    """Those of one customer, in their order, in one transaction."""
    key = records[0].customer_id if records[0].claim is None else records[0].claim.keys[0]
    own, *_ = await lock_one(connection, key)
    results: list[DecisionRecord | None] = []
    for record in records:
        # That a budget is taken shows only after the rest was written: then it alone is undone.
        undone = (
            connection.transaction() if record.claim is not None and record.claim.takes else nullcontext()
        )
        try:
            async with undone:
                results.append(await _commit_locked(connection, record, own))
        except _Overtaken:
            results.append(None)
    return results


async def _commit_locked(connection: Connection, record: DecisionRecord, own: str) -> DecisionRecord | None:
    if record.request_id is not None:
        earlier = await connection.fetchrow(_BY_REQUEST_OF_LOCKED, record.customer_id, own, record.request_id)
        if earlier is not None:
            return rows.decision(tuple(earlier))
    if (same := await connection.fetchrow(_BY_ID, record.decision_id)) is not None:
        return _the_same(record, rows.decision(tuple(same)))
    revision, counted, names = await counters(connection, own)
    claim = record.claim
    if claim is not None:
        known = (own, names) == (claim.keys[0], len(claim.keys))
        if claim.standing is not None and not known:
            return None
        if known:
            now = rows.micros(record.decided_at)
            found, looked = await look_counted(connection, claim.keys, now, claim.limits, claim.ranges)
            if claim.standing is not None and not _holds_still(claim, found):
                return None
            counted = looked.counted
        counted = _moved(counted, claim) if known else UNCOUNTED
    elif record.mode == "live":
        counted = UNCOUNTED
    if not await _write(connection, record, own, revision, counted):
        return None
    if claim is not None:
        await _take_all(connection, claim)
    return record


def _the_same(record: DecisionRecord, same: DecisionRecord) -> DecisionRecord:
    if same != record:
        raise Conflict("decision_id", f"decision {record.decision_id} is in the ledger with other content")
    return same


def _holds_still(claim: Claim, found: Standing) -> bool:
    """Whether what a decision rests on is still so."""
    assert claim.standing is not None
    recorded = {(each.control_group, each.since): each.member for each in found.memberships}
    return (
        _resting(found) == _resting(claim.standing)
        and found.holds.keys() == claim.standing.holds.keys()
        and all(least <= found.used[period] <= most for period, (least, most) in claim.ranges.items())
        and all(
            recorded.get((join.control_group, join.since), join.member) == join.member for join in claim.joins
        )
    )


def _resting(standing: Standing) -> set[tuple[str, str]]:
    return {(stop.scope, stop.target) for stop in standing.stops}


def _moved(counted: Counted, claim: Claim) -> Counted:
    if not claim.limits.limits or counted.basis != basis(claim.limits, len(claim.keys)):
        return UNCOUNTED  # the next decision counts them
    return counted.moved(claim.limits, None, claim.contact)


async def _write(
    connection: Connection, record: DecisionRecord, own: str, revision: int, counted: Counted
) -> bool:
    """Writes a decision with all it takes but budgets, if the customer's row is at `revision`, the request
    was not answered, and what is used of budgets is in its ranges; whether it was so."""
    claim = record.claim
    ranges = {} if claim is None or claim.standing is None else claim.ranges
    taken = {} if claim is None else {name: (period_key(of), amount) for name, of, amount in claim.takes}
    due_at = None if claim is None else rows.optional_micros(claim.due_at)
    held = [] if claim is None or due_at is None else [each.treatment for each in claim.contact.items]
    joins = () if claim is None else claim.joins
    periods = [period_key(period) for period in ranges]
    budgets = [taken.get(treatment, ((None, None), 0)) for treatment in held]
    return bool(
        await connection.fetchval(
            _COMMIT[revision == 0],
            own,
            revision,
            counted.basis,
            counted.text(),
            [record.customer_id] if claim is None else list(claim.keys),
            *rows.decision_row(record),
            [budget for budget, _ in periods],
            [begins for _, begins in periods],
            [least for least, _ in ranges.values()],
            [most for _, most in ranges.values()],
            due_at,
            held,
            [budget for (budget, _), _ in budgets],
            [begins for (_, begins), _ in budgets],
            [amount for _, amount in budgets],
            [join.control_group for join in joins],
            [join.since for join in joins],
            [join.member for join in joins],
            [join.share for join in joins],
        )
    )


async def _take_all(connection: Connection, claim: Claim) -> None:
    """Takes what a decision takes of budgets. Raises _Overtaken where one has left its range."""
    amounts: dict[BudgetPeriod, int] = {}
    for _, period, amount in claim.takes:
        amounts[period] = amounts.get(period, 0) + amount
    ranges = {} if claim.standing is None else claim.ranges
    # In one order, so that two decisions never wait for each other; and last, as others wait for these rows.
    for period, amount in sorted(amounts.items(), key=lambda item: period_key(item[0])):
        reserved = amount if claim.due_at is not None else 0
        within = ranges.get(period, UNBOUNDED)
        if not await take(connection, period_key(period), amount, reserved, within):
            raise _Overtaken


async def _commit_responses(
    group: Sequence[tuple[int, ResponseRecord]], limits: Limits, connection: Connection
) -> dict[int, bool]:
    """Those of one customer, in their order, in one transaction."""
    own, counted, names = await lock_one(connection, group[0][1].customer_id)
    if counted.basis != basis(limits, names):
        counted = UNCOUNTED  # by other limits: the next decision counts them
    new = {}
    for number, record in group:
        known = await connection.fetchrow(
            f"{_SAID} WHERE customer_id = $1 AND response_id = $2", record.customer_id, record.response_id
        )
        new[number] = known is None
        if known is None:
            counted = await _take_in(connection, record, counted, limits)
        elif tuple(known) != _content(record):
            raise _conflict(number, record)
    if any(new.values()):
        await keep(connection, own, counted)
    return new


async def _take_in(
    connection: Connection, record: ResponseRecord, counted: Counted, limits: Limits
) -> Counted:
    before = None if counted is UNCOUNTED else await contact(connection, record.decision_id)
    stops = {(stop.scope, stop.target): rows.optional_micros(stop.until) for stop in record.stops}
    row = rows.response_row(record)
    settled = await connection.fetchrow(
        _RESPOND,
        *row,
        [scope for scope, _ in stops],
        [target for _, target in stops],
        list(stops.values()),
    )
    if settled is not None and settled[0] is not None:
        budget, begins, amount = settled
        await take(connection, (budget, begins), 0, -amount, UNBOUNDED)
    if before is None:
        return UNCOUNTED
    said = (record.treatment, record.outcome, *row[6:8])
    return counted.moved(limits, before, answered(before, said, settled=settled is not None))


def _content(record: ResponseRecord) -> rows.Row:
    return (record.decision_id, record.treatment, record.outcome, record.value, record.corrects)


def _conflict(number: int, record: ResponseRecord) -> Conflict:
    message = f"response {record.response_id} was used before for something else"
    return Conflict(f"[{number}].response_id", message)
