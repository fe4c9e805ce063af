"""HTTP as it comes in, bounded before there is a request: the head in size, in number, and in time.

uvicorn's protocol keeps what comes of a head however much it is, and waits for the rest of it for ever.
Bodies are bounded later, where it is known what they are for (`decision.api.body`, `decision.api.admission`).
"""

from __future__ import annotations

from asyncio import TimerHandle
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from decision.api.headers import ALWAYS
from decision.api.problems import MEDIA_TYPE, problem

# As reverse proxies usually have it (nginx: 4 buffers of 8 KiB; 60 s).
MOST_BYTES = 32 * 1024
MOST_HEADERS = 100
LONGEST_URL = 8 * 1024
SECONDS = 30.0


class Wire(HttpToolsProtocol):
    """One connection."""

    _heading = _began = False
    _bytes = 0
    _timer: TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begins to wait for a first head."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no more."""
        self._wait_no_more()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes what came. What is all of it the head of one request, and not its end, counts for that."""
        was_heading, self._began = self._heading, False
        super().data_received(data)
        if was_heading and self._heading and not self._began:
            self._bytes += len(data)
            if self._bytes > MOST_BYTES:
                self._refuse()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._heading = self._began = True
        self._bytes = 0
        self._wait_no_more()
        self._wait()

    def on_url(self, url: bytes) -> None:
        """A part of the URL. Raises ValueError, which the parser makes a refusal, where it is too long."""
        super().on_url(url)
        if len(self.url) > LONGEST_URL:
            raise ValueError("the URL is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header. Raises ValueError where there are too many."""
        super().on_header(name, value)
        if len(self.headers) > MOST_HEADERS or len(name) + len(value) > MOST_BYTES:
            raise ValueError("the head is too large")

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._heading = False
        self._wait_no_more()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuses as everything here is refused. The connection ends."""
        body = orjson.dumps(problem(400, "malformed_http", msg))
        headers = [*ALWAYS, (b"content-type", MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(body))]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[400] + lines + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _refuse(self) -> None:
        if not self.transport.is_closing():
            self.send_400_response("The head of the request is too large, or did not come.")

    def _wait(self) -> None:
        self._timer = self.loop.call_later(SECONDS, self._refuse)

    def _wait_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
