"""Databases for the tests of SQL sources."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqldatabases import Database, Opener, Postgres, Sqlite, threads_gone

from arbitration.catalog.sources import SqlSource
from decision.sources.connections import Connection
from decision.sources.port import Served
from decision.sources.sql import Sql


@pytest.fixture
async def postgres(postgres_server: Any) -> AsyncIterator[Postgres]:
    """An empty PostgreSQL database."""
    database = Postgres(postgres_server)
    await database.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    yield database
    database.thaw()
    database.start()


@pytest.fixture
def sqlite(tmp_path: Path) -> Sqlite:
    """An empty SQLite database."""
    return Sqlite(tmp_path / "source.db")


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """An empty database of each kind."""
    found: Database = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def opened() -> AsyncIterator[Opener]:
    """Makes sources, and closes them when the test is over."""
    sources: list[Sql] = []

    def make(
        url: str, query: str, *served: Served, calls: int = 4, ca_file: Path | None = None, **rest: Any
    ) -> Sql:
        spec = SqlSource(id="crm", kind="sql", query=query, **{"timeout": "5s", **rest})
        connection = Connection.model_validate({"url": url, "calls": calls, "ca_file": ca_file})
        sources.append(Sql(spec, served, connection))
        return sources[-1]

    yield make
    for source in sources:
        await source.close()
    await threads_gone()
