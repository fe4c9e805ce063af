"""How decisions are committed in PostgreSQL: at once where nothing has changed, else with a lock.

A decision alone is committed by one statement, which says all it takes. It is gated by the revision of the
customer's row as it was read: where another was faster, or anything is in the way, nothing is written, and
the decision takes the long way: the customer is locked, and what the decision rests on is compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from decision.errors import Conflict
from decision.storage import rows
from decision.storage.claims import holds_still
from decision.storage.counting import UNCOUNTED, Counted, basis
from decision.storage.port import BudgetPeriod, Claim, DecisionRecord
from decision.storage.postgres.standing import (
    BY_ID,
    UNBOUNDED,
    Looked,
    counters,
    lock_one,
    look_counted,
    period_key,
    take,
)

if TYPE_CHECKING:
    from decision.storage.postgres.connections import Connection

# All names of a customer that is locked: the one recorded under first, then as they were decided.
_BY_REQUEST_OF_LOCKED = f"""
    SELECT {rows.DECISION} FROM decisions WHERE (customer_id, decision_id) IN (
        SELECT customer_id, decision_id FROM requests
         WHERE request_id = $3 AND (customer_id IN ($1, $2)
            OR customer_id IN (SELECT customer_id FROM merges WHERE survivor = $2))
    ) ORDER BY customer_id <> $1, recorded_at LIMIT 1
"""
_LOCK_BUDGETS = """
    SELECT 1 FROM budgets
           JOIN unnest($1::text[], $2::bigint[]) AS taken(budget, begins) USING (budget, begins)
     ORDER BY budget, begins FOR UPDATE OF budgets
"""
# $1: the customer, $2: the revision that was read, $3 and $4: its counters, $22: the row's life. Without a
# row (both are 0), one is made. Lists are JSON, NULL where they are empty: for an array the driver looks at
# every element several times.
_GATE = {
    False: """
        UPDATE standings SET revision = revision + 1, basis = $3, counters = $4
         WHERE customer_id = $1 AND revision = $2 AND born = $22 AND {holds} RETURNING 1""",
    True: """
        INSERT INTO standings (customer_id, revision, basis, counters)
        SELECT $1, $2::bigint + 1, $3, $4 WHERE $22::bigint = 0 AND {holds}
            ON CONFLICT (customer_id) DO NOTHING RETURNING 1""",
}
_HOLDS = """
    NOT EXISTS (SELECT 1 FROM requests WHERE customer_id = ANY($5) AND request_id = $8)
    AND NOT EXISTS (SELECT 1 FROM json_array_elements($18::text::json) AS within
                           LEFT JOIN budgets ON budget = within->>0 AND begins = (within->>1)::bigint
                     WHERE coalesce(used, 0) NOT BETWEEN (within->>2)::bigint AND (within->>3)::bigint)
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
        SELECT customer_id, decision_id, held->>0, $19::bigint, held->>1, (held->>2)::bigint,
               (held->>3)::bigint, 'reserved', NULL
          FROM made, json_array_elements($20::text::json) AS held
    ),
    joined AS (
        INSERT INTO memberships
        SELECT $1, joined->>0, joined->>1, (joined->>2)::boolean, (joined->>3)::double precision, decided_at
          FROM made, json_array_elements($21::text::json) AS joined
            ON CONFLICT DO NOTHING
    )
    SELECT 1 FROM made
"""
    for fresh, gate in _GATE.items()
}


class Overtaken(Exception):
    """What is used of a budget has left its range: all of a transaction is undone."""


def seen(record: DecisionRecord) -> Looked | None:
    """What `look` found that a decision rests on; None where it cannot be committed at once."""
    claim = record.claim
    looked = None if claim is None or claim.standing is None else claim.standing.read
    if claim is None or not isinstance(looked, Looked) or looked.names != len(claim.keys):
        return None
    if record.life not in (0, looked.life):
        return None
    return looked


async def commit_at_once(connection: Connection, record: DecisionRecord, looked: Looked) -> bool:
    """Commits a decision that rests on what was `seen`, if nothing has changed since; whether it has.

    Raises Overtaken, and asyncpg.UniqueViolationError where it, or an answer to its request, is there:
    nothing was written then.
    """
    claim = record.claim
    assert claim is not None
    counted = _moved(looked.counted, claim)
    if not claim.takes:
        return await _write(connection, record, claim.keys[0], looked.revision, looked.life, counted)
    async with connection.transaction():
        if not await _write(connection, record, claim.keys[0], looked.revision, looked.life, counted):
            return False
        await _take_all(connection, claim)
    return True


async def commit_in_turn(
    records: Sequence[DecisionRecord], connection: Connection
) -> list[DecisionRecord | None]:
    """Those of one customer, in their order, in one transaction."""
    key = records[0].customer_id if records[0].claim is None else records[0].claim.keys[0]
    own, *_ = await lock_one(connection, key)
    taken = {period_key(period) for each in records if each.claim for _, period, _ in each.claim.takes}
    if len(records) > 1 and len(taken) > 1:  # else each takes its own in its turn, in any order
        names, begins = [name for name, _ in taken], [begins for _, begins in taken]
        await connection.execute(_LOCK_BUDGETS, names, begins)
    results: list[DecisionRecord | None] = []
    for record in records:
        # That a budget is taken shows only after the rest was written: then it alone is undone.
        undone = (
            connection.transaction() if record.claim is not None and record.claim.takes else nullcontext()
        )
        try:
            async with undone:
                results.append(await _commit_locked(connection, record, own))
        except Overtaken:
            results.append(None)
    if not any(results):  # a row that was made to be locked says no more of whoever was erased
        await connection.execute("DELETE FROM standings WHERE customer_id = $1 AND revision = 1", own)
    return results


async def _commit_locked(connection: Connection, record: DecisionRecord, own: str) -> DecisionRecord | None:
    if record.request_id is not None:
        earlier = await connection.fetchrow(_BY_REQUEST_OF_LOCKED, record.customer_id, own, record.request_id)
        if earlier is not None:
            return rows.decision(tuple(earlier))
    if (same := await connection.fetchrow(BY_ID, record.decision_id)) is not None:
        return _the_same(record, rows.decision(tuple(same)))
    revision, life, counted, names = await counters(connection, own)
    if record.life not in (0, life):
        return None  # the customer was erased meanwhile, with what this rests on
    claim = record.claim
    if claim is not None:
        known = (own, names) == (claim.keys[0], len(claim.keys))
        if claim.standing is not None and not known:
            return None
        if known:
            now = rows.micros(record.decided_at)
            found, looked = await look_counted(connection, claim.keys, now, claim.limits, claim.ranges)
            if claim.standing is not None and not holds_still(claim, found):
                return None
            counted = looked.counted
        counted = _moved(counted, claim) if known else UNCOUNTED
    elif record.mode == "live":
        counted = UNCOUNTED
    if not await _write(connection, record, own, revision, life, counted):
        return None
    if claim is not None:
        await _take_all(connection, claim)
    return record


def _the_same(record: DecisionRecord, same: DecisionRecord) -> DecisionRecord:
    if same != record:
        raise Conflict("decision_id", f"decision {record.decision_id} is in the ledger with other content")
    return same


def _moved(counted: Counted, claim: Claim) -> Counted:
    if not claim.limits.limits or counted.basis != basis(claim.limits, len(claim.keys)):
        return UNCOUNTED  # the next decision counts them
    return counted.moved(claim.limits, None, claim.contact)


async def _write(
    connection: Connection, record: DecisionRecord, own: str, revision: int, life: int, counted: Counted
) -> bool:
    """Writes a decision with all it takes but budgets, if the customer's row is at `revision`, the request
    was not answered, and what is used of budgets is in its ranges; whether it was so."""
    claim = record.claim
    ranges = {} if claim is None or claim.standing is None else claim.ranges
    taken = {} if claim is None else {name: (period_key(of), amount) for name, of, amount in claim.takes}
    due_at = None if claim is None else rows.optional_micros(claim.due_at)
    held = [] if claim is None or due_at is None else [each.treatment for each in claim.contact.items]
    joins = () if claim is None else claim.joins
    none = ((None, None), 0)
    reserved = [(each, *taken.get(each, none)[0], taken.get(each, none)[1]) for each in held]
    return bool(
        await connection.fetchval(
            _COMMIT[revision == 0],
            own,
            revision,
            counted.basis,
            counted.text(),
            [record.customer_id] if claim is None else list(claim.keys),
            *rows.decision_row(record),
            _listed([(*period_key(period), *within) for period, within in ranges.items()]),
            due_at,
            _listed(reserved),
            _listed([(join.control_group, join.since, join.member, join.share) for join in joins]),
            life,
        )
    )


def _listed(given: list[tuple[object, ...]]) -> str | None:
    return rows.text(given) if given else None


async def _take_all(connection: Connection, claim: Claim) -> None:
    """Takes what a decision takes of budgets. Raises Overtaken where one has left its range."""
    amounts: dict[BudgetPeriod, int] = {}
    for _, period, amount in claim.takes:
        amounts[period] = amounts.get(period, 0) + amount
    ranges = {} if claim.standing is None else claim.ranges
    # In one order, so that two decisions never wait for each other; and last, as others wait for these rows.
    for period, amount in sorted(amounts.items(), key=lambda item: period_key(item[0])):
        reserved = amount if claim.due_at is not None else 0
        within = ranges.get(period, UNBOUNDED)
        if not await take(connection, period_key(period), amount, reserved, within):
            raise Overtaken
