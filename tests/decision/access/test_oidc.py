"""Which tokens are accepted, and that all others are refused, each for its reason. In one file: the list of
attacks is read as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from forging import (
    AUDIENCE,
    ISSUER,
    PLAIN,
    Clock,
    Provider,
    claims,
    edwards,
    elliptic,
    encoded,
    forged,
    published,
    rivest,
)
from pydantic import ValidationError
from support import NOW

from decision.access import oidc as module
from decision.access.oidc import Issuer, Oidc, Refusal, Verified

SECONDS = int(NOW.timestamp())


class Door:
    """The verifier of one issuer, with its provider and its clock."""

    def __init__(self, **settings: Any) -> None:
        self.provider, self.clock = Provider(), Clock()
        issuer = Issuer(url=ISSUER, audience=AUDIENCE, **settings)
        self.oidc = Oidc(issuer, self.provider.client, self.clock.time, self.clock.monotonic)

    async def __call__(self, token: str) -> Verified | Refusal:
        return await self.oidc.verify(token)


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    opened = Door()
    yield opened
    await opened.oidc.close()


def good(**other: Any) -> str:
    return forged(PLAIN, claims(**other), elliptic("first"))


async def test_a_good_token_says_who_it_is_and_what_they_may(door: Door) -> None:
    token = good(scope="decide  respond", roles=["agent", "analyst"], aud=["others", AUDIENCE])
    expected = Verified(
        ISSUER,
        "anna",
        frozenset({"decide", "respond"}),
        frozenset({"agent", "analyst"}),
        datetime.fromtimestamp(SECONDS + 600, UTC),
    )
    assert await door(token) == expected
    assert expected.name == "oidc:https://login.example|anna"
    assert await door(token) == expected


@pytest.mark.parametrize(
    ("settings", "said", "scopes", "roles"),
    [
        ({}, {}, set(), set()),
        ({}, {"scope": "", "roles": []}, set(), set()),
        ({}, {"scope": ["decide"], "roles": "agent analyst"}, {"decide"}, {"agent", "analyst"}),
        ({"scopes_claim": "scp"}, {"scp": "decide", "scope": "admin"}, {"decide"}, set()),
        ({"roles_claim": "realm.roles"}, {"realm": {"roles": ["agent"]}}, set(), {"agent"}),
        ({"roles_claim": "realm.roles"}, {"realm": ["roles"]}, set(), set()),
        ({"roles_claim": "https://a.example/r"}, {"https://a.example/r": ["agent"]}, set(), {"agent"}),
    ],
)
async def test_scopes_and_roles_are_where_the_issuer_has_them(
    settings: dict[str, Any], said: dict[str, Any], scopes: set[str], roles: set[str]
) -> None:
    found = await Door(**settings)(good(**said))
    assert isinstance(found, Verified)
    assert (found.scopes, found.roles) == (scopes, roles)


@pytest.mark.parametrize("kind", ["JWT", "at+jwt", "AT+JWT", "application/at+jwt", None])
async def test_types_of_access_tokens_are_accepted(door: Door, kind: str | None) -> None:
    header = {"alg": "ES256", "kid": "first"} | ({} if kind is None else {"typ": kind})
    assert isinstance(await door(forged(header, claims(), elliptic("first"))), Verified)


async def test_every_allowed_algorithm_works_with_its_key_and_no_other(door: Door) -> None:
    keys: dict[str, Any] = {"RS256": rivest(), "ES256": elliptic("first"), "EdDSA": edwards("first")}
    door.provider.keys = [published(key, name, kid=name) for name, key in keys.items()]
    for name, key in keys.items():
        token = forged({"alg": name, "kid": name}, claims(), key, name)
        assert isinstance(await door(token), Verified)
        for other in keys.keys() - {name}:
            assert await door(forged({"alg": name, "kid": other}, claims(), key, name)) == Refusal.ALGORITHM
    assert len(door.provider.asked) == 2


NONE = ["none", "None", "NONE", "nOnE", " none", "none ", "none\x00", "", None, 0, False, [], ["none"], {}]


@pytest.mark.parametrize("spelled", NONE)
async def test_no_algorithm_is_none(door: Door, spelled: object) -> None:
    said = f"{encoded(PLAIN | {'alg': spelled})}.{encoded(claims())}."
    assert await door(said) == Refusal.MALFORMED
    assert await door(said + encoded(b"anything")) == Refusal.ALGORITHM
    assert door.provider.asked == []


async def test_a_header_without_an_algorithm_is_refused(door: Door) -> None:
    assert await door(forged({"kid": "first"}, claims(), elliptic("first"))) == Refusal.ALGORITHM


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("named", ["RSA", "EC", "OKP"])
async def test_a_public_key_is_no_secret(door: Door, named: str, algorithm: str) -> None:
    key, its = {
        "RSA": (rivest(), "RS256"),
        "EC": (elliptic("first"), "ES256"),
        "OKP": (edwards("first"), "EdDSA"),
    }[named]
    door.provider.keys = [published(key, its, kid="first")]
    public = key.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    texts = [
        pem,
        pem.strip(),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        jwt.get_algorithm_by_name(its).to_jwk(public).encode(),
    ]
    for secret in texts:
        for spelled in (algorithm, its):
            token = forged({"alg": spelled, "kid": "first"}, claims(), secret, algorithm)
            assert await door(token) == (Refusal.ALGORITHM if spelled == algorithm else Refusal.SIGNATURE)


async def test_a_symmetric_key_in_the_set_verifies_nothing() -> None:
    with pytest.raises(ValidationError):
        Issuer(url=ISSUER, audience=AUDIENCE, algorithms=("HS256",))  # type: ignore[arg-type]
    door = Door()
    door.provider.keys.append({"kty": "oct", "kid": "shared", "k": encoded(b"s" * 32)})
    for spelled in ("HS256", "ES256"):
        token = forged({"alg": spelled, "kid": "shared"}, claims(), b"s" * 32, "HS256")
        assert await door(token) == (Refusal.ALGORITHM if spelled == "HS256" else Refusal.UNKNOWN_KEY)


async def test_an_algorithm_that_is_not_allowed_is_refused_though_the_key_could(door: Door) -> None:
    door.provider.keys = [published(rivest(), "RS256", kid="first")]
    assert await door(forged({"alg": "PS256", "kid": "first"}, claims(), rivest(), "PS256")) == (
        Refusal.ALGORITHM
    )


async def test_a_key_that_is_published_for_one_algorithm_is_for_that_alone() -> None:
    door = Door(algorithms=("RS256", "PS256"))
    door.provider.keys = [published(rivest(), "RS256", kid="first", alg="RS256")]
    for name, outcome in (("RS256", Verified), ("PS256", Refusal)):
        assert isinstance(
            await door(forged({"alg": name, "kid": "first"}, claims(), rivest(), name)), outcome
        )


KIDS = [
    "../../../../dev/null",
    "/etc/passwd",
    "file:///etc/passwd",
    "https://evil.example/keys",
    "first' OR '1'='1",
    "'; DROP TABLE keys; --",
    "first\x00",
    "first ",
    "FIRST",
    "",
    "$(id)",
    "k" * 512,
]


@pytest.mark.parametrize("kid", KIDS)
async def test_a_key_id_is_looked_up_and_nothing_else(door: Door, kid: str) -> None:
    assert isinstance(await door(good()), Verified)
    door.clock.forward(11)
    assert await door(forged(PLAIN | {"kid": kid}, claims(), elliptic("thief"))) == Refusal.UNKNOWN_KEY
    assert set(door.provider.asked) == {f"{ISSUER}/.well-known/openid-configuration", f"{ISSUER}/keys?v=1"}


@pytest.mark.parametrize("kid", [1, True, ["first"], {"first": 1}, "k" * 513])
async def test_a_key_id_is_a_short_string(door: Door, kid: object) -> None:
    assert await door(forged(PLAIN | {"kid": kid}, claims(), elliptic("first"))) == Refusal.MALFORMED


async def test_a_token_without_key_id_is_for_the_only_key(door: Door) -> None:
    token = forged({"alg": "ES256"}, claims(), elliptic("first"))
    assert isinstance(await door(token), Verified)
    door = Door()
    door.provider.keys.append(published(elliptic("second"), "ES256", kid="second"))
    assert await door(token) == Refusal.UNKNOWN_KEY


async def test_keys_that_a_token_brings_along_are_not_looked_at(door: Door) -> None:
    thief = elliptic("thief")
    brought = {
        "jwk": published(thief, "ES256", kid="first"),
        "jku": "https://evil.example/keys",
        "x5u": "https://evil.example/certificate",
        "x5c": [encoded(b"certificate")],
        "x5t": "first",
    }
    for name, value in [*brought.items()]:
        assert await door(forged(PLAIN | {name: value}, claims(), thief)) == Refusal.SIGNATURE
    assert await door(forged(PLAIN | brought | {"kid": "thief"}, claims(), thief)) == Refusal.UNKNOWN_KEY
    assert isinstance(await door(forged(PLAIN | brought, claims(), elliptic("first"))), Verified)
    assert not any("evil" in url for url in door.provider.asked)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"iss": None}, Refusal.ISSUER),
        ({"iss": ISSUER + "/"}, Refusal.ISSUER),
        ({"iss": "https://evil.example"}, Refusal.ISSUER),
        ({"iss": [ISSUER]}, Refusal.ISSUER),
        ({"aud": None}, Refusal.AUDIENCE),
        ({"aud": "others"}, Refusal.AUDIENCE),
        ({"aud": AUDIENCE + "2"}, Refusal.AUDIENCE),
        ({"aud": AUDIENCE[:-1]}, Refusal.AUDIENCE),
        ({"aud": ""}, Refusal.AUDIENCE),
        ({"aud": []}, Refusal.AUDIENCE),
        ({"aud": ["others", "more"]}, Refusal.AUDIENCE),
        ({"aud": {AUDIENCE: 1}}, Refusal.AUDIENCE),
        ({"aud": [[AUDIENCE]]}, Refusal.AUDIENCE),
        ({"exp": None}, Refusal.MALFORMED),
        ({"exp": str(SECONDS + 600)}, Refusal.MALFORMED),
        ({"exp": True}, Refusal.MALFORMED),
        ({"exp": [SECONDS + 600]}, Refusal.MALFORMED),
        ({"exp": 1e300}, Refusal.MALFORMED),
        ({"exp": float("inf")}, Refusal.MALFORMED),
        ({"exp": float("nan")}, Refusal.MALFORMED),
        ({"exp": -1}, Refusal.MALFORMED),
        ({"exp": 0}, Refusal.EXPIRED),
        ({"exp": SECONDS - 60}, Refusal.EXPIRED),
        ({"nbf": SECONDS + 62}, Refusal.NOT_YET_VALID),
        ({"iat": SECONDS + 62}, Refusal.NOT_YET_VALID),
        ({"nbf": "soon"}, Refusal.MALFORMED),
        ({"iat": False}, Refusal.MALFORMED),
        ({"sub": None}, Refusal.SUBJECT),
        ({"sub": ""}, Refusal.SUBJECT),
        ({"sub": 7}, Refusal.SUBJECT),
        ({"sub": "anna\nadmin"}, Refusal.SUBJECT),
        ({"sub": "a" * 256}, Refusal.SUBJECT),
        ({"scope": 7}, Refusal.MALFORMED),
        ({"scope": ["decide", 7]}, Refusal.MALFORMED),
        ({"roles": {"admin": True}}, Refusal.MALFORMED),
    ],
)
async def test_claims_that_are_wrong_are_refused(door: Door, other: dict[str, Any], reason: Refusal) -> None:
    assert await door(good(**other)) == reason


@pytest.mark.parametrize("other", [{"exp": SECONDS - 59}, {"nbf": SECONDS + 60}, {"iat": SECONDS + 60}])
async def test_clocks_may_be_a_minute_apart(door: Door, other: dict[str, Any]) -> None:
    assert isinstance(await door(good(**other)), Verified)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"crit": ["exp"], "exp": 1}, Refusal.MALFORMED),
        ({"crit": []}, Refusal.MALFORMED),
        ({"crit": ["b64"], "b64": True}, Refusal.MALFORMED),
        ({"b64": False}, Refusal.MALFORMED),
        ({"typ": "logout+jwt"}, Refusal.TYPE),
        ({"typ": ["JWT"]}, Refusal.MALFORMED),
    ],
)
async def test_headers_that_would_have_to_be_understood_are_refused(
    door: Door, said: dict[str, Any], reason: Refusal
) -> None:
    assert await door(forged(PLAIN | said, claims(), elliptic("first"))) == reason


async def test_what_is_changed_after_signing_is_refused(door: Door) -> None:
    header, payload, signature = good().split(".")
    more = encoded(claims(scope="admin"))
    assert await door(f"{header}.{more}.{signature}") == Refusal.SIGNATURE
    assert await door(f"{encoded(PLAIN | {'x': 1})}.{payload}.{signature}") == Refusal.SIGNATURE
    assert await door(f"{header}.{payload}.{encoded(bytes(63))}") == Refusal.SIGNATURE
    assert await door(f"{header}.{payload}.{signature}AAAA") == Refusal.SIGNATURE
    assert await door(f"{header}.{payload}.{encoded(bytes(64))}") == Refusal.SIGNATURE
    twin = signature[:-1] + chr(ord(signature[-1]) + 1)  # it stands for the same bytes
    assert await door(f"{header}.{payload}.{twin}") == Refusal.MALFORMED
    assert isinstance(await door(f"{header}.{payload}.{signature}"), Verified)


async def test_what_is_not_a_compact_jws_is_refused_before_anybody_is_asked(door: Door) -> None:
    token = good()
    header, payload, signature = token.split(".")
    wrong = [
        "",
        ".",
        "..",
        "a.b.c",
        header,
        f"{header}.{payload}",
        f"{header}.{payload}.",
        f"{header}..{signature}",
        f".{payload}.{signature}",
        f"{token}.",
        f"{token}.{signature}.{signature}",  # as many parts as an encrypted one
        f"{token}=",
        f"{header}==.{payload}.{signature}",
        f" {token}",
        f"{token}\n",
        token.replace(".", "\u2024"),
        "é" + token,
        "\ud800" + token,
        token[: len(header) - 1],
        f"{encoded(b'not json')}.{payload}.{signature}",
        f"{encoded(b'[1]')}.{payload}.{signature}",
        f"{encoded(b'[' * 5000)}.{payload}.{signature}",
        encoded(b'{"a":' * 1000) + f".{payload}.{signature}",
        encoded(b'{"alg":"ES256","kid":"first","kid":"second"}') + f".{payload}.{signature}",
        encoded(b'\xff{"alg":"ES256"}') + f".{payload}.{signature}",
        "A" * 100_000_000,
    ]
    for each in wrong:
        assert await door(each) == Refusal.MALFORMED, each[:80]
    assert door.provider.asked == []


async def test_a_token_may_have_8_kib_and_no_more(door: Door) -> None:
    short = len(good(pad=""))
    fits = good(pad="x" * ((8192 - short) * 3 // 4))
    assert 8180 < len(fits) <= 8192
    assert isinstance(await door(fits), Verified)
    assert await door(good(pad="x" * ((8192 - short) * 3 // 4 + 9))) == Refusal.MALFORMED


@pytest.mark.parametrize(
    "payload",
    [
        b'{"iss":"https://evil.example","iss":"https://login.example","aud":"decisions","sub":"a","exp":4e9}',
        b'{"iss":"https://login.example","aud":"decisions","sub":"a","exp":4e9,"roles":["a"],"roles":["b"]}',
        b'{"iss":"https://login.example","aud":"decisions","sub":"a","exp":Infinity}',
        b'{"iss":"https://login.example","aud":"decisions","sub":"a","exp":4e9,"x":NaN}',
        b'{"iss":"https://login.example","aud":"decisions","sub":"a","exp":' + b"9" * 5000 + b"}",
        b'["iss"]',
        b"not json",
        b"[" * 5000,
    ],
)
async def test_claims_that_can_be_read_in_two_ways_are_refused(door: Door, payload: bytes) -> None:
    assert await door(forged(PLAIN, payload, elliptic("first"))) == Refusal.MALFORMED


async def test_a_token_is_verified_once_until_it_expires(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[str] = []

    def counted(token: str, *rest: Any) -> Any:
        verified.append(token)
        return claims_of(token, *rest)

    claims_of = module.claims_of
    monkeypatch.setattr(module, "claims_of", counted)
    token = good(exp=SECONDS + 70)
    for _ in range(3):
        assert isinstance(await door(token), Verified)
    assert len(verified) == 1
    door.clock.forward(59)
    assert isinstance(await door(token), Verified)
    assert len(verified) == 1
    door.clock.forward(1)
    assert isinstance(await door(token), Verified)
    assert len(verified) == 2
    door.clock.now = datetime.fromtimestamp(SECONDS + 130, UTC)
    assert await door(token) == Refusal.EXPIRED


async def test_refusals_are_not_remembered_and_what_is_has_a_bound(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 3)
    tokens = [good(jti=str(number)) for number in range(5)]
    for token in [*tokens, good(aud="others"), *tokens]:
        await door(token)
    assert len(door.oidc._remembered) == 3


async def test_a_remembered_token_falls_with_its_key(door: Door) -> None:
    token = good()
    assert isinstance(await door(token), Verified)
    door.provider.keys = [published(elliptic("second"), "ES256", kid="second")]
    door.clock.forward(30)
    # Somebody comes with the new key: from then on the old one is known to be gone.
    newer = forged(PLAIN | {"kid": "second"}, claims(), elliptic("second"))
    assert isinstance(await door(newer), Verified)
    assert await door(token) == Refusal.UNKNOWN_KEY


async def test_nobody_gets_in_while_the_keys_cannot_be_had(door: Door) -> None:
    door.provider.says["*"] = OSError("no route")
    assert await door(good()) == Refusal.UNAVAILABLE
    assert await door("rubbish") == Refusal.MALFORMED
    del door.provider.says["*"]
    assert await door(good()) == Refusal.UNAVAILABLE
    door.clock.forward(10)
    results = await asyncio.gather(*(door(good()) for _ in range(20)))
    assert all(isinstance(each, Verified) for each in results)
    assert len(door.provider.asked) == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "http://login.example"},
        {"url": "ftp://login.example"},
        {"url": "login.example"},
        {"url": "https://"},
        {"url": "https://user:secret@login.example"},
        {"url": "http://["},
        {"jwks_url": "http://login.example/keys"},
        {"algorithms": ()},
        {"algorithms": ("none",)},
        {"audience": ""},
        {"leeway": 3600},
    ],
)
def test_settings_that_are_not_safe_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Issuer.model_validate({"url": ISSUER, "audience": AUDIENCE} | settings)


def test_an_issuer_on_this_machine_needs_no_certificate() -> None:
    assert Issuer(url="http://127.0.0.1:8080/realms/x", audience=AUDIENCE).url.startswith("http:")
