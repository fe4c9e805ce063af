"""The published contract: no drift, one documented problem shape, and replies that keep it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support import Service, asking, treatments

from decision import messages
from decision.contract import FOLDER, files

OPENAPI: dict[str, Any] = json.loads(files()["openapi.json"])
OPERATIONS = [
    (method, path, operation)
    for path, methods in OPENAPI["paths"].items()
    for method, operation in methods.items()
    if path not in ("/healthz", "/metrics")
]


@pytest.mark.parametrize("name", ["openapi.json", "catalog.schema.json"])
def test_the_published_files_are_what_the_code_says(name: str) -> None:
    assert (FOLDER / name).read_bytes() == files()[name], "run: python -m decision.contract"


@pytest.mark.parametrize(
    ("method", "path", "operation"), OPERATIONS, ids=[f"{m} {p}" for m, p, _ in OPERATIONS]
)
def test_every_operation_documents_its_problems(method: str, path: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    assert {"422", "500", "503"} <= set(responses)
    if "application/json" in operation.get("requestBody", {}).get("content", {}):
        assert {"400", "413", "415"} <= set(responses)
    for status, response in responses.items():
        if int(status) >= 400:
            schema = {"$ref": "#/components/schemas/Problem"}
            assert response["content"] == {"application/problem+json": {"schema": schema}}


def test_every_reference_is_defined() -> None:
    text = json.dumps(OPENAPI)
    named = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert named <= set(OPENAPI["components"]["schemas"])


PHONE = {"type": "phone", "value": "1"}


async def test_replies_are_as_documented(service: Service) -> None:
    client = service.client
    decision = await service.decide(explain=True, request_id="r")
    id = decision["decision_id"]
    response = {
        "response_id": "a",
        "decision_id": id,
        "treatment": treatments(decision)[0],
        "outcome": "accepted",
    }
    fallback = asking("x", "hero", profile={"nps": 9})
    for method, path, body, model in (
        ("POST", "/v1/decisions", asking(explain=True), messages.DecisionReply),
        ("POST", "/v1/decisions", fallback, messages.DecisionReply),
        ("POST", "/v1/decisions:batch", {"requests": [asking(), 3]}, messages.BatchReply),
        ("GET", f"/v1/decisions/{id}", None, messages.DecisionReply),
        ("POST", f"/v1/decisions/{id}/replay", None, messages.ReplayReply),
        ("GET", f"/v1/decisions/{id}/explanation", None, messages.ExplanationReply),
        ("POST", "/v1/responses", response, messages.RecordedReply),
        ("POST", "/v1/responses", [response], messages.RecordedReply),
        ("GET", "/v1/customers/anna", None, messages.OverviewReply),
        ("PATCH", "/v1/customers/anna", {"attributes": {"spend": 3}}, messages.CustomerReply),
        ("POST", "/v1/customers/anna/identities", {"identities": [PHONE]}, messages.NamesReply),
        ("GET", "/v1/customers/anna/history", None, messages.HistoryReply),
        ("GET", "/v1/catalog", None, messages.CatalogReply),
        ("POST", "/v1/catalog/validate", {"actions": [{}]}, messages.ValidationReply),
        ("GET", "/v1/catalog/versions", None, messages.VersionsReply),
        ("GET", "/healthz", None, messages.HealthReply),
        ("GET", "/readyz", None, messages.HealthReply),
    ):
        reply = await client.request(method, path, json=body)
        assert reply.status_code == 200, reply.text
        model.model_validate_json(reply.content)
        assert set(reply.json()) <= set(model.model_fields), path
    headers = {"content-type": "application/x-ndjson"}
    reply = await client.post("/v1/customers:import", content=b'{"customer_id": 3}\n', headers=headers)
    messages.ImportReply.model_validate_json(reply.content)
