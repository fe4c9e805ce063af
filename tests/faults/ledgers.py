"""The ledger of a database as its tables say it, read by plain SQL on either backend, and counted by hand."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import orjson
from clusters import Cluster
from test_limits import SEEN, Ledger, Shown

from arbitration.policy.state import State
from decision.clock import utc_now
from decision.learner import Learner
from decision.settings import opened
from decision.storage.port import Store

_TABLES = {
    "states": "SELECT decision_id, treatment, state FROM reservations",
    "responses": "SELECT response_id, decision_id, treatment, outcome, occurred_at, customer_id"
    " FROM responses ORDER BY recorded_at, response_id",
    "budgets": "SELECT budget, used, reserved FROM budgets",
    "rounds": "SELECT rounds FROM learner_cursor",
    "decisions": "SELECT decision_id, customer_id, request_id, decided_at, channel, mode, reply, activation"
    " FROM decisions",
}
_FORGET = """
    DELETE FROM labels; DELETE FROM snapshots; DELETE FROM live_snapshots;
    UPDATE learner_cursor SET decisions = 0, responses = 0, rounds = 0;
"""
_UNREAD = """
    DELETE FROM unread;
    INSERT INTO unread (customer_id, kind, id, decision_id, recorded_at)
    SELECT customer_id, 'decision', decision_id, decision_id, recorded_at FROM decisions UNION ALL
    SELECT customer_id, 'response', response_id, decision_id, recorded_at FROM responses;
    UPDATE learner_cursor SET decisions_placed = 0, responses_placed = 0;
"""
Sums = dict[tuple[str, str], list[float]]


@dataclass(frozen=True)
class SqliteDatabase:
    """A database file."""

    path: Path

    @property
    def url(self) -> str:
        return f"sqlite:{self.path}"

    async def tables(self, *names: str) -> dict[str, list[Any]]:
        """What is counted (default: all of it), all at one moment."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, isolation_level=None)) as one:
            one.execute("BEGIN")
            return {
                name: one.execute(_TABLES[name].replace("recorded_at", "seq")).fetchall()
                for name in names or _TABLES
            }

    async def forgotten(self) -> SqliteDatabase:
        """A copy in which nothing is learned."""
        copy = SqliteDatabase(self.path.with_name("copy.db"))
        with closing(sqlite3.connect(self.path)) as ours, closing(sqlite3.connect(copy.path)) as theirs:
            ours.backup(theirs)
            theirs.executescript(_FORGET)
        return copy


@dataclass(frozen=True)
class PostgresDatabase:
    """A database of a server."""

    cluster: Cluster
    name: str

    @property
    def url(self) -> str:
        return self.cluster.url(self.name)

    async def tables(self, *names: str) -> dict[str, list[Any]]:
        """What is counted (default: all of it), all at one moment."""
        connection = await asyncpg.connect(self.url)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return {name: await connection.fetch(_TABLES[name]) for name in names or _TABLES}
        finally:
            await connection.close()

    async def forgotten(self) -> PostgresDatabase:
        """A copy in which nothing is learned; nobody may be connected to the original."""
        copy = PostgresDatabase(self.cluster, f"{self.name}_copy")
        await self.cluster.run(f"CREATE DATABASE {copy.name} TEMPLATE {self.name}")
        await self.cluster.run(_FORGET + _UNREAD, copy.name)
        return copy


Database = SqliteDatabase | PostgresDatabase
Made = Callable[[str, dict[str, Any]], Awaitable[Database]]
"""See the fixture `make_database`."""


@dataclass
class Books:
    """The ledger, and what follows from it. `told`: in the form in which limits are checked on it."""

    told: Ledger
    responses: Counter[tuple[str, str]]
    learned: dict[str, tuple[int, float]]  # by arm: events, and the sum of their rewards


async def read(database: Database, rewards: Mapping[str, float]) -> Books:
    """`rewards`: of outcomes, on every channel alike; all that was shown is taken to be settled."""
    tables = await database.tables()
    states = {(id, what): state for id, what, state in tables["states"]}
    seen: dict[tuple[str, str], int] = {}
    outcomes: dict[tuple[str, str], str] = {}
    for _, id, treatment, outcome, at, _ in tables["responses"]:
        assert (id, treatment) not in outcomes, "callers answer an item once"
        outcomes[id, treatment] = outcome
        if outcome in SEEN:
            seen[id, treatment] = at
    answers = {each[0]: (each[1], each[3]) for each in tables["responses"]}
    budgets = {id: (used, waits) for id, used, waits in tables["budgets"]}
    told = Ledger({}, Counter(), [], answers, budgets)
    learned: dict[str, tuple[int, float]] = {}
    for id, customer, request, at, channel, mode, reply, activation in tables["decisions"]:
        assert id not in told.replies
        told.replies[id] = bytes(reply)
        told.requests[customer, request] += 1
        for placement in orjson.loads(reply)["placements"]:
            for item in placement["items"] if mode == "live" else []:
                key = (id, item["treatment"])
                names = (item["group"], item["action"], item["treatment"])
                told.shown.append(Shown(id, customer, at, channel, *names, states.get(key), seen.get(key)))
                # Of what was deferred, and of which nothing was heard, nothing is learned.
                if activation == "immediate" or key in outcomes:
                    count, sum = learned.get(item["treatment"], (0, 0.0))
                    gained = rewards.get(outcomes.get(key, ""), 0.0)
                    learned[item["treatment"]] = (count + 1, sum + gained)
    given = Counter((customer, response) for response, *_, customer in tables["responses"])
    return Books(told, given, learned)


async def settle(database: Database) -> None:
    """Waits until what was reserved and not confirmed is released, and the learner has learned all."""
    async with opened(database.url) as store, asyncio.timeout(120):
        while not await _settled(store) or await _reserved(database):
            await asyncio.sleep(0.1)


async def _reserved(database: Database) -> bool:
    return any(state == "reserved" for *_, state in (await database.tables("states"))["states"])


async def _settled(store: Store) -> bool:
    """Its snapshots are committed together with its cursor. What is due in an hour counts as well."""
    decisions, responses, _ = await store.unread(await store.cursor(), 1)
    return not decisions and not responses and not await store.due_labels(utc_now() + timedelta(hours=1), 1)


async def sums(store: Store) -> Sums:
    """What the live snapshots hold, by lineage and arm: events, squares, moments, outer products."""
    found = {}
    for lineage, version in (await store.live_snapshots()).items():
        record = await store.snapshot(version)
        assert record is not None
        state = State.from_bytes(record.content)
        for arm, row in state.rows.items():
            parts = [state.count[row], state.squares[row], *state.moment[row], *state.outer[row]]
            found[lineage, arm] = [float(part) for part in parts]
    return found


async def check_learned(database: Database, books: Books) -> None:
    """The learned state is the one relearned from the ledger alone, to 1e-9, and the one counted by hand.
    Nobody else may use the database."""
    async with opened(database.url) as store:
        assert await _settled(store)
        learned = await sums(store)
    async with opened((await database.forgotten()).url) as copy:
        learner = Learner(copy, utc_now)
        while await learner.step():
            pass
        again = await sums(copy)
    assert learned.keys() == again.keys()
    for key, values in again.items():
        assert max(abs(a - b) for a, b in zip(learned[key], values, strict=True)) < 1e-9, key
    counted = {arm: (events, gained) for arm, (events, gained) in books.learned.items()}
    assert {arm for _, arm in learned} == counted.keys()
    for (_, arm), (events, _, moment, *_) in learned.items():
        assert events == counted[arm][0], arm
        assert abs(moment - counted[arm][1]) < 1e-9, arm
