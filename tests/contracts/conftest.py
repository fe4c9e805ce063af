"""The backends that the contract suite runs on. A new backend is one more branch in `new_store`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from decision.storage.port import Store
from decision.storage.sqlite.store import SqliteStore


@pytest.fixture(params=["sqlite"])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Makes stores, not yet open, on one and the same database: as several processes would."""
    backends: dict[str, Callable[[], Store]] = {"sqlite": lambda: SqliteStore(tmp_path / "store.db")}
    return backends[request.param]


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
