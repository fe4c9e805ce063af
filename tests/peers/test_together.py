"""Decisions through the HTTP API, with features from a real Feast that feed a model on a real MLServer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import SecretStr
from servers import Models
from support import Service, asking, catalog_document, running

from decision.sources.connections import Connection

pytestmark = pytest.mark.peers

CUSTOMERS = ("anna", "ben", "cleo", "nobody")


def document() -> dict[str, Any]:
    found = catalog_document()
    found["sources"] = [
        {"id": "features", "kind": "feast", "timeout": "10s", "batch": {"size": 32, "wait": "20ms"}},
        {
            "id": "churn",
            "kind": "open_inference",
            "model": "churn",
            "timeout": "10s",
            "inputs": {"a": "customer.spent", "b": "customer.is_vip", "c": "customer.segment_length"},
            "tensor": "x",
            "batch": {"size": 32, "wait": "20ms"},
        },
    ]
    feast = {"source": "features"}
    found["attributes"] += [
        {"id": "spent", "type": "double", "path": "profile:spent", **feast},
        {"id": "segment", "type": "string", "path": "profile:segment", **feast},
        {"id": "vip", "type": "bool", "path": "profile:vip", **feast},
        {"id": "since", "type": "timestamp", "path": "profile:since", **feast},
        {"id": "is_vip", "type": "double", "derive": "customer.vip ? 1.0 : 0.0"},
        {"id": "segment_length", "type": "double", "derive": "double(size(customer.segment))"},
    ]
    found["scores"][1] |= {"source": "churn", "path": "predict_proba[1]"}
    return found


async def inputs(service: Service, decision: dict[str, Any]) -> dict[str, Any]:
    record = await service.context.store.decision(decision["decision_id"])
    assert record is not None
    found: dict[str, Any] = orjson.loads(record.inputs)
    return found


async def decided(service: Service, customer: str) -> dict[str, Any]:
    asked = asking(customer, timeout_ms=20_000)
    reply = await service.client.post("/v1/decisions", json=asked)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


async def test_features_feed_the_model_and_both_the_decision(
    feast_url: str, models: Models, tmp_path: Path
) -> None:
    connections = {
        "features": Connection(url=SecretStr(feast_url)),
        "churn": Connection(url=SecretStr(models.url)),
    }
    async with running(tmp_path / "db", connections=connections) as service:
        await service.publish(document())
        decisions = await asyncio.gather(*(decided(service, who) for who in CUSTOMERS * 10))
        calls = service.context.metrics.exposition().decode()
        by_customer: dict[str, Any] = {}
        for who, decision in zip(CUSTOMERS * 10, decisions, strict=True):
            known = await inputs(service, decision)
            facts = {name: value for name, value in known["facts"].items() if name != "customer.now"}
            assert by_customer.setdefault(who, (facts, known["degraded"])) == (facts, known["degraded"])
            replay = await service.client.post(f"/v1/decisions/{decision['decision_id']}/replay")
            assert replay.json()["identical"]
    anna, degraded = by_customer["anna"]
    assert degraded == ["profile:not_found"]
    assert {name: anna[f"customer.{name}"] for name in ("spent", "segment", "vip", "is_vip")} == {
        "spent": 12.5,
        "segment": "gold",
        "vip": True,
        "is_vip": 1.0,
    }
    assert anna["customer.since"] == {"timestamp": "2024-02-29T12:30:15Z"}
    assert 0 < anna["scores.churn"] < 1
    assert anna["scores.churn"] != by_customer["ben"][0]["scores.churn"], "to each their own"
    # cleo has no segment in Feast, so the model cannot be asked about her; nobody is in neither.
    assert by_customer["cleo"][1] == ["profile:not_found", "sources.churn:missing_input"]
    assert by_customer["nobody"] == (
        {},
        ["profile:not_found", "sources.features:not_found", "sources.churn:missing_input"],
    )
    # Forty requests for four customers: one question each, and these in one call.
    assert 'source_calls_total{result="ok",source="features"} 1.0' in calls
    assert 'source_calls_total{result="ok",source="churn"} 1.0' in calls
