"""Every route against every kind of credential. What is tested follows from the application itself, so a new
route is in it, and one that nobody thought of guarding fails."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi.routing import APIRoute
from support import NOW, Clock, Service, asking, running

from decision.access.keys import Wanted, make, publishable, revoked, rotated
from decision.access.oidc import Issuer
from decision.access.scopes import NEEDED, ROLES, SCOPES, Need, Scope
from decision.access.visitors import new_pair
from decision.api.body import StrictRoute

ISSUER = Issuer(url="https://login.example", audience="decisions", jwks_url="https://login.example/keys")
SIGNING = Ed25519PrivateKey.generate()
SITE = new_pair()
ORIGIN = "https://shop.example"
JSON = {"content-type": "application/json"}
# What FastAPI serves of itself: the contract, which says nothing of anybody.
PUBLIC = {"/openapi.json"}


def bearer(**changed: Any) -> str:
    """A token of the issuer."""
    claims = {
        "iss": ISSUER.url,
        "aud": ISSUER.audience,
        "sub": "s-1",
        "exp": NOW + timedelta(minutes=5),
        "roles": ["operator"],
        **changed,
    }
    return jwt.encode(
        {name: value for name, value in claims.items() if value is not None},
        SIGNING,
        algorithm="EdDSA",
        headers={"kid": "k1"},
    )


def issuer_keys(_: httpx.Request) -> httpx.Response:
    raw = SIGNING.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    x = jwt.utils.base64url_encode(raw).decode()
    keys = orjson.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k1"}]})
    return httpx.Response(200, stream=httpx.ByteStream(keys))


@dataclass
class Guarded:
    """A service with keys of every kind: the secrets, by what is special about them."""

    service: Service
    tokens: dict[str, str]
    ids: dict[str, str]

    async def call(self, method: str, path: str, token: str | None, **more: Any) -> httpx.Response:
        headers: dict[str, Any] = {**JSON, **more.pop("headers", {})}
        if token is not None:
            headers["authorization"] = token.encode("latin-1")
        return await self.service.client.request(method, path, headers=headers, **more)

    async def add(self, name: str, wanted: Wanted) -> None:
        made = make(wanted, "cli:test")
        await self.service.context.register.act(lambda _: [made.event], self.service.clock())
        self.tokens[name], self.ids[name] = f"Bearer {made.token}", made.id


@pytest.fixture
async def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: Any) -> AsyncIterator[Guarded]:
    transport = httpx.MockTransport(issuer_keys)
    monkeypatch.setattr("decision.sources.web.open_client", lambda: httpx.AsyncClient(transport=transport))
    clock = Clock()
    async with running(tmp_path / "guarded.db", clock, issuer=ISSUER) as service:
        found = Guarded(service, {}, {})
        await found.add("right", Wanted("all", SCOPES))
        await found.add("expired", Wanted("old", SCOPES, clock.now + timedelta(hours=1)))
        await found.add("revoked", Wanted("gone", SCOPES))
        register = service.context.register
        await register.act(lambda r: revoked(r.keys, found.ids["revoked"], "cli:test"), clock())
        site = publishable([ORIGIN], ["web"], SITE[1], ["impression", "click"])
        await found.add("browser", Wanted("site", ["decide", "respond"], publishable=site))
        clock.now += timedelta(hours=2)
        found.tokens["token"] = "Bearer " + bearer(exp=clock.now + timedelta(minutes=5))
        published = await found.call("POST", "/v1/catalog/publish", found.tokens["right"], json=document)
        assert published.status_code == 200, published.text
        yield found


def routes(service: Service) -> Iterator[tuple[str, str, Need | None]]:
    """Every method and path there is, with what it needs; None for what is public by decree."""
    app: Any = service.client._transport.app  # type: ignore[attr-defined]
    for route in app.routes:
        path = re.sub(r"{\w+}", "x", route.path)
        if route.path in PUBLIC:
            continue
        assert isinstance(route, StrictRoute), f"{route.path} is not guarded"
        for method in sorted(route.methods):
            yield method, path, NEEDED[route.operation_id or ""]


async def test_the_table_has_every_operation_and_no_other(guarded: Guarded) -> None:
    app: Any = guarded.service.client._transport.app  # type: ignore[attr-defined]
    operations = [route.operation_id for route in app.routes if isinstance(route, APIRoute)]
    assert sorted(operations) == sorted(NEEDED)
    assert {route.path for route in app.routes if not isinstance(route, APIRoute)} == PUBLIC
    public = {operation for operation, need in NEEDED.items() if need.scope is None}
    assert public == {"healthz", "readyz"}


def test_a_route_that_is_not_in_the_table_cannot_be_made() -> None:
    async def forgotten() -> None: ...

    with pytest.raises(KeyError):
        StrictRoute("/v1/forgotten", forgotten, operation_id="forgotten")


WRONG = {
    "none": None,
    "empty": "",
    "no scheme": "nba_x_y",
    "another scheme": "Basic dXNlcjpwYXNz",
    "no token": "Bearer ",
    "not ascii": "Bearer nba_é",
    "malformed": "Bearer nba_",
    "unknown": "Bearer nba_abcdefgh_" + "x" * 43,
    "huge": "Bearer " + "x" * 20_000,
    "neither key nor token": "Bearer x",
}


async def test_without_a_good_credential_nothing_is_answered(guarded: Guarded) -> None:
    for kind, token in WRONG.items():
        await refused_everywhere(guarded, token, kind)


async def test_a_key_that_has_ended_opens_nothing(guarded: Guarded) -> None:
    for kind in ("expired", "revoked"):
        await refused_everywhere(guarded, guarded.tokens[kind], kind)


async def test_a_key_is_a_bearer_token_and_nothing_else(guarded: Guarded) -> None:
    token = guarded.tokens["right"].removeprefix("Bearer ")
    for scheme in ("Basic", "Digest", "Bearer\t", "Bearer Bearer"):
        await refused_everywhere(guarded, f"{scheme} {token}")
    assert (await guarded.call("GET", "/v1/catalog", f"bearer {token}")).status_code == 200


async def test_a_key_that_is_nearly_right_opens_nothing(guarded: Guarded) -> None:
    right = guarded.tokens["right"]
    last = "A" if right[-1] != "A" else "B"
    other = guarded.ids["expired"]
    nearly = {
        "secret": right[:-1] + last,
        "id": right.replace(guarded.ids["right"], other),
        "case": "Bearer " + right.removeprefix("Bearer ").upper(),
        "prefix": right.replace("nba_", "nbapub_"),
        "shorter": right[:-1],
        "longer": right + "x",
    }
    for change, token in nearly.items():
        await refused_everywhere(guarded, token, change)


TOKENS: dict[str, dict[str, Any]] = {
    "expired": {"exp": NOW},
    "for another": {"aud": "others"},
    "of another": {"iss": "https://evil.example"},
    "without an end": {"exp": None},
}


async def test_a_token_that_is_not_for_us_opens_nothing(guarded: Guarded) -> None:
    good = {"exp": guarded.service.clock.now + timedelta(minutes=5)}
    for kind, changed in TOKENS.items():
        await refused_everywhere(guarded, "Bearer " + bearer(**{**good, **changed}), kind)


async def test_unsigned_and_confused_tokens_open_nothing(guarded: Guarded) -> None:
    claims = jwt.decode(guarded.tokens["token"].split()[1], options={"verify_signature": False})
    raw = SIGNING.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    none = jwt.encode(claims, None, algorithm="none", headers={"kid": "k1"})
    confused = jwt.encode(claims, raw, algorithm="HS256", headers={"kid": "k1"})
    stranger = jwt.encode(claims, Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": "k1"})
    injected = jwt.encode(claims, SIGNING, algorithm="EdDSA", headers={"kid": "../../dev/null"})
    for token in (none, confused, stranger, injected):
        await refused_everywhere(guarded, f"Bearer {token}")


async def refused_everywhere(guarded: Guarded, token: str | None, kind: str = "") -> None:
    """Every guarded route answers 401, and nothing is changed."""
    service = guarded.service
    before, answers = (service.rows(), await service.context.store.head()), {}
    for method, path, need in routes(service):
        if need is not None and need.scope is not None:
            reply = await guarded.call(method, path, token, content=b"{")
            answers[method, path] = reply.status_code
            assert reply.headers["content-type"] == "application/problem+json"
            assert reply.headers["www-authenticate"].startswith("Bearer")
            assert (token or "x" * 99)[-20:] not in reply.text or not token
    assert set(answers.values()) == {401}, (kind, answers)
    assert len(answers) >= 30
    assert (service.rows(), await service.context.store.head()) == before


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_key_opens_what_its_scope_is_for_and_nothing_else(guarded: Guarded, scope: Scope) -> None:
    await guarded.add("one", Wanted("one scope", [scope]))
    roles = [role for role, scopes in ROLES.items() if scope in scopes]
    assert "operator" in roles
    bearers = [guarded.tokens["one"], "Bearer " + token_with(guarded, scope)]
    opened = set()
    for method, path, need in routes(guarded.service):
        if need is None or need.scope is None:
            continue
        for token in bearers:
            reply = await guarded.call(method, path, token, content=b"{")
            if need.scope == scope:
                assert reply.status_code not in (401, 403), (method, path, reply.text)
                opened.add(path)
            else:
                assert reply.status_code == 403, (method, path, reply.text)
                assert reply.json()["errors"][0]["message"] == f"it lacks the scope {need.scope}"
    assert opened or scope in UNUSED


def token_with(guarded: Guarded, scope: str) -> str:
    until = guarded.service.clock.now + timedelta(minutes=5)
    return bearer(exp=until, roles=None, scope=f"openid {scope}")


UNUSED: set[str] = set()


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_is_its_scopes(guarded: Guarded, role: str) -> None:
    until = guarded.service.clock.now + timedelta(minutes=5)
    token = "Bearer " + bearer(exp=until, roles=["somebody", role])
    for method, path, need in routes(guarded.service):
        if need is None or need.scope is None:
            continue
        reply = await guarded.call(method, path, token, content=b"{")
        assert (reply.status_code == 403) == (need.scope not in ROLES[role]), (method, path, reply.text)
        assert reply.status_code != 401


async def test_what_is_open_to_all_is_only_whether_it_is_well(guarded: Guarded) -> None:
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert (await guarded.call("GET", path, None)).status_code == 200
    assert (await guarded.call("GET", "/metrics", None)).status_code == 401
    assert (await guarded.call("GET", "/v1/nothing", None)).status_code == 404


async def test_a_rotated_key_works_for_a_while_beside_the_new_one(guarded: Guarded) -> None:
    service = guarded.service
    register, clock = service.context.register, service.clock
    id, old = guarded.ids["right"], guarded.tokens["right"]
    made, events = rotated(register.keys, id, "cli:test", clock(), timedelta(hours=1))
    await register.act(lambda _: events, clock())
    again, events = rotated(register.keys, made.id, "cli:test", clock(), timedelta(hours=9))
    await register.act(lambda _: events, clock())
    await guarded.call("GET", "/v1/audit", f"Bearer {again.token}")
    assert (await service.context.store.entries(0, 1000))[-1].event.actor == f"key:{id}", "it is one person"
    for hours, works in ((0, True), (2, False)):
        clock.now += timedelta(hours=hours)
        assert (await guarded.call("GET", "/v1/catalog", old)).is_success == works
        assert (await guarded.call("GET", "/v1/catalog", f"Bearer {made.token}")).is_success


async def test_a_key_revoked_elsewhere_works_no_more(guarded: Guarded, tmp_path: Path) -> None:
    other = type(guarded.service.context.register)(guarded.service.context.store)
    await other.act(lambda r: revoked(r.keys, guarded.ids["right"], "cli:test"), NOW)
    await guarded.service.context.live.refresh()
    reply = await guarded.call("GET", "/v1/catalog", guarded.tokens["right"])
    assert reply.status_code == 401
    assert not (await guarded.call("GET", "/v1/catalog", None)).is_success


async def test_a_limit_is_told_and_kept(guarded: Guarded) -> None:
    await guarded.add("limited", Wanted("limited", SCOPES, limit=5))
    token = guarded.tokens["limited"]
    batch = {"requests": [asking(f"c-{n}", "panel") for n in range(3)]}
    reply = await guarded.call("POST", "/v1/decisions:batch", token, json=batch)
    assert reply.status_code == 200
    left = []
    for _ in range(3):
        reply = await guarded.call("GET", "/v1/catalog", token)
        left.append(reply.status_code)
    assert left == [200, 200, 429]
    assert reply.json()["code"] == "rate_limited"
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.headers["ratelimit-policy"] == '"key";q=5;w=60'
    assert reply.headers["ratelimit"].startswith('"key";r=0;')
    assert (await guarded.call("GET", "/v1/catalog", guarded.tokens["right"])).status_code == 200


@pytest.mark.parametrize(
    ("local", "host", "issuer", "keys", "status"),
    [
        (True, "user@localhost:8000@evil.example", False, False, 403),
        (True, "[::1", False, False, 403),
        (True, "localhost:8000", False, False, 200),
        (True, "127.0.0.1", False, False, 200),
        (True, "[::1]:8000", False, False, 200),
        (True, "LOCALHOST", False, False, 200),
        (True, "evil.example", False, False, 403),
        (True, "localhost.evil.example:8000", False, False, 403),
        (True, "127.0.0.1.evil.example", False, False, 403),
        (True, "", False, False, 403),
        (True, "localhost", True, False, 401),
        (True, "localhost", False, True, 401),
        (False, "localhost", False, False, 401),
        (False, "localhost", False, True, 401),
    ],
)
async def test_it_is_open_to_its_own_machine_only_and_only_until_there_is_a_key(
    tmp_path: Path, local: bool, host: str, issuer: bool, keys: bool, status: int
) -> None:
    store = tmp_path / "open.db"
    async with running(store, issuer=ISSUER if issuer else None, local=local) as service:
        if keys:
            register, made = service.context.register, make(Wanted("old", SCOPES), "cli:test")
            await register.act(lambda _: [made.event], NOW)
            await register.act(lambda r: revoked(r.keys, made.id, "cli:test"), NOW)
        reply = await service.client.get("/v1/audit", headers={"host": host})
        assert reply.status_code == status, reply.text


async def test_while_it_is_open_no_page_from_elsewhere_may_call(tmp_path: Path) -> None:
    """A form needs no permission to post what has no body."""
    async with running(tmp_path / "open.db") as service:
        for origin, allowed in (
            ("http://localhost:3000", True),
            ("http://127.0.0.1", True),
            ("https://evil.example", False),
            ("https://localhost.evil.example", False),
            ("null", False),
            ("", False),
        ):
            path = "/v1/snapshots/default/rollback"
            reply = await service.client.post(path, headers={"origin": origin})
            assert (reply.status_code == 403) == (not allowed), reply.text


async def test_of_what_a_path_says_only_what_can_be_of_nobody_is_kept(guarded: Guarded) -> None:
    id = "01a20090-6181-7059-95f6-b3ca1bc0c00a"
    paths = [
        "decisions/a%00b",
        "decisions/a.b@example.com",
        "snapshots/a.b@example.com/pin",
        f"decisions/{id}",
    ]
    for path in (f"/v1/{each}" for each in [*paths, "snapshots/default/pin"]):
        method = "PUT" if path.endswith("pin") else "GET"
        reply = await guarded.call(method, path, guarded.tokens["right"], json={"version": "v"})
        assert reply.status_code in (404, 422)
    subjects = {each.event.subject for each in await guarded.service.context.store.entries(0, 1000)}
    assert {each for each in subjects if each.startswith(("decision:", "policy:"))} == {
        "decision:?", "policy:?", f"decision:{id}", "policy:default"
    }  # fmt: skip


async def test_a_batch_larger_than_the_limit_passes_when_nothing_is_used(guarded: Guarded) -> None:
    await guarded.add("small", Wanted("small", SCOPES, limit=3))
    batch = {"requests": [asking(f"c-{n}", "panel") for n in range(5)]}
    reply = await guarded.call("POST", "/v1/decisions:batch", guarded.tokens["small"], json=batch)
    assert reply.status_code == 200, reply.text
    assert reply.headers["ratelimit"].startswith('"key";r=0;'), "what is left after it"
    refused = await guarded.call("POST", "/v1/decisions:batch", guarded.tokens["small"], json=batch)
    assert refused.status_code == 429
    await guarded.add("more", Wanted("more", SCOPES, limit=9))
    faulty = await guarded.call("POST", "/v1/decisions", guarded.tokens["more"], content=b"{}")
    assert faulty.status_code == 422
    assert faulty.headers["ratelimit"].startswith('"key";r=8;')


async def test_an_explanation_takes_the_right_to_see_and_is_written_down(guarded: Guarded) -> None:
    await guarded.add("asks", Wanted("asks", ["decide"]))
    await guarded.add("sees", Wanted("sees", ["decide", "profiles:read"]))
    store = guarded.service.context.store
    for mode in ("live", "dry_run"):
        before = await store.head()
        plain, told = asking("anna", "panel", mode=mode), asking("anna", "panel", mode=mode, explain=True)
        reply = await guarded.call("POST", "/v1/decisions", guarded.tokens["asks"], json=told)
        assert (reply.status_code, reply.json()["errors"][0]["field"]) == (403, "explain")
        batch = {"requests": [plain, told]}
        reply = await guarded.call("POST", "/v1/decisions:batch", guarded.tokens["asks"], json=batch)
        assert [each["status"] for each in reply.json()["results"]] == [200, 403]
        assert await store.head() == before
        for path, body in (("/v1/decisions", told), ("/v1/decisions:batch", batch)):
            last, _ = await store.head()
            reply = await guarded.call("POST", path, guarded.tokens["sees"], json=body)
            assert "funnel" in reply.text
            [entry] = await store.entries(last)
            mark = await guarded.service.context.auditing.mark("anna")
            assert (entry.event.kind, entry.event.subject) == ("decision.explain", mark)
            assert entry.event.actor == f"key:{guarded.ids['sees']}"
