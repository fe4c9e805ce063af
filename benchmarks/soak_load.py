"""The load of the soak: requests of many kinds, each at its moment."""

from __future__ import annotations

import asyncio
import copy
import random
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np
import orjson
from stage import Answer, Caller, Service

from decision.demo.world import visit

PUBLISH_EVERY = 60.0
PUBLISHED_BEFORE = 20
CALLS_PER_CONNECTION = 300
MOST_IDLE = 30.0
MOST_UNDER_WAY = 400
# How often each kind is asked for; the names are those of the methods of `Load`.
MIX = {
    "decide": 58, "defer": 8, "respond": 20, "retry": 4, "read": 3, "explain": 3, "history": 3, "update": 1,
}  # fmt: skip
OUTCOMES = {
    "agent_desktop": ["accepted", "rejected", "rejected"],
    "web": ["impression", "impression", "click", "rejected"],
    "email": ["click", "rejected"],
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A decision that was answered, and the request it answered."""

    channel: str
    request: bytes
    reply: dict[str, Any]


class Load:
    """Requests of all kinds, each at its moment, on connections that are used again for a while."""

    def __init__(self, service: Service, catalog: dict[str, Any], customers: int) -> None:
        self._port = int(service.url.rpartition(":")[2])
        self._catalog = catalog
        self._customers = customers
        self._idle: deque[tuple[Caller, float]] = deque()  # with when each was used last
        self._chance = random.Random(7)
        self._numbers = np.random.default_rng(7)
        self._asked: deque[Asked] = deque(maxlen=2_000)
        self._under_way = 0
        self.since_look: list[float] = []
        self.took: dict[str, list[tuple[float, float]]] = {kind: [] for kind in [*MIX, "metrics", "publish"]}
        self.wrong: Counter[str] = Counter()
        self.opened = 0

    async def run(self, seconds: float, rate: float) -> None:
        """Requests at moments laid down before, until the time is over and all are answered."""
        self.begin = time.perf_counter()
        kinds, weights = list(MIX), list(MIX.values())
        async with asyncio.TaskGroup() as group:
            at = 0.0
            while (at := at + self._chance.expovariate(rate)) < seconds:
                await asyncio.sleep(self.begin + at - time.perf_counter())
                if self._under_way >= MOST_UNDER_WAY:
                    self.wrong["not even asked: too much was under way"] += 1
                    continue
                (kind,) = self._chance.choices(kinds, weights)
                group.create_task(self._timed(kind, at, getattr(self, kind)))

    async def publish(self, warm: float) -> None:
        """Another catalog each minute; before, within `warm` seconds, more than the service remembers."""
        number = 0
        while True:
            await asyncio.sleep(warm / PUBLISHED_BEFORE if number < PUBLISHED_BEFORE else PUBLISH_EVERY)
            number += 1
            changed = copy.deepcopy(self._catalog)
            changed["actions"][0]["lever"] = 1 + number / 1000
            content = orjson.dumps(changed)
            await self._timed("publish", time.perf_counter() - self.begin, lambda c=content: self._publish(c))

    async def metrics(self) -> str:
        """What the service tells of itself."""
        return (await self._call("GET", "/metrics")).body.decode()

    async def decide(self, activation: str = "immediate", only: str = "") -> None:
        """A decision for somebody, on one of three channels."""
        channel, placements, context = visit(self._numbers)
        while only not in ("", channel):
            channel, placements, context = visit(self._numbers)
        asked = {
            "request_id": str(uuid4()),
            "customer_id": f"sim-{self._chance.randint(1, self._customers):06d}",
            "channel": channel,
            "placements": [{"id": name} for name in placements],
            "context": context,
            "activation": activation,
        }
        content = orjson.dumps(asked)
        reply = orjson.loads((await self._call("POST", "/v1/decisions", content)).body)
        for each in reply["degraded"]:
            self.wrong[f"degraded: {each}"] += 1
        self._asked.append(Asked(channel, content, reply))

    async def defer(self) -> None:
        """One that counts only when it is seen."""
        await self.decide("deferred", only="web")

    async def respond(self) -> None:
        """What somebody said to one of the last decisions."""
        one = self._some()
        items = [item for each in one.reply["placements"] for item in each["items"] if item["treatment"]]
        if not items:
            await self.read()
            return
        message = {
            "response_id": str(uuid4()),
            "decision_id": one.reply["decision_id"],
            "treatment": self._chance.choice(items)["treatment"],
            "outcome": self._chance.choice(OUTCOMES[one.channel]),
        }
        await self._call("POST", "/v1/responses", orjson.dumps(message))

    async def retry(self) -> None:
        """A request once more: it must bring the same decision."""
        one = self._some()
        reply = await self._call("POST", "/v1/decisions", one.request)
        if orjson.loads(reply.body) != one.reply:
            self.wrong["another answer to the same request"] += 1

    async def read(self) -> None:
        await self._call("GET", f"/v1/decisions/{self._some().reply['decision_id']}")

    async def explain(self) -> None:
        await self._call("GET", f"/v1/decisions/{self._some().reply['decision_id']}/explanation")

    async def history(self) -> None:
        await self._call("GET", f"/v1/customers/{self._some().reply['customer_id']}/history")

    async def update(self) -> None:
        """Something new about a customer."""
        content = orjson.dumps({"attributes": {"nps": self._chance.randint(0, 10)}})
        await self._call("PATCH", f"/v1/customers/{self._some().reply['customer_id']}", content)

    async def _publish(self, content: bytes) -> None:
        await self._call("POST", "/v1/catalog/publish", content)

    def _some(self) -> Asked:
        return self._chance.choice(self._asked)

    async def _timed(self, kind: str, at: float, work: Callable[[], Awaitable[object]]) -> None:
        self._under_way += 1
        try:
            if kind in ("decide", "defer", "publish") or self._asked:
                await work()
                took = time.perf_counter() - self.begin - at
                self.took[kind].append((at, took))
                if kind != "publish":
                    self.since_look.append(took)
        except (OSError, AssertionError) as error:
            self.wrong[f"{kind}: {error}"] += 1
        finally:
            self._under_way -= 1

    async def _call(self, method: str, path: str, content: bytes = b"") -> Answer:
        now = time.perf_counter()
        while self._idle and now - self._idle[0][1] > MOST_IDLE:  # before the service closes it
            self._idle.popleft()[0].close()
        if self._idle:
            caller, _ = self._idle.pop()
        else:
            caller = await Caller.open(self._port)
            self.opened += 1
        answer = await caller.call(method, path, content)
        if caller.sent >= CALLS_PER_CONNECTION:
            caller.close()
        else:
            self._idle.append((caller, time.perf_counter()))
        assert answer.status in (200, 204), f"{answer.status} {answer.body[:200]!r}"
        return answer
