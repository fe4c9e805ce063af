"""What the tests of tokens share: an OpenID provider in memory, and tokens made by hand."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from support import NOW

ISSUER, AUDIENCE = "https://login.example", "decisions"
PLAIN = {"alg": "ES256", "typ": "JWT", "kid": "first"}


def encoded(part: object) -> str:
    """A part of a token: bytes as they are, anything else as JSON."""
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return urlsafe_b64encode(text).rstrip(b"=").decode()


def forged(header: object, claims: object, key: Any, algorithm: str = "ES256") -> str:
    """A token with any header and claims, signed with a key by an algorithm, whatever the header says."""
    said = f"{encoded(header)}.{encoded(claims)}"
    signature = jwt.get_algorithm_by_name(algorithm).sign(said.encode(), key)
    return f"{said}.{encoded(signature)}"


def claims(**other: Any) -> dict[str, Any]:
    """Those of a good token at NOW; a claim that is None is left out."""
    seconds = int(NOW.timestamp())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "anna", "iat": seconds, "exp": seconds + 600}
    return {name: value for name, value in (good | other).items() if value is not None}


def published(key: Any, algorithm: str, **other: Any) -> dict[str, Any]:
    """A public key as in a set."""
    return jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True) | other


@cache
def elliptic(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def edwards(name: str) -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


@cache
def rivest(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, bits)


class Clock:
    """Set by the test: the time of day, and seconds that only go forward."""

    def __init__(self) -> None:
        self.now, self.seconds = NOW, 1_000.0

    def time(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.seconds

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds


class Provider:
    """An OpenID provider: publishes `keys`, and counts who asks what. `says` answers in its place."""

    def __init__(self) -> None:
        self.keys: list[Any] = [published(elliptic("first"), "ES256", kid="first")]
        self.asked: list[str] = []
        self.says: dict[str, httpx.Response | Exception] = {}
        self.client = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        url = str(request.url)
        self.asked.append(url)
        if (said := self.says.get(url, self.says.get("*"))) is not None:
            if isinstance(said, Exception):
                raise said
            return said
        if url == f"{ISSUER}/.well-known/openid-configuration":
            return reply({"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys?v=1"})
        if url == f"{ISSUER}/keys?v=1":
            return reply({"keys": self.keys})
        return httpx.Response(404)


def reply(document: object, status: int = 200, **headers: str) -> httpx.Response:
    """Not read yet, as one that comes over the wire."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))
