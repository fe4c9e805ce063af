"""The catalog over HTTP: read, validate, publish, go back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support import Service


async def test_what_is_read_can_be_published_again(service: Service, document: dict[str, Any]) -> None:
    found = (await service.client.get("/v1/catalog")).json()
    assert {"id", "channel"} <= set(found["catalog"]["placements"][0])
    for again in (found["catalog"], json.loads(json.dumps(document, sort_keys=True))):
        reply = (await service.client.post("/v1/catalog/validate", json=again)).json()
        assert reply == {"valid": True, "version": found["version"], "problems": []}
    assert await service.publish(found["catalog"]) == found["version"]
    assert service.rows()["catalogs"] == 1


async def test_every_problem_is_told_at_once(service: Service, document: dict[str, Any]) -> None:
    document["actions"][0]["eligibility"] = ["customer.nsp > 3", "customer.nps", 'customer.nps == "a"']
    document["actions"][1]["treatments"][0]["content"] = {"headlin": "{{ customer.x }}"}
    document["actions"][2]["group"] = "none"
    document["actions"][3]["lever"] = -1
    before = service.rows()
    reply = (await service.client.post("/v1/catalog/validate", json=document)).json()
    assert not reply["valid"]
    assert {problem["field"] for problem in reply["problems"]} == {
        "actions[0].eligibility[0]", "actions[0].eligibility[1]", "actions[0].eligibility[2]",
        "actions[1].treatments[0].content", "actions[1].treatments[0].content.headlin",
        "actions[2].group", "actions[3].lever",
    }  # fmt: skip
    assert all("^" in p["excerpt"] for p in reply["problems"] if p["code"] in ("rule", "template_name"))
    refused = await service.client.post("/v1/catalog/publish", json=document)
    assert refused.status_code == 422
    assert len(refused.json()["errors"]) == len(reply["problems"])
    assert service.rows() == before


async def test_publishing_is_seen_by_the_next_decision(service: Service, document: dict[str, Any]) -> None:
    before = await service.decide(profile={"nps": 9, "plan": "Max"})
    document["actions"][3]["treatments"][0]["content"]["headline"] = "Other words"
    version = await service.publish(document)
    after = await service.decide(profile={"nps": 9, "plan": "Max"})
    assert after["catalog_version"] == version != before["catalog_version"]
    assert after["placements"][0]["items"][0]["content"] == {"headline": "Other words"}
    assert (await service.client.get("/v1/catalog")).json()["version"] == version


@pytest.mark.parametrize(
    "change",
    [
        {"actions": [{"id": "a", "group": "sales", "valid": {"to": "9999-12-31"}, "treatments": []}]},
        {
            "channels": [
                {"id": "c", "direction": "inbound", "rewards": {"click": 1}, "response_window": "999999w"}
            ]
        },
        {"policies": [{"id": "p", "strategy": "zork"}]},
        {"features": [{"id": "x", "kind": "cross", "of": ["x", "x"]}]},
        {"actions": [None, 3, "x", []]},
        {"zork": 1},
        {"placements": "web"},
        {"attributes": [{"id": "in", "type": "int"}]},
        {"actions": [{"id": "a", "eligibility": ["(" * 1999, "'", "\u2028 x", "a\nb\n  +"]}]},
    ],
)
async def test_a_hostile_document_is_refused_in_words(
    service: Service, document: dict[str, Any], change: dict[str, Any]
) -> None:
    reply = await service.client.post("/v1/catalog/publish", json=document | change)
    assert reply.status_code == 422
    assert reply.json()["errors"]
