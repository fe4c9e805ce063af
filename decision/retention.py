"""How long the ledger is kept: old months are forgotten, but none that still limits anyone."""

from __future__ import annotations

from datetime import datetime, timedelta

from arbitration.catalog.compile import CompiledCatalog
from arbitration.catalog.scalars import duration
from decision.errors import FieldError, Rejected
from decision.publishing import load_published
from decision.storage.months import month_of
from decision.storage.port import Store


def needed(catalog: CompiledCatalog) -> timedelta:
    """How far back a catalog looks: its contact policies, and the answers that channels still wait for."""
    windows = [duration(channel.response_window) for channel in catalog.model.channels]
    return max([timedelta(microseconds=catalog.limits.horizon), *windows])


async def prune(store: Store, before: datetime, now: datetime) -> int:
    """Forgets the decisions of the months (UTC) that were over at `before`; how many these were.

    Raises Rejected (422) where the live catalog still counts contacts of these months, or waits for answers.
    """
    publication = await store.live_catalog()
    if publication is not None:
        document = await store.catalog(publication.version)
        assert document is not None
        latest = now - needed(load_published(publication.version, document).compiled)
        if month_of(before) > latest:
            message = f"the live catalog looks back to {latest:%Y-%m-%d}"
            raise Rejected(
                422,
                "still_needed",
                "These decisions still count.",
                [FieldError("before", "still_needed", message)],
            )
    return await store.prune(before)
