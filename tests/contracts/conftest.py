"""The backends that the contract suite runs on. A new backend is one more branch in `new_store`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from decision.storage.port import Store
from decision.storage.postgres.store import PostgresStore
from decision.storage.sqlite.store import SqliteStore


@pytest.fixture(params=["sqlite", "postgres"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Makes stores, not yet open, on one and the same database: as several processes would."""
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "store.db")
    url: str = request.getfixturevalue("postgres_url")
    return lambda: PostgresStore(url)


@pytest.fixture
async def store(new_store: Callable[[], Store]) -> AsyncIterator[Store]:
    opened = new_store()
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def other(new_store: Callable[[], Store], store: Store) -> AsyncIterator[Store]:
    """A second store on the database of `store`."""
    opened = new_store()
    await opened.open()
    yield opened
    await opened.close()
