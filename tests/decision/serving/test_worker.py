"""How a worker accepts, and how it leaves: nobody is cut off, and nobody is failed for being idle."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from support import catalog_document, running

from decision import live
from decision.api.admission import Admission, Door
from decision.serving import worker

REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def until(done: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not done():
            await asyncio.sleep(0.002)


class Answering:
    """An application that answers when it may."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.may.set()
        self.waiting = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.waiting += 1
        await self.may.wait()
        self.waiting -= 1
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


class Serving:
    """A worker's server in this process."""

    def __init__(self, listening: socket.socket) -> None:
        self.app, self.door = Answering(), Door()
        config = uvicorn.Config(
            Admission(self.app, self.door, lambda reason: None),
            http="httptools",
            lifespan="off",
            log_config=None,
            timeout_graceful_shutdown=2,
        )
        self.address = listening.getsockname()
        self.server = worker.Server(config, [listening], self.door)
        self.task = asyncio.create_task(self.server.serve())

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)


class Client:
    """One keep-alive connection."""

    @classmethod
    async def to(cls, address: Any) -> Client:
        client = cls()
        client.reader, client.writer = await asyncio.open_connection(*address)
        return client

    def ask(self) -> None:
        self.writer.write(REQUEST)

    async def answer(self) -> bytes:
        """The whole reply."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        return head + await self.reader.readexactly(2)

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@pytest.fixture(autouse=True)
def untethered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "say_ready", lambda: None)
    monkeypatch.setattr(worker, "when_gone", lambda call: None)


@pytest.mark.parametrize("sound", [True, False])
async def test_it_is_ready_once_it_has_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sound: bool
) -> None:
    async with running(tmp_path / "a.db") as service:
        await service.publish(catalog_document())
    happened: list[str] = []

    def decide(*_: object) -> None:
        happened.append("decided")
        if not sound:
            raise ArithmeticError("nobody thought of this")

    def ready() -> None:
        happened.append("ready")
        handler = signal.getsignal(signal.SIGTERM)
        assert callable(handler)
        handler(signal.SIGTERM, None)

    monkeypatch.setattr(live, "warm", decide)
    monkeypatch.setattr(worker, "say_ready", ready)
    monkeypatch.setattr(gc, "freeze", lambda: happened.append("frozen"))
    listening = socket.create_server(("127.0.0.1", 0))
    number = os.dup(listening.fileno())
    with listening, nullcontext() if sound else pytest.raises(ArithmeticError):
        await worker._work([number], f"sqlite:{tmp_path / 'a.db'}", {}, 150, None, True)
    if not sound:
        os.close(number)
    assert happened == (["decided", "frozen", "ready"] if sound else ["decided"])


@asynccontextmanager
async def serving() -> AsyncIterator[Serving]:
    one = Serving(socket.create_server(("127.0.0.1", 0)))
    await until(lambda: one.server.started)
    yield one
    one.server.drain()
    async with asyncio.timeout(5):
        await one.task


async def test_whoever_is_connected_when_it_drains_gets_a_reply_and_is_told_to_come_elsewhere() -> None:
    async with serving() as one:
        idle, busy = await Client.to(one.address), await Client.to(one.address)
        idle.ask()
        assert b"connection: close" not in await idle.answer()
        one.app.may.clear()
        busy.ask()
        await until(lambda: one.app.waiting == 1)
        one.server.drain()
        await until(lambda: one.door.closing)
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="Connect call failed"):
            await Client.to(one.address)
        idle.ask()  # it could not know
        await until(lambda: one.app.waiting == 2)
        assert not one.task.done()
        one.app.may.set()
        for client in (idle, busy):
            reply = await client.answer()
            assert reply.startswith(b"HTTP/1.1 200")
            assert b"connection: close" in reply
            assert await client.reader.read() == b""
            await client.close()
        await until(one.task.done, 1.0)


async def test_who_is_connected_but_not_yet_accepted_is_answered_too() -> None:
    async with serving() as one:
        early = await Client.to(one.address)
        await until(lambda: one.connections == 1)
        late = socket.create_connection(one.address)  # no turn of the loop until it drains
        late.sendall(REQUEST)
        one.server.drain()
        reader, writer = await asyncio.open_connection(sock=late)
        assert (await reader.read()).endswith(b"ok")
        writer.close()
        await early.close()


async def test_an_idle_connection_does_not_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_DRAIN_SECONDS", 0.05)
    async with serving() as one:
        idle = await Client.to(one.address)
        await until(lambda: one.connections == 1)
        one.server.drain()
        await until(one.task.done, 1.0)
        assert await idle.reader.read() == b""
        await idle.close()


async def test_who_share_a_socket_take_turns() -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    ours = [Serving(listening.dup()), Serving(listening.dup())]
    await until(lambda: all(each.server.started for each in ours))
    clients = await asyncio.gather(*(Client.to(ours[0].address) for _ in range(16)))
    await until(lambda: sum(each.connections for each in ours) == 16)
    assert all(6 <= each.connections <= 10 for each in ours)
    for client in clients:
        await client.close()
    for each in ours:
        each.server.drain()
        await each.task
    listening.close()


async def test_who_has_fewer_connections_takes_the_next() -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=64)
    busy = Serving(listening.dup())
    clients = [await Client.to(busy.address) for _ in range(8)]
    await until(lambda: busy.connections == 8)
    idle = Serving(listening.dup())
    await until(lambda: idle.server.started)
    for number in range(1, 5):
        clients.append(await Client.to(busy.address))
        await until(lambda number=number: busy.connections + idle.connections == 8 + number)  # type: ignore[misc]
    assert (busy.connections, idle.connections) == (8, 4)
    for client in clients:
        await client.close()
    for each in (busy, idle):
        each.server.drain()
        await each.task
    listening.close()


async def test_it_leaves_connections_unaccepted_when_it_has_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_MOST_CONNECTIONS", 2)
    monkeypatch.setattr(worker, "_FULL_PAUSE", 0.02)
    async with serving() as one:
        clients = [await Client.to(one.address) for _ in range(3)]
        for client in clients:
            client.ask()
        await until(lambda: one.connections == 2)
        await asyncio.sleep(0.05)  # it would have been accepted by now
        assert one.connections == 2
        await clients[0].close()
        assert (await clients[2].answer()).endswith(b"ok")
        for client in clients[1:]:
            await client.close()
