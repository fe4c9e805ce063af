"""The service the demo talks to: `decision serve` in a process of its own."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from arbitration.errors import NextBestActionError
from decision.demo.client import CallFailed, Client

HOST = "127.0.0.1"
_READY_SECONDS = 60.0
_POLL_SECONDS = 0.05
# The service gives all its processes ten seconds.
_STOP_SECONDS = 25.0
_LOG_LINES = 15


class DemoFailed(NextBestActionError):
    """The demo cannot go on; the message says why, and what to do."""


def check_port(port: int) -> None:
    """Raises DemoFailed where somebody listens on the port already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            message = f"port {port} cannot be used ({error.strerror}); choose another with --port"
            raise DemoFailed(message) from error


class Server:
    """`async with`: started and ready within, ended after it. `log`: where its output goes."""

    def __init__(self, store_url: str, port: int, log: Path) -> None:
        self._command = [sys.executable, "-m", "decision", "serve", "--store", store_url]
        self._command += ["--host", HOST, "--port", str(port)]
        self._port = port
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        with self._log.open("wb") as log:
            # A session of its own: Ctrl-C reaches the demo alone, which then ends the service in order.
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdout=log, stderr=asyncio.subprocess.STDOUT, start_new_session=True
            )
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await self._until_ready()
        except TimeoutError:
            await self._stop()
            raise DemoFailed(self._told(f"the service was not ready in {_READY_SECONDS:.0f} s")) from None
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def watch(self) -> None:
        """Waits for the process to end, which it should not: raises DemoFailed."""
        assert self._process is not None
        code = await self._process.wait()
        raise DemoFailed(self._told(f"the service ended with code {code}"))

    async def _until_ready(self) -> None:
        assert self._process is not None
        async with Client(HOST, self._port) as client:
            while True:
                if self._process.returncode is not None:
                    await self.watch()
                try:
                    await client.call("GET", "/readyz")
                except CallFailed:
                    await asyncio.sleep(_POLL_SECONDS)
                else:
                    return

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()

    def _told(self, what: str) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        return "\n".join([f"{what}; the end of its log:", *(f"  {line}" for line in lines)])
