"""HTTP as it comes in, bounded before there is a request: the head in size, in number, and in time.

uvicorn's protocol keeps what comes of a head however much it is, and waits for the rest of it for ever.
Bodies are bounded later, where it is known what they are for (`decision.api.body`, `decision.api.admission`).
"""

from __future__ import annotations

from asyncio import TimerHandle
from functools import lru_cache
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

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
        if not self._heading:
            return
        if self._began:  # and did not end, as most do at once: it has so long from now on
            self._wait_no_more()
            self._wait()
        elif was_heading:
            self._bytes += len(data)
            if self._bytes > MOST_BYTES:
                self._refuse()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._heading = self._began = True
        self._bytes = 0

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

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.__class__ = Cycle  # what makes them has no place to say so
        super()._start_asgi_task(cycle, app)

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


class Cycle(RequestResponseCycle):
    """A request and its response. Of the headers of a response most are the same each time: one that was
    found well-formed is not looked through again."""

    async def send(self, message: Any) -> None:
        """Sends what the application says; a head that is out of the ordinary as uvicorn does."""
        head = None
        if message["type"] == "http.response.start" and not self.response_started:
            head = self._head(message)
        if head is None or self.disconnected or self.flow.write_paused:
            await super().send(message)
            return
        self.response_started, self.chunked_encoding = True, False
        self.waiting_for_100_continue = False
        self.transport.write(head)

    def _head(self, message: Any) -> bytes | None:
        """The head of a response whose length is known; notes how long it is."""
        lines, length = [STATUS_LINE[message["status"]]], None
        for name, value in (*self.default_headers, *message.get("headers", ())):
            if name == b"content-length" and value.isdigit() and length is None:
                length = int(value)
                lines.append(b"content-length: %d\r\n" % length)
            elif (line := _line(name, value)) is not None:
                lines.append(line)
            else:
                return None
        if length is None:
            return None
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        self.expected_content_length = length
        return b"".join((*lines, b"\r\n"))


@lru_cache(maxsize=1024)
def _line(name: bytes, value: bytes) -> bytes | None:
    """A header as it is sent; None where it is malformed, or says how the response is sent."""
    name = name.lower()
    if HEADER_RE.search(name) or HEADER_VALUE_RE.search(value):
        return None
    if name in (b"connection", b"content-length", b"transfer-encoding"):
        return None
    return name + b": " + value + b"\r\n"
