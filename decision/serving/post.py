"""A place in the service that one process always fills."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from decision.serving.child import Child

log = logging.getLogger(__name__)

GRACE_SECONDS = 10.0
"""How long a process has to end in order."""
READY_SECONDS = 60.0
"""How long one has to get ready that is to relieve another."""
_PAUSE_SECONDS, _LONGEST_PAUSE = 1.0, 30.0


class Post:
    """Keeps one process running. `start` starts one."""

    def __init__(self, name: str, start: Callable[[str], Awaitable[Child]]) -> None:
        self.name = name
        self._start = start
        self._child: Child | None = None
        self._filling = asyncio.Lock()

    async def fill(self) -> Child:
        """The process that is there; one is started where there is none."""
        async with self._filling:
            if self._child is None:
                self._child = await self._start(self.name)
            return self._child

    async def keep(self) -> None:
        """Fills the place whenever its process has ended, after a pause that grows while they die young."""
        pause = _PAUSE_SECONDS
        while True:
            try:
                child = await self.fill()
            except OSError:
                log.exception("%s cannot be started", self.name)
            else:
                code = await child.ended()
                if self._child is not child:  # it was relieved
                    continue
                self._child = None
                pause = _PAUSE_SECONDS if child.age > _LONGEST_PAUSE else pause
                log.error("%s ended with code %d; another is started in %.0f s", self.name, code, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def relieve(self) -> bool:
        """Replaces the process once its successor is ready; False where that does not get ready, and all
        stays as it is."""
        try:
            successor = await self._start(self.name)
        except OSError:
            log.exception("a new %s cannot be started; the old one stays", self.name)
            return False
        try:
            async with asyncio.timeout(READY_SECONDS):
                ready = await successor.ready()
        except TimeoutError:
            ready = False
        if not ready:
            log.error("a new %s did not get ready; the old one stays", self.name)
            await successor.stop(GRACE_SECONDS)
            return False
        async with self._filling:
            before, self._child = self._child, successor
        if before is not None:
            await before.stop(GRACE_SECONDS)
        return True
