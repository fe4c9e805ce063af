"""What a page may ask with a publishable key, and what it gets to see."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import ANNA, Clock, Service, asking, running

from decision.access.keys import Wanted, make, publishable
from decision.access.scopes import SCOPES
from decision.access.visitors import new_pair, sign
from decision.errors import Rejected
from decision.storage.port import Identity

ORIGIN = "https://shop.example"
SIGNING, VERIFYING = new_pair()


@dataclass
class Site:
    """A site with a publishable key, and the system behind it with one of its own."""

    service: Service
    key: str
    id: str
    backend: str

    async def ask(
        self, body: Any, who: str | Identity = "anna", path: str = "/v1/decisions", **headers: str
    ) -> httpx.Response:
        token = sign(SIGNING, self.id, who, 600, self.service.clock())
        given = {
            "authorization": f"Bearer {self.key}",
            "origin": ORIGIN,
            "visitor-token": token,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return await self.service.client.post(path, json=body, headers=given)

    async def behind(self, method: str, path: str, body: Any = None) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.backend}"}
        return await self.service.client.request(method, path, json=body, headers=headers)

    async def respond(self, decision: str, who: str | Identity = "anna", **more: Any) -> httpx.Response:
        treatment = {"treatment": more.pop("treatment")} if "treatment" in more else {}
        body = {"response_id": "r-1", "decision_id": decision, "outcome": "click", **treatment, **more}
        return await self.ask(body, who, "/v1/responses")


@pytest.fixture
async def site(tmp_path: Path, document: Any) -> AsyncIterator[Site]:
    async with running(tmp_path / "site.db", Clock()) as service:
        await service.publish(document)
        await service.client.put("/v1/customers/anna", json=ANNA)
        shown = publishable([ORIGIN], ["web"], VERIFYING, ["impression", "click"])
        made = make(Wanted("site", ["decide", "respond"], publishable=shown), "cli:test")
        backend = make(Wanted("backend", SCOPES), "cli:test")
        await service.context.register.act(lambda _: [made.event, backend.event], service.clock())
        yield Site(service, made.token, made.id, backend.token)


async def test_a_page_sees_what_to_show_and_nothing_else(site: Site) -> None:
    reply = await site.ask(asking("anna", "hero", request_id="q"))
    assert reply.status_code == 200, reply.text
    seen = reply.json()
    assert seen.keys() == {"decision_id", "request_id", "decided_at", "placements"}
    [placement] = seen["placements"]
    assert placement.keys() == {"id", "items"}
    [item] = placement["items"]
    assert item.keys() == {"treatment", "rank", "content", "is_fallback"}
    whole = (await site.behind("GET", f"/v1/decisions/{seen['decision_id']}")).json()
    assert whole["placements"][0]["items"][0]["propensity"] is not None
    again = await site.ask(asking("anna", "hero", request_id="q"))
    assert again.content == reply.content
    replayed = await site.behind("POST", f"/v1/decisions/{seen['decision_id']}/replay")
    assert replayed.json()["identical"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"customer_id": "ben"}, "customer_id"),
        ({"customer_id": None, "identity": {"type": "cookie", "value": "anna"}}, "identity"),
        ({"profile": {"nps": 1}}, "profile"),
        ({"explain": True}, "explain"),
        ({"mode": "dry_run"}, "mode"),
        ({"timeout_ms": 60_000}, "timeout_ms"),
        ({"channel": "agent", "placements": [{"id": "panel"}]}, "channel"),
        ({"channel": None, "channels": ["web", "agent"], "placements": None}, "channel"),
    ],
)
async def test_a_page_may_not_ask_for_more(site: Site, change: dict[str, Any], field: str) -> None:
    before = site.service.rows()
    reply = await site.ask({**asking("anna", "hero"), **change})
    assert reply.status_code == 403, reply.text
    assert [each["field"] for each in reply.json()["errors"]] == [field]
    assert site.service.rows() == before


async def test_an_identity_may_be_signed_too(site: Site) -> None:
    identity = {"type": "cookie", "value": "anna"}
    reply = await site.ask(asking(None, "hero", identity=identity), Identity("cookie", "anna"))
    assert reply.status_code == 200, reply.text
    assert "Anna" in reply.text, "it leads to a customer"
    other = asking(None, "hero", identity={"type": "cookie", "value": "ben"})
    assert (await site.ask(other, Identity("cookie", "anna"))).status_code == 403
    unknown = asking(None, "hero", identity={"type": "cookie", "value": "new"})
    found = (await site.ask(unknown, Identity("cookie", "new"))).json()
    answered = await site.respond(found["decision_id"], Identity("cookie", "new"))
    assert answered.status_code == 200, answered.text
    theirs = await site.respond(found["decision_id"], "anna")
    assert theirs.json()["errors"][0]["code"] == "unknown_decision"


async def test_only_its_own_origin_and_a_token_open_it(site: Site) -> None:
    body, now = asking("anna", "hero"), site.service.clock()
    stranger, _ = new_pair()
    for headers, status in (
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ORIGIN + ":8443"}, 403),
        ({"visitor_token": ""}, 401),
        ({"visitor_token": sign(stranger, site.id, "anna", 600, now)}, 401),
        ({"visitor_token": sign(SIGNING, "another", "anna", 600, now)}, 401),
        ({"visitor_token": sign(SIGNING, site.id, "anna", 99_999, now)}, 401),
        (
            {"visitor_token": sign(SIGNING, site.id, "anna", 600, datetime(2026, 2, 1, tzinfo=now.tzinfo))},
            401,
        ),
    ):
        reply = await site.ask(body, **headers)
        assert reply.status_code == status, (headers, reply.text)
    headers = {"authorization": f"Bearer {site.key}"}
    reply = await site.service.client.post("/v1/decisions", json=body, headers=headers)
    assert reply.status_code == 403, "no browser"


async def test_it_opens_nothing_else(site: Site) -> None:
    for path in ("/v1/decisions:batch", "/v1/catalog/validate", "/v1/customers:push"):
        assert (await site.ask({"requests": [asking("anna", "hero")]}, path=path)).status_code == 403


async def test_a_page_reports_on_its_visitor_only(site: Site) -> None:
    seen = (await site.ask(asking("anna", "hero"))).json()
    treatment = seen["placements"][0]["items"][0]["treatment"]
    theirs = (await site.behind("POST", "/v1/decisions", asking("ben", "hero"))).json()["decision_id"]
    before = site.service.rows()["responses"]
    for decision, more, status, field in (
        (theirs, {}, 422, "decision_id"),
        ("nobody's", {}, 422, "decision_id"),
        (seen["decision_id"], {"outcome": "accepted"}, 403, "outcome"),
        (seen["decision_id"], {"value": 1e9}, 403, "value"),
        (seen["decision_id"], {"corrects": "r-0"}, 403, "corrects"),
        (seen["decision_id"], {"occurred_at": "2026-03-01T12:00:00Z"}, 403, "occurred_at"),
    ):
        reply = await site.respond(decision, **{"treatment": treatment, **more})
        assert (reply.status_code, reply.json()["errors"][0]["field"]) == (status, field), reply.text
    assert site.service.rows()["responses"] == before
    unknown, others = [await site.respond(id, treatment=treatment) for id in ("nobody's", theirs)]
    assert unknown.json() == others.json(), "nobody learns whether there is a decision"
    reply = await site.respond(seen["decision_id"], treatment=treatment)
    assert reply.json() == {"recorded": 1, "duplicates": 0}


async def test_a_page_can_not_say_the_same_again_and_again(site: Site) -> None:
    seen = (await site.ask(asking("anna", "hero"))).json()
    said = {
        "decision_id": seen["decision_id"],
        "treatment": seen["placements"][0]["items"][0]["treatment"],
        "outcome": "click",
    }
    many = [{**said, "response_id": f"r-{number}"} for number in range(50)]
    reply = await site.ask(many, path="/v1/responses")
    assert reply.json() == {"recorded": 1, "duplicates": 49}
    reply = await site.ask([*many, many[0]], path="/v1/responses")
    assert (reply.status_code, reply.json()["code"]) == (422, "too_many")


async def test_one_visitor_does_not_use_up_what_is_for_all(site: Site) -> None:
    for number in range(130):
        reply = await site.ask({"nothing": number})
    assert reply.status_code == 429
    assert int(reply.headers["retry-after"]) >= 1
    assert (await site.ask(asking("ben", "hero"), "ben")).status_code == 200


async def test_browsers_are_told_what_they_may(site: Site) -> None:
    client = site.service.client
    asks = {"origin": ORIGIN, "access-control-request-method": "POST"}
    for path in ("/v1/decisions", "/v1/responses"):
        reply = await client.options(path, headers=asks)
        assert reply.status_code == 204
        assert reply.headers["access-control-allow-origin"] == ORIGIN
        assert reply.headers["access-control-allow-methods"] == "POST"
        assert "visitor-token" in reply.headers["access-control-allow-headers"]
        assert reply.headers["vary"] == "Origin"
        evil = await client.options(path, headers={**asks, "origin": "https://evil.example"})
        assert not [name for name in evil.headers if name.startswith("access-control")]
    assert "access-control-allow-origin" not in (await client.options("/v1/catalog", headers=asks)).headers
    reply = await site.ask(asking("anna", "hero"))
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    refused = await site.ask({"nothing": 1})
    assert refused.status_code == 422
    assert refused.headers["access-control-allow-origin"] == ORIGIN, "the page may read why"


@pytest.mark.parametrize(
    ("origin", "channels", "verifying", "outcomes"),
    [
        ("shop.example", ["web"], VERIFYING, ["click"]),
        ("http://shop.example", ["web"], VERIFYING, ["click"]),
        ("https://shop.example/", ["web"], VERIFYING, ["click"]),
        ("https://Shop.example", ["web"], VERIFYING, ["click"]),
        ("*", ["web"], VERIFYING, ["click"]),
        ("null", ["web"], VERIFYING, ["click"]),
        (ORIGIN, [], VERIFYING, ["click"]),
        (ORIGIN, ["web"], "no pem", ["click"]),
        (ORIGIN, ["web"], SIGNING, ["click"]),
        (ORIGIN, ["web"], VERIFYING, ["bought"]),
    ],
)
def test_what_cannot_be_published(
    origin: str, channels: list[str], verifying: str, outcomes: list[str]
) -> None:
    with pytest.raises(Rejected):
        publishable([origin], channels, verifying, outcomes)


def test_a_publishable_key_has_no_other_scopes() -> None:
    shown = publishable([ORIGIN], ["web"], VERIFYING, ["click"])
    with pytest.raises(Rejected, match="may only decide and respond"):
        make(Wanted("site", ["decide", "profiles:read"], publishable=shown), "cli:test")
