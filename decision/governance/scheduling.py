"""Publishes what is planned for a time, and puts back what was live before when its time is over.

Every API process looks, so that it is done wherever decisions are made, with a learner or without; an entry
in the audit trail, added only where no other came first, has it done once. What cannot be done is written
down there too, and not tried again; only while the store is unavailable is it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

from arbitration.errors import NextBestActionError
from decision.access.actor import SERVICE
from decision.errors import Conflict, Rejected, StoreUnavailable
from decision.fault_log import FaultLog
from decision.governance.changes import Change
from decision.governance.governing import Governing
from decision.register import Register

log = logging.getLogger(__name__)

_MESSAGE = 500


class Scheduling:
    """Looks for what is due. It follows the audit trail itself: what is in force must not wait until a large
    catalog is compiled. `clock` gives aware UTC."""

    def __init__(
        self,
        governing: Governing,
        register: Register,
        clock: Callable[[], datetime],
        poll_seconds: float,
    ) -> None:
        self._governing = governing
        self._register = register
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look, every `poll_seconds`."""
        self._task = asyncio.create_task(self._watch(), name="scheduling")

    async def stop(self) -> None:
        """Ends it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def step(self) -> None:
        """Does all that is due now. Raises StoreUnavailable."""
        await self._register.refresh()
        changes = self._register.changes
        while (found := changes.expired(self._clock())) is not None:
            await self._try(found[0], self._governing.put_back)
        for change in changes.due(self._clock()):
            await self._try(change, self._governing.carry_out)

    async def _try(self, change: Change, do: Callable[[Change, str], Awaitable[None]]) -> None:
        try:
            await do(change, SERVICE)
        except (StoreUnavailable, Conflict):
            raise  # nothing speaks against it: it is tried again
        except Exception as error:  # whatever it is, it must not be tried for ever
            if not isinstance(error, NextBestActionError):
                log.exception("change %s could not be published or taken back", change.id)
            code = error.code if isinstance(error, Rejected) else type(error).__name__
            await self._governing.fail(change, SERVICE, code, str(error)[:_MESSAGE])

    async def _watch(self) -> None:
        faults = FaultLog(log, "what is due could not be published or taken back; it is tried again")
        while True:
            await asyncio.sleep(self._poll_seconds)
            try:
                await self.step()
                faults.well()
            except Exception as error:  # noqa: BLE001  # the watch must outlive whatever it meets
                faults.fault(error)
