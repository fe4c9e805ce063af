"""Merges in SQLite: which customer an id names, and how two become one.

A stranger who proves to be a customer is merged too: `merges` has the pseudonym as it has ids. A survivor is
never merged itself and every identity belongs to a survivor: so one look-up finds it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from decision.storage import rows
from decision.storage.port import Customer, Identity, Names, pseudonym
from decision.storage.profile import Profile, joined

SURVIVOR = "coalesce((SELECT survivor FROM merges WHERE customer_id = ?1), ?1)"
NAMES = f"""
    SELECT id,
           (SELECT json_group_array(customer_id) FROM merges WHERE survivor = id),
           (SELECT json_group_array(json_array(type, value)) FROM identities WHERE customer_id = id)
      FROM (SELECT {SURVIVOR} AS id)
"""
RESOLVE = "SELECT customer_id FROM identities WHERE type = ? AND value = ?"
# Pseudonyms begin with a control character, so they sort before ids: however many, none is looked at.
SHARED = """
    SELECT value FROM json_each(?) AS given
     WHERE EXISTS (SELECT 1 FROM merges WHERE survivor = given.value AND customer_id >= ' ')
"""
CUSTOMER_ROW = """
    customer_id, attributes, scores, consents,
    (SELECT json_group_array(json_array(type, value)) FROM identities AS known
      WHERE known.customer_id = customers.customer_id),
    restricted
"""
PROFILE = f"""
    SELECT {CUSTOMER_ROW}, told_at, told_apart FROM customers WHERE customer_id = {SURVIVOR}
"""


def survivor_of(connection: sqlite3.Connection, customer_id: str) -> str:
    """The customer that an id names now."""
    (survivor,) = connection.execute(f"SELECT {SURVIVOR}", (customer_id,)).fetchone()
    return str(survivor)


def survivors(connection: sqlite3.Connection, customer_ids: Sequence[str]) -> dict[str, str]:
    """Those of many ids that were merged, and the customers they name now."""
    found = connection.execute(
        "SELECT customer_id, survivor FROM merges WHERE customer_id IN (SELECT value FROM json_each(?))",
        (rows.text(list(customer_ids)),),
    )
    return dict(found.fetchall())


def shared(connection: sqlite3.Connection, customer_ids: Sequence[str]) -> set[str]:
    """Those of many customers that other customers were merged into."""
    return {id for (id,) in connection.execute(SHARED, (rows.text(list(customer_ids)),))}


def keep_pseudonyms(connection: sqlite3.Connection, owned: Iterable[tuple[str, Identity]], at: int) -> None:
    """Each customer has been the stranger that its identities stood for, unless another has been."""
    connection.executemany(
        "INSERT INTO merges (customer_id, survivor, merged_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        [(pseudonym(identity), id, at) for id, identity in owned],
    )


def read_profile(connection: sqlite3.Connection, customer_id: str) -> Profile:
    """The profile of the customer that an id names; an empty one where there is none."""
    row = connection.execute(PROFILE, (customer_id,)).fetchone()
    return Profile(Customer(survivor_of(connection, customer_id)), {}) if row is None else rows.profile(row)


def write_customers(connection: sqlite3.Connection, given: Iterable[rows.Row]) -> None:
    """Creates or replaces profiles, each in the form of `rows.customer_row`; not their identities."""
    connection.executemany(
        "INSERT INTO customers (customer_id, attributes, scores, consents, told_at, told_apart, restricted)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (customer_id) DO UPDATE SET attributes = excluded.attributes,"
        " scores = excluded.scores, consents = excluded.consents,"
        " told_at = excluded.told_at, told_apart = excluded.told_apart,"
        " restricted = coalesce(excluded.restricted, restricted)",
        given,
    )


def merge(customer_id: str, identities: Sequence[Identity], at: int, connection: sqlite3.Connection) -> Names:
    """See `decision.storage.port.Profiles.merge`."""
    profile = read_profile(connection, customer_id)
    survivor = profile.customer.customer_id
    for identity in identities:
        row = connection.execute(RESOLVE, (identity.type, identity.value)).fetchone()
        if row is None:
            connection.execute(
                "INSERT INTO identities (type, value, customer_id) VALUES (?, ?, ?)",
                (identity.type, identity.value, survivor),
            )
        elif row[0] != survivor:
            profile = joined(profile, read_profile(connection, row[0]))
            _absorb(connection, survivor, row[0], at)
    write_customers(connection, [rows.profile_row(profile)])
    keep_pseudonyms(connection, [(survivor, identity) for identity in identities], at)
    return rows.names(connection.execute(NAMES, (survivor,)).fetchone())


def _absorb(connection: sqlite3.Connection, survivor: str, merged: str, at: int) -> None:
    """From now on `merged` is `survivor`, and so is all that was merged into it."""
    connection.execute("UPDATE identities SET customer_id = ? WHERE customer_id = ?", (survivor, merged))
    connection.execute("UPDATE merges SET survivor = ? WHERE survivor = ?", (survivor, merged))
    connection.execute(
        "INSERT INTO merges (customer_id, survivor, merged_at) VALUES (?, ?, ?)", (merged, survivor, at)
    )
    for table in ("customers", "standings"):  # with a name more the survivor is counted anew
        connection.execute(f"DELETE FROM {table} WHERE customer_id = ?", (merged,))
