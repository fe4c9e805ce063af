"""Customers, identities and stops in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from decision.errors import Conflict
from decision.storage import rows
from decision.storage.port import Customer, Identity, Stop
from decision.storage.sqlite_connections import Connections

_CUSTOMER = """
    SELECT attributes, scores, consents,
           (SELECT json_group_array(json_array(type, value)) FROM identities WHERE customer_id = ?1)
      FROM customers WHERE customer_id = ?1
"""


class SqliteProfiles(Connections):
    """Implements `decision.storage.port.Profiles`."""

    async def customer(self, customer_id: str) -> Customer | None:
        row = self._read_one(_CUSTOMER, (customer_id,))
        return None if row is None else rows.customer(customer_id, row)

    async def stops(self, customer_id: str, now: datetime) -> tuple[Stop, ...]:
        found = self._read(
            "SELECT scope, target, until FROM stops"
            " WHERE customer_id = ? AND (until IS NULL OR until > ?) ORDER BY scope, target",
            (customer_id, rows.micros(now)),
        )
        return tuple(Stop(scope, target, rows.optional_moment(until)) for scope, target, until in found)

    async def resolve(self, identity: Identity) -> str | None:
        row = self._read_one(
            "SELECT customer_id FROM identities WHERE type = ? AND value = ?", (identity.type, identity.value)
        )
        return None if row is None else row[0]

    async def put_customers(self, customers: Sequence[Customer]) -> None:
        # The last one wins where a customer is given twice, as if they came one after the other.
        await self._write(partial(_put, tuple({each.customer_id: each for each in customers}.values())))

    async def patch_customer(self, change: Customer, remove: Sequence[tuple[str, str]] = ()) -> Customer:
        return await self._write(partial(_patch, change, tuple(remove)))

    async def delete_customer(self, customer_id: str) -> bool:
        return await self._write(partial(_delete, customer_id))


def _put(customers: Sequence[Customer], connection: sqlite3.Connection) -> None:
    _store(connection, customers)
    # All are dropped before any is added, so that an identity may move between two customers of one call.
    connection.execute(
        "DELETE FROM identities WHERE customer_id IN (SELECT value FROM json_each(?))",
        (rows.text([each.customer_id for each in customers]),),
    )
    for each in customers:
        _identify(connection, each)


def _patch(change: Customer, remove: Sequence[tuple[str, str]], connection: sqlite3.Connection) -> Customer:
    row = connection.execute(_CUSTOMER, (change.customer_id,)).fetchone()
    stored = Customer(change.customer_id) if row is None else rows.customer(change.customer_id, row)
    attributes, scores, consents = dict(stored.attributes), dict(stored.scores), dict(stored.consents)
    sections: dict[str, dict[str, Any]] = {"attributes": attributes, "scores": scores, "consents": consents}
    for section, key in remove:
        sections[section].pop(key, None)
    merged = Customer(
        change.customer_id,
        attributes | dict(change.attributes),
        scores | dict(change.scores),
        consents | dict(change.consents),
        tuple(sorted({*stored.identities, *change.identities}, key=lambda each: (each.type, each.value))),
    )
    _store(connection, [merged])
    _identify(connection, change)
    return merged


def _delete(customer_id: str, connection: sqlite3.Connection) -> bool:
    connection.execute("DELETE FROM identities WHERE customer_id = ?", (customer_id,))
    connection.execute("DELETE FROM stops WHERE customer_id = ?", (customer_id,))
    return connection.execute("DELETE FROM customers WHERE customer_id = ?", (customer_id,)).rowcount == 1


def _store(connection: sqlite3.Connection, customers: Sequence[Customer]) -> None:
    connection.executemany(
        "INSERT INTO customers (customer_id, attributes, scores, consents) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (customer_id) DO UPDATE SET attributes = excluded.attributes,"
        " scores = excluded.scores, consents = excluded.consents",
        [
            (each.customer_id, rows.text(each.attributes), rows.text(each.scores), rows.text(each.consents))
            for each in customers
        ],
    )


def _identify(connection: sqlite3.Connection, customer: Customer) -> None:
    for identity in customer.identities:
        changed = connection.execute(
            "INSERT INTO identities (type, value, customer_id) VALUES (?, ?, ?)"
            " ON CONFLICT (type, value) DO UPDATE SET customer_id = excluded.customer_id"
            " WHERE identities.customer_id = excluded.customer_id",
            (identity.type, identity.value, customer.customer_id),
        ).rowcount
        if not changed:
            # The value is personal: the message names the type only, as it may be logged or shown.
            raise Conflict("identities", f"an identity of type {identity.type} belongs to another customer")
