"""A source under load: that dies and comes back, and that many ask at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from faults.unruly import Unruly, number_of
from pydantic import SecretStr
from support import Service, actions, running

from decision.deciding import read_recorded
from decision.sources.connections import Connection
from decision.storage.port import Customer

REQUESTS = 500
REST = 0.5
MANY = 100


@pytest.fixture(scope="module")
def upstream() -> Iterator[Unruly]:
    with Unruly() as started:
        yield started


def catalog(sources: list[dict[str, Any]], attributes: list[dict[str, Any]]) -> dict[str, Any]:
    def action(id: str, *eligibility: str) -> dict[str, Any]:
        treatment = {"id": f"{id}_t", "channel": "agent", "placement": "panel", "content": {"text": id}}
        return {"id": id, "group": "all", "eligibility": list(eligibility), "treatments": [treatment]}

    return {
        "sources": sources,
        "attributes": attributes,
        "groups": [{"id": "all"}],
        "channels": [
            {"id": "agent", "direction": "inbound", "rewards": {"accepted": 1.0}, "response_window": "1h"}
        ],
        "placements": [{"id": "panel", "channel": "agent", "slots": 3, "content": [{"id": "text"}]}],
        "policies": [{"id": "default", "strategy": "thompson"}],
        "actions": [action("known", "customer.risk >= 0"), action("free")],
    }


CRM = {"id": "crm", "kind": "http", "path": "/facts/{customer_id}", "timeout": "30s"}
RISK = {"id": "risk", "type": "int", "source": "crm"}


@asynccontextmanager
async def serving(
    path: Path, document: dict[str, Any], customers: int, **urls: str
) -> AsyncIterator[Service]:
    """A service with the customers c-0, c-1 … whose stored `code` is `x-<number>`."""
    connections = {id: Connection(url=SecretStr(url)) for id, url in urls.items()}
    async with running(path / "service.db", connections=connections) as service:
        await service.publish(document)
        stored = [Customer(f"c-{n}", {"code": f"x-{n}"}, {}, {}, ()) for n in range(customers)]
        await service.context.store.put_customers(stored, service.clock())
        yield service


async def decide_for(service: Service, customers: list[str]) -> list[dict[str, Any]]:
    """Decisions for all of them at once."""
    asking = (service.decide(customer, "panel", timeout_ms=30_000) for customer in customers)
    return list(await asyncio.gather(*asking))


async def facts_of(service: Service, reply: dict[str, Any]) -> dict[str, Any]:
    record = await service.context.store.decision(reply["decision_id"])
    assert record is not None
    return dict(read_recorded(record.inputs).inputs.facts)


async def test_a_dead_source_is_left_alone_and_noticed_when_it_is_back(
    upstream: Unruly, tmp_path: Path
) -> None:
    crm = {**CRM, "breaker": {"failures": 5, "rest": f"{int(REST * 1000)}ms"}}
    upstream.switch("crm", "error")
    async with serving(tmp_path, catalog([crm], [RISK]), 0, crm=upstream.url("crm")) as service:
        causes = []
        began = time.monotonic()
        for number in range(REQUESTS):
            reply = await service.decide(f"c-{number}", "panel", timeout_ms=30_000)
            assert actions(reply) == ["free"]
            causes += reply["degraded"]
        took = time.monotonic() - began
        assert causes[:5] == ["sources.crm:unavailable"] * 5
        assert set(causes[5:]) <= {"sources.crm:circuit_open", "sources.crm:unavailable"}
        # one call tries per rest, and no other
        calls = len(upstream.asked("crm"))
        assert causes.count("sources.crm:unavailable") == calls
        assert calls <= 5 + took / REST

        upstream.switch("crm", "fine")
        await asyncio.sleep(REST)
        reply = await service.decide("c-7", "panel", timeout_ms=30_000)
        assert reply["degraded"] == []
        assert sorted(actions(reply)) == ["free", "known"]
        again = await decide_for(service, [f"c-{number}" for number in range(10)])
        assert [each["degraded"] for each in again] == [[]] * 10


CODE = {"id": "code", "type": "string"}
ORDERS = {**CRM, "id": "orders", "path": "/of/{code}", "inputs": {"code": "customer.code"}}
OPEN = {"id": "open", "type": "int", "source": "orders", "path": "risk"}


@pytest.mark.parametrize("customers", [1, MANY])
async def test_a_hundred_at_once_ask_once_for_each_customer(
    upstream: Unruly, tmp_path: Path, customers: int
) -> None:
    crm, orders = f"crm{customers}", f"orders{customers}"
    for name in (crm, orders):
        upstream.switch(name, "unhurried")
    urls = {"crm": upstream.url(crm), "orders": upstream.url(orders)}
    asking = [f"c-{number % customers}" for number in range(MANY)]
    async with serving(tmp_path, catalog([CRM, ORDERS], [RISK, CODE, OPEN]), customers, **urls) as service:
        replies = await decide_for(service, asking)
        for customer, reply in zip(asking, replies, strict=True):
            number = number_of(customer)
            found = {"risk": number, "code": f"x-{number}", "open": number}
            facts = await facts_of(service, reply)
            assert facts == {f"customer.{key}": value for key, value in found.items()}
    lines = sorted(request["line"].split(" ")[1] for request in upstream.asked(crm))
    assert lines == sorted(f"/{crm}/facts/c-{number}" for number in range(customers))
    assert len(upstream.asked(orders)) == customers


@pytest.mark.parametrize("kind", ["feast", "open_inference"])
async def test_a_hundred_customers_at_once_are_asked_for_in_few_calls(
    upstream: Unruly, tmp_path: Path, kind: str
) -> None:
    name, path = f"batch_{kind}", {"feast": "v:risk", "open_inference": "risk"}[kind]
    more = {"model": "m"} if kind == "open_inference" else {}
    crm = {"id": "crm", "kind": kind, "timeout": "30s", "batch": {"size": 25, "wait": "5000ms"}, **more}
    upstream.switch(name, "unhurried")
    customers = [f"c-{number}" for number in range(MANY)]
    document = catalog([crm], [{**RISK, "path": path}])
    async with serving(tmp_path, document, 0, crm=upstream.url(name)) as service:
        replies = await decide_for(service, customers)
        for customer, reply in zip(customers, replies, strict=True):
            assert await facts_of(service, reply) == {"customer.risk": number_of(customer)}
    bodies = [orjson.loads(request["body"]) for request in upstream.asked(name)]
    rows = [
        body["entities"]["customer_id"] if kind == "feast" else body["inputs"][0]["data"] for body in bodies
    ]
    assert [len(each) for each in rows] == [25] * 4
    assert sorted(customer for each in rows for customer in each) == sorted(customers)
