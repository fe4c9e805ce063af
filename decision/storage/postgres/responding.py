"""How responses are committed in PostgreSQL: those of one customer in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from arbitration.contact import Contact, Limits
from decision.errors import Conflict
from decision.storage import rows
from decision.storage.counting import UNCOUNTED, Counted, answered, basis
from decision.storage.port import ERASED, MOST_RESPONSES, ResponseRecord
from decision.storage.postgres.contacts import contact
from decision.storage.postgres.standing import UNBOUNDED, keep, lock_one, settle, take

if TYPE_CHECKING:
    from decision.storage.postgres.connections import Connection

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
_ERASED = "SELECT decision_id, customer_id FROM decisions WHERE decision_id = ANY($1) AND customer_id LIKE $2"
MANY = "SELECT decision_id, count(*) FROM responses WHERE decision_id = ANY($1) GROUP BY decision_id"
SAID = "SELECT decision_id, treatment, outcome, value, corrects FROM responses"


class Erased(Exception):
    """Some of these decisions are of an erased customer: all of a transaction is undone. `now`: what these
    are recorded under, by id."""

    def __init__(self, now: Mapping[str, str]) -> None:
        super().__init__()
        self.now = now


async def commit_responses(
    group: Sequence[tuple[int, ResponseRecord]], limits: Limits, connection: Connection
) -> dict[int, bool]:
    """Those of one customer, in their order, in one transaction. Raises Erased."""
    own, counted, names = await lock_one(connection, group[0][1].customer_id)
    ids = [record.decision_id for _, record in group]
    if erased := await connection.fetch(_ERASED, ids, f"{ERASED}%"):
        raise Erased(dict(map(tuple, erased)))
    if counted.basis != basis(limits, names):
        counted = UNCOUNTED  # by other limits: the next decision counts them
    new = {}
    heard: dict[str, Contact] = {}
    many: dict[str, int] = {row[0]: row[1] for row in await connection.fetch(MANY, ids)}
    for number, record in group:
        known = await connection.fetchrow(
            f"{SAID} WHERE customer_id = $1 AND response_id = $2", record.customer_id, record.response_id
        )
        new[number] = known is None
        if known is None:
            many[record.decision_id] = many.get(record.decision_id, 0) + 1
            if many[record.decision_id] > MOST_RESPONSES:
                raise crowded(number)
            counted = await _take_in(connection, record, counted, limits, heard)
        elif tuple(known) != content_of(record):
            raise conflict(number, record)
    if any(new.values()):
        await keep(connection, own, counted)
    return new


async def settle_of_nobody(key: str, records: Sequence[ResponseRecord], connection: Connection) -> None:
    """Makes firm what these items of an erased customer have reserved: that is all that is left to do."""
    await lock_one(connection, key)
    for record in records:
        if record.outcome != "no_response":
            at = rows.micros(record.received_at)
            await settle(connection, record.decision_id, record.treatment, "firm", at)


async def _take_in(
    connection: Connection,
    record: ResponseRecord,
    counted: Counted,
    limits: Limits,
    heard: dict[str, Contact],
) -> Counted:
    """`heard`: of decisions, all that has come of them so far, as limits count it."""
    before = None
    if counted is not UNCOUNTED:
        before = heard.get(record.decision_id) or await contact(connection, record.decision_id)
    stops: dict[tuple[str, str], int | None] = {}
    for stop in record.stops:  # of several for one target the later end, and for good over all
        key, until = (stop.scope, stop.target), rows.optional_micros(stop.until)
        known = stops.get(key, until)
        stops[key] = None if until is None or known is None else max(until, known)
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
    after = heard[record.decision_id] = answered(before, said, settled=settled is not None)
    return counted.moved(limits, before, after)


def content_of(record: ResponseRecord) -> rows.Row:
    return (record.decision_id, record.treatment, record.outcome, record.value, record.corrects)


def crowded(number: int) -> Conflict:
    return Conflict(f"[{number}].decision_id", f"it has {MOST_RESPONSES} responses already")


def conflict(number: int, record: ResponseRecord) -> Conflict:
    message = f"response {record.response_id} was used before for something else"
    return Conflict(f"[{number}].response_id", message)
