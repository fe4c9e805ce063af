"""Erasing a customer in PostgreSQL. Rows that get another key are written anew and then deleted: where a
table is distributed by that key, they move to another machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from decision.storage import rows
from decision.storage.anonymous import nobody, renaming, shown
from decision.storage.port import ERASED, PSEUDONYM, Mark
from decision.storage.postgres.merges import lock_named

if TYPE_CHECKING:
    from decision.storage.postgres.connections import Connection

_ERASURES = """
    INSERT INTO erasures (decision_id)
    SELECT decision_id FROM decisions WHERE customer_id = ANY($1) AND mode = 'live' ON CONFLICT DO NOTHING
"""
_DECISIONS = f"""
    INSERT INTO decisions ({rows.DECISION}, recorded_at)
    SELECT decision_id, $2, NULL, '', decided_at, channel, mode, catalog_version, snapshots,
           CASE WHEN decision_id IN (SELECT decision_id FROM erasures WHERE NOT unlearned)
                THEN inputs ELSE '' END,
           given.reply, activation, recorded_at
      FROM decisions JOIN unnest($3::text[], $4::bytea[]) AS given(decision_id, reply) USING (decision_id)
     WHERE customer_id = ANY($1)
"""
_RESPONSES = f"""
    INSERT INTO responses ({rows.RESPONSE}, recorded_at)
    SELECT given.fresh_id, decision_id, $2, treatment, outcome, value, occurred_at, received_at,
           given.fresh_corrects, recorded_at
      FROM responses JOIN unnest($3::text[], $4::text[], $5::text[], $6::text[])
                          AS given(customer_id, response_id, fresh_id, fresh_corrects)
                     USING (customer_id, response_id)
     WHERE customer_id = ANY($1)
"""
# Of several memberships of one window the first counts, as in reports.
_MEMBERSHIPS = """
    INSERT INTO memberships (customer_id, control_group, since, member, share, exposed_at)
    SELECT DISTINCT ON (control_group, since) $2, control_group, since, member, share, exposed_at
      FROM memberships WHERE customer_id = ANY($1)
     ORDER BY control_group, since, exposed_at, customer_id
"""
_RESERVATIONS = """
    INSERT INTO reservations
    SELECT $2, decision_id, treatment, due_at, budget, begins, amount, state, settled_at
      FROM reservations WHERE customer_id = ANY($1)
"""
_TOMBSTONES = """
    INSERT INTO tombstones SELECT mark, $2 FROM unnest($1::text[]) AS mark
        ON CONFLICT (mark) DO UPDATE SET erased_at = excluded.erased_at
"""


def _active(id: str) -> str:
    """Whether the customer that `id` is in SQL was told of, named, decided for or heard of since $1, or is
    restricted: what is kept then is kept for a claim, or until it is asked for."""
    return f"""
        EXISTS (SELECT 1 FROM customers AS own WHERE own.customer_id = {id} AND (restricted OR told_at >= $1
                   OR EXISTS (SELECT 1 FROM json_each_text(told_apart::json) AS told
                               WHERE told.value::bigint >= $1)))
        OR EXISTS (SELECT 1 FROM merges WHERE survivor = {id} AND merged_at >= $1)
        OR EXISTS (
           SELECT 1 FROM (
               SELECT {id} AS name UNION ALL
               SELECT merges.customer_id FROM merges WHERE survivor = {id}) AS named
            WHERE EXISTS (SELECT 1 FROM decisions WHERE customer_id = name AND decided_at >= $1)
               OR EXISTS (SELECT 1 FROM responses WHERE customer_id = name AND received_at >= $1))
    """


IDLE = f"SELECT customer_id FROM customers AS each_ WHERE NOT ({_active('each_.customer_id')}) LIMIT $2"
_ACTIVE = f"SELECT {_active('$2::text')}"
# Of whoever was erased, a release before left the merges, and the decisions as they were. $1: all keys of the
# erased sort before.
HALF_ERASED = """
    SELECT name FROM (
        SELECT coalesce(survivor, customer_id) AS name
          FROM erasures JOIN decisions USING (decision_id) LEFT JOIN merges USING (customer_id)
         WHERE customer_id >= $1
         UNION SELECT survivor FROM merges) AS named
     WHERE NOT EXISTS (SELECT 1 FROM customers WHERE customer_id = name)
     LIMIT $2
"""
ERASED_AT = "SELECT erased_at FROM tombstones WHERE mark = $1"
BLANK = f"""
    UPDATE decisions SET inputs = '' WHERE decision_id = ANY($1) AND left(customer_id, 1) = '{ERASED}'
"""
"""Forgets what decisions of erased customers rested on; of others nothing."""


async def erase(
    customer_id: str, mark: Mark, at: int, before: int | None, connection: Connection
) -> int | None:
    """See `decision.storage.port.Profiles.delete_customer`. Whoever decides for the customer, or takes in
    what it said, waits for the lock, and finds another row behind it, or none."""
    id = (await lock_named(connection, [customer_id]))[customer_id]
    if before is not None and await connection.fetchval(_ACTIVE, before, id):
        return None
    others = await connection.fetch("SELECT customer_id FROM merges WHERE survivor = $1", id)
    keys = [id, *(row[0] for row in others)]
    found = await _anonymise(connection, keys, nobody())
    for table in ("customers", "identities", "stops"):
        found += await _deleted(connection, table, keys)
    await connection.execute("DELETE FROM merges WHERE survivor = $1", id)
    await _deleted(connection, "standings", keys)
    if not found:
        earlier = await connection.fetchval(ERASED_AT, mark(customer_id))
        return None if earlier is None else int(earlier)
    marks = sorted(mark(key) for key in keys if not key.startswith(PSEUDONYM))
    await connection.execute(_TOMBSTONES, marks, at)
    return at


async def _anonymise(connection: Connection, keys: list[str], fresh: str) -> int:
    """Gives all that the ledger has under some keys one fresh key, and leaves of it what names nobody; how
    many rows that were."""
    # The learner counts what it gives places to: it must not lose a row while it does.
    await connection.execute("SELECT 1 FROM learner_cursor FOR SHARE")
    await _deleted(connection, "unread", keys)  # what is erased is not read
    await connection.execute(_ERASURES, keys)
    decided = await connection.fetch(
        "SELECT decision_id, reply FROM decisions WHERE customer_id = ANY($1)", keys
    )
    replies = [shown(row[1]) for row in decided]
    await connection.execute(_DECISIONS, keys, fresh, [row[0] for row in decided], replies)
    renamed = renaming()
    said = await connection.fetch(
        "SELECT customer_id, response_id, corrects FROM responses WHERE customer_id = ANY($1)", keys
    )
    await connection.execute(
        _RESPONSES,
        keys,
        fresh,
        [row[0] for row in said],
        [row[1] for row in said],
        [renamed(row[0], row[1]) for row in said],
        [renamed(row[0], row[2]) for row in said],
    )
    await connection.execute(_MEMBERSHIPS, keys, fresh)
    await connection.execute(_RESERVATIONS, keys, fresh)
    await _deleted(connection, "requests", keys)
    return sum(
        [
            await _deleted(connection, table, keys)
            for table in ("decisions", "responses", "memberships", "reservations")
        ]
    )


async def _deleted(connection: Connection, table: str, keys: list[str]) -> int:
    done: str = await connection.execute(f"DELETE FROM {table} WHERE customer_id = ANY($1)", keys)
    return int(done.rpartition(" ")[2])
