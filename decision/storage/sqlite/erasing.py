"""Erasing a customer in SQLite."""

from __future__ import annotations

import sqlite3

from decision.storage import rows
from decision.storage.anonymous import nobody, renaming, shown
from decision.storage.port import ERASED, PSEUDONYM, Mark
from decision.storage.sqlite.merges import survivor_of

_AMONG = "customer_id IN (SELECT value FROM json_each(?1))"
# Of several memberships of one window the first counts, as in reports.
_LATER = f"""
    DELETE FROM memberships WHERE {_AMONG} AND EXISTS (
        SELECT 1 FROM memberships AS first
         WHERE first.customer_id IN (SELECT value FROM json_each(?1))
           AND (first.control_group, first.since) = (memberships.control_group, memberships.since)
           AND (first.exposed_at, first.customer_id) < (memberships.exposed_at, memberships.customer_id)
    )
"""


def _active(id: str) -> str:
    """Whether the customer that `id` is in SQL was told of, named, decided for or heard of since ?1, or is
    restricted: what is kept then is kept for a claim, or until it is asked for."""
    return f"""
        EXISTS (SELECT 1 FROM customers AS own WHERE own.customer_id = {id} AND (restricted OR told_at >= ?1
                   OR EXISTS (SELECT 1 FROM json_each(told_apart) AS told WHERE told.value >= ?1)))
        OR EXISTS (SELECT 1 FROM merges WHERE survivor = {id} AND merged_at >= ?1)
        OR EXISTS (
           SELECT 1 FROM (
               SELECT {id} AS name UNION ALL
               SELECT merges.customer_id FROM merges WHERE survivor = {id}) AS named
            WHERE EXISTS (SELECT 1 FROM decisions WHERE customer_id = name AND decided_at >= ?1)
               OR EXISTS (SELECT 1 FROM responses WHERE customer_id = name AND received_at >= ?1))
    """


IDLE = f"SELECT customer_id FROM customers AS each_ WHERE NOT ({_active('each_.customer_id')}) LIMIT ?2"
_ACTIVE = f"SELECT {_active('?2')}"
# Of whoever was erased, a release before left the merges, and the decisions as they were. ?1: all keys of the
# erased sort before.
HALF_ERASED = """
    SELECT name FROM (
        SELECT coalesce(survivor, customer_id) AS name
          FROM erasures JOIN decisions USING (decision_id) LEFT JOIN merges USING (customer_id)
         WHERE customer_id >= ?1
         UNION SELECT survivor FROM merges) AS named
     WHERE NOT EXISTS (SELECT 1 FROM customers WHERE customer_id = name)
     LIMIT ?2
"""


def erase(
    customer_id: str, mark: Mark, at: int, before: int | None, connection: sqlite3.Connection
) -> int | None:
    """See `decision.storage.port.Profiles.delete_customer`."""
    id = survivor_of(connection, customer_id)
    if before is not None and connection.execute(_ACTIVE, (before, id)).fetchone()[0]:
        return None
    others = connection.execute("SELECT customer_id FROM merges WHERE survivor = ?", (id,)).fetchall()
    keys = [id, *(key for (key,) in others)]
    among = rows.text(keys)
    fresh = nobody()
    found = _anonymise(connection, among, fresh)
    for table in ("customers", "identities", "stops"):
        found += connection.execute(f"DELETE FROM {table} WHERE {_AMONG}", (among,)).rowcount
    connection.execute("DELETE FROM merges WHERE survivor = ?", (id,))
    connection.execute(f"DELETE FROM standings WHERE {_AMONG}", (among,))
    if not found:
        return erased_at(connection, mark(customer_id))
    connection.executemany(
        "INSERT OR REPLACE INTO tombstones (mark, erased_at) VALUES (?, ?)",
        [(mark(key), at) for key in keys if not key.startswith(PSEUDONYM)],
    )
    return at


def erased_at(connection: sqlite3.Connection, mark: str) -> int | None:
    """When the customer with this mark was last erased."""
    row = connection.execute("SELECT erased_at FROM tombstones WHERE mark = ?", (mark,)).fetchone()
    return None if row is None else int(row[0])


def blank(connection: sqlite3.Connection, decision_id: str) -> None:
    """Forgets what a decision of an erased customer rested on. Else it does nothing."""
    connection.execute(
        "UPDATE decisions SET inputs = x'' WHERE decision_id = ? AND substr(customer_id, 1, 1) = ?",
        (decision_id, ERASED),
    )


def _anonymise(connection: sqlite3.Connection, among: str, fresh: str) -> int:
    """Gives all that the ledger has under some keys one fresh key, and leaves of it what names nobody; how
    many rows that were."""
    connection.execute(
        f"INSERT INTO erasures (decision_id) SELECT decision_id FROM decisions WHERE {_AMONG}"
        " AND mode = 'live' ON CONFLICT DO NOTHING",
        (among,),
    )
    decided = connection.execute(f"SELECT seq, reply FROM decisions WHERE {_AMONG}", (among,)).fetchall()
    connection.executemany(
        "UPDATE decisions SET customer_id = ?, request_id = NULL, request_hash = '', reply = ?,"
        " inputs = CASE WHEN EXISTS (SELECT 1 FROM erasures WHERE unlearned = 0"
        " AND erasures.decision_id = decisions.decision_id) THEN inputs ELSE x'' END WHERE seq = ?",
        [(fresh, shown(reply), seq) for seq, reply in decided],
    )
    renamed = renaming()
    said = connection.execute(
        f"SELECT seq, customer_id, response_id, corrects FROM responses WHERE {_AMONG}", (among,)
    ).fetchall()
    connection.executemany(
        "UPDATE responses SET customer_id = ?, response_id = ?, corrects = ? WHERE seq = ?",
        [(fresh, renamed(key, id), renamed(key, corrects), seq) for seq, key, id, corrects in said],
    )
    found = len(decided) + len(said) + connection.execute(_LATER, (among,)).rowcount
    for table in ("memberships", "reservations"):
        found += connection.execute(
            f"UPDATE {table} SET customer_id = ?2 WHERE {_AMONG}", (among, fresh)
        ).rowcount
    return found
