"""Customers, identities and stops in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial

from decision.errors import Conflict
from decision.storage import rows
from decision.storage.port import PSEUDONYM, Change, Customer, Identity, Mark, Names
from decision.storage.profile import patched, replaced, retold
from decision.storage.sqlite.connections import Connections
from decision.storage.sqlite.erasing import HALF_ERASED, IDLE, erase
from decision.storage.sqlite.merges import (
    CUSTOMER_ROW,
    NAMES,
    RESOLVE,
    SURVIVOR,
    keep_pseudonyms,
    merge,
    read_profile,
    shared,
    survivors,
    write_customers,
)

_CUSTOMER = f"SELECT {CUSTOMER_ROW} FROM customers WHERE customer_id = {SURVIVOR}"
# As `PROFILE`, without the identities.
_TOLD = f"""
    SELECT customer_id, attributes, scores, consents, '[]', restricted, told_at, told_apart
      FROM customers WHERE customer_id = {SURVIVOR}
"""


class SqliteProfiles(Connections):
    """Implements `decision.storage.port.Profiles`."""

    async def customer(self, customer_id: str) -> Customer | None:
        row = self._read_one(_CUSTOMER, (customer_id,))
        return None if row is None else rows.customer(row)

    async def as_of(self, customer_id: str) -> Mapping[str, datetime]:
        row = self._read_one(_TOLD, (customer_id,))
        told = {} if row is None else rows.profile(row).told
        moments = {at: rows.moment(at) for at in set(told.values()) if at is not None}
        return {name: moments[at] for name, at in told.items() if at is not None}

    async def names(self, customer_id: str) -> Names:
        return rows.names(self._read(NAMES, (customer_id,))[0])

    async def resolve(self, identity: Identity) -> str | None:
        row = self._read_one(RESOLVE, (identity.type, identity.value))
        return None if row is None else row[0]

    async def put_customers(self, customers: Sequence[Customer], at: datetime) -> None:
        await self._write(partial(_put, tuple(customers), rows.micros(at)), len(customers), brief=True)

    async def patch_customers(self, changes: Sequence[Change], at: datetime) -> list[Customer]:
        operation = partial(_patch, tuple(changes), rows.micros(at))
        return await self._write(operation, len(changes), brief=True)

    async def merge(self, customer_id: str, identities: Sequence[Identity], at: datetime) -> Names:
        return await self._write(partial(merge, customer_id, tuple(identities), rows.micros(at)))

    async def delete_customer(
        self, customer_id: str, mark: Mark, at: datetime, before: datetime | None = None
    ) -> datetime | None:
        idle = rows.optional_micros(before)
        erased = await self._write(partial(erase, customer_id, mark, rows.micros(at), idle))
        if erased is not None:
            await self._checkpoint()  # else the log beside the file would still have what was erased
        return rows.optional_moment(erased)

    async def erased_at(self, mark: str) -> datetime | None:
        row = self._read_one("SELECT erased_at FROM tombstones WHERE mark = ?", (mark,))
        return None if row is None else rows.moment(row[0])

    async def idle_customers(self, before: datetime, limit: int) -> list[str]:
        return [id for (id,) in await self._read_aside(IDLE, (rows.micros(before), limit))]

    async def half_erased(self, limit: int) -> list[str]:
        return [id for (id,) in await self._read_aside(HALF_ERASED, (PSEUDONYM, limit))]


def _put(given: Sequence[Customer], at: int, connection: sqlite3.Connection) -> None:
    ids = [each.customer_id for each in given]
    now_named = survivors(connection, ids)
    named = [(now_named.get(id, id), each) for id, each in zip(ids, given, strict=True)]
    joint = shared(connection, [id for id, _ in named])
    whole = {id: each for id, each in named if id not in joint}
    # Whether a consent is older than the recorded one shows in turn only; without one, nothing is read.
    dated = {id for id, each in named if each.consent_details}
    write_customers(
        connection, [rows.customer_row(id, each, at) for id, each in whole.items() if id not in dated]
    )
    for id, each in named:
        if id in joint or id in dated:
            way = retold if id in joint else replaced
            write_customers(connection, [rows.profile_row(way(read_profile(connection, id), each, at))])
    told = [(id, each) for id, each in named if id in joint]
    told += whole.items()
    owned = [(id, identity) for id, each in told for identity in each.identities]
    before, now = _owned(connection, [id for id, _ in told]), set(owned)
    # All are dropped before any is added, so that an identity may move between two customers of one call.
    connection.executemany(
        "DELETE FROM identities WHERE type = ? AND value = ?",
        [(gone.type, gone.value) for id, gone in before - now if id in whole],
    )
    _identify(connection, [each for each in owned if each not in before], at)


def _owned(connection: sqlite3.Connection, customer_ids: Sequence[str]) -> set[tuple[str, Identity]]:
    found = connection.execute(
        "SELECT customer_id, type, value FROM identities"
        " WHERE customer_id IN (SELECT value FROM json_each(?))",
        (rows.text(list(customer_ids)),),
    )
    return {(id, Identity(type, value)) for id, type, value in found}


def _patch(changes: Sequence[Change], at: int, connection: sqlite3.Connection) -> list[Customer]:
    return [_patch_one(connection, change, at) for change in changes]


def _patch_one(connection: sqlite3.Connection, change: Change, at: int) -> Customer:
    profile = patched(read_profile(connection, change.customer.customer_id), change, at)
    write_customers(connection, [rows.profile_row(profile)])
    id = profile.customer.customer_id
    _identify(connection, [(id, identity) for identity in change.customer.identities], at)
    return profile.customer


def _identify(connection: sqlite3.Connection, owned: Sequence[tuple[str, Identity]], at: int) -> None:
    for customer_id, identity in owned:
        changed = connection.execute(
            "INSERT INTO identities (type, value, customer_id) VALUES (?, ?, ?)"
            " ON CONFLICT (type, value) DO UPDATE SET customer_id = excluded.customer_id"
            " WHERE identities.customer_id = excluded.customer_id",
            (identity.type, identity.value, customer_id),
        ).rowcount
        if not changed:
            # The value is personal: the message names the type only, as it may be logged or shown.
            raise Conflict("identities", f"an identity of type {identity.type} belongs to another customer")
    keep_pseudonyms(connection, owned, at)
