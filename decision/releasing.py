"""Gives back what deferred decisions reserved and nobody confirmed in time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from decision.fault_log import FaultLog
from decision.live import Live
from decision.storage.port import Ledger

log = logging.getLogger(__name__)

_AT_ONCE = 500


class Releasing:
    """Looks for what is due. Every process may do so at once: an item is released once. `clock` gives aware
    UTC."""

    def __init__(
        self, ledger: Ledger, live: Live, clock: Callable[[], datetime], poll_seconds: float
    ) -> None:
        self._ledger = ledger
        self._live = live
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look, every `poll_seconds`."""
        self._task = asyncio.create_task(self._watch(), name="releasing")

    async def stop(self) -> None:
        """Ends it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def release(self) -> int:
        """Releases all that is due now; how many items that were."""
        if not self._live.ready:
            return 0
        released = 0
        while True:
            limits = self._live.serving.published.compiled.limits
            some = await self._ledger.release(self._clock(), limits, _AT_ONCE)
            released += some
            if some < _AT_ONCE:
                return released

    async def _watch(self) -> None:
        faults = FaultLog(log, "what is due could not be released; it stays reserved, and is tried again")
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self.release()
                faults.well()
            except Exception as error:  # noqa: BLE001  # the watch must outlive whatever it meets
                faults.fault(error)
