"""The keys of an issuer, as it publishes them: fetched, kept, and fetched again (RFC 7517, and
OpenID Connect Discovery 1.0)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from pydantic import SecretStr

from decision.sources.connections import Connection
from decision.sources.port import Cause, SourceFault
from decision.sources.web import ask

log = logging.getLogger(__name__)

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
SIGNING = (*_RSA, *_CURVES.values())
"""Every algorithm that a token may ever be signed with: asymmetric ones."""

FRESH_SECONDS = 300.0
"""How old keys may be before they are fetched again: within this a key that was withdrawn is found out."""

PAUSE_SECONDS = 10.0
"""From one fetch to the next, whatever tokens come: unknown keys cannot make us a burden to the issuer."""

KEPT_SECONDS = 24 * 3600.0
"""How long keys are gone by while the issuer cannot be reached."""

_TIMEOUT_SECONDS = 5.0
_ANSWER_BYTES = 256 * 1024
_RSA_BITS = range(2048, 8192 + 1)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Key:
    """One public key, and the algorithms it may have signed with."""

    public: PublicKey
    algorithms: frozenset[str]


Keys = Mapping[str | None, tuple[Key, ...]]
"""By key id (`kid`). Under None, which is a token's that names no key: the only one there is, if so."""


class Jwks:
    """The keys of one issuer. All times are seconds of `clock`, which is monotonic."""

    def __init__(
        self,
        issuer: str,
        url: str | None,
        client: httpx.AsyncClient,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`url`: where the keys are; None: where the issuer's openid-configuration says."""
        self._issuer, self._url = issuer, url
        self._client = client
        self._clock = clock
        self._keys: Keys = {}
        self._document: Any = None
        self._fetched: float | None = None
        self._tried: float | None = None
        self._flight: asyncio.Task[None] | None = None

    async def keys(self) -> Keys | None:
        """The keys to go by; None where there are none, or none that are young enough. It is the same object
        as long as the issuer publishes the same. Waits for the issuer only where nothing is known of it, or
        where nobody has asked for so long that a key may have been withdrawn since."""
        now = self._clock()
        tried = self._tried
        if self._too_old(now) or tried is None or now - tried > 2 * FRESH_SECONDS:
            await self.fetch()
        elif self._fetched is not None and now - self._fetched > FRESH_SECONDS:
            self._begin()
        return None if self._too_old(self._clock()) else self._keys

    async def fetch(self) -> None:
        """Fetches the keys, with whoever else waits for them; does nothing where it was tried just now."""
        if (flight := self._begin()) is not None:
            await asyncio.shield(flight)  # it is for others too, who have not gone away

    async def close(self) -> None:
        """Ends what is under way."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)

    def _too_old(self, now: float) -> bool:
        return self._fetched is None or now - self._fetched > KEPT_SECONDS

    def _begin(self) -> asyncio.Task[None] | None:
        if self._flight is not None and not self._flight.done():
            return self._flight
        now = self._clock()
        if self._tried is not None and now - self._tried < PAUSE_SECONDS:
            return None
        self._tried = now
        self._flight = asyncio.create_task(self._fly(), name="keys of an issuer")
        return self._flight

    async def _fly(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                document = await self._ask(self._url or await self._discovered())
            keys = _keys(document)
        except (SourceFault, TimeoutError) as error:
            log.warning("the keys of %s cannot be had: %s", self._issuer, str(error) or type(error).__name__)
            return
        self._fetched = self._clock()
        if document != self._document:
            self._document, self._keys = document, keys

    async def _discovered(self) -> str:
        found = await self._ask(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        if not isinstance(found, dict) or found.get("issuer") != self._issuer:
            raise SourceFault(Cause.BAD_REPLY, "its openid-configuration is another issuer's")
        url = found.get("jwks_uri")
        if not isinstance(url, str) or not secure(url, self._issuer):
            raise SourceFault(Cause.BAD_REPLY, "its jwks_uri is not https")
        return url

    async def _ask(self, url: str) -> Any:
        parts = urlsplit(url)
        try:
            origin = SecretStr(f"{parts.scheme}://{parts.netloc}")
            connection = Connection(url=origin, answer_bytes=_ANSWER_BYTES)
        except ValueError as error:
            raise SourceFault(Cause.BAD_REPLY, "it names no address") from error
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return await ask(self._client, connection, "GET", path)


def secure(url: str, issuer: str = "") -> bool:
    """Whether what comes from there is what was sent: https, or this machine. An issuer that has https does
    not send anybody elsewhere."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if not parts.hostname or parts.username is not None:
        return False
    if parts.scheme == "http":
        return parts.hostname in _LOOPBACK and not issuer.startswith("https:")
    return parts.scheme == "https"


def _keys(document: Any) -> Keys:
    """Those that can have signed a token; the rest of a set is for something else. Raises SourceFault."""
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise SourceFault(Cause.BAD_REPLY, "it is not a set of keys")
    found: dict[str | None, tuple[Key, ...]] = {}
    usable = [(each.get("kid"), key) for each in listed if (key := _key(each)) is not None]
    for kid, key in usable:
        if isinstance(kid, str):
            found[kid] = (*found.get(kid, ()), key)
    if len(usable) == 1:
        found[None] = (usable[0][1],)
    return found


def _key(entry: Any) -> Key | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    match entry:
        case {"kty": "RSA"}:
            may = frozenset(_RSA)
        case {"kty": "EC" | "OKP", "crv": str(curve)} if curve in _CURVES:
            may = frozenset({_CURVES[curve]})
        case _:
            return None
    if "alg" in entry:
        may &= {entry["alg"]} if isinstance(entry["alg"], str) else frozenset()
    if not may:
        return None
    try:
        public = jwt.PyJWK(entry, algorithm=next(iter(may))).key
    except (jwt.PyJWTError, UnsupportedAlgorithm, TypeError, ValueError):
        return None
    if isinstance(public, RSAPublicKey) and public.key_size not in _RSA_BITS:
        return None
    # A private key, which everybody can read there, vouches for nobody.
    return Key(public, may) if isinstance(public, PublicKey) else None
