"""Callers that take down what they were told, so that it can be held against the ledger afterwards."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import httpx
from support import asking

from decision.storage.port import Cursor, Store


@dataclass(frozen=True, slots=True)
class Refusal:
    """A 503: what was asked for, what it said, when (monotonic), and how many seconds it took."""

    path: str
    code: str
    retry_after: str | None
    at: float
    seconds: float


class Load:
    """Threads that decide and answer, one after the other, until they are stopped.

    Each asks with an id of its own, and asks again with the same one when it is refused (503), as a careful
    caller would. A connection that breaks ends a caller, unless it is `persistent`: then it asks again, too.

    `answered`: each reply by its decision id, and `acknowledged`: each response whose reply came. `refused`:
    every 503 that was a proper problem document. `wrong`: everything else; the first ends all. `lost`: how
    often a connection broke.
    """

    def __init__(
        self, url: str, name: str, *, callers: int = 4, persistent: bool = False, pause: float = 0.02
    ) -> None:
        """`pause`: seconds before a caller asks again."""
        self.answered: dict[str, bytes] = {}
        self.acknowledged: dict[str, dict[str, Any]] = {}
        self.refused: list[Refusal] = []
        self.wrong: list[str] = []
        self.lost = 0
        self._persistent = persistent
        self._pause = pause
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(url, f"{name}-{number}")) for number in range(callers)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.join()

    def join(self) -> None:
        """Waits until every caller has ended."""
        for thread in self._threads:
            thread.join()

    def more_acknowledged(self, count: int) -> Callable[[], bool]:
        """Whether so many more responses than now are acknowledged (or something went wrong)."""
        wanted = len(self.acknowledged) + count
        return lambda: len(self.acknowledged) >= wanted or bool(self.wrong)

    def more_refused(self, count: int) -> Callable[[], bool]:
        """Whether so many more requests than now were refused (or something went wrong)."""
        wanted = len(self.refused) + count
        return lambda: len(self.refused) >= wanted or bool(self.wrong)

    def _call(self, url: str, name: str) -> None:
        chance = random.Random(name)
        with httpx.Client(base_url=url, timeout=30) as client:
            for count in range(1_000_000):
                if not self._round(client, name, f"{name}-{count}", chance):
                    return

    def _round(self, client: httpx.Client, customer: str, id: str, chance: random.Random) -> bool:
        given = {"nps": chance.randint(0, 10), "plan": chance.choice(["Basic", "Max"])}
        reply = self._ask(
            client, "/v1/decisions", {**asking(customer, "panel", profile=given), "request_id": id}
        )
        if reply is None:
            return False
        decision = reply.json()
        self.answered[decision["decision_id"]] = reply.content
        message = {
            "response_id": id,
            "decision_id": decision["decision_id"],
            "treatment": decision["placements"][0]["items"][0]["treatment"],
            "outcome": chance.choice(["accepted", "rejected"]),
        }
        if self._ask(client, "/v1/responses", message) is None:
            return False
        self.acknowledged[id] = message
        return True

    def _ask(self, client: httpx.Client, path: str, message: dict[str, Any]) -> httpx.Response | None:
        """The answer, however often it has to be asked for; None where the caller is to end."""
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                reply = client.post(path, json=message)
            except httpx.TransportError:
                self.lost += 1
                if not self._persistent:
                    return None
            else:
                if reply.status_code == 200:
                    return reply
                if not self._refused(path, reply, began):
                    self._stopped.set()
                    return None
            time.sleep(self._pause)
        return None

    def _refused(self, path: str, reply: httpx.Response, began: float) -> bool:
        problem = reply.headers.get("content-type") == "application/problem+json"
        retry_after = reply.headers.get("retry-after", "")
        if reply.status_code != 503 or not problem or not retry_after.isdigit():
            self.wrong.append(f"{path}: {reply.status_code} {reply.headers} {reply.text}")
            return False
        now = time.monotonic()
        self.refused.append(Refusal(path, reply.json()["code"], retry_after, now, now - began))
        return True


async def check(store: Store, *loads: Load) -> None:
    """All that was answered is in the ledger, as it was answered, and nothing is in it twice."""
    for load in loads:
        assert load.wrong == []
    decisions, responses, _ = await store.unread(Cursor(), 1_000_000)
    replies = {decision.decision_id: decision.reply for decision in decisions}
    said = {response.response_id: response for response in responses}
    answered = {id: reply for load in loads for id, reply in load.answered.items()}
    assert [id for id, reply in answered.items() if replies.get(id) != reply] == []
    acknowledged = {id: message for load in loads for id, message in load.acknowledged.items()}
    assert [id for id in acknowledged if id not in said] == []
    for id, message in acknowledged.items():
        kept = said[id]
        assert (kept.decision_id, kept.treatment, kept.outcome) == (
            message["decision_id"],
            message["treatment"],
            message["outcome"],
        )
    asked = Counter(decision.request_id for decision in decisions if decision.request_id is not None)
    assert [id for id, times in asked.items() if times > 1] == []
    assert len(replies) == len(decisions)
    assert len(said) == len(responses)
