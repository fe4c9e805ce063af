"""Settings: where the store is, and the signing key. Everything else is an option of the command that needs
it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from arbitration.errors import SnapshotError
from decision.errors import StoreUnavailable
from decision.storage.port import Store
from decision.storage.sqlite.store import SqliteStore


def open_store(url: str) -> Store:
    """The store a URL names: `sqlite:PATH`, or a database of PostgreSQL as libpq has it,
    `postgresql://USER:PASSWORD@HOST/DATABASE`. Raises StoreUnavailable on any other."""
    scheme, _, rest = url.partition(":")
    if scheme == "sqlite" and rest:
        return SqliteStore(Path(rest))
    if scheme in ("postgresql", "postgres") and rest.startswith("//"):
        from decision.storage.postgres.store import PostgresStore  # who keeps a file does not pay for it

        return PostgresStore(url)
    # What was meant as a password must not be shown.
    shown = f"{scheme}:…" if rest else url
    raise StoreUnavailable(f"'{shown}' names no store; write sqlite:PATH or postgresql://USER@HOST/DATABASE")


def signing_key() -> bytes:
    """What learned snapshots are signed with that hold a pickle: the content of the file that the environment
    variable DECISION_SIGNING_KEY names; empty where it names none. Raises SnapshotError where it cannot be
    read."""
    name = os.environ.get("DECISION_SIGNING_KEY")
    if not name:
        return b""
    try:
        return Path(name).read_bytes().strip()
    except OSError as error:
        raise SnapshotError(f"the signing key {name} cannot be read: {error.strerror}") from error


@asynccontextmanager
async def opened(url: str, *, existing: bool = False) -> AsyncIterator[Store]:
    """The store a URL names, open within the context; made if it is not there, unless it is to be
    `existing`. Raises StoreUnavailable."""
    store = open_store(url)
    if existing and url.startswith("sqlite:") and not Path(url.partition(":")[2]).exists():
        raise StoreUnavailable(f"there is no store {url}")
    await store.open()
    try:
        yield store
    finally:
        await store.close()
