"""One process of the service, as its supervisor sees it."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Self

log = logging.getLogger(__name__)


class Child:
    """A process that runs, tethered: its standard input is our socket (`decision.serving.tether`)."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, tether: socket.socket) -> None:
        self.name = name
        self._process = process
        self._tether = tether
        self._started = time.monotonic()

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], descriptors: Sequence[int], environment: Mapping[str, str]
    ) -> Self:
        """Starts `command`, which inherits the file `descriptors` and sees `environment` beside ours."""
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            # A session of its own: Ctrl-C reaches the supervisor alone, which then ends all in order.
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=theirs.fileno(),
                    pass_fds=descriptors,
                    env={**os.environ, **environment},
                    start_new_session=True,
                )
            except OSError:
                ours.close()
                raise
        return cls(name, process, ours)

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._started

    async def ready(self) -> bool:
        """Waits until it says that it is ready; False where it ended before. To be asked once."""
        try:
            return await asyncio.get_running_loop().sock_recv(self._tether, 1) != b""
        except ConnectionError:
            return False

    async def ended(self) -> int:
        """Waits for its end: the exit code, as a shell gives it."""
        code = await self._process.wait()
        return 128 - code if code < 0 else code

    async def stop(self, grace: float) -> bool:
        """Ends it in order, and by force where that takes longer than `grace` seconds; whether it was in
        order."""
        if self._process.returncode is None:
            self._process.terminate()
        try:
            async with asyncio.timeout(grace):
                await self._process.wait()
        except TimeoutError:
            log.error("%s did not end within %.0f s; it is killed", self.name, grace)
            self._process.kill()
            await self._process.wait()
            return False
        return True

    def release(self) -> None:
        """Lets go of what is held for it, once it has ended."""
        self._tether.close()
