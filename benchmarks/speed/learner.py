"""How fast the learner is: from decisions and answers in the ledger to labels and snapshots in the store."""

from __future__ import annotations

import tempfile
from datetime import timedelta
from pathlib import Path
from time import perf_counter

import orjson
import uvloop

from benchmarks.speed.population import customers
from benchmarks.speed.service import asked, serving
from benchmarks.speed.workload import world
from decision.clock import new_id, utc_now
from decision.learner import Learner
from decision.messages import ResponseMessage


def learner_rate(smoke: bool) -> float:
    """Events learned per second, an event being an item that was shown and what came of it."""
    with tempfile.TemporaryDirectory() as directory:
        return uvloop.run(_rate(Path(directory), *((20, 40) if smoke else (100, 6_000))))


async def _rate(directory: Path, arms: int, decisions: int) -> float:
    """Of each decision the first item is clicked, and of the others nothing is heard."""
    people = customers(decisions, seed=8, now=utc_now())
    async with serving(directory, world(arms, "young", "columns"), people) as service:
        learner = Learner(service.store, lambda: utc_now() + timedelta(days=2))
        await learner.step()
        items = 0
        for start in range(0, decisions, 200):
            replies = await service.deciding.decide_all([asked(each) for each in people[start : start + 200]])
            answers = []
            for reply in replies:
                assert isinstance(reply, bytes), reply
                decision = orjson.loads(reply)
                shown = decision["placements"][0]["items"]
                items += len(shown)
                answers += [_click(decision["decision_id"], each["treatment"]) for each in shown[:1]]
            await service.responding.respond(answers, listed=True)
        began = perf_counter()
        while await learner.step():
            pass
        return items / (perf_counter() - began)


def _click(decision: str, treatment: str) -> ResponseMessage:
    return ResponseMessage(response_id=new_id(), decision_id=decision, treatment=treatment, outcome="click")
