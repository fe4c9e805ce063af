"""Who a visitor of a site is: a short-lived JWT that the site signs, and a browser brings.

The site has the private key (Ed25519); here is only the public one, so nothing secret is kept. A token has
`aud` (the id of the publishable key), `iat`, `exp` at most an hour later, and either `sub` (the id of the
customer) or `identity` (`{"type": …, "value": …}`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)
from pydantic import TypeAdapter, ValidationError

from decision.access.tokens import Refusal, claims_of, header_of, out_of_time
from decision.messages import IdentityMessage, Key
from decision.storage.port import Identity

LONGEST_SECONDS = 3600
"""The most that may be between `iat` and `exp`."""

LEEWAY_SECONDS = 30
"""How far the site's clock and ours may be apart."""

_CUSTOMER: TypeAdapter[str] = TypeAdapter(Key)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who it is: exactly one of the two."""

    customer_id: str | None = None
    identity: Identity | None = None


def new_pair() -> tuple[str, str]:
    """A fresh key pair in PEM: the private key (PKCS 8), which is the site's, and the public one."""
    private = Ed25519PrivateKey.generate()
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return secret.decode(), public.decode()


def sign(private_pem: str, key_id: str, visitor: str | Identity, seconds: int, now: datetime) -> str:
    """The token of a visitor (a customer's id, or an identity), valid for `seconds` from now: what a site
    does, in whatever language it is written."""
    issued = int(now.timestamp())
    claims: dict[str, object] = {"aud": key_id, "iat": issued, "exp": issued + seconds}
    if isinstance(visitor, Identity):
        claims["identity"] = {"type": visitor.type, "value": visitor.value}
    else:
        claims["sub"] = visitor
    return jwt.encode(claims, private_pem, algorithm="EdDSA")


@lru_cache(maxsize=1024)
def public_key(pem: str) -> Ed25519PublicKey:
    """Raises ValueError where it is not an Ed25519 public key in PEM."""
    try:
        found = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("is not a public key in PEM") from error
    if not isinstance(found, Ed25519PublicKey):
        raise ValueError("is not an Ed25519 key")
    return found


def read(token: str, key_id: str, public_pem: str, now: datetime) -> Visitor | Refusal:
    """Who the token of a browser says its visitor is, or why it is refused. Raises ValueError only as
    `public_key` does, for which a token cannot be the cause."""
    header = header_of(token)
    if isinstance(header, Refusal):
        return header
    if header.algorithm != "EdDSA":
        return Refusal.ALGORITHM
    claims = claims_of(token, header, public_key(public_pem))
    if isinstance(claims, Refusal):
        return claims
    if claims.get("aud") not in (key_id, [key_id]):  # some libraries always write a list
        return Refusal.AUDIENCE
    if "iat" not in claims:
        return Refusal.MALFORMED
    if (wrong := out_of_time(claims, now, LEEWAY_SECONDS)) is not None:
        return wrong
    if claims["exp"] - claims["iat"] > LONGEST_SECONDS:
        return Refusal.LIFETIME
    if ("sub" in claims) == ("identity" in claims):
        return Refusal.SUBJECT
    try:
        if "sub" in claims:
            return Visitor(customer_id=_CUSTOMER.validate_python(claims["sub"], strict=True))
        identity = IdentityMessage.model_validate(claims["identity"])
    except ValidationError:
        return Refusal.SUBJECT
    return Visitor(identity=Identity(identity.type, identity.value))
