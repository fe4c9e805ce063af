"""Callers that ask on several channels for the same few customers, and ask again until they are answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from httpx_aiohttp import HttpxAiohttpClient
from ledgers import Books, Database, read
from load import Refusal
from service import Service
from test_limits import SECOND, Load, Size, assert_kept, catalog

# Between two requests of a caller: what is started meanwhile needs the machine as well.
_PAUSE = 0.05
REWARDS = {"click": 0.3, "accepted": 1.0, "rejected": 0.0, "no_response": 0.0}


def document(size: Size) -> dict[str, Any]:
    """The catalog of the limits, which are many; and one that learns what fractions can show."""
    return {
        **catalog(size),
        "attributes": [{"id": "spend", "type": "double"}],
        "features": [{"id": "spend", "kind": "numeric", "source": "customer.spend", "scale": 3.0}],
    }


class Traffic(Load):
    """The callers of `size`. What is refused or not answered at all is sent again, to whichever of `urls`.
    `refused`: what was answered with 503; any other answer that is no success ends it all."""

    def __init__(self, client: httpx.AsyncClient, urls: list[str], size: Size) -> None:
        super().__init__(client, urls, size.names)
        self.size = size
        self.answers = 0
        self.last, self.last_answer = 0.0, 0.0  # of what was asked last, when it was asked and answered
        self.refused: list[Refusal] = []
        self.again: dict[str, float] = {}  # request ids: when they were sent that time they were answered

    async def post(self, path: str, body: Any, chance: random.Random) -> bytes:
        """The reply of whichever service gives one. Fails where it is neither one nor a proper 503."""
        end = time.monotonic() + 120
        body = _with_profile(body)
        unanswered = False
        await asyncio.sleep(_PAUSE)
        while True:
            began, sent = time.monotonic(), time.time()
            try:
                reply = await self.client.post(f"{chance.choice(self.urls)}/v1/{path}", json=body)
            except httpx.TransportError:
                self.tally["not answered"] += 1
                unanswered = True
            else:
                if reply.status_code == 200:
                    self.answers += 1
                    if began > self.last:
                        self.last, self.last_answer = began, time.monotonic()
                    if unanswered:
                        self._sent_again(body, reply, sent)
                    return reply.content
                assert reply.status_code == 503, f"{path}: {reply.status_code} {reply.text}"
                assert reply.headers["content-type"] == "application/problem+json", reply.text
                code, now = reply.json()["code"], time.monotonic()
                self.tally[f"503 {code}"] += 1
                self.refused.append(Refusal(path, code, reply.headers["retry-after"], now, now - began))
            assert time.monotonic() < end, "no service answers"
            await asyncio.sleep(_PAUSE)

    def _sent_again(self, body: Any, reply: httpx.Response, sent: float) -> None:
        if isinstance(body, list):
            self.tally["responses found recorded"] += reply.json()["duplicates"]
        elif isinstance(body, dict):
            for each in body.get("requests", [body]):
                self.again[each["request_id"]] = sent

    def more(self, count: int) -> Callable[[], bool]:
        """Whether so many more requests than now were answered."""
        wanted = self.answers + count
        return lambda: self.answers >= wanted


def _with_profile(body: Any) -> Any:
    """Each request has a profile of its own, and always the same one."""
    if isinstance(body, dict) and "requests" in body:
        return {"requests": [_with_profile(each) for each in body["requests"]]}
    if isinstance(body, dict) and "request_id" in body:
        return {**body, "profile": {"spend": random.Random(body["request_id"]).gauss(1.0, 2.0)}}
    return body


@asynccontextmanager
async def calling(urls: list[str], size: Size) -> AsyncIterator[Traffic]:
    """Callers at work; when it is over each has the answer to its last request."""
    limits = httpx.Limits(max_connections=2 * size.callers)
    async with HttpxAiohttpClient(timeout=60, limits=limits) as client:
        traffic = Traffic(client, urls, size)
        async with asyncio.TaskGroup() as group:
            for number in range(size.callers):
                group.create_task(traffic.call(number))
            yield traffic
            traffic.on = False


async def until(done: Callable[[], bool], what: str, seconds: float = 60.0) -> float:
    """Waits for it, and fails where it takes longer than that; the seconds it took."""
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.01)
    return time.monotonic() - began


async def ready(*services: Service) -> None:
    """Waits until each decides."""
    async with httpx.AsyncClient(verify=False) as client, asyncio.timeout(120):
        for service in services:
            while not await _is_ready(client, service):
                await asyncio.sleep(0.02)


async def _is_ready(client: httpx.AsyncClient, service: Service) -> bool:
    assert service.process.poll() is None, service.said()
    try:
        return (await client.get(f"{service.url}/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def check_books(database: Database, traffic: Traffic) -> Books:
    """What was answered and acknowledged is in the ledger, byte for byte and once; no limit is exceeded, and
    what was stopped is not shown. Also while they call."""
    answered, acknowledged = dict(traffic.answered), dict(traffic.acknowledged)
    stopped = list(traffic.stopped)
    books = await read(database, REWARDS)
    told = books.told
    assert_kept(told, traffic.size)
    assert [key for key in answered if told.requests[key] != 1] == []
    times = Counter(told.replies.values())
    assert [key for key, content in answered.items() if times[content] != 1] == []
    assert acknowledged.items() <= told.responses.items()
    assert {key for key, count in books.responses.items() if count > 1} == set()
    for since, customer, actions, end in stopped:
        for item in told.shown:
            if item.customer == customer and item.action in actions:
                assert not since < item.at / SECOND < end, item
    return books
