"""Counts contacts in PostgreSQL: a customer's counters are one value of its row in `standings`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import asyncpg
import orjson

from arbitration.contact import Contact, Counter, Key, Limits, State
from decision.storage.counting import basis, contacts

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


@dataclass(frozen=True, slots=True)
class Counted:
    """A customer's counters, each with the moment until which it holds, and what they are counted by (None:
    they have to be counted)."""

    basis: str | None = None
    counters: dict[Key, tuple[Counter, int | None]] = field(default_factory=dict)

    @staticmethod
    def read(basis: str | None, text: str) -> Counted:
        """From the columns of `standings`."""
        return Counted(
            basis,
            {
                (policy, target): (Counter(tuple(times), reserved, begun), until)
                for policy, target, times, reserved, begun, until in orjson.loads(text)
            },
        )

    def text(self) -> str:
        """The column `counters`."""
        return orjson.dumps(
            [
                [*key, counter.times, counter.reserved, counter.begun, until]
                for key, (counter, until) in self.counters.items()
            ]
        ).decode()

    def holds(self, now: int) -> dict[Key, int]:
        """Until when each counter holds, of those that do."""
        return {key: until for key, (_, until) in self.counters.items() if until is not None and until > now}

    def moved(self, limits: Limits, before: Contact | None, after: Contact) -> Counted:
        """With what changed of one decision. They must be counted by `limits`."""
        counters = dict(self.counters)
        for key, old, new, begins in limits.changes(before, after):
            counter = counters[key][0] if key in counters else Counter()
            counter = limits.moved(counter, key, old, new, begins)
            counters[key] = counter, limits.limits[key[0]].until(counter)
        return replace(self, counters=counters)


UNCOUNTED = Counted()
NOTHING = ""
"""What the counters are counted by of a customer for whom nothing was ever decided: by whatever is asked."""


async def count(connection: Connection, keys: Sequence[str], now: int, limits: Limits) -> Counted:
    """A customer's counters by these limits and names, from the ledger."""
    recent = await connection.fetch(_RECENT, list(keys), now - limits.horizon)
    found = limits.counted(await _contacts(connection, recent))
    return Counted(
        basis(limits, len(keys)),
        {key: (counter, limits.limits[key[0]].until(counter)) for key, counter in found.items()},
    )


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
