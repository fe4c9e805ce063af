"""Every error has one shape, names a field, and leaves nothing half-written."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from support import ANNA, Service, asking, catalog_document, running, treatments

from decision.messages import Problem

KEYS = {"type", "title", "status", "detail", "code", "errors"}
JSON = {"content-type": "application/json"}
LONG = "x" * 10_000
DECIDE, BATCH, RESPOND = "/v1/decisions", "/v1/decisions:batch", "/v1/responses"
PUBLISH, CUSTOMER = "/v1/catalog/publish", "/v1/customers/anna"
NO_ID = {key: value for key, value in asking().items() if key != "customer_id"}
ANSWER = {"response_id": "r", "decision_id": "d", "treatment": "t", "outcome": "accepted"}


def raw(text: str, **more: Any) -> bytes:
    """A request in which the context value stands as given, JSON or not."""
    return json.dumps(asking(context={"intent": "@"}, **more)).replace('"@"', text).encode()


CASES: list[tuple[str, str, str, Any, int, str]] = [
    # what is wrong, method, path, body (bytes: as they are), status, a field that is named
    ("unknown channel", "POST", DECIDE, asking() | {"channel": "fax"}, 422, "channel"),
    ("unknown placement", "POST", DECIDE, asking() | {"placements": [{"id": "x"}]}, 422, "placements[0].id"),
    ("placement elsewhere", "POST", DECIDE, asking() | {"channel": "web"}, 422, "placements[0].id"),
    ("malformed", "POST", DECIDE, b'{"customer_id": "a", ', 400, "body"),
    ("not UTF-8", "POST", DECIDE, b'{"customer_id": "\xff"}', 400, "body"),
    ("NaN at the top", "POST", DECIDE, b"NaN", 422, "body"),
    ("NaN", "POST", DECIDE, raw("NaN"), 422, "context.intent"),
    ("nested NaN", "POST", DECIDE, raw('{"a": [1, NaN]}'), 422, "context.intent.a[1]"),
    ("Infinity", "POST", DECIDE, raw("-Infinity"), 422, "context.intent"),
    ("beyond a float", "POST", DECIDE, raw("1e999"), 422, "context.intent"),
    ("NaN in a value", "POST", RESPOND, json.dumps(ANSWER | {"value": float("nan")}).encode(), 422, "value"),
    ("NaN in a profile", "PUT", CUSTOMER, b'{"scores": {"clv": NaN}}', 422, "scores.clv"),
    ("NaN in a catalog", "POST", PUBLISH, b'{"actions": [{"lever": NaN}]}', 422, "actions[0].lever"),
    ("long customer", "POST", DECIDE, asking(LONG), 422, "customer_id"),
    ("long request id", "POST", DECIDE, asking(request_id=LONG), 422, "request_id"),
    ("long channel", "POST", DECIDE, asking() | {"channel": LONG}, 422, "channel"),
    ("long placement", "POST", DECIDE, asking() | {"placements": [{"id": LONG}]}, 422, "placements[0].id"),
    ("long identity", "POST", DECIDE, NO_ID | {"identity": {"type": "c", "value": LONG}}, 422,
     "identity.value"),
    ("long customer in path", "GET", f"/v1/customers/{LONG}", None, 422, "customer_id"),
    ("long customer to put", "PUT", f"/v1/customers/{LONG}", {}, 422, "customer_id"),
    ("long decision in path", "GET", f"/v1/decisions/{LONG}", None, 422, "decision_id"),
    ("long treatment", "POST", RESPOND, ANSWER | {"treatment": LONG}, 422, "treatment"),
    ("empty id", "POST", DECIDE, asking(""), 422, "customer_id"),
    ("null character", "POST", DECIDE, asking("a\0b"), 422, "customer_id"),
    ("control character", "POST", DECIDE, asking("a\x1bb"), 422, "customer_id"),
    ("slash in a customer's id", "POST", DECIDE, asking("a/b"), 422, "customer_id"),
    ("an id that no path can have", "POST", DECIDE, asking(".."), 422, "customer_id"),
    ("null character in path", "PUT", "/v1/customers/a%00b", {}, 422, "customer_id"),
    ("null in a decision's path", "GET", "/v1/decisions/a%00b", None, 422, "decision_id"),
    ("null in a query", "GET", "/v1/reports/lift?control_group=a%00b", None, 422, "control_group"),
    ("null in an identity", "PUT", CUSTOMER, {"identities": [{"type": "c", "value": "\0"}]}, 422,
     "identities[0].value"),
    ("null in a text", "PUT", CUSTOMER, {"attributes": {"first_name": "a\0b"}}, 422, "attributes.first_name"),
    ("lone surrogate", "POST", DECIDE, b'{"customer_id": "\\ud800"}', 400, "body"),
    ("huge int", "POST", DECIDE, asking(profile={"nps": 10**30}), 422, "profile.nps"),
    ("65 bits", "POST", DECIDE, asking(profile={"nps": 2**64 - 1}), 422, "profile.nps"),
    ("huge limit", "POST", DECIDE, asking() | {"placements": [{"id": "panel", "limit": 10**30}]}, 422,
     "placements[0].limit"),
    ("unknown context", "POST", DECIDE, asking(context={"zork": 1}), 422, "context.zork"),
    ("context elsewhere", "POST", DECIDE, asking(context={"page": "x"}), 422, "context.page"),
    ("unknown attribute", "POST", DECIDE, asking(profile={"zork": 1}), 422, "profile.zork"),
    ("type of a context value", "POST", DECIDE, asking(context={"intent": 4}), 422, "context.intent"),
    ("value not listed", "POST", DECIDE, asking(context={"intent": "buy"}), 422, "context.intent"),
    ("text for an int", "POST", DECIDE, asking(profile={"nps": "3"}), 422, "profile.nps"),
    ("whole float for an int", "POST", DECIDE, asking(profile={"nps": 3.0}), 422, "profile.nps"),
    ("bool for an int", "POST", DECIDE, asking(profile={"nps": True}), 422, "profile.nps"),
    ("null for an int", "POST", DECIDE, asking(profile={"nps": None}), 422, "profile.nps"),
    ("int for a text", "POST", DECIDE, asking() | {"channel": 5}, 422, "channel"),
    ("out of range", "POST", DECIDE, asking(profile={"nps": 11}), 422, "profile.nps"),
    ("no time", "POST", DECIDE, asking(profile={"contract_end": "soon"}), 422, "profile.contract_end"),
    ("time before time", "POST", DECIDE, asking(profile={"contract_end": "0001-01-01T00:00:00+10:00"}), 422,
     "profile.contract_end"),
    ("limit over slots", "POST", DECIDE, asking() | {"placements": [{"id": "panel", "limit": 4}]}, 422,
     "placements[0].limit"),
    ("limit of none", "POST", DECIDE, asking() | {"placements": [{"id": "panel", "limit": 0}]}, 422,
     "placements[0].limit"),
    ("no placements", "POST", DECIDE, asking() | {"placements": []}, 422, "placements"),
    ("a placement twice", "POST", DECIDE, asking() | {"placements": [{"id": "panel"}] * 2}, 422,
     "placements"),
    ("two names", "POST", DECIDE, asking(identity={"type": "c", "value": "v"}), 422, "customer_id"),
    ("no name", "POST", DECIDE, NO_ID, 422, "customer_id"),
    ("deferred", "POST", DECIDE, asking(activation="later"), 422, "activation"),
    ("unknown mode", "POST", DECIDE, asking(mode="test"), 422, "mode"),
    ("unknown field", "POST", DECIDE, asking(zork=1), 422, "zork"),
    ("no time at all", "POST", DECIDE, asking(timeout_ms=0), 422, "timeout_ms"),
    ("deep", "POST", DECIDE, raw("[" * 150 + "]" * 150, request_id="r"), 400, "context.intent" + "[0]" * 30),
    ("very deep", "POST", DECIDE, raw("[" * 90_000 + "]" * 90_000), 400, "body"),
    ("deep objects", "POST", PUBLISH, b'{"a":' * 300 + b"1" + b"}" * 300, 400, ".".join("a" * 32)),
    ("long list", "POST", PUBLISH, {"actions": [0] * 10_001}, 422, "actions"),
    ("long text", "POST", PUBLISH, {"name": "x" * 100_001}, 422, "name"),
    ("a million values", "POST", PUBLISH, b"[" + b"[]," * 1_000_000 + b"1]", 422, "body"),
    ("empty body", "POST", DECIDE, b"", 422, "body"),
    ("null", "POST", DECIDE, b"null", 422, "body"),
    ("a list", "POST", DECIDE, [asking()], 422, "body"),
    ("a text", "POST", RESPOND, "accepted", 422, "body"),
    ("oversized", "POST", DECIDE, b'"' + b"x" * 1024 * 1024 + b'"', 413, "body"),
    ("oversized profile", "PUT", CUSTOMER, b'"' + b"x" * 1024 * 1024 + b'"', 413, "body"),
    ("batch too long", "POST", BATCH, {"requests": [asking()] * 1001}, 422, "requests"),
    ("empty batch", "POST", BATCH, {"requests": []}, 422, "requests"),
    ("unknown decision", "POST", RESPOND, ANSWER, 422, "decision_id"),
    ("no such outcome", "POST", RESPOND, ANSWER | {"outcome": "maybe"}, 422, "outcome"),
    ("no response id", "POST", RESPOND, {k: v for k, v in ANSWER.items() if k != "response_id"}, 422,
     "response_id"),
    ("in a list", "POST", RESPOND, [ANSWER, ANSWER | {"outcome": "maybe"}], 422, "[1].outcome"),
    ("no responses", "POST", RESPOND, [], 422, "body"),
    ("too many responses", "POST", RESPOND, [ANSWER] * 1001, 422, "body"),
    ("time without offset", "POST", RESPOND, ANSWER | {"occurred_at": "2026-03-01T12:00:00"}, 422,
     "occurred_at"),
    ("time out of reach", "POST", RESPOND, ANSWER | {"occurred_at": "0001-01-01T00:00:00+10:00"}, 422,
     "occurred_at"),
    ("broken catalog", "POST", PUBLISH, {"actions": [{"id": "a", "group": "g"}]}, 422,
     "actions[0].treatments"),
    ("ids that are lists", "POST", PUBLISH,
     {"placements": [{"id": [1], "content": [{"id": {}}]}],
      "actions": [{"id": {}, "treatments": [{"placement": [], "content": {"a": "b"}}]}]},
     422, "placements[0].id"),
    ("catalog sections", "POST", PUBLISH, {"actions": {"a": 1}}, 422, "actions"),
    ("unknown version", "POST", "/v1/catalog/rollback", {"version": "zork"}, 404, "version"),
    ("unknown purpose", "PUT", CUSTOMER, {"consents": {"zork": "given"}}, 422, "consents.zork"),
    ("not a consent", "PUT", CUSTOMER, {"consents": {"marketing": "yes"}}, 422, "consents.marketing"),
    ("bad patch", "PATCH", CUSTOMER, {"attributes": {"nps": 99, "plan": None}}, 422, "attributes.nps"),
    ("identity type", "PUT", CUSTOMER, {"identities": [{"type": "E mail", "value": "v"}]}, 422,
     "identities[0].type"),
    ("unknown customer", "GET", "/v1/customers/nobody", None, 404, "customer_id"),
    ("unknown customer to delete", "DELETE", "/v1/customers/nobody", None, 404, "customer_id"),
    ("unknown decision id", "GET", "/v1/decisions/nothing", None, 404, "decision_id"),
    ("unknown decision to replay", "POST", "/v1/decisions/nothing/replay", None, 404, "decision_id"),
    ("unknown decision to explain", "GET", "/v1/decisions/nothing/explanation", None, 404, "decision_id"),
    ("history of none", "GET", "/v1/customers/anna/history?limit=0", None, 422, "limit"),
    ("unknown route", "GET", "/v1/zork", None, 404, "path"),
    ("slash at the end", "POST", "/v1/decisions/", asking(), 404, "path"),
    ("wrong method", "DELETE", DECIDE, None, 405, "method"),
]  # fmt: skip


def check(reply: Any, status: int, field: str) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = reply.json()
    assert set(problem) == KEYS
    assert problem["status"] == status
    Problem.model_validate(problem)
    assert field in [error["field"] for error in problem["errors"]], problem["errors"]
    assert len(reply.content) < 20_000
    return problem


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """One service for all that writes nothing."""
    async with running(tmp_path_factory.mktemp("errors") / "service.db") as started:
        await started.publish(catalog_document())
        await started.client.put("/v1/customers/anna", json=ANNA)
        yield started


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
@pytest.mark.asyncio(loop_scope="module")
async def test_an_error_has_the_one_shape_and_writes_nothing(
    shared: Service, method: str, path: str, body: Any, status: int, field: str
) -> None:
    before = shared.rows()
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    reply = await shared.client.request(method, path, content=content, headers=JSON)
    check(reply, status, field)
    assert shared.rows() == before


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None]
)
async def test_a_body_must_be_declared_as_json(service: Service, kind: str | None) -> None:
    before = service.rows()
    headers = {} if kind is None else {"content-type": kind}
    content = json.dumps(asking()).encode()
    check(await service.client.post(DECIDE, content=content, headers=headers), 415, "Content-Type")
    assert service.rows() == before


async def chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 65_536 + 1):
        yield b" " * 65_536


@pytest.mark.parametrize(("path", "limit"), [(DECIDE, 2**20), (BATCH, 2**20), (PUBLISH, 2**24)])
async def test_a_chunked_body_is_bounded_as_well(service: Service, path: str, limit: int) -> None:
    before = service.rows()
    reply = await service.client.post(path, content=chunks(limit), headers=JSON)
    assert "content-length" not in reply.request.headers
    check(reply, 413, "body")
    assert service.rows() == before


async def test_a_body_of_the_limit_is_read(service: Service) -> None:
    body = json.dumps(asking()).encode()
    reply = await service.client.post(DECIDE, content=body + b" " * (2**20 - len(body)), headers=JSON)
    assert reply.status_code == 200, reply.text


async def test_an_outcome_the_channel_does_not_know(service: Service) -> None:
    decision = await service.decide()
    before = service.rows()
    check(await service.respond(decision, "click", "r-1", treatments(decision)[0]), 422, "outcome")
    check(await service.respond(decision, "accepted", "r-1", "renew_12_mail"), 422, "treatment")
    assert service.rows() == before


@pytest.mark.parametrize("when", ["9999-12-31T23:59:59Z", "2026-03-03T00:00:00Z", "1066-10-14T09:00:00Z"])
async def test_a_response_from_the_future_is_refused(service: Service, when: str) -> None:
    decision = await service.decide()
    message = ANSWER | {
        "decision_id": decision["decision_id"],
        "treatment": treatments(decision)[0],
        "occurred_at": when,
    }
    before = service.rows()
    check(await service.client.post(RESPOND, json=message), 422, "occurred_at")
    assert service.rows() == before


@pytest.mark.parametrize("other", [{"outcome": "rejected"}, {"treatment": "upgrade_agent"}])
async def test_a_list_of_responses_that_contradicts_itself_is_refused_whole(
    service: Service, other: dict[str, str]
) -> None:
    decision = await service.decide(profile={"nps": 9})
    assert sorted(treatments(decision)) == ["check_agent", "upgrade_agent"]
    first = ANSWER | {"decision_id": decision["decision_id"], "treatment": "check_agent"}
    before = service.rows()
    check(await service.client.post(RESPOND, json=[first, first | other]), 409, "[1].response_id")
    unknown = first | {"response_id": "x", "decision_id": "y"}
    check(await service.client.post(RESPOND, json=[first, unknown]), 422, "[1].decision_id")
    assert service.rows() == before
    reply = await service.client.post(RESPOND, json=[first, first])
    assert reply.json() == {"recorded": 1, "duplicates": 1}


async def test_an_identity_of_another_customer(service: Service) -> None:
    before = service.rows()
    taken = {"identities": [{"type": "cookie", "value": "anna"}]}
    for method in ("PUT", "PATCH"):
        check(await service.client.request(method, "/v1/customers/bert", json=taken), 409, "identities")
    assert service.rows() == before


@pytest.mark.parametrize(
    "name", [{"customer_id": "nobody"}, {"identity": {"type": "cookie", "value": "zork"}}]
)
async def test_an_unknown_customer_is_served(service: Service, name: dict[str, Any]) -> None:
    reply = await service.client.post(DECIDE, json=NO_ID | name)
    assert reply.status_code == 200
    assert any(text.endswith(":not_found") for text in reply.json()["degraded"])
    assert reply.json()["placements"][0]["items"]


async def test_what_nobody_expected_keeps_its_cause_private(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret cause")

    before = service.rows()
    monkeypatch.setattr(service.context.store, "commit_decisions", broken)
    for path, body in ((DECIDE, asking()), (BATCH, {"requests": [asking()]})):
        reply = await service.client.post(path, json=body)
        assert reply.status_code == 500
        assert reply.headers["content-type"] == "application/problem+json"
        assert set(reply.json()) == KEYS
        assert "secret" not in reply.text
    assert "the secret cause" in caplog.text
    assert service.rows() == before


async def test_a_closed_store_is_unavailable(service: Service) -> None:
    await service.context.store.close()
    reply = await service.client.post(DECIDE, json=asking())
    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
    assert set(reply.json()) == KEYS


async def test_without_a_catalog(tmp_path: Any) -> None:
    async with running(tmp_path / "empty.db") as empty:
        for method, path in (("POST", DECIDE), ("GET", "/v1/catalog"), ("PUT", CUSTOMER), ("GET", "/readyz")):
            reply = await empty.client.request(method, path, json=asking() if path == DECIDE else {})
            assert reply.status_code == 503
            assert reply.json()["code"] == "no_catalog"
        assert (await empty.client.get("/healthz")).status_code == 200
