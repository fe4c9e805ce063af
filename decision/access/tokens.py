"""A JSON Web Token taken apart: strictly, and nothing of it is believed before its signature is checked.

RFC 7515 (JWS, compact), RFC 7519 (JWT) and what RFC 8725 makes of them. The signature is PyJWT's business.
What a header says of keys (`jku`, `jwk`, `x5u`, `x5c`) is never looked at.
"""

from __future__ import annotations

import json
import re
from binascii import a2b_base64
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import jwt
from jwt.types import SigOptions

from arbitration.errors import NextBestActionError
from decision.access.jwks import SIGNING, PublicKey

LARGEST = 8 * 1024
"""The most characters that a token may have."""

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_TYPES = ("jwt", "at+jwt", "application/at+jwt")
_LAST_SECOND = 253_402_300_799  # of the year 9999
_LONGEST_KID = 512
_JWS = jwt.PyJWS(algorithms=SIGNING)
_STRICT: SigOptions = {"verify_signature": True, "enforce_minimum_key_length": True}


class Refusal(StrEnum):
    """Why a token is not accepted. A closed list."""

    MALFORMED = "malformed"  # not a JWT, or one with a claim of the wrong type
    ALGORITHM = "algorithm"  # none, symmetric, not among the allowed, or not the key's
    TYPE = "type"  # a JWT that is for something else
    UNKNOWN_KEY = "unknown_key"
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    LIFETIME = "lifetime"  # valid for longer than is allowed
    SUBJECT = "subject"  # it names nobody, or more than one
    UNAVAILABLE = "unavailable"  # the issuer's keys cannot be had now


class _Malformed(NextBestActionError):
    """Within this module: JSON that is not to be guessed at."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the choice of a key rests on: nothing else of a header is used."""

    algorithm: str
    kid: str | None


def header_of(token: str) -> Header | Refusal:
    """The header of a compact JWS; not verified yet."""
    if len(token) > LARGEST or _COMPACT.fullmatch(token) is None:
        return Refusal.MALFORMED
    try:
        said = _object(_decoded(token.partition(".")[0]))
    except _Malformed:
        return Refusal.MALFORMED
    algorithm, kid, kind = said.get("alg"), said.get("kid"), said.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in SIGNING:
        return Refusal.ALGORITHM
    if "crit" in said or "b64" in said or not isinstance(kind, str):
        return Refusal.MALFORMED
    if kind.lower() not in _TYPES:
        return Refusal.TYPE
    if kid is not None and not (isinstance(kid, str) and len(kid) <= _LONGEST_KID):
        return Refusal.MALFORMED
    return Header(algorithm, kid)


def claims_of(token: str, header: Header, key: PublicKey) -> dict[str, Any] | Refusal:
    """What the token says, once `key` is seen to have signed it. `header` is that of `header_of`."""
    try:
        payload = _JWS.decode(token, key, algorithms=[header.algorithm], options=_STRICT)
        return _object(payload)
    except jwt.InvalidSignatureError:
        return Refusal.SIGNATURE
    except jwt.InvalidKeyError:
        return Refusal.ALGORITHM
    except (jwt.PyJWTError, _Malformed):
        return Refusal.MALFORMED


def out_of_time(claims: dict[str, Any], now: datetime, leeway: int) -> Refusal | None:
    """What is wrong with `exp` (which is required), `nbf` and `iat`, clocks being up to `leeway` seconds
    apart; None where nothing is."""
    if "exp" not in claims:
        return Refusal.MALFORMED
    times = {name: claims[name] for name in ("exp", "nbf", "iat") if name in claims}
    if not all(map(_moment, times.values())):
        return Refusal.MALFORMED
    seconds = now.timestamp()
    if times["exp"] + leeway <= seconds:
        return Refusal.EXPIRED
    if max(times.get("nbf", 0), times.get("iat", 0)) > seconds + leeway:
        return Refusal.NOT_YET_VALID
    return None


def _moment(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= value <= _LAST_SECOND  # type: ignore[operator]  # no comparison holds for NaN


def _decoded(part: str) -> bytes:
    try:
        return a2b_base64(part.replace("-", "+").replace("_", "/") + "=" * (-len(part) % 4), strict_mode=True)
    except ValueError as error:
        raise _Malformed("not base64url") from error


def _object(text: bytes) -> dict[str, Any]:
    """Raises _Malformed also where a name is there twice: two readers could believe two things."""
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_not_json)
    except (ValueError, RecursionError) as error:
        raise _Malformed("not JSON") from error
    if not isinstance(found, dict):
        raise _Malformed("not an object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise _Malformed("a name twice")
    return found


def _not_json(constant: str) -> None:
    raise _Malformed(constant)
