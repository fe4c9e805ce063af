"""When an issuer is asked for its keys, what is taken of the answer, and how long it is gone by."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from faults.unruly import Unruly
from forging import (
    ISSUER,
    PLAIN,
    Clock,
    Provider,
    claims,
    edwards,
    elliptic,
    forged,
    published,
    reply,
    rivest,
)

from decision.access import jwks as module
from decision.access.jwks import Jwks, secure
from decision.access.oidc import Issuer, Oidc, Refusal, Verified
from decision.sources.web import open_client

DISCOVERY, KEYS = f"{ISSUER}/.well-known/openid-configuration", f"{ISSUER}/keys?v=1"


class Published:
    """A provider, and who goes by its keys."""

    def __init__(self, url: str | None = None) -> None:
        self.provider, self.clock = Provider(), Clock()
        self.jwks = Jwks(ISSUER, url, self.provider.client, self.clock.monotonic)

    async def ids(self) -> set[str | None] | None:
        """Those that are gone by; what was begun meanwhile is done afterwards."""
        keys = await self.jwks.keys()
        if self.jwks._flight is not None:
            await self.jwks._flight
        return None if keys is None else set(keys) - {None}

    def publish(self, *names: str) -> None:
        self.provider.keys = [published(elliptic(name), "ES256", kid=name) for name in names]


@pytest.fixture
async def issuer() -> AsyncIterator[Published]:
    opened = Published()
    yield opened
    await opened.jwks.close()


async def test_keys_are_fetched_once_by_all_who_wait(issuer: Published) -> None:
    found = await asyncio.gather(*(issuer.jwks.keys() for _ in range(50)))
    assert all(keys is found[0] and keys is not None for keys in found)
    assert issuer.provider.asked == [DISCOVERY, KEYS]


async def test_where_the_keys_are_told_nobody_is_asked_for_it() -> None:
    issuer = Published(KEYS)
    assert await issuer.ids() == {"first"}
    assert issuer.provider.asked == [KEYS]


async def test_who_goes_away_does_not_end_the_fetch_of_the_others(issuer: Published) -> None:
    hasty, patient = (asyncio.create_task(issuer.jwks.keys()) for _ in range(2))
    await asyncio.sleep(0)
    hasty.cancel()
    assert set(await patient or ()) == {"first", None}


async def test_old_keys_are_fetched_again_while_nobody_waits(issuer: Published) -> None:
    await issuer.ids()
    issuer.publish("second")
    issuer.clock.forward(300)
    assert await issuer.ids() == {"first"}
    assert len(issuer.provider.asked) == 2
    issuer.clock.forward(1)
    assert await issuer.ids() == {"first"}  # what comes is for the next
    assert await issuer.ids() == {"second"}
    assert len(issuer.provider.asked) == 4


async def test_the_same_keys_stay_the_same_object(issuer: Published) -> None:
    keys = await issuer.jwks.keys()
    issuer.clock.forward(301)
    await issuer.ids()
    assert len(issuer.provider.asked) == 4
    assert await issuer.jwks.keys() is keys


async def test_after_a_long_rest_a_withdrawn_key_does_not_get_one_more_go(issuer: Published) -> None:
    await issuer.ids()
    issuer.publish("second")
    issuer.clock.forward(601)
    assert await issuer.ids() == {"second"}


async def test_keys_are_gone_by_for_a_day_while_the_issuer_is_away(issuer: Published) -> None:
    await issuer.ids()
    issuer.provider.says["*"] = httpx.ConnectError("away")
    for _ in range(24 * 12):
        issuer.clock.forward(300)
        assert await issuer.ids() == {"first"}
    issuer.clock.forward(1)
    assert await issuer.ids() is None
    issuer.provider.says.clear()
    issuer.clock.forward(10)
    assert await issuer.ids() == {"first"}


async def test_while_the_issuer_is_away_it_is_asked_at_most_every_ten_seconds(issuer: Published) -> None:
    await issuer.ids()
    issuer.provider.says["*"] = reply({}, 503)
    issuer.clock.forward(301)
    for _ in range(100):
        assert await issuer.ids() == {"first"}
        issuer.clock.forward(1)
    assert len(issuer.provider.asked) == 2 + 10


@pytest.fixture
async def oidc() -> AsyncIterator[tuple[Oidc, Provider, Clock]]:
    provider, clock = Provider(), Clock()
    opened = Oidc(Issuer(url=ISSUER, audience="decisions"), provider.client, clock.time, clock.monotonic)
    yield opened, provider, clock
    await opened.close()


def token(name: str, **other: Any) -> str:
    return forged(PLAIN | {"kid": name}, claims(**other), elliptic(name))


async def test_a_new_key_is_accepted_after_one_fetch(oidc: tuple[Oidc, Provider, Clock]) -> None:
    verifier, provider, clock = oidc
    assert isinstance(await verifier.verify(token("first")), Verified)
    provider.keys.append(published(elliptic("second"), "ES256", kid="second"))
    clock.forward(10)
    assert isinstance(await verifier.verify(token("second")), Verified)
    assert isinstance(await verifier.verify(token("first")), Verified)
    assert len(provider.asked) == 4


async def test_unknown_keys_do_not_make_us_a_burden(oidc: tuple[Oidc, Provider, Clock]) -> None:
    verifier, provider, clock = oidc
    tokens = [forged(PLAIN | {"kid": f"k{number}"}, claims(), elliptic("thief")) for number in range(200)]
    for _ in range(3):
        found = await asyncio.gather(*(verifier.verify(each) for each in tokens))
        assert set(found) == {Refusal.UNKNOWN_KEY}
        clock.forward(5)
    assert len(provider.asked) == 4  # at 0 s and at 10 s


async def test_a_key_that_is_gone_is_refused_after_the_next_fetch(oidc: tuple[Oidc, Provider, Clock]) -> None:
    verifier, provider, clock = oidc
    remembered = token("first")
    assert isinstance(await verifier.verify(remembered), Verified)
    provider.keys = [published(elliptic("second"), "ES256", kid="second")]
    clock.forward(301)
    assert isinstance(await verifier.verify(remembered), Verified)
    for _ in range(10):
        await asyncio.sleep(0)
    assert await verifier.verify(remembered) == Refusal.UNKNOWN_KEY
    assert await verifier.verify(token("first")) == Refusal.UNKNOWN_KEY


@pytest.mark.parametrize(
    "said",
    [
        {"jwks_uri": KEYS},
        {"issuer": "https://evil.example", "jwks_uri": KEYS},
        {"issuer": ISSUER + "/", "jwks_uri": KEYS},
        {"issuer": ISSUER},
        {"issuer": ISSUER, "jwks_uri": 7},
        {"issuer": ISSUER, "jwks_uri": "http://login.example/keys"},
        {"issuer": ISSUER, "jwks_uri": "http://127.0.0.1/keys"},
        {"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"},
        {"issuer": ISSUER, "jwks_uri": "https://user@login.example/keys"},
        {"issuer": ISSUER, "jwks_uri": "https://login.example:none/keys"},
        {"issuer": ISSUER, "jwks_uri": "https://["},
        [ISSUER],
        b"<html>",
    ],
)
async def test_a_configuration_that_is_odd_is_not_followed(issuer: Published, said: object) -> None:
    issuer.provider.says[DISCOVERY] = reply(said)
    assert await issuer.ids() is None
    assert issuer.provider.asked == [DISCOVERY]


@pytest.mark.parametrize(
    "said",
    [
        reply({"keys": []}, 500),
        reply({"keys": []}, 302, location="https://evil.example/keys"),
        reply({"keys": {}}),
        reply({}),
        reply([]),
        reply(b""),
        reply(b'{"keys":[]}' + b" " * 256 * 1024),
        reply({"keys": []}, 404),
        reply({"keys": []}, **{"content-encoding": "gzip"}),
        httpx.ReadTimeout("slow"),
    ],
)
async def test_an_answer_that_is_not_a_set_of_keys_changes_nothing(
    issuer: Published, said: httpx.Response | Exception
) -> None:
    await issuer.ids()
    issuer.provider.says[KEYS] = said
    issuer.clock.forward(301)
    assert await issuer.ids() == {"first"}
    assert await issuer.ids() == {"first"}
    assert issuer.provider.asked == [DISCOVERY, KEYS] * 2


async def test_what_cannot_have_signed_a_token_is_left_out(issuer: Published) -> None:
    one = published(elliptic("first"), "ES256")
    private = jwt.get_algorithm_by_name("ES256").to_jwk(elliptic("first"), as_dict=True)
    odd: list[Any] = [
        {**one, "use": "enc"},
        {**one, "key_ops": ["encrypt"]},
        {**one, "key_ops": 7},
        {**one, "alg": "HS256"},
        {**one, "alg": "none"},
        {**one, "alg": "RS256"},
        {**one, "alg": ["ES256"]},
        {**one, "crv": "secp256k1"},
        {**one, "crv": "Ed25519"},
        {**one, "crv": ["P-256"]},
        {**one, "kty": "OKP"},
        {**one, "x": 7},
        {**one, "x": "AQ"},
        {**one, "x": one["y"], "y": one["y"]},
        {**one, "x": "é"},
        private,
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "oct", "k": "c2VjcmV0", "alg": "ES256"},
        {"kty": "RSA"},
        {"kty": "RSA", "n": "AQ", "e": "AQAB"},
        {"kty": "AKP"},
        published(rivest(1024), "RS256"),
        published(ed448.Ed448PrivateKey.generate(), "EdDSA"),
        published(ec.generate_private_key(ec.SECP256K1()), "ES256K"),
        "key",
        None,
        7,
        {},
    ]
    issuer.provider.keys = [
        {**each, "kid": str(number)} if isinstance(each, dict) else each for number, each in enumerate(odd)
    ] + [{**one, "kid": 7}, {**one, "kid": "good", "use": "sig", "key_ops": ["verify"], "alg": "ES256"}]
    assert await issuer.ids() == {"good"}


async def test_one_name_may_have_keys_of_two_kinds(issuer: Published) -> None:
    issuer.provider.keys = [
        published(elliptic("first"), "ES256", kid="both"),
        published(edwards("first"), "EdDSA", kid="both"),
    ]
    keys = await issuer.jwks.keys()
    assert keys is not None
    assert [set(key.algorithms) for key in keys["both"]] == [{"ES256"}, {"EdDSA"}]


@pytest.mark.parametrize(
    ("url", "issuer", "is_secure"),
    [
        ("https://a.example/keys", "", True),
        ("http://a.example/keys", "", False),
        ("http://localhost:8080", "", True),
        ("http://[::1]:8080", "", True),
        ("http://127.0.0.1", "http://localhost", True),
        ("http://127.0.0.1", "https://a.example", False),
        ("http://127.0.0.1.evil.example", "", False),
        ("http://localhost@evil.example", "", False),
        ("//a.example", "", False),
        ("", "", False),
    ],
)
def test_only_this_machine_may_go_without_https(url: str, issuer: str, is_secure: bool) -> None:
    assert secure(url, issuer) is is_secure


@pytest.fixture(scope="module")
def upstream() -> Iterator[Unruly]:
    with Unruly() as started:
        yield started


@pytest.mark.parametrize("behaviour", ["redirect", "giant", "gzip", "reset", "not_json", "slow"])
async def test_over_the_wire_it_is_bounded(
    upstream: Unruly, behaviour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT_SECONDS", 0.1)
    async with open_client() as client:
        url = upstream.url(behaviour)
        assert await Jwks(url, url + "/keys", client).keys() is None


async def test_over_the_wire_a_token_is_verified() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        paths.append(path)
        key = published(elliptic("first"), "ES256", kid="first")
        said = {"keys": [key]} if "keys" in path else {"issuer": url, "jwks_uri": f"{url}/keys?p=a%2Fb"}
        body = json.dumps(said).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    paths: list[str] = []
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server, open_client() as client:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/realms/shop"
        verifier = Oidc(Issuer(url=url, audience="decisions"), client, Clock().time)
        assert isinstance(await verifier.verify(token("first", iss=url)), Verified)
    assert paths == ["/realms/shop/.well-known/openid-configuration", "/realms/shop/keys?p=a%2Fb"]
