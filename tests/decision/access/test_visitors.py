"""Who a visitor is, as the site has signed it; and everything that is not that."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from forging import ISSUER, edwards, elliptic, encoded, forged, published, rivest
from support import NOW

from decision.access.tokens import LARGEST, Refusal
from decision.access.visitors import Visitor, new_pair, public_key, read, sign
from decision.storage.port import Identity

SITE = "pk_shop"
PRIVATE, PUBLIC = new_pair()
KEY: Any = load_pem_private_key(PRIVATE.encode(), None)
SECONDS = int(NOW.timestamp())
PLAIN = {"alg": "EdDSA", "typ": "JWT"}


def claims(**other: Any) -> dict[str, Any]:
    good = {"aud": SITE, "sub": "anna", "iat": SECONDS, "exp": SECONDS + 600}
    return {name: value for name, value in (good | other).items() if value is not None}


def made(header: object = PLAIN, key: Any = KEY, algorithm: str = "EdDSA", **other: Any) -> str:
    return forged(header, claims(**other), key, algorithm)


def said(token: str) -> Visitor | Refusal:
    return read(token, SITE, PUBLIC, NOW)


def test_what_a_site_signs_is_read() -> None:
    assert said(sign(PRIVATE, SITE, "anna", 300, NOW)) == Visitor(customer_id="anna")
    cookie = Identity("cookie", "Zoë 7/9")
    assert said(sign(PRIVATE, SITE, cookie, 3_600, NOW)) == Visitor(identity=cookie)
    assert said(made(aud=[SITE])) == Visitor(customer_id="anna")
    assert said(made({"alg": "EdDSA"})) == Visitor(customer_id="anna")


def test_the_longest_visitors_fit() -> None:
    for longest in (Identity("t" * 64, "v" * 512), Identity("t" * 64, "é" * 512)):
        assert said(sign(PRIVATE, SITE, longest, 300, NOW)) == Visitor(identity=longest)
    assert said(sign(PRIVATE, SITE, "🎉" * 256, 300, NOW)) == Visitor(customer_id="🎉" * 256)


def test_every_pair_is_another() -> None:
    private, public = new_pair()
    assert private != PRIVATE
    assert "PRIVATE KEY" in private
    assert "PUBLIC KEY" in public
    token = sign(private, SITE, "anna", 300, NOW)
    assert said(token) == Refusal.SIGNATURE
    assert read(token, SITE, public, NOW) == Visitor(customer_id="anna")
    assert read(made(), SITE, public, NOW) == Refusal.SIGNATURE


@pytest.mark.parametrize(
    "spelled", ["none", "None", "NONE", "nOnE", "none ", "", None, 0, [], "ES256", "Ed25519"]
)
def test_no_other_algorithm_is_believed(spelled: object) -> None:
    said_none = f"{encoded(PLAIN | {'alg': spelled})}.{encoded(claims())}."
    assert said(said_none) == Refusal.MALFORMED
    assert said(said_none + encoded(bytes(64))) == Refusal.ALGORITHM


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_the_public_key_is_no_secret(algorithm: str) -> None:
    public = KEY.public_key()
    for secret in (
        PUBLIC.encode(),
        PUBLIC.strip().encode(),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.Raw, PublicFormat.Raw),
    ):
        assert said(made(PLAIN | {"alg": algorithm}, secret, algorithm)) == Refusal.ALGORITHM
        assert said(made(PLAIN, secret, algorithm)) == Refusal.SIGNATURE


@pytest.mark.parametrize("named", ["ES256", "RS256"])
def test_keys_of_other_kinds_sign_nothing(named: str) -> None:
    key = elliptic("first") if named == "ES256" else rivest()
    assert said(made(PLAIN | {"alg": named}, key, named)) == Refusal.ALGORITHM
    assert said(made(PLAIN, key, named)) == Refusal.SIGNATURE


def test_keys_that_a_token_brings_along_are_not_looked_at() -> None:
    thief = edwards("thief")
    for brought in (
        {"jwk": published(thief, "EdDSA")},
        {"jku": f"{ISSUER}/keys"},
        {"x5u": f"{ISSUER}/certificate"},
        {"x5c": ["AQ"]},
        {"kid": "../../dev/null"},
        {"kid": "' OR 1=1"},
        {"kid": ISSUER},
    ):
        assert said(made(PLAIN | brought, thief)) == Refusal.SIGNATURE
        assert said(made(PLAIN | brought)) == Visitor(customer_id="anna")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"kid": 7}, Refusal.MALFORMED),
        ({"kid": "k" * 513}, Refusal.MALFORMED),
        ({"crit": ["exp"]}, Refusal.MALFORMED),
        ({"b64": False, "crit": ["b64"]}, Refusal.MALFORMED),
        ({"typ": "secevent+jwt"}, Refusal.TYPE),
    ],
)
def test_headers_that_are_odd_are_refused(header: dict[str, Any], reason: Refusal) -> None:
    assert said(made(PLAIN | header)) == reason


HOUR = 3_600


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"aud": None}, Refusal.AUDIENCE),
        ({"aud": "pk_other"}, Refusal.AUDIENCE),
        ({"aud": ""}, Refusal.AUDIENCE),
        ({"aud": []}, Refusal.AUDIENCE),
        ({"aud": [SITE, "pk_other"]}, Refusal.AUDIENCE),
        ({"aud": [[SITE]]}, Refusal.AUDIENCE),
        ({"aud": {SITE: 1}}, Refusal.AUDIENCE),
        ({"exp": None}, Refusal.MALFORMED),
        ({"exp": "4000000000"}, Refusal.MALFORMED),
        ({"exp": True}, Refusal.MALFORMED),
        ({"exp": float("inf")}, Refusal.MALFORMED),
        ({"iat": None}, Refusal.MALFORMED),
        ({"iat": str(SECONDS)}, Refusal.MALFORMED),
        ({"nbf": None, "iat": True}, Refusal.MALFORMED),
        ({"exp": SECONDS - 30}, Refusal.EXPIRED),
        ({"iat": SECONDS + 32}, Refusal.NOT_YET_VALID),
        ({"nbf": SECONDS + 32}, Refusal.NOT_YET_VALID),
        ({"exp": SECONDS + HOUR + 1}, Refusal.LIFETIME),
        ({"exp": SECONDS + 10, "iat": SECONDS - HOUR + 9}, Refusal.LIFETIME),
        ({"exp": 253_402_300_799, "iat": SECONDS}, Refusal.LIFETIME),
        ({"exp": SECONDS + 10, "iat": 0}, Refusal.LIFETIME),
        ({"sub": None}, Refusal.SUBJECT),
        ({"identity": {"type": "cookie", "value": "x"}}, Refusal.SUBJECT),
        ({"sub": ""}, Refusal.SUBJECT),
        ({"sub": 7}, Refusal.SUBJECT),
        ({"sub": ["anna"]}, Refusal.SUBJECT),
        ({"sub": "a\x1fb"}, Refusal.SUBJECT),
        ({"sub": "a" * 257}, Refusal.SUBJECT),
    ],
)
def test_claims_that_are_wrong_are_refused(other: dict[str, Any], reason: Refusal) -> None:
    assert said(made(**other)) == reason


@pytest.mark.parametrize(
    "identity",
    [
        "cookie",
        ["cookie", "x"],
        {},
        {"type": "cookie"},
        {"value": "x"},
        {"type": "Cookie", "value": "x"},
        {"type": "cookie", "value": ""},
        {"type": "cookie", "value": "a\nb"},
        {"type": "cookie", "value": 7},
        {"type": "cookie", "value": "x" * 513},
        {"type": "c" * 65, "value": "x"},
        {"type": "cookie", "value": "x", "customer_id": "bob"},
    ],
)
def test_an_identity_is_a_type_and_a_value(identity: object) -> None:
    assert said(made(sub=None, identity=identity)) == Refusal.SUBJECT


@pytest.mark.parametrize(
    "other",
    [
        {"exp": SECONDS - 29},
        {"iat": SECONDS + 30},
        {"nbf": SECONDS + 30},
        {"exp": SECONDS + HOUR},
        {"exp": SECONDS + 10, "iat": SECONDS - HOUR + 10},
    ],
)
def test_clocks_may_be_half_a_minute_apart(other: dict[str, Any]) -> None:
    assert said(made(**other)) == Visitor(customer_id="anna")


def test_a_token_ends_when_it_says() -> None:
    token = sign(PRIVATE, SITE, "anna", 60, NOW)
    assert isinstance(read(token, SITE, PUBLIC, NOW + timedelta(seconds=89)), Visitor)
    assert read(token, SITE, PUBLIC, NOW + timedelta(seconds=91)) == Refusal.EXPIRED
    assert read(token, SITE, PUBLIC, NOW - timedelta(seconds=31)) == Refusal.NOT_YET_VALID


def test_what_is_changed_or_cut_off_is_refused() -> None:
    token = made()
    header, payload, signature = token.split(".")
    assert said(f"{header}.{encoded(claims(sub='bob'))}.{signature}") == Refusal.SIGNATURE
    assert said(f"{header}.{payload}.{encoded(bytes(63))}") == Refusal.SIGNATURE
    for wrong in (
        "",
        "..",
        header,
        f"{header}.{payload}",
        f"{token}.",
        f"{token}.{payload}.{signature}",
        f"{token}==",
        f" {token}",
        token[:-1] + chr(ord(token[-1]) + 1),
        "A" * 9_000,
        made(pad="x" * LARGEST),
        forged(PLAIN, b'{"aud":"pk_shop","sub":"bob","sub":"anna"}', KEY, "EdDSA"),
        forged(b'{"alg":"none","alg":"EdDSA"}', claims(), KEY, "EdDSA"),
        forged(PLAIN, b'["anna"]', KEY, "EdDSA"),
    ):
        assert said(wrong) == Refusal.MALFORMED, wrong[:80]


def test_only_an_ed25519_public_key_is_one() -> None:
    assert public_key(PUBLIC).public_bytes(Encoding.Raw, PublicFormat.Raw)
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    for wrong in (
        "",
        "key",
        PRIVATE,
        PUBLIC.replace("PUBLIC", "PRIVATE"),
        other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    ):
        with pytest.raises(ValueError, match="key"):
            public_key(wrong)
