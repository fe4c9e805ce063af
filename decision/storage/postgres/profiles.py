"""Customers, identities and stops in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from decision.errors import Conflict
from decision.storage import rows
from decision.storage.port import PSEUDONYM, Change, Customer, Identity, Mark, Names
from decision.storage.postgres.connections import Connections
from decision.storage.postgres.erasing import ERASED_AT, HALF_ERASED, IDLE, erase
from decision.storage.postgres.merges import (
    CUSTOMER_ROW,
    NAMES,
    SURVIVOR,
    keep_pseudonyms,
    lock_named,
    merge,
    read_profile,
    shared,
    write_customers,
)
from decision.storage.profile import patched, replaced, retold

if TYPE_CHECKING:
    from decision.storage.postgres.connections import Connection

# How many rows an erasure is given the time for: who has a long history is erased too.
_ERASED_AT_MOST = 2_000
_CUSTOMER = f"SELECT {CUSTOMER_ROW} FROM customers WHERE customer_id = {SURVIVOR}"
# As a profile, without the identities.
_TOLD = f"""
    SELECT customer_id, attributes, scores, consents, '[]', restricted, told_at, told_apart
      FROM customers WHERE customer_id = {SURVIVOR}
"""
_IDENTIFY = """
    INSERT INTO identities (type, value, customer_id)
    SELECT type, value, id FROM unnest($1::text[], $2::text[], $3::text[]) AS given(type, value, id)
     ORDER BY type COLLATE "C", value COLLATE "C"
        ON CONFLICT (type, value) DO UPDATE SET customer_id = excluded.customer_id
     WHERE identities.customer_id = excluded.customer_id
    RETURNING type, value
"""


class PostgresProfiles(Connections):
    """Implements `decision.storage.port.Profiles`."""

    async def customer(self, customer_id: str) -> Customer | None:
        row = await self._read_one(_CUSTOMER, customer_id)
        return None if row is None else rows.customer(tuple(row))

    async def as_of(self, customer_id: str) -> Mapping[str, datetime]:
        row = await self._read_one(_TOLD, customer_id)
        told = {} if row is None else rows.profile(tuple(row)).told
        return {name: rows.moment(at) for name, at in told.items() if at is not None}

    async def names(self, customer_id: str) -> Names:
        (row,) = await self._read(NAMES, customer_id)
        return rows.names(tuple(row))

    async def resolve(self, identity: Identity) -> str | None:
        row = await self._read_one(
            "SELECT customer_id FROM identities WHERE type = $1 AND value = $2", identity.type, identity.value
        )
        return None if row is None else str(row[0])

    async def put_customers(self, customers: Sequence[Customer], at: datetime) -> None:
        await self._transact(partial(_put, tuple(customers), rows.micros(at)), len(customers))

    async def patch_customers(self, changes: Sequence[Change], at: datetime) -> list[Customer]:
        return await self._transact(partial(_patch, tuple(changes), rows.micros(at)), len(changes))

    async def merge(self, customer_id: str, identities: Sequence[Identity], at: datetime) -> Names:
        async def work(connection: Connection) -> Names:
            return await merge(connection, customer_id, identities, rows.micros(at))

        return await self._transact(work)

    async def delete_customer(
        self, customer_id: str, mark: Mark, at: datetime, before: datetime | None = None
    ) -> datetime | None:
        work = partial(erase, customer_id, mark, rows.micros(at), rows.optional_micros(before))
        return rows.optional_moment(await self._transact(work, _ERASED_AT_MOST))

    async def erased_at(self, mark: str) -> datetime | None:
        row = await self._read_one(ERASED_AT, mark)
        return None if row is None else rows.moment(row[0])

    async def idle_customers(self, before: datetime, limit: int) -> list[str]:
        return [row[0] for row in await self._read_aside(IDLE, rows.micros(before), limit)]

    async def half_erased(self, limit: int) -> list[str]:
        return [row[0] for row in await self._read_aside(HALF_ERASED, PSEUDONYM, limit)]


async def _put(given: Sequence[Customer], at: int, connection: Connection) -> None:
    own = await lock_named(connection, sorted({each.customer_id for each in given}))
    named = [(own[each.customer_id], each) for each in given]
    joint = await shared(connection, list(own.values()))
    whole = {id: each for id, each in named if id not in joint}
    # Whether a consent is older than the recorded one shows in turn only; without one, nothing is read.
    dated = {id for id, each in named if each.consent_details}
    await write_customers(
        connection, [rows.customer_row(id, each, at) for id, each in whole.items() if id not in dated]
    )
    for id, each in named:
        if id in joint or id in dated:
            way = retold if id in joint else replaced
            profile = way(await read_profile(connection, id), each, at)
            await write_customers(connection, [rows.profile_row(profile)])
    told = [(id, each) for id, each in named if id in joint]
    told += whole.items()
    owned = [(id, identity) for id, each in told for identity in each.identities]
    before, now = await _owned(connection, [id for id, _ in told]), set(owned)
    # All are dropped before any is added, so that an identity may move between two customers of one call.
    gone = [identity for id, identity in before - now if id in whole]
    if gone:
        await connection.execute(
            "DELETE FROM identities USING unnest($1::text[], $2::text[]) AS gone(type, value)"
            " WHERE identities.type = gone.type AND identities.value = gone.value",
            [each.type for each in gone],
            [each.value for each in gone],
        )
    await _identify(connection, [each for each in owned if each not in before], at)


async def _owned(connection: Connection, customer_ids: Sequence[str]) -> set[tuple[str, Identity]]:
    found = await connection.fetch(
        "SELECT customer_id, type, value FROM identities WHERE customer_id = ANY($1)", list(customer_ids)
    )
    return {(id, Identity(type, value)) for id, type, value in found}


async def _patch(changes: Sequence[Change], at: int, connection: Connection) -> list[Customer]:
    own = await lock_named(connection, sorted({each.customer.customer_id for each in changes}))
    return [await _patch_one(connection, own[each.customer.customer_id], each, at) for each in changes]


async def _patch_one(connection: Connection, id: str, change: Change, at: int) -> Customer:
    profile = patched(await read_profile(connection, id), change, at)
    await write_customers(connection, [rows.profile_row(profile)])
    await _identify(connection, [(id, identity) for identity in change.customer.identities], at)
    return profile.customer


async def _identify(connection: Connection, owned: Sequence[tuple[str, Identity]], at: int) -> None:
    by_identity: dict[Identity, str] = {}
    for id, identity in owned:
        if by_identity.setdefault(identity, id) != id:
            raise _taken(identity)
    if not by_identity:
        return
    kept = await connection.fetch(
        _IDENTIFY,
        [each.type for each in by_identity],
        [each.value for each in by_identity],
        list(by_identity.values()),
    )
    if missing := by_identity.keys() - {Identity(type, value) for type, value in kept}:
        raise _taken(next(iter(missing)))
    await keep_pseudonyms(connection, by_identity, at)


def _taken(identity: Identity) -> Conflict:
    # The value is personal: the message names the type only, as it may be logged or shown.
    return Conflict("identities", f"an identity of type {identity.type} belongs to another customer")
