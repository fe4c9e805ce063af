"""Counts contacts in SQLite: a customer's counters are one value of its row in `standings`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from arbitration.contact import Contact, Limits
from decision.storage import rows
from decision.storage.counting import UNCOUNTED, Counted, basis, contacts

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
_KEEP = """
    INSERT INTO standings (customer_id, revision, basis, counters) VALUES (?, 1, ?, ?)
    ON CONFLICT (customer_id) DO UPDATE
       SET revision = revision + 1, basis = excluded.basis, counters = excluded.counters
"""


def count(connection: sqlite3.Connection, keys: Sequence[str], now: int, limits: Limits) -> Counted:
    """A customer's counters by these limits and names, anew from the ledger; not written."""
    decided = connection.execute(_RECENT, (rows.text(list(keys)), now - limits.horizon)).fetchall()
    return Counted.of(basis(limits, len(keys)), limits.counted(_contacts(connection, decided)), limits)


def contact(connection: sqlite3.Connection, decision_id: str) -> Contact | None:
    """A decision of the ledger as limits count it; None if there is no such decision."""
    found = _contacts(connection, connection.execute(_ONE, (decision_id,)).fetchall())
    return found[0] if found else None


def read(connection: sqlite3.Connection, customer_id: str) -> Counted:
    """The counters of a customer, by its own id."""
    row = connection.execute(
        "SELECT basis, counters FROM standings WHERE customer_id = ?", (customer_id,)
    ).fetchone()
    return UNCOUNTED if row is None else Counted.read(*row)


def keep(connection: sqlite3.Connection, customer_id: str, counted: Counted) -> None:
    """Writes the counters of a customer; from now on nothing is committed that rests on what was read before.
    `UNCOUNTED`: they are counted anew when they are next asked for."""
    connection.execute(_KEEP, (customer_id, counted.basis, counted.text()))


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
