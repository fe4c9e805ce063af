"""The demo's HTTP client: one kept-alive connection, one request at a time, nothing to install.

A general client spends more time on a request than the service does on the answer, on the same cores.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

import orjson

from arbitration.errors import NextBestActionError


class CallFailed(NextBestActionError):
    """The service was not reached, hung up, or refused a request."""


class Client:
    """A connection to `host`:`port`, opened with the first request. For one caller at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """The JSON of a 2xx answer. Raises CallFailed on any other, and when the connection fails."""
        status, content = await self._exchange(method, path, b"" if body is None else orjson.dumps(body))
        if not 200 <= status < 300:
            raise CallFailed(f"{method} {path} was answered {status}: {content.decode(errors='replace')}")
        return orjson.loads(content)

    async def _exchange(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {self._host}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._host, self._port)
            reader, writer = self._streams
            writer.write(head.encode() + body)
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
            lengths = [line for line in lines if line.startswith("content-length:")]
            content = await reader.readexactly(int(lengths[0].partition(":")[2]) if lengths else 0)
        except (OSError, asyncio.IncompleteReadError) as error:
            await self.close()
            raise CallFailed(f"{method} {path} failed: {error}") from error
        return int(lines[0].split(" ", 2)[1]), content

    async def close(self) -> None:
        """Closes the connection; the next request would open another."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
