"""Counts contacts in PostgreSQL: a customer's counters are one value of its row in `standings`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson

from arbitration.contact import Contact, Limits, State
from decision.storage.counting import Counted, basis, contacts

if TYPE_CHECKING:
    from decision.storage.postgres.connections import Connection

# The decisions that can still matter: those made or answered within the horizon, and those still reserved,
# since what is taken away later must have been counted.
_RECENT = """
    SELECT decision_id, decided_at, channel, activation, reply FROM decisions
     WHERE customer_id = ANY($1) AND mode = 'live' AND (decided_at > $2
        OR decision_id IN (SELECT decision_id FROM responses
            WHERE customer_id = ANY($1) AND received_at > $2)
        OR decision_id IN (SELECT decision_id FROM reservations
            WHERE customer_id = ANY($1) AND state = 'reserved'))
     ORDER BY recorded_at, decision_id
"""
_ONE = """
    SELECT decision_id, decided_at, channel, activation, reply,
           (SELECT json_agg(json_build_array(decision_id, treatment, outcome, occurred_at, received_at)
                            ORDER BY recorded_at, response_id)
              FROM responses WHERE responses.decision_id = $1)::text,
           (SELECT json_agg(json_build_array(decision_id, treatment, state))
              FROM reservations WHERE reservations.decision_id = $1)::text
      FROM decisions WHERE decision_id = $1
"""
_ANSWERED = """
    SELECT decision_id, treatment, outcome, occurred_at, received_at FROM responses
     WHERE decision_id = ANY($1) ORDER BY recorded_at, response_id
"""
_STATES = "SELECT decision_id, treatment, state FROM reservations WHERE decision_id = ANY($1)"


NOTHING = ""
"""What the counters are counted by of a customer for whom nothing was ever decided: by whatever is asked."""


async def count(connection: Connection, keys: Sequence[str], now: int, limits: Limits) -> Counted:
    """A customer's counters by these limits and names, from the ledger."""
    recent = await connection.fetch(_RECENT, list(keys), now - limits.horizon)
    found = limits.counted(await _contacts(connection, recent))
    return Counted.of(basis(limits, len(keys)), found, limits)


async def contact(connection: Connection, decision_id: str) -> Contact | None:
    """A decision of the ledger as limits count it; None if there is no such decision."""
    row = await connection.fetchrow(_ONE, decision_id)
    if row is None:
        return None
    *decided, said, held = row
    return contacts([tuple(decided)], orjson.loads(said or "[]"), _states(orjson.loads(held or "[]")))[0]


async def _contacts(connection: Connection, decided: Sequence[asyncpg.Record]) -> list[Contact]:
    if not decided:
        return []
    ids = [row[0] for row in decided]
    said = await connection.fetch(_ANSWERED, ids)
    return contacts(map(tuple, decided), map(tuple, said), _states(await connection.fetch(_STATES, ids)))


def _states(held: Iterable[Any]) -> dict[tuple[str, str], State]:
    return {(decision_id, treatment): state for decision_id, treatment, state in held}
