"""Settings: where the store is. Everything else is an option of the command that needs it."""

from __future__ import annotations

from pathlib import Path

from decision.storage.port import Store
from decision.storage.sqlite import SqliteStore

DEFAULT_STORE = "sqlite:decision.db"


def open_store(url: str) -> Store:
    """The store a URL names: `sqlite:PATH`. Raises ValueError on any other."""
    scheme, _, rest = url.partition(":")
    if scheme != "sqlite" or not rest:
        raise ValueError(f"'{url}' names no store; write sqlite:PATH")
    return SqliteStore(Path(rest))
