"""An upstream that misbehaves as told, as a process of its own, and that writes down what it was asked.

The first segment of a path says how to behave (see `FAULTS`), the rest which kind of source is being played:
a connection's URL is `server.url("drip")`, and everything below it drips. A behaviour that was not told of
is a switch: it behaves as `server.switch` last said.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit
from urllib.request import ProxyHandler, build_opener

WORTHLESS = Path(__file__).parent / "worthless.pem"
"""Key and self-signed certificate for 127.0.0.1 and localhost."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Unruly:
    """The process, seen from a test: a context manager."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
        try:
            assert self._process.stdout is not None
            self.ports: dict[str, int] = json.loads(self._process.stdout.readline())
        except BaseException:
            self._end()
            raise
        self._open = build_opener(ProxyHandler({})).open
        # Bound, but nobody listens: a port that refuses, and that nobody else takes meanwhile.
        self._closed = socket.socket()
        self._closed.bind(("127.0.0.1", 0))
        self.ports["refused"] = self._closed.getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.close()
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def url(self, behaviour: str, port: str = "http", host: str = "127.0.0.1") -> str:
        """What to connect a source to."""
        scheme = "https" if port == "https" else "http"
        return f"{scheme}://{host}:{self.ports[port]}/{behaviour}"

    def switch(self, name: str, behaviour: str) -> None:
        """From now on, `name` behaves like that."""
        self._control(f"_switch/{name}/{behaviour}")

    def asked(self, behaviour: str) -> list[dict[str, Any]]:
        """The requests so far below that path, in order: `line`, `headers` (pairs), `body`, as sent."""
        found: list[dict[str, Any]] = self._control(f"_asked/{behaviour}")
        return found

    def connected(self, port: str) -> int:
        """How often somebody connected to a port so far."""
        count: int = self._control("_connected")[port]
        return count

    def _control(self, path: str) -> Any:
        with self._open(f"http://127.0.0.1:{self.ports['control']}/{path}", timeout=20) as reply:
            return json.loads(reply.read())


class _Server:
    def __init__(self) -> None:
        self.asked: dict[str, list[dict[str, Any]]] = {}
        self.connected: dict[str, int] = {}
        self.switches: dict[str, str] = {}

    async def serve(self) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(WORTHLESS)
        secret = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        secret.load_cert_chain(WORTHLESS)
        servers = {
            "control": await self._listen("control", self._control),
            "http": await self._listen("http", self._http),
            "https": await self._listen("https", self._http, tls),
            "elsewhere": await self._listen("elsewhere", self._http),
            "silent": await self._listen("silent", _silent),
            "slammed": await self._listen("slammed", _slammed),
            "garbled": await self._listen("garbled", _garbled),
            "untrusted": await self._listen("untrusted", _untrusted(secret)),
        }
        ports = {name: server.sockets[0].getsockname()[1] for name, server in servers.items()}
        self.elsewhere = ports["elsewhere"]
        sys.stdout.write(json.dumps(ports) + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

    async def _listen(
        self, name: str, handle: Callable[..., Awaitable[None]], tls: ssl.SSLContext | None = None
    ) -> asyncio.Server:
        self.connected[name] = 0

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connected[name] += 1
            try:
                await handle(reader, writer)
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                pass  # the other side went away, as it may
            finally:
                with suppress(OSError):
                    writer.close()
                    await writer.wait_closed()

        return await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls, backlog=512, limit=2**20)

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0].decode()
        what, *more = line.split(" ")[1].strip("/").split("/")
        answer: object = None
        if what == "_switch":
            self.switches[more[0]] = more[1]
        elif what == "_asked":
            answer = self.asked.get(more[0], [])
        else:
            answer = self.connected
        writer.write(_reply(json.dumps(answer).encode(), close=True))
        await writer.drain()

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:  # keep-alive
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *rest = head.removesuffix("\r\n\r\n").split("\r\n")
            headers = [(name, value.strip()) for name, _, value in (one.partition(":") for one in rest)]
            length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
            body = (await reader.readexactly(length)).decode("latin-1")
            target = line.split(" ")[1]
            behaviour = target.strip("/").split("/")[0]
            self.asked.setdefault(behaviour, []).append({"line": line, "headers": headers, "body": body})
            answer = _answer(target, body)
            fault = FAULTS.get(self.switches.get(behaviour, behaviour))
            if fault is not None:
                await fault(self, (reader, writer), answer)
                return
            if self.switches.get(behaviour) == "unhurried":
                await asyncio.sleep(0.1)
            writer.write(_reply(json.dumps(answer).encode()))
            await writer.drain()


def _reply(
    body: bytes, status: str = "200 OK", *more: str, close: bool = False, length: int | None = None
) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *more]
    head += ["Content-Type: application/json", f"Connection: {'close' if close else 'keep-alive'}"]
    return "\r\n".join([*head, "", ""]).encode() + body


def number_of(key: object) -> int:
    """The number that ends a customer's id, which is what the healthy upstream says of them."""
    text = str(key)
    digits = text[len(text.rstrip("0123456789")) :]
    return int(digits or "0") % 1000


def _answer(target: str, body: str) -> Any:
    """What a healthy system of the kind that is asked answers."""
    path = urlsplit(target).path
    asked = json.loads(body) if body else {}
    if path.endswith("/get-online-features"):
        keys = next(iter(asked["entities"].values()))
        values = [number_of(key) for key in keys]
        column = {"values": values, "statuses": ["PRESENT"] * len(values)}
        names = [name.replace(":", "__") for name in asked["features"]]
        return {"metadata": {"feature_names": names}, "results": [column] * len(names)}
    if path.endswith("/infer"):
        keys = asked["inputs"][0]["data"]
        data = [number_of(key) for key in keys]
        return {
            "outputs": [
                {"name": one["name"], "shape": [len(data)], "datatype": "INT64", "data": data}
                for one in asked["outputs"]
            ]
        }
    key = unquote(path.rsplit("/", 1)[-1])
    return {"risk": number_of(key), "plan": "Basic", "asked": key}


def _wrong(answer: Any) -> Any:
    """The same, with a text where numbers belong."""
    if isinstance(answer, dict):
        return {key: value if key == "shape" else _wrong(value) for key, value in answer.items()}
    if isinstance(answer, list):
        return [_wrong(value) for value in answer]
    return "seven" if isinstance(answer, int) else answer


async def _gone(streams: Streams) -> None:
    """Until the other side has hung up."""
    with suppress(OSError):
        await streams[0].read()


def _break(writer: asyncio.StreamWriter) -> None:
    """Ends a connection with a reset."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _slow(_: _Server, streams: Streams, answer: Any) -> None:
    await _gone(streams)


async def _reset(_: _Server, streams: Streams, answer: Any) -> None:
    streams[1].write(_reply(json.dumps(answer).encode()[:10], length=1000))
    await streams[1].drain()
    await asyncio.sleep(0.005)  # or the reset would overtake it
    _break(streams[1])


async def _closed(_: _Server, streams: Streams, answer: Any) -> None:
    return


async def _short(_: _Server, streams: Streams, answer: Any) -> None:
    streams[1].write(_reply(json.dumps(answer).encode(), length=1000))


async def _drip(_: _Server, streams: Streams, answer: Any) -> None:
    streams[1].write(_reply(b"", length=10**9))
    while not streams[1].is_closing() and not streams[0].at_eof():
        streams[1].write(b" ")
        await streams[1].drain()
        await asyncio.sleep(0.005)


async def _endless_head(_: _Server, streams: Streams, answer: Any) -> None:
    streams[1].write(b"HTTP/1.1 200 OK\r\n")
    while not streams[1].is_closing() and not streams[0].at_eof():
        streams[1].write(b"X-More: " + b"x" * 8000 + b"\r\n")
        await streams[1].drain()


async def _giant(_: _Server, streams: Streams, answer: Any) -> None:
    streams[1].write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n[")
    for _ in range(64):
        if streams[1].is_closing():
            return
        streams[1].write(b"0," * 32_768)
        await streams[1].drain()


async def _redirect(server: _Server, streams: Streams, answer: Any) -> None:
    place = f"Location: http://127.0.0.1:{server.elsewhere}/fine/facts/c-7"
    streams[1].write(_reply(json.dumps(answer).encode(), "307 Temporary Redirect", place, close=True))


async def _gzip(_: _Server, streams: Streams, answer: Any) -> None:
    packed = gzip.compress(json.dumps(answer).encode())
    streams[1].write(_reply(packed, "200 OK", "Content-Encoding: gzip", close=True))


async def _not_http(_: _Server, streams: Streams, answer: Any) -> None:
    streams[1].write(b"\x00\x01 who are you?\r\n\r\n")


def _saying(body: bytes | None, status: str = "200 OK") -> Fault:
    async def fault(_: _Server, streams: Streams, answer: Any) -> None:
        content = json.dumps(_wrong(answer)).encode() if body is None else body
        streams[1].write(_reply(content, status, close=True))

    return fault


Fault = Callable[[_Server, Streams, Any], Awaitable[None]]
FAULTS: dict[str, Fault] = {
    "slow": _slow,  # never answers
    "late": _slow,  # for a source that is given longer than the request
    "reset": _reset,  # in the middle of the body
    "closed": _closed,  # before any byte
    "short": _short,  # an orderly end in the middle of the body
    "drip": _drip,  # one byte at a time, for ever
    "endless_head": _endless_head,
    "giant": _giant,
    "redirect": _redirect,
    "gzip": _gzip,
    "not_http": _not_http,
    "error": _saying(b'{"risk": 7, "plan": "Basic"}', "500 Internal Server Error"),
    "absent": _saying(b'{"risk": 7, "plan": "Basic"}', "404 Not Found"),
    "not_json": _saying(b"{'risk': 7"),
    "wrong_shape": _saying(b'["risk", 7]'),
    "wrong_type": _saying(None),
}


async def _silent(*streams: Any) -> None:
    await _gone(streams)


async def _slammed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    _break(writer)


async def _garbled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(8)
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await writer.drain()


def _untrusted(tls: ssl.SSLContext) -> Callable[..., Awaitable[None]]:
    """A PostgreSQL server as far as its certificate."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)  # asks for TLS
        writer.write(b"S")
        await writer.drain()
        await writer.start_tls(tls)
        await _gone((reader, writer))

    return handle


if __name__ == "__main__":
    asyncio.run(_Server().serve())
