"""Decisions come out the same, byte for byte, after catalogs and snapshots have moved on."""

from __future__ import annotations

import copy
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import NOW, Clock, Ids, Service, running

from arbitration.snapshot import PRIOR
from decision.catalog_files import read_catalog
from decision.demo.world import simulate_customers, visit

ROOT = Path(__file__).resolve().parents[2]
BATCHES = 20


def catalogs() -> list[dict[str, Any]]:
    """The telco catalog, with the date in a text, and the same with a lever, a rule and that text changed."""
    source, problems = read_catalog(ROOT / "examples/telco")
    assert not problems
    first: dict[str, Any] = copy.deepcopy(dict(source.document))
    by_id = {action["id"]: action for action in first["actions"]}
    by_id["security_check"]["treatments"][0]["content"]["script"] = (
        "Today, {{ 'now' | date: '%-d %B %Y %H:%M:%S' }}, {{ now | date: '%s' }}"
    )
    second = copy.deepcopy(first)
    by_id = {action["id"]: action for action in second["actions"]}
    by_id["security_check"]["lever"] = 3.0
    by_id["security_check"]["treatments"][0]["content"]["script"] = "It is {{ 'today' | date: '%A' }}"
    by_id["renew_12m"]["applicability"] = ["customer.nps <= 8"]
    return [first, second]


async def decide(service: Service, rng: np.random.Generator, count: int) -> dict[str, dict[str, Any]]:
    requests = []
    for _ in range(count):
        channel, placements, context = visit(rng)
        requests.append(
            {
                "customer_id": f"sim-{rng.integers(1, 320):06d}",  # the last twenty are strangers
                "channel": channel,
                "placements": [{"id": name} for name in placements],
                "context": context,
                "explain": bool(rng.random() < 0.1),
            }
        )
    reply = await service.client.post("/v1/decisions:batch", json={"requests": requests})
    results = reply.json()["results"]
    assert {result["status"] for result in results} == {200}
    return {result["decision"]["decision_id"]: result["decision"] for result in results}


async def answer(service: Service, decisions: dict[str, dict[str, Any]], rng: random.Random) -> None:
    messages = [
        {
            "response_id": f"{id}-{item['treatment']}",
            "decision_id": id,
            "treatment": item["treatment"],
            "outcome": rng.choice(["accepted", "rejected", "rejected", "impression"]),
        }
        for id, decision in decisions.items()
        for placement in decision["placements"]
        for item in placement["items"]
        if not item["is_fallback"] and rng.random() < 0.4
    ]
    reply = await service.client.post("/v1/responses", json=messages)
    assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("count", [80, pytest.param(1000, marks=pytest.mark.long)])
async def test_decisions_replay_byte_for_byte(tmp_path: Path, count: int) -> None:
    path, clock, ids = tmp_path / "replay.db", Clock(), Ids()
    rng, answers = np.random.default_rng(7), random.Random(7)
    made: dict[str, dict[str, Any]] = {}
    async with running(path, clock, ids) as service:
        learner = service.learner()
        first, second = catalogs()
        await service.publish(first)
        lines = b"".join(_json(customer) + b"\n" for customer in simulate_customers(300, 7, NOW))
        imported = (
            await service.client.post(
                "/v1/customers:import", content=lines, headers={"content-type": "application/x-ndjson"}
            )
        ).json()
        assert (imported["imported"], imported["rejected"]) == (300, 0)
        for number in range(BATCHES):
            if number == BATCHES // 2:
                await service.publish(second)
            clock.now += timedelta(hours=5, microseconds=1234567)
            found = await decide(service, rng, count // BATCHES)
            await answer(service, found, answers)
            if number % 3 == 2:
                await learner.step()
                await service.context.live.refresh()
            made |= found
        store = service.context.store
        kept = {id: (await store.decision(id)).reply for id in made}  # type: ignore[union-attr]
        versions = {(await store.decision(id)).snapshots["default"] for id in made}  # type: ignore[union-attr]
    assert len(kept) == count
    assert len({decision["catalog_version"] for decision in made.values()}) == 2
    assert PRIOR in versions
    assert len(versions) >= 5
    assert any("Today, " in reply.decode() for reply in kept.values())

    clock.now += timedelta(days=400)
    async with running(path, clock, Ids(10**6)) as again:  # everything anew, as after a restart
        for id, reply in kept.items():
            replayed = await again.client.post(f"/v1/decisions/{id}/replay")
            assert replayed.content == b'{"identical":true,"decision":' + reply + b"}"
        assert (await again.client.get(f"/v1/decisions/{id}")).content == reply
        await check_explanations(again, list(made.values())[::40])
        await check_tampering(again, next(iter(made)))

    command = [sys.executable, "-m", "decision", "replay", id, "--store", f"sqlite:{path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "identical" in done.stdout
    command[4] = next(iter(made))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "not identical" in done.stderr) == (1, True)


async def check_explanations(service: Service, decisions: list[dict[str, Any]]) -> None:
    """An explanation is the decision's own: its ranked arms hold those shown, with the logged numbers."""
    for decision in decisions:
        reply = await service.client.get(f"/v1/decisions/{decision['decision_id']}/explanation")
        if "explanation" in decision:
            assert reply.json() == decision["explanation"]
        for shown, why in zip(decision["placements"], reply.json()["placements"], strict=True):
            picked = [item for item in shown["items"] if not item["is_fallback"]]
            assert [slot["treatment"] for slot in why["slots"]] == [item["treatment"] for item in picked]
            for item, slot in zip(picked, why["slots"], strict=True):
                assert abs(slot["probabilities"][item["treatment"]] - item["selection_probability"]) < 1e-11
                assert abs(sum(slot["probabilities"].values()) - 1) < 1e-9


async def check_tampering(service: Service, id: str) -> None:
    """A record that was changed behind our back is found out."""
    changed = "CAST(replace(CAST(reply AS TEXT), '\"rank\":1', '\"rank\":2') AS BLOB)"
    with closing(sqlite3.connect(service.path)) as connection:
        connection.execute(f"UPDATE decisions SET reply = {changed} WHERE decision_id = ?", (id,))
        connection.commit()
    assert not (await service.client.post(f"/v1/decisions/{id}/replay")).json()["identical"]


def _json(customer: dict[str, Any]) -> bytes:
    import orjson

    return orjson.dumps(customer)
