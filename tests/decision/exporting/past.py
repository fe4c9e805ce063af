"""A random history with all that an export has to get right."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from support import ANNA, Service, asking, catalog_document, running, treatments

from decision.exporting.remaking import Log, Window, survey
from decision.exporting.rows import Row
from decision.live import Live
from decision.storage.sqlite.store import SqliteStore

CUSTOMERS = [f"customer-{number}" for number in range(12)]
OBJECTS = {"customer-3", "customer-4"}
OUTCOMES = {
    "agent": ["accepted", "rejected"],
    "web": ["impression", "click", "accepted"],
    "mail": ["click", "accepted"],
}


def document(second: bool = False) -> dict[str, Any]:
    """Slots, channels, control groups, a challenger, value learning; the second one has other facts, features
    and levers."""
    made = catalog_document()
    made["purposes"].append({"id": "profiling", "profiling": True})
    made["attributes"].append({"id": "birth_year", "type": "int", "pii": True})
    made["features"] += [
        {"id": "age", "kind": "numeric", "source": "customer.birth_year", "scale": 2000.0},
        {"id": "age_by_plan", "kind": "cross", "of": ["age", "plan"]},
    ]
    attributes = {each["id"]: each for each in made["attributes"]}
    attributes["spend"]["type"] = "double" if second else "int"
    attributes["interests"]["type"] = "string" if second else "strings"
    made["policies"][0]["challengers"] = [{"policy": "money", "share": 0.4}]
    made["policies"].append({"id": "money", "strategy": "softmax", "value_scale": 40.0})
    made["control_groups"] = [
        {"id": "shuffled", "share": 0.4, "behaviour": "random_eligible", "groups": ["retention", "sales"]},
        {"id": "held_out", "share": 0.2, "behaviour": "no_action"},
    ]
    if second:
        made["attributes"].append({"id": "tenure", "type": "int"})
        made["features"].append({"id": "tenure", "kind": "numeric", "source": "customer.tenure"})
        made["actions"][0]["lever"] = 3.0
    return made


@dataclass(frozen=True)
class History:
    """A database, the replies given, and the responses to them."""

    path: Path
    replies: list[dict[str, Any]]
    responses: list[dict[str, Any]]


async def lived(path: Path, rng: random.Random) -> History:
    history = History(path, [], [])
    async with running(path) as service:
        for second in (False, True):
            await service.publish(document(second))
            for customer in CUSTOMERS:
                await service.client.put(f"/v1/customers/{customer}", json=_profile(customer, rng, second))
            for number in range(32):
                service.clock.now += timedelta(minutes=rng.randint(1, 200))
                history.replies.append(await _decided(service, rng))
                history.responses.extend(await _answered(service, history.replies[-1], rng))
                if number % 8 == 7:
                    while await service.learner().step():
                        pass
                    await service.context.live.refresh()
    return history


def _profile(customer: str, rng: random.Random, second: bool) -> dict[str, Any]:
    consent = "withdrawn" if customer in OBJECTS else "given"
    attributes = {
        **ANNA["attributes"],
        "nps": rng.randint(0, 6),
        "spend": 7.5 if second else 7,
        "interests": "sport" if second else ["sport", "chess"],
        "birth_year": rng.randint(1940, 2005),
        "plan": rng.choice(["Basic", "Max"]),
    }
    if second:
        attributes["tenure"] = rng.randint(0, 9)
    scores = {"clv": 480.0, "churn": rng.random()}
    return {
        "attributes": attributes,
        "scores": scores,
        "consents": {"marketing": "given", "profiling": consent},
    }


async def _decided(service: Service, rng: random.Random) -> dict[str, Any]:
    asked = asking(rng.choice(CUSTOMERS), rng.choice(["panel", "panel", "hero", "side", "block"]))
    kind = rng.random()
    if kind < 0.2:
        asked = {"customer_id": asked["customer_id"], "channels": ["agent", "mail"]}
    elif kind < 0.3:
        asked = {"customer_id": asked["customer_id"], "channel": "web"}  # both placements
    elif kind < 0.4:
        del asked["customer_id"]
        asked["identity"] = {"type": "cookie", "value": f"stranger-{rng.randint(0, 3)}"}
    elif kind < 0.45:
        asked["mode"] = "dry_run"
    reply = await service.client.post("/v1/decisions", json=asked)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return {**found, "asked": asked}


async def _answered(service: Service, reply: dict[str, Any], rng: random.Random) -> list[dict[str, Any]]:
    if reply["asked"].get("mode") == "dry_run":
        return []
    messages = [
        {
            "response_id": f"{reply['decision_id']}-{treatment}-{number}",
            "decision_id": reply["decision_id"],
            "treatment": treatment,
            "outcome": rng.choice(OUTCOMES[reply["channel"]]),
            "value": rng.choice([None, 5.0, 25.0]),
        }
        for treatment in filter(None, treatments(reply))
        for number in range(rng.choice([0, 1, 1, 2]))
    ]
    if messages:
        answer = await service.client.post("/v1/responses", json=messages)
        assert answer.status_code == 200, answer.text
    return messages


OPEN = Window()
Told = tuple[Log, list[Row]]


async def read(store: SqliteStore, window: Window = OPEN, **more: Any) -> Told:
    given: dict[str, Any] = {"customers": "plain", "pii": False, "key": b"k", **more}
    log = await survey(store, Live(store), window, **given)
    return log, [row async for rows in log.rows() for row in rows]
