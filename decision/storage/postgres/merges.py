"""Merges in PostgreSQL: which customer an id names, how two become one, and the lock that a customer is.

Whoever changes anything that limits a customer locks its row in `standings` first, which also changes the
row's revision. Of several customers, in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from decision.storage import rows
from decision.storage.port import Customer, Identity, Names, pseudonym
from decision.storage.postgres.contacts import NOTHING
from decision.storage.profile import Profile, joined

if TYPE_CHECKING:
    from decision.storage.postgres.connections import Connection

SURVIVOR = "coalesce((SELECT survivor FROM merges WHERE customer_id = $1), $1)"
NAMES = f"""
    SELECT id,
           (SELECT coalesce(json_agg(customer_id), '[]') FROM merges WHERE survivor = id)::text,
           (SELECT coalesce(json_agg(json_build_array(type, value)), '[]')
              FROM identities WHERE customer_id = id)::text
      FROM (SELECT {SURVIVOR} AS id) AS own
"""
# Pseudonyms begin with a control character, so they sort before ids: however many, none is looked at.
_SHARED = """
    SELECT given FROM unnest($1::text[]) AS given
     WHERE EXISTS (SELECT 1 FROM merges WHERE survivor = given AND customer_id >= ' ')
"""
CUSTOMER_ROW = """
    customer_id, attributes, scores, consents,
    (SELECT coalesce(json_agg(json_build_array(type, value)), '[]') FROM identities AS known
      WHERE known.customer_id = customers.customer_id)::text,
    restricted
"""
_PROFILE = f"SELECT {CUSTOMER_ROW}, told_at, told_apart FROM customers WHERE customer_id = {SURVIVOR}"
_LOCK = """
    INSERT INTO standings (customer_id, revision, basis)
    SELECT id, 1, '' FROM unnest($1::text[]) AS id ORDER BY id COLLATE "C"
        ON CONFLICT (customer_id) DO UPDATE SET revision = standings.revision + 1
    RETURNING customer_id, revision, basis, counters
"""
_WRITE = """
    INSERT INTO customers (customer_id, attributes, scores, consents, told_at, told_apart, restricted)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[],
                         $7::boolean[])
        ON CONFLICT (customer_id) DO UPDATE SET attributes = excluded.attributes, scores = excluded.scores,
           consents = excluded.consents, told_at = excluded.told_at, told_apart = excluded.told_apart,
           restricted = coalesce(excluded.restricted, customers.restricted)
"""


async def lock(connection: Connection, ids: Collection[str]) -> dict[str, rows.Row]:
    """Locks customers until the end of the transaction; (revision, basis, counters) of each."""
    found = await connection.fetch(_LOCK, list(dict.fromkeys(ids)))
    return {row[0]: tuple(row)[1:] for row in found}


async def lock_named(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    """Locks the customers that these names stand for; which one each name stands for, until the end of the
    transaction."""
    wanted, locked = list(dict.fromkeys(names)), set[str]()
    while True:
        merged = await survivors(connection, wanted)
        found = {name: merged.get(name, name) for name in wanted}
        # While we waited for a lock, one of them may have been merged into another.
        if locked >= (needed := set(found.values())):
            return found
        await lock(connection, needed - locked)
        locked |= needed


async def survivors(connection: Connection, customer_ids: Sequence[str]) -> dict[str, str]:
    """Those of many ids that were merged, and the customers they name now."""
    found = await connection.fetch(
        "SELECT customer_id, survivor FROM merges WHERE customer_id = ANY($1)", list(customer_ids)
    )
    return dict(map(tuple, found))


async def shared(connection: Connection, customer_ids: Sequence[str]) -> set[str]:
    """Those of many customers that other customers were merged into."""
    return {row[0] for row in await connection.fetch(_SHARED, list(customer_ids))}


async def keep_pseudonyms(connection: Connection, owned: Mapping[Identity, str], at: int) -> None:
    """Each customer has been the stranger that its identities stood for, unless another has been."""
    strangers = {pseudonym(identity): id for identity, id in owned.items()}
    known = await survivors(connection, list(strangers))
    fresh = {stranger: id for stranger, id in strangers.items() if stranger not in known}
    if not fresh:
        return
    locked = await lock(connection, fresh)  # what is decided for the stranger meanwhile is decided anew
    met = [id for stranger, id in fresh.items() if locked[stranger][1] != NOTHING]
    await _count_anew(connection, met)
    await connection.execute(
        "INSERT INTO merges SELECT stranger, id, $3 FROM unnest($1::text[], $2::text[]) AS new(stranger, id)"
        " ON CONFLICT DO NOTHING",
        list(fresh),
        list(fresh.values()),
        at,
    )


async def read_profile(connection: Connection, survivor: str) -> Profile:
    """The profile of a customer; an empty one where there is none."""
    row = await connection.fetchrow(_PROFILE, survivor)
    return Profile(Customer(survivor), {}) if row is None else rows.profile(tuple(row))


async def write_customers(connection: Connection, given: Iterable[rows.Row]) -> None:
    """Creates or replaces profiles, each in the form of `rows.customer_row`; not their identities."""
    columns = [list(column) for column in zip(*given, strict=True)]
    if columns:
        await connection.execute(_WRITE, *columns)


async def merge(connection: Connection, customer_id: str, identities: Sequence[Identity], at: int) -> Names:
    """See `decision.storage.port.Profiles.merge`."""
    given = list(dict.fromkeys(identities))
    types, values = [each.type for each in given], [each.value for each in given]
    own: dict[str, str] = {}
    while True:  # until all who are involved are locked
        found = await connection.fetch(
            "SELECT type, value, customer_id FROM identities"
            " JOIN unnest($1::text[], $2::text[]) AS given(type, value) USING (type, value)",
            types,
            values,
        )
        owners = {Identity(type, value): id for type, value, id in found}
        involved = {customer_id, *owners.values()}
        if involved <= own.keys():
            fresh = [each for each in given if each not in owners]
            if await _give(connection, fresh, own[customer_id]):
                break
            continue  # somebody else was given one meanwhile
        own = await lock_named(connection, involved | own.keys())
    survivor = own[customer_id]
    profile = await read_profile(connection, survivor)
    for identity in given:
        owner = owners.get(identity)
        if owner is not None and owner != survivor:
            profile = joined(profile, await read_profile(connection, owner))
            await _absorb(connection, survivor, owner, at)
            owners = {each: survivor if id == owner else id for each, id in owners.items()}
    await write_customers(connection, [rows.profile_row(profile)])
    await keep_pseudonyms(connection, dict.fromkeys(given, survivor), at)
    row = await connection.fetchrow(NAMES, survivor)
    assert row is not None
    return rows.names(tuple(row))


async def _give(connection: Connection, identities: Sequence[Identity], id: str) -> bool:
    """Gives a customer identities that were nobody's; whether all still were."""
    given = await connection.fetch(
        "INSERT INTO identities"
        " SELECT type, value, $3 FROM unnest($1::text[], $2::text[]) AS given(type, value)"
        ' ORDER BY type COLLATE "C", value COLLATE "C" ON CONFLICT DO NOTHING RETURNING 1',
        [each.type for each in identities],
        [each.value for each in identities],
        id,
    )
    return len(given) == len(identities)


async def _count_anew(connection: Connection, ids: Sequence[str]) -> None:
    """Has customers counted when they are next decided for: they have a name more that was decided for."""
    if ids:
        await connection.execute("UPDATE standings SET basis = NULL WHERE customer_id = ANY($1)", ids)


async def _absorb(connection: Connection, survivor: str, merged: str, at: int) -> None:
    """From now on `merged` is `survivor`, and so is all that was merged into it."""
    await connection.execute(
        "UPDATE identities SET customer_id = $1 WHERE customer_id = $2", survivor, merged
    )
    await connection.execute("UPDATE merges SET survivor = $1 WHERE survivor = $2", survivor, merged)
    await connection.execute("INSERT INTO merges VALUES ($1, $2, $3)", merged, survivor, at)
    await connection.execute("DELETE FROM customers WHERE customer_id = $1", merged)
    await _count_anew(connection, [survivor])
