"""What was kept long enough is erased: each kind of data after the time that the live catalog says."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial

from arbitration.catalog.keeping import EraseAfter
from arbitration.catalog.scalars import duration
from decision.auditing import mark_of
from decision.errors import Conflict, Rejected
from decision.retention import prune
from decision.storage.port import Event, Json, Store

log = logging.getLogger(__name__)

EVERY = timedelta(hours=1)
_AT_ONCE = 100
_MOST = 10_000
"""How many customers are erased in one go; the others the next time."""


class Keeping:
    """Looks, from time to time, for what was kept long enough. `clock` gives aware UTC."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        self._next: datetime | None = None
        self._finished = False  # what a release before erased by half

    async def due(self, after: EraseAfter) -> dict[str, int]:
        """As `enforce`, where an hour has passed since it was done by this process; else nothing."""
        now = self._clock()
        if self._next is not None and self._next - EVERY <= now < self._next:
            return {}
        self._next = now + EVERY
        return await self.enforce(after)

    async def enforce(self, after: EraseAfter) -> dict[str, int]:
        """Erases what was kept for longer than a catalog says; how many of each kind, those only of which
        there were any. The audit trail says so. Raises StoreUnavailable."""
        now = self._clock()
        done: dict[str, int] = {}
        if not self._finished:
            done["half_erased"] = await self._half_erased(now)
        if after.profiles is not None:
            done["profiles"] = await self._profiles(now - duration(after.profiles), now)
        if after.decisions is not None:
            done["decisions"] = await self._decisions(now - duration(after.decisions), now)
        if after.snapshots is not None:
            done["snapshots"] = await self._store.prune_snapshots(now - duration(after.snapshots))
        counts: dict[str, Json] = {kind: count for kind, count in done.items() if count}
        if counts:
            await self._store.append([Event("retention.erase", "service", "", counts)], now)
            log.info("kept long enough, and erased: %s", counts)
        return {kind: count for kind, count in done.items() if count}

    async def _half_erased(self, now: datetime) -> int:
        erased = await self._erased(self._store.half_erased, now, now)
        self._finished = not await self._store.half_erased(1)
        return erased

    async def _profiles(self, before: datetime, now: datetime) -> int:
        return await self._erased(partial(self._store.idle_customers, before), before, now)

    async def _erased(
        self, found: Callable[[int], Awaitable[list[str]]], before: datetime, now: datetime
    ) -> int:
        """Erases those found until there are none, but whoever became active meanwhile; how many."""
        mark, erased = partial(mark_of, await self._store.secret()), 0
        while erased < _MOST and (ids := await found(_AT_ONCE)):
            gone = [id for id in ids if await self._store.delete_customer(id, mark, now, before) is not None]
            if not gone:
                break
            erased += len(gone)
        return erased

    async def _decisions(self, before: datetime, now: datetime) -> int:
        try:
            return await prune(self._store, before, now)
        except (
            Conflict,
            Rejected,
        ) as error:  # the learner has not done with them, or limits still count them
            log.info("decisions are kept for now: %s", error)
            return 0
