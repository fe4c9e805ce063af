"""The months that the ledger is partitioned by."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from decision.storage.postgres.connections import Connection

PARTITIONED = ("decisions", "responses", "labels")
_AHEAD = 3


def month_of(moment: datetime) -> datetime:
    """When the month of a moment began, in UTC."""
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def month_after(month: datetime) -> datetime:
    """The month after one."""
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)


def first_id(moment: datetime) -> str:
    """What sorts at or before the UUIDv7 of any moment from `moment` on, and after those of before."""
    digits = f"{int(moment.timestamp() * 1000):012x}"
    return f"{digits[:8]}-{digits[8:]}"


async def keep_partitions(connection: Connection) -> None:
    """Makes the partitions of this month and the next ones, by the server's clock, where they are missing.

    Raises asyncpg.PostgresError, also where ids of a month to come are already in the default partition.
    """
    month = month_of(await connection.fetchval("SELECT now()"))
    months = [month]
    while len(months) <= _AHEAD:
        months.append(month_after(months[-1]))
    wanted = [(table, f"{table}_{each:%Y_%m}", each) for table in PARTITIONED for each in months]
    there = await _there(connection, [name for _, name, _ in wanted])
    for table, name, each in wanted:
        if name not in there:
            low, high = first_id(each), first_id(month_after(each))
            await connection.execute(
                f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF {table}"
                f" FOR VALUES FROM ('{low}') TO ('{high}')"
            )


async def _there(connection: Connection, names: Sequence[str]) -> set[str]:
    found = await connection.fetch("SELECT relname FROM pg_class WHERE relname = ANY($1)", list(names))
    return {row[0] for row in found}
