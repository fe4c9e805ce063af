"""Databases that may be harmed, with the catalog of the tests published in them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from clusters import Cluster, cluster
from ledgers import Database, Made, PostgresDatabase, SqliteDatabase

from arbitration.catalog.problems import Source
from decision.clock import utc_now
from decision.publishing import check_document
from decision.settings import opened


@pytest.fixture(scope="session")
def own_cluster() -> Iterator[Cluster]:
    """A server whose only users are the tests of faults, one after the other."""
    with cluster() as made:
        yield made


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    return count()


@pytest.fixture
def make_database(tmp_path: Path, numbers: Iterator[int], request: pytest.FixtureRequest) -> Made:
    """Makes a new database on a backend, `sqlite` or `postgres`, in which a catalog is published."""

    async def make(backend: str, document: dict[str, Any]) -> Database:
        made: Database = SqliteDatabase(tmp_path / "store.db")
        if backend == "postgres":
            made = PostgresDatabase(request.getfixturevalue("own_cluster"), f"store_{next(numbers)}")
            await made.cluster.run(f"CREATE DATABASE {made.name}")
        checked = check_document(Source(document))
        assert checked.published is not None, checked
        async with opened(made.url) as store:
            await store.publish_catalog(checked.published.version, checked.document, utc_now())
        return made

    return make
