"""The door: who is let in, who is refused and how, and that it opens again."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest
from support import Service, asking

from decision.api import admission
from decision.api.admission import Admission, Door


def test_so_much_is_let_in_and_no_more() -> None:
    door = Door()
    for _ in range(256):
        door.enter(1)
    assert door.refusal(1) == "full"
    door.leave(1, 0.1)
    assert door.refusal(1) is None
    assert door.refusal(2) == "full"


def test_fewer_are_let_in_when_those_inside_are_answered_late() -> None:
    door = Door()
    for _ in range(240):
        door.enter(1)
    assert door.refusal(1) is None
    door.leave(1, 1.2)
    assert door.refusal(1) == "slow"  # 230
    for _ in range(100):
        door.leave(1, 1.2)
    assert door.weight == 139
    assert door.bound == 64  # no lower: a batch would not find room any more
    for _ in range(139):
        door.leave(1, 0.1)
    assert door.bound == 203
    for _ in range(60):
        door.enter(1)
        door.leave(1, 0.1)
    assert door.bound == 256


def test_a_batch_may_take_longer() -> None:
    door = Door()
    door.enter(64)
    door.leave(64, 7.0)
    assert door.bound == 256
    door.enter(64)
    door.leave(64, 8.0)
    assert door.bound < 256


def door_of(client: httpx.AsyncClient) -> Door:
    """The door of the service that a client talks to."""
    door: Door = client._transport.app.state.door  # type: ignore[attr-defined]
    return door


class Held:
    """An application that reads the body and waits until it may answer."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.inside = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.inside += 1
        while (await receive()).get("more_body"):
            pass
        await self.may.wait()
        self.inside -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Doorway:
    """The door before an application that holds everybody."""

    def __init__(self) -> None:
        self.app, self.door = Held(), Door()
        self.shed: list[str] = []
        guarded = Admission(self.app, self.door, self.shed.append)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://localhost")
        self.tasks: list[asyncio.Task[httpx.Response]] = []

    async def post(self, count: int, content: Any = b"{}", path: str = "/v1/decisions") -> None:
        """Sends requests that stay inside."""
        self.tasks += [asyncio.create_task(self.client.post(path, content=content)) for _ in range(count)]
        async with asyncio.timeout(5):
            while self.app.inside + len(self.shed) < len(self.tasks):
                await asyncio.sleep(0)

    async def refused(self) -> bool:
        """Whether one more is."""
        before = len(self.shed)
        await self.post(1)
        return len(self.shed) > before

    async def answer(self) -> None:
        """Lets all that are inside go."""
        self.app.may.set()
        await asyncio.gather(*self.tasks)
        self.tasks.clear()
        self.shed.clear()
        self.app.may.clear()


@pytest.fixture
async def doorway() -> Any:
    doorway = Doorway()
    yield doorway
    await doorway.answer()
    assert doorway.door.weight == 0
    await doorway.client.aclose()


async def test_a_refusal_is_a_problem_that_says_when_to_come_again(doorway: Doorway) -> None:
    await doorway.post(256)
    receive = AsyncMock(side_effect=AssertionError("its body is not to be read"))
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "path": "/v1/decisions",
        "method": "POST",
        "headers": [(b"content-length", b"9")],
    }
    await Admission(doorway.app, doorway.door, doorway.shed.append)(scope, receive, send)
    assert sent[0]["status"] == 503
    headers = dict(sent[0]["headers"])
    assert (headers[b"retry-after"], headers[b"content-type"]) == (b"1", b"application/problem+json")
    assert b'"code":"overloaded"' in sent[1]["body"]
    assert doorway.shed == ["full"]
    await doorway.answer()
    assert not await doorway.refused()


@pytest.mark.parametrize(("bytes", "fit"), [(200, 256), (20_000, 12), (200_000, 4)])
async def test_a_large_body_counts_for_more(doorway: Doorway, bytes: int, fit: int) -> None:
    await doorway.post(fit, b"x" * bytes)
    assert doorway.shed == []
    await doorway.post(1, b"x" * bytes)
    assert doorway.shed == ["full"]


async def test_a_body_of_unknown_length_counts_for_more(doorway: Doorway) -> None:
    async def body() -> Any:
        yield b"{}"

    for _ in range(16):
        await doorway.post(1, body())
    assert await doorway.refused()


async def test_it_refuses_early_where_those_inside_were_answered_late(
    doorway: Doorway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_LATE_SECONDS", -1.0)
    await doorway.post(30)
    await doorway.answer()
    await doorway.post(64)
    assert await doorway.refused()
    assert doorway.shed == ["slow"]
    await doorway.answer()
    monkeypatch.undo()
    for _ in range(3):
        await doorway.post(64)
        await doorway.answer()
    await doorway.post(256)
    assert doorway.shed == []


async def test_the_time_it_takes_to_send_is_not_ours(
    doorway: Doorway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_LATE_SECONDS", 0.0)

    async def body() -> Any:
        yield b"{"
        await asyncio.sleep(0.2)
        yield b"}"

    doorway.app.may.set()
    reply = await doorway.client.post("/v1/decisions", content=body(), headers={"content-length": "2"})
    assert reply.status_code == 200
    assert doorway.door.bound == 256


async def test_who_gives_up_makes_room(doorway: Doorway) -> None:
    await doorway.post(256)
    for task in doorway.tasks:
        task.cancel()
    await asyncio.gather(*doorway.tasks, return_exceptions=True)
    assert doorway.door.weight == 0
    doorway.tasks.clear()


async def test_the_service_refuses_what_the_ledger_does_not_take_and_recovers(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, store, stuck = service.client, service.context.store, asyncio.Event()
    commit = store.commit_decisions

    async def waiting(*args: Any, **more: Any) -> Any:
        await stuck.wait()
        return await commit(*args, **more)

    monkeypatch.setattr(store, "commit_decisions", waiting)
    door_of(client).weight = 256 - 3
    before = service.rows()["decisions"]
    held = [asyncio.create_task(client.post("/v1/decisions", json=asking())) for _ in range(3)]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        while (reply := await client.post("/v1/decisions", json=asking())).status_code != 503:
            pass
    assert reply.json()["code"] == "overloaded"
    assert reply.headers["retry-after"] == "1"
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await client.get(path)).status_code == 200
    assert 'requests_shed_total{reason="full"} 1.0' in (await client.get("/metrics")).text
    stuck.set()
    assert [(await each).status_code for each in held] == [200] * 3
    assert (await client.post("/v1/decisions", json=asking())).status_code == 200
    assert service.rows()["decisions"] == before + 4  # what was answered, and nothing of what was refused


async def test_a_process_that_ends_says_so_and_serves_on(service: Service) -> None:
    client = service.client
    door_of(client).closing = True
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["code"]) == (503, "closing")
    for path in ("/healthz", "/metrics", "/v1/catalog"):
        reply = await client.get(path)
        assert (reply.status_code, reply.headers["connection"]) == (200, "close")
    assert (await service.decide())["decision_id"]


async def test_a_body_that_does_not_come_makes_room(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_BODY_SECONDS", 0.05)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    app = service.client._transport.app  # type: ignore[attr-defined]
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": "/v1/decisions",
        "raw_path": b"/v1/decisions", "query_string": b"", "root_path": "", "client": None, "server": None,
        "headers": [
            (b"host", b"localhost"), (b"content-length", b"500000"), (b"content-type", b"application/json")
        ],
    }  # fmt: skip
    async with asyncio.timeout(5):
        await asyncio.gather(*(app(dict(scope), receive, send) for _ in range(4)))
    assert [each["status"] for each in sent if "status" in each] == [408] * 4
    assert b"body_timeout" in sent[-1].get("body", b"") + sent[1].get("body", b"")
    assert door_of(service.client).weight == 0
    assert (await service.client.post("/v1/decisions", json=asking())).status_code == 200
