"""The clock of the service, and its ids: what the time gives."""

from __future__ import annotations

from datetime import UTC, datetime

from uuid_utils import uuid7


def utc_now() -> datetime:
    """Aware UTC."""
    return datetime.now(UTC)


def new_id() -> str:
    """A fresh UUIDv7: sortable by time, 74 random bits."""
    return str(uuid7())
