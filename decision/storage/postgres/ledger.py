"""Decisions and responses in PostgreSQL. One transaction for each customer; none spans several."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

import asyncpg

from arbitration.contact import Limits
from decision.storage import rows
from decision.storage.months import month_of
from decision.storage.port import MOST_RESPONSES, NO_LIMITS, DecisionRecord, ResponseRecord
from decision.storage.postgres.committing import Overtaken, commit_at_once, commit_in_turn, seen
from decision.storage.postgres.connections import AGAIN
from decision.storage.postgres.merges import survivors
from decision.storage.postgres.partitions import drop_partitions
from decision.storage.postgres.responding import (
    MANY,
    SAID,
    Erased,
    commit_responses,
    conflict,
    content_of,
    crowded,
    settle_of_nobody,
)
from decision.storage.postgres.standing import PostgresStanding

T = TypeVar("T")

_BY_IDS = f"SELECT {rows.DECISION} FROM decisions WHERE decision_id = ANY($1)"
_BY_REQUEST = f"""
    SELECT {rows.DECISION} FROM decisions WHERE (customer_id, decision_id) IN (
        SELECT customer_id, decision_id FROM requests WHERE customer_id = ANY($1) AND request_id = $2
         ORDER BY array_position($1, customer_id) LIMIT 1
    )
"""
_NEWEST = f"""
    SELECT {rows.DECISION} FROM decisions WHERE customer_id = ANY($1)
     ORDER BY recorded_at DESC, decision_id DESC LIMIT $2
"""
_ANSWERS = f"""
    SELECT {rows.RESPONSE} FROM responses WHERE decision_id = ANY($1)
     ORDER BY recorded_at DESC, response_id DESC
"""
_DROP_SNAPSHOTS = """
    DELETE FROM snapshots WHERE created_at < $1 AND version NOT IN
           (SELECT version FROM live_snapshots UNION ALL SELECT version FROM pins)
"""
_TABLES = """
    SELECT relname FROM pg_class
     WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY relname
"""
_PRUNE_SNAPSHOTS = """
    DELETE FROM snapshots WHERE created_at < $1 AND version NOT IN (
        SELECT version FROM live_snapshots UNION ALL SELECT version FROM pins UNION ALL
        SELECT value FROM (SELECT DISTINCT snapshots FROM decisions) AS used,
                          json_each_text(used.snapshots::json)
    )
"""


class PostgresLedger(PostgresStanding):
    """Implements `decision.storage.port.Ledger`."""

    async def commit_decisions(self, records: Sequence[DecisionRecord]) -> list[DecisionRecord | None]:
        if len(records) == 1:
            return await self._commit(records)
        of = await self._survivors({record.customer_id for record in records})
        groups: dict[str, list[int]] = {}
        for number, record in enumerate(records):
            groups.setdefault(of.get(record.customer_id, record.customer_id), []).append(number)
        results: list[DecisionRecord | None] = [None] * len(records)
        work = [self._commit([records[number] for number in numbers]) for numbers in groups.values()]
        for numbers, kept in zip(groups.values(), await _all(work), strict=True):
            for number, each in zip(numbers, kept, strict=True):
                results[number] = each
        return results

    async def _survivors(self, ids: Collection[str]) -> dict[str, str]:
        """Which of several are names of one customer."""
        async with self._connected() as connection:
            return await survivors(connection, list(ids))

    async def _commit(self, records: Sequence[DecisionRecord]) -> list[DecisionRecord | None]:
        if len(records) == 1 and await self._commit_at_once(records[0]):
            return [records[0]]
        return await self._transact(partial(commit_in_turn, records), len(records))

    async def _commit_at_once(self, record: DecisionRecord) -> bool:
        if (looked := seen(record)) is None:
            return False
        async with self._connected() as connection:
            try:
                return await commit_at_once(connection, record, looked)
            except (Overtaken, asyncpg.UniqueViolationError, *AGAIN):
                return False  # nothing was written; the long way finds out what there is

    async def decisions(self, decision_ids: Sequence[str]) -> dict[str, DecisionRecord]:
        found = await self._read(_BY_IDS, list(decision_ids), records=len(decision_ids))
        return {row[0]: rows.decision(tuple(row)) for row in found}

    async def decision_of_request(self, keys: tuple[str, ...], request_id: str) -> DecisionRecord | None:
        row = await self._read_one(_BY_REQUEST, list(keys), request_id)
        return None if row is None else rows.decision(tuple(row))

    async def commit_responses(
        self, records: Sequence[ResponseRecord], limits: Limits = NO_LIMITS
    ) -> list[bool]:
        groups: dict[str, list[tuple[int, ResponseRecord]]] = {}
        for number, record in enumerate(records):
            groups.setdefault(record.customer_id, []).append((number, record))
        if len(groups) > 1:
            await self._refuse_conflicts(records)
        new = dict[int, bool]()
        for group in groups.values():
            new |= await self._commit_responses(group, limits)
        return [new[number] for number in range(len(records))]

    async def _commit_responses(
        self, group: Sequence[tuple[int, ResponseRecord]], limits: Limits
    ) -> dict[int, bool]:
        while True:
            try:
                return await self._transact(partial(commit_responses, group, limits), len(group))
            except (
                Erased
            ) as erased:  # all that the customer was answered for, or only once: before it came back
                of_nobody = [each for each in group if each[1].decision_id in erased.now]
                group = [each for each in group if each[1].decision_id not in erased.now]
                for key in set(erased.now.values()):
                    mine = [each for _, each in of_nobody if erased.now[each.decision_id] == key]
                    await self._transact(partial(settle_of_nobody, key, mine), len(mine))
                done = {number: False for number, _ in of_nobody}
                return done | (await self._commit_responses(group, limits) if group else {})

    async def _refuse_conflicts(self, records: Sequence[ResponseRecord]) -> None:
        found = await self._read(
            f"{SAID.replace('SELECT', 'SELECT customer_id, response_id,')}"
            " JOIN unnest($1::text[], $2::text[]) AS given(customer_id, response_id)"
            " USING (customer_id, response_id)",
            [record.customer_id for record in records],
            [record.response_id for record in records],
        )
        said = {(row[0], row[1]): tuple(row)[2:] for row in found}
        counted = await self._read(MANY, [record.decision_id for record in records])
        many: dict[str, int] = {row[0]: row[1] for row in counted}
        for number, record in enumerate(records):
            name, content = (record.customer_id, record.response_id), content_of(record)
            if name not in said:
                many[record.decision_id] = many.get(record.decision_id, 0) + 1
                if many[record.decision_id] > MOST_RESPONSES:
                    raise crowded(number)
            if said.setdefault(name, content) != content:
                raise conflict(number, record)

    async def history(
        self, keys: tuple[str, ...], limit: int
    ) -> tuple[list[DecisionRecord], list[ResponseRecord]]:
        async with self._connected() as connection, connection.transaction(isolation="repeatable_read"):
            decided = await connection.fetch(_NEWEST, list(keys), limit)
            decisions = [rows.decision(tuple(row)) for row in decided]
            answered = await connection.fetch(_ANSWERS, [record.decision_id for record in decisions])
        return decisions, [rows.response(tuple(row)) for row in answered]

    async def recorded(self, keys: tuple[str, ...]) -> list[str]:
        found = await self._read_aside(
            "SELECT decision_id FROM decisions WHERE customer_id = ANY($1) ORDER BY recorded_at, decision_id",
            list(keys),
        )
        return [row[0] for row in found]

    async def prune_snapshots(self, before: datetime) -> int:
        async with self._aside() as connection:
            done = await connection.execute(_DROP_SNAPSHOTS, rows.micros(before))
        return int(done.rpartition(" ")[2])

    async def scrub(self) -> None:
        async with self._aside() as connection:
            found = await connection.fetch(_TABLES)
            for (name,) in found:
                await connection.execute(f'VACUUM (FULL) "{name}"')
            await connection.execute("CHECKPOINT")

    async def prune(self, before: datetime) -> int:
        async with self._aside() as connection:
            dropped = await drop_partitions(connection, month_of(before))
            await connection.execute(_PRUNE_SNAPSHOTS, rows.micros(month_of(before)))
        return dropped


async def _all(work: Sequence[Awaitable[T]]) -> list[T]:
    """The results of all, when all are over; raises what the first that failed did."""
    if len(work) == 1:
        return [await work[0]]
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
