"""Governance over HTTP."""

from __future__ import annotations

import pytest
from support import Service, catalog_document


async def test_over_http_it_is_the_same(service: Service) -> None:
    call = service.client
    body = {"document": {**catalog_document(), "currency": "USD"}, "title": "Dollars", "why": "we move"}
    drafted = await call.post("/v1/catalog/changes", json=body)
    assert drafted.status_code == 201
    change = drafted.json()
    assert change["diff"]["text"] == ["~ currency", '    "EUR" → "USD"']
    assert change["diff"]["parts"][0]["changes"] == [
        {"kind": "changed", "path": "currency", "before": "EUR", "after": "USD", "text": '"EUR" → "USD"'}
    ]
    assert (await call.post("/v1/catalog/diff", json=body["document"])).json() == change["diff"]
    path = f"/v1/catalog/changes/{change['id']}"
    assert (await call.post(f"{path}/comment", json={"comment": "why?"})).status_code == 200
    broken = {**body, "document": {"actions": 3}}
    assert (await call.post("/v1/catalog/changes", json=broken)).json()["code"] == "invalid_catalog"
    await service.publish({**catalog_document(), "name": "meanwhile"})
    moved = (await call.get(path)).json()
    assert len(moved["warnings"]) == 1
    assert moved["diff"]["text"] == ["~ currency", '    "EUR" → "USD"', "~ name", '    "meanwhile" → "small"']
    edited = {"document": {**catalog_document(), "currency": "GBP"}, "why": "pounds"}
    assert (await call.put(path, json=edited)).json()["warnings"] == []
    for step, expected in (("submit", "submitted"), ("approve", "approved"), ("publish", "published")):
        version = (await call.get(path)).json()["version"]
        seen = {} if step == "submit" else {"version": version}
        reply = await call.post(f"{path}/{step}", json={"why": "x", **seen})
        assert (reply.status_code, reply.json()["state"]) == (200, expected)
    over = reply.json()
    assert over["diff"]["text"][:2] == [
        "~ currency",
        '    "EUR" → "GBP"',
    ]  # what it did
    assert [note["step"] for note in over["history"]] == [
        "draft", "comment", "edit", "submit", "approve", "publish"
    ]  # fmt: skip
    listed = (await call.get("/v1/catalog/changes")).json()["changes"]
    assert [(each["id"], each["state"]) for each in listed] == [(change["id"], "published")]
    assert (await call.post(f"{path}/reject", json={"why": "x"})).json()["code"] == "wrong_state"
    assert (await call.get("/v1/catalog/changes/zork")).json()["code"] == "unknown_change"


@pytest.mark.parametrize("hidden", ["\u202e", "\x9b31m", "\x1b", "\u2066", "\u2028"])
async def test_titles_reasons_and_comments_say_what_they_seem_to(service: Service, hidden: str) -> None:
    text, call = f"a{hidden}b", service.client
    document, body = catalog_document(), {"title": "t", "why": "w"}
    for field in body:
        reply = await call.post("/v1/catalog/changes", json={"document": document, **body, field: text})
        assert (reply.status_code, [each["field"] for each in reply.json()["errors"]]) == (422, [field])
    for path, field, more in (
        ("halts", "why", {"scope": "action", "target": "check"}),
        ("catalog/changes/x/comment", "comment", {}),
        ("catalog/changes/x/approve", "why", {"version": "v"}),
    ):
        reply = await call.post(f"/v1/{path}", json={**more, field: text})
        assert (reply.status_code, [each["field"] for each in reply.json()["errors"]]) == (422, [field])
    reply = await call.post("/v1/catalog/publish", json=document, params={"why": text})
    assert reply.status_code == 422
