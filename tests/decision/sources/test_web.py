"""One call over HTTP: what is refused, how it is named, and what is not said of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from faults.unruly import WORTHLESS, Unruly
from pydantic import SecretStr

from decision.sources.connections import Connection
from decision.sources.port import Cause, SourceFault
from decision.sources.web import ask, open_client


@pytest.fixture(scope="module")
def upstream() -> Iterator[Unruly]:
    with Unruly() as started:
        yield started


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with open_client() as opened:
        yield opened


def at(url: str, **more: Any) -> Connection:
    return Connection(url=SecretStr(url), **more)


PATH = "/facts/anna%40example.org-7"


@pytest.mark.parametrize(
    ("behaviour", "cause"),
    [
        ("error", Cause.UNAVAILABLE),
        ("reset", Cause.UNAVAILABLE),
        ("closed", Cause.UNAVAILABLE),
        ("short", Cause.UNAVAILABLE),
        ("not_http", Cause.UNAVAILABLE),
        ("endless_head", Cause.UNAVAILABLE),
        ("not_json", Cause.BAD_REPLY),
        ("giant", Cause.BAD_REPLY),
        ("gzip", Cause.BAD_REPLY),
        ("redirect", Cause.BAD_REPLY),
    ],
)
async def test_every_fault_has_its_cause_and_names_nobody(
    upstream: Unruly, client: httpx.AsyncClient, behaviour: str, cause: Cause
) -> None:
    with pytest.raises(SourceFault) as fault:
        await ask(client, at(upstream.url(behaviour)), "GET", PATH)
    assert (fault.value.cause, fault.value.ill) == (cause, behaviour != "giant")
    assert "anna" not in str(fault.value)
    assert "127.0.0.1" not in str(fault.value)


async def test_nothing_there_is_no_fault(upstream: Unruly, client: httpx.AsyncClient) -> None:
    assert await ask(client, at(upstream.url("absent")), "GET", PATH) is None


@pytest.mark.parametrize(
    ("status", "cause", "ill"),
    [
        (400, Cause.BAD_REPLY, False),
        (422, Cause.BAD_REPLY, False),
        (401, Cause.UNAVAILABLE, True),
        (403, Cause.UNAVAILABLE, True),
        (408, Cause.UNAVAILABLE, True),
        (429, Cause.UNAVAILABLE, True),
        (500, Cause.UNAVAILABLE, True),
        (503, Cause.UNAVAILABLE, True),
        (302, Cause.BAD_REPLY, True),
        (304, Cause.BAD_REPLY, True),
    ],
)
async def test_what_a_status_says(status: int, cause: Cause, ill: bool) -> None:
    def answered(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, stream=httpx.ByteStream(b'{"risk": 7}'))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answered)) as client:
        with pytest.raises(SourceFault) as fault:
            await ask(client, at("http://crm.test"), "GET", PATH)
    assert (fault.value.cause, fault.value.ill) == (cause, ill)


@pytest.mark.parametrize(("size", "keys"), [(4096, 1), (4097, 1), (8192, 2), (8193, 2)])
async def test_how_large_an_answer_may_be(size: int, keys: int) -> None:
    connection = Connection(url=SecretStr("http://crm.test"), answer_bytes=4096)
    content = b'"' + b"x" * (size - 2) + b'"'

    def answered(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=httpx.ByteStream(content))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answered)) as client:
        if size <= 4096 * keys:
            assert len(await ask(client, connection, "GET", PATH, keys=keys)) == size - 2
        else:
            with pytest.raises(SourceFault, match="more than") as fault:
                await ask(client, connection, "GET", PATH, keys=keys)
            assert not fault.value.ill, "it is this customer's"


async def test_cookies_are_not_kept(upstream: Unruly, client: httpx.AsyncClient) -> None:
    seen: list[str | None] = []

    def answered(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("cookie"))
        content = httpx.ByteStream(b"{}")
        return httpx.Response(200, headers={"set-cookie": "session=anna; Path=/"}, stream=content)

    async with open_client() as opened:
        opened._transport = httpx.MockTransport(answered)
        for _ in range(3):
            await ask(opened, at("http://crm.test"), "GET", PATH)
    assert seen == [None] * 3


async def test_a_certificate_nobody_vouches_for_is_refused(
    upstream: Unruly, client: httpx.AsyncClient
) -> None:
    with pytest.raises(SourceFault) as fault:
        await ask(client, at(upstream.url("secure", "https")), "GET", PATH)
    assert fault.value.cause is Cause.UNAVAILABLE
    assert upstream.asked("secure") == []


async def test_a_connection_may_name_who_vouches(upstream: Unruly) -> None:
    trusted = at(upstream.url("vouched", "https"), ca_file=WORTHLESS)
    async with open_client(trusted.ca_file) as client:
        assert (await ask(client, trusted, "GET", PATH))["risk"] == 7


async def test_the_environment_has_no_say(upstream: Unruly, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{upstream.ports['elsewhere']}")
    async with open_client() as client:
        assert (await ask(client, at(upstream.url("fine")), "GET", PATH))["risk"] == 7
    assert upstream.connected("elsewhere") == 0


async def test_connections_are_used_again(upstream: Unruly, client: httpx.AsyncClient) -> None:
    before = upstream.connected("http")
    for _ in range(5):
        await ask(client, at(upstream.url("fine")), "GET", PATH)
    assert upstream.connected("http") == before + 1


async def test_a_call_that_is_cancelled_gives_its_connection_back(
    upstream: Unruly, client: httpx.AsyncClient
) -> None:
    for behaviour in ("slow", "drip"):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await ask(client, at(upstream.url(behaviour)), "GET", PATH)
    assert (await ask(client, at(upstream.url("fine")), "GET", PATH))["risk"] == 7


async def test_an_answer_nobody_asked_for_is_not_the_next_ones(client: httpx.AsyncClient) -> None:
    """A server that breaks the protocol must not give one customer what belongs to another."""

    def answer(path: bytes) -> bytes:
        return b'HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"%s"' % (len(path) + 2, path)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
                writer.write(answer(path))
                await asyncio.sleep(0.02)
                writer.write(answer(path))  # once more
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        connection = at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for number in range(5):
            assert await ask(client, connection, "GET", f"/c-{number}") == f"/c-{number}"
            await asyncio.sleep(0.06)
