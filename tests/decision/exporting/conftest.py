"""The history that all of these tests export, made once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from past import History, Told, lived, read

from decision.storage.sqlite.store import SqliteStore


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    path = tmp_path_factory.mktemp("export") / "history.db"
    return asyncio.run(lived(path, random.Random(7)))


@pytest.fixture
async def store(history: History) -> AsyncIterator[SqliteStore]:
    opened = SqliteStore(history.path)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def told(history: History) -> Told:
    """The rows of all of it, with customers as they are."""

    async def all_of_it() -> Told:
        opened = SqliteStore(history.path)
        await opened.open()
        try:
            return await read(opened)
        finally:
            await opened.close()

    return asyncio.run(all_of_it())
