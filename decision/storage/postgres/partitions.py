"""The months that the ledger is partitioned by."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from decision.errors import Conflict
from decision.storage.months import month_after, month_of

if TYPE_CHECKING:
    import asyncpg

    from decision.storage.postgres.connections import Connection

PARTITIONED = ("decisions", "responses", "labels")
# What the learner has not read, or not unlearned.
_NEEDED = ("SELECT 1 FROM unread WHERE true", "SELECT 1 FROM erasures WHERE NOT unlearned")
_BESIDE = ("requests", "reservations", "unread", "erasures")
_AHEAD = 3
_LOCK = 0x6E62_615F_7074


def first_id(moment: datetime) -> str:
    """What sorts at or before the UUIDv7 of any moment from `moment` on, and after those of before."""
    digits = f"{int(moment.timestamp() * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}"


async def keep_partitions(connection: Connection) -> None:
    """Makes the partitions of this month and the next ones, by the server's clock, where they are missing.

    Raises asyncpg.PostgresError, also where ids of a month to come are already in the default partition.
    """
    months = [month_of(await connection.fetchval("SELECT now()"))]
    while len(months) <= _AHEAD:
        months.append(month_after(months[-1]))
    await make_partitions(connection, months)


async def make_partitions(connection: Connection, months: Sequence[datetime]) -> None:
    """Makes those of these months that are missing."""
    wanted = [(table, f"{table}_{each:%Y_%m}", each) for table in PARTITIONED for each in months]
    names = [name for _, name, _ in wanted]
    if await _there(connection, names) == set(names):  # nearly always: nothing is locked then
        return
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute("SET LOCAL lock_timeout = '500ms'")  # whoever decides waits behind us
        there = await _there(connection, names)  # another process may have been first
        for table, name, each in wanted:
            if name not in there:
                low, high = first_id(each), first_id(month_after(each))
                bounds = f"FOR VALUES FROM ('{low}') TO ('{high}')"
                await connection.execute(f"CREATE TABLE {name} PARTITION OF {table} {bounds}")


async def drop_partitions(connection: asyncpg.Connection[asyncpg.Record], month: datetime) -> int:
    """Drops the months before `month`, each with what else belongs to its decisions in a transaction of its
    own; how many decisions these were. Raises Conflict (field `before`) where the learner still needs some,
    and asyncpg.LockNotAvailableError where the ledger is too busy for it."""
    found = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relname ~ '^decisions_\\d{4}_\\d\\d$' ORDER BY relname"
    )
    begun = [datetime.strptime(name, "decisions_%Y_%m").replace(tzinfo=UTC) for (name,) in found]
    dropped = 0
    for begins in (each for each in begun if each < month):
        async with connection.transaction():
            dropped += await _drop(connection, begins)
    async with connection.transaction():
        return dropped + await _delete_others(connection, month)


async def _drop(connection: asyncpg.Connection[asyncpg.Record], begins: datetime) -> int:
    bounds = first_id(begins), first_id(month_after(begins))
    for needed in _NEEDED:
        if await connection.fetchval(f"{needed} AND decision_id >= $1 AND decision_id < $2 LIMIT 1", *bounds):
            raise _still_needed()
    count: int = await connection.fetchval(f"SELECT count(*) FROM decisions_{begins:%Y_%m}")
    for table in _BESIDE:
        within = "decision_id >= $1 AND decision_id < $2"
        await connection.execute(f"DELETE FROM {table} WHERE {within}", *bounds)
    # Last, as nobody reads or writes the ledger from here to the end of the transaction.
    await connection.execute("SET LOCAL lock_timeout = '2s'")
    for table in PARTITIONED:
        await connection.execute(f"DROP TABLE {table}_{begins:%Y_%m}")
    return count


async def _delete_others(connection: asyncpg.Connection[asyncpg.Record], month: datetime) -> int:
    """The same of decisions whose ids tell no time."""
    found = await connection.fetch(
        "DELETE FROM decisions_other WHERE decided_at < $1 RETURNING decision_id",
        int(month.timestamp()) * 1_000_000,
    )
    ids = [row[0] for row in found]
    for needed in _NEEDED if ids else ():
        if await connection.fetchval(f"{needed} AND decision_id = ANY($1) LIMIT 1", ids):
            raise _still_needed()
    for table in ("responses", "labels", *_BESIDE) if ids else ():
        await connection.execute(f"DELETE FROM {table} WHERE decision_id = ANY($1)", ids)
    return len(ids)


def _still_needed() -> Conflict:
    return Conflict("before", "the learner has not done with all of these decisions yet: try again later")


async def _there(connection: Connection, names: Sequence[str]) -> set[str]:
    found = await connection.fetch("SELECT relname FROM pg_class WHERE relname = ANY($1)", list(names))
    return {row[0] for row in found}
