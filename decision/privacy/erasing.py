"""Erasing a customer: everything goes but what names nobody."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from decision.auditing import mark_of
from decision.errors import FieldError, Rejected
from decision.storage.port import Store


async def erase(store: Store, customer_id: str, at: datetime) -> datetime:
    """Erases a customer, by whatever id; when it was: `at`, or the time of before where nothing was left to
    be erased. Raises Rejected (404) where there never was anything under this id."""
    erased = await store.delete_customer(customer_id, partial(mark_of, await store.secret()), at)
    if erased is None:
        error = FieldError("customer_id", "unknown_customer", "nothing was ever stored under this id")
        raise Rejected(404, "unknown_customer", "There is no such customer.", [error])
    return erased
