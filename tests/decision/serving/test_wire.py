"""What a client may do before it has made a request."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

from decision.serving import wire
from decision.serving.wire import LONGEST_URL, MOST_BYTES, MOST_HEADERS, Cycle, Wire

LINE = b"GET / HTTP/1.1\r\nhost: x\r\n"


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """Says how many bytes of a body came."""
    count = 0
    while True:
        message = await receive()
        count += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"7")]})
    await send({"type": "http.response.body", "body": b"%07d" % count})


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    loop = asyncio.get_running_loop()
    config = uvicorn.Config(answer, http=Wire, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    state = ServerState()
    server = await loop.create_server(lambda: Wire(config, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.close()
        await asyncio.sleep(0.01)


async def told(sent: list[bytes], pause: float = 0.0) -> bytes:
    """What comes back to what is sent, piece by piece, until the connection ends or nothing more comes."""
    found = b""
    async with connected() as (reader, writer):
        reading = asyncio.create_task(reader.read(65536))
        for piece in sent:
            writer.write(piece)
            await asyncio.sleep(pause)
            if reading.done() and b"close" in reading.result():  # to write on would lose what came
                break
        while True:
            try:
                more = await asyncio.wait_for(reading, 0.3)
            except TimeoutError:
                return found + b"<open>"
            if not more:
                return found
            found += more
            reading = asyncio.create_task(reader.read(65536))


def refused(reply: bytes) -> bool:
    head, _, body = reply.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 400"):
        return False
    problem = json.loads(body)
    return (
        (problem["status"], problem["code"]) == (400, "malformed_http")
        and b"\r\ncontent-type: application/problem+json\r\n" in head
        and b"\r\nx-content-type-options: nosniff\r\n" in head
        and b"\r\nconnection: close" in head
    )


@pytest.mark.parametrize(
    "sent",
    [
        [LINE + b"".join(b"a%d: b\r\n" % n for n in range(MOST_HEADERS)) + b"\r\n"],
        [b"GET /" + b"a" * LONGEST_URL + b" HTTP/1.1\r\nhost: x\r\n\r\n"],
        [LINE + b"a: " + b"b" * (MOST_BYTES + 1) + b"\r\n\r\n"],
        [LINE, b"a: ", *[b"b" * 8192] * 20],  # no end of it
        [LINE, *[b"a: b\r\n"] * 120],
        [b"zork\r\n\r\n"],
        [b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n"],
        [b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n"],
    ],
)
async def test_what_is_no_head_is_refused(sent: list[bytes]) -> None:
    assert refused(await told(sent, pause=0.002))


async def test_usual_requests_are_answered() -> None:
    head = LINE + b"".join(b"a%d: %s\r\n" % (n, b"b" * 200) for n in range(MOST_HEADERS - 2)) + b"\r\n"
    body = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n" + b"x" * 300_000
    # One after the other on one connection, in pieces that are no heads.
    sent = body + head + body + head
    pieces = [sent[at : at + 50_000] for at in range(0, len(sent), 50_000)]
    reply = await told(pieces, pause=0.005)
    assert [part[:7] for part in reply.split(b"\r\n\r\n")[1:]] == [b"0300000", b"0000000"] * 2
    assert reply.endswith(b"<open>")


async def test_who_sends_no_whole_head_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SECONDS", 0.1)
    assert refused(await told([]))
    assert refused(await told([LINE] + [b"a: b\r\n"] * 5, pause=0.04))
    # Who has sent one waits as long as it takes.
    assert (await told([LINE + b"\r\n"], pause=0.2)).endswith(b"0000000<open>")


class Written:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.bytes = b""

    def write(self, data: bytes) -> None:
        self.bytes += data

    def close(self) -> None:
        self.bytes += b"<closed>"


async def response(kind: type[RequestResponseCycle], method: str, *messages: Any, keep_alive: bool) -> Any:
    """What a response comes to on the wire; or why it cannot be sent."""
    written: Any = Written()
    flow: Any = SimpleNamespace(write_paused=False, resume_reading=lambda: None)
    log = logging.getLogger("t")
    scope: Any = {"method": method}
    default = [(b"date", b"now")]
    cycle = kind(
        scope, written, flow, log, log, False, default, asyncio.Event(), False, keep_alive, lambda: None
    )
    try:
        for message in messages:
            await cycle.send(message)
    except RuntimeError as error:
        return written.bytes, str(error)
    return written.bytes, cycle.keep_alive, cycle.response_complete


@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"2"), (b"content-type", b"application/json"), (b"X-Up", b"a: b")],
        [(b"Content-Length", b"2"), (b"a", b"b")],
        [(b"content-length", b"1"), (b"a", b"b")],
        [(b"content-length", b"2"), (b"Connection", b"close")],
        [(b"content-length", b"2"), (b"connection", b"keep-alive")],
        [(b"transfer-encoding", b"chunked")],
        [(b"a", b"b")],
        [(b"content-length", b"2"), (b"a b", b"c")],
        [(b"content-length", b"2"), (b"a", b"b\r\nc: d")],
        [(b"content-length", b"x")],
    ],
)
async def test_a_response_is_sent_as_uvicorn_would(
    method: str, headers: list[tuple[bytes, bytes]], *, keep_alive: bool
) -> None:
    start = {"type": "http.response.start", "status": 200, "headers": headers}
    for messages in ([start, {"type": "http.response.body", "body": b"{}"}], [start, start], [{"type": "x"}]):
        outcomes = []
        for kind in (RequestResponseCycle, Cycle):
            try:
                outcomes.append(await response(kind, method, *messages, keep_alive=keep_alive))
            except ValueError as error:
                outcomes.append(type(error))
        assert outcomes[0] == outcomes[1]
