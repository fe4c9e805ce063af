"""Counts contacts in SQLite: keeps each customer's counters as `arbitration.contact` works them out."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import orjson

from arbitration.contact import Contact, Counter, Key, Limits
from decision.storage import rows
from decision.storage.counting import basis, contacts

# The decisions that can still matter: those made or answered within the horizon, and those still reserved,
# since what is taken away later must have been counted.
_RECENT = """
    SELECT decision_id, decided_at, channel, activation, reply FROM decisions
     WHERE customer_id IN (SELECT value FROM json_each(?1)) AND mode = 'live' AND (decided_at > ?2
        OR decision_id IN (SELECT decision_id FROM responses
            WHERE customer_id IN (SELECT value FROM json_each(?1)) AND received_at > ?2)
        OR decision_id IN (SELECT decision_id FROM reservations
            WHERE customer_id IN (SELECT value FROM json_each(?1)) AND state = 'reserved'))
     ORDER BY seq
"""
_ONE = "SELECT decision_id, decided_at, channel, activation, reply FROM decisions WHERE decision_id = ?"
_COUNTER = "SELECT times, reserved, begun FROM counters WHERE customer_id = ? AND policy = ? AND target = ?"


def count(connection: sqlite3.Connection, keys: Sequence[str], now: int, limits: Limits) -> None:
    """Makes sure that a customer's counters are counted by these limits and names: anew from the ledger
    where they are not."""
    wanted = basis(limits, len(keys))
    if connection.execute("SELECT basis FROM countings WHERE customer_id = ?", keys[:1]).fetchone() == (
        wanted,
    ):
        return
    given = rows.text(list(keys))
    connection.execute("DELETE FROM counters WHERE customer_id IN (SELECT value FROM json_each(?))", (given,))
    decided = connection.execute(_RECENT, (given, now - limits.horizon)).fetchall()
    for key, counter in limits.counted(_contacts(connection, decided)).items():
        _keep(connection, keys[0], key, counter, limits)
    connection.execute(
        "INSERT INTO countings VALUES (?, ?) ON CONFLICT (customer_id) DO UPDATE SET basis = excluded.basis",
        (keys[0], wanted),
    )


def contact(connection: sqlite3.Connection, decision_id: str) -> Contact | None:
    """A decision of the ledger as limits count it; None if there is no such decision."""
    found = _contacts(connection, connection.execute(_ONE, (decision_id,)).fetchall())
    return found[0] if found else None


def forget(connection: sqlite3.Connection, customer_id: str) -> None:
    """Lets a customer's counters be counted anew when they are next asked for."""
    connection.execute("DELETE FROM countings WHERE customer_id = ?", (customer_id,))


def move(
    connection: sqlite3.Connection, customer_id: str, limits: Limits, before: Contact | None, after: Contact
) -> None:
    """Moves a customer's counters by what changed of one decision. They must be counted by `limits`."""
    for key, old, new, begins in limits.changes(before, after):
        row = connection.execute(_COUNTER, (customer_id, *key)).fetchone()
        counter = Counter() if row is None else Counter(tuple(orjson.loads(row[0])), row[1], row[2])
        _keep(connection, customer_id, key, limits.moved(counter, key, old, new, begins), limits)


def _keep(
    connection: sqlite3.Connection, customer_id: str, key: Key, counter: Counter, limits: Limits
) -> None:
    connection.execute(
        "INSERT INTO counters (customer_id, policy, target, times, reserved, begun, until)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (customer_id, policy, target) DO UPDATE SET"
        " times = excluded.times, reserved = excluded.reserved, begun = excluded.begun,"
        " until = excluded.until",
        (
            customer_id,
            *key,
            orjson.dumps(counter.times).decode(),
            counter.reserved,
            counter.begun,
            limits.limits[key[0]].until(counter),
        ),
    )


def _contacts(connection: sqlite3.Connection, decided: Sequence[rows.Row]) -> list[Contact]:
    ids = rows.text([row[0] for row in decided])
    among = "WHERE decision_id IN (SELECT value FROM json_each(?))"
    answered = connection.execute(
        f"SELECT decision_id, treatment, outcome, occurred_at, received_at FROM responses {among}"
        " ORDER BY seq",
        (ids,),
    )
    states = connection.execute(
        f"SELECT decision_id, treatment, state FROM reservations {among}", (ids,)
    ).fetchall()
    return contacts(decided, answered, {(id, treatment): state for id, treatment, state in states})
