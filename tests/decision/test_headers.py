"""Every response carries the security headers, whoever made it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import Service, asking, running

from decision.api.headers import ALWAYS, SecurityHeaders
from decision.errors import StoreUnavailable

EXPECTED = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def check(reply: httpx.Response, status: int) -> None:
    assert reply.status_code == status, reply.text
    for name, value in EXPECTED.items():
        assert reply.headers.get_list(name) == [value], name
    assert "server" not in reply.headers
    assert "x-powered-by" not in reply.headers


async def test_replies_and_refusals_carry_them(service: Service) -> None:
    client = service.client
    check(await client.post("/v1/decisions", json=asking()), 200)
    check(await client.get("/healthz"), 200)
    check(await client.get("/metrics"), 200)
    check(await client.get("/openapi.json"), 200)
    check(await client.delete("/v1/customers/anna"), 204)
    check(await client.get("/v1/zork"), 404)
    check(await client.put("/v1/decisions"), 405)
    check(await client.post("/v1/decisions", content=b"{"), 415)
    check(await client.post("/v1/decisions", json=asking(zork=1)), 422)
    check(await client.post("/v1/decisions", content=b"x" * (1024 * 1024 + 1)), 413)
    check(await client.options("/v1/decisions", headers={"origin": "https://shop.example"}), 204)


async def test_faults_carry_them(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(service.context.overview, "history", fails)
    check(await service.client.get("/v1/customers/anna/history"), 500)

    async def gone(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(service.context.overview, "history", gone)
    check(await service.client.get("/v1/customers/anna/history"), 503)


async def test_a_full_service_carries_them(tmp_path: Path) -> None:
    async with running(tmp_path / "full.db") as service:
        transport: Any = service.client._transport
        transport.app.state.door.enter(10_000)
        check(await service.client.post("/v1/decisions", json=asking()), 503)


async def test_a_header_of_its_own_stays() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"cache-control", b"private")]}
        )

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    await SecurityHeaders(app)({"type": "http"}, receive, send)
    names = [name for name, _ in sent[0]["headers"]]
    assert sent[0]["headers"][0] == (b"cache-control", b"private")
    assert sorted(names) == sorted(name for name, _ in ALWAYS)
    begin = time.process_time()
    for _ in range(1000):
        await SecurityHeaders(app)({"type": "http"}, receive, send)
    assert time.process_time() - begin < 0.5  # some microseconds each
    await asyncio.sleep(0)
