"""Bearer tokens of an OpenID provider: JWTs that it signed, for us, and that are valid now."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Any, Literal

import httpx
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from decision.access.jwks import Jwks, Keys, secure
from decision.access.tokens import LARGEST, Header, claims_of, header_of, out_of_time
from decision.access.tokens import Refusal as Refusal
from decision.clock import utc_now

LEEWAY_SECONDS = 60
"""How far the issuer's clock and ours may be apart."""

REMEMBERED_SECONDS = 60.0
"""How long a verified token is not verified again."""

_REMEMBERED = 10_000
_LONGEST_SUBJECT = 255  # OpenID Connect Core 1.0, section 2

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
Name = Annotated[str, Field(min_length=1, max_length=512)]


def _secure(url: str) -> str:
    if not secure(url):
        raise ValueError("must be https://host… (http only on this machine)")
    return url


class Issuer(BaseModel):
    """Whose tokens are accepted: `url` as the issuer spells itself, `audience` as it calls us.

    `jwks_url`: where its keys are; by default where `<url>/.well-known/openid-configuration` says.
    `scopes_claim` and `roles_claim`: where in a token its scopes and roles are, as a list or separated by
    spaces; a name that is not there may be a path (`realm_access.roles`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[Name, AfterValidator(_secure)]
    audience: Name
    jwks_url: Annotated[Name, AfterValidator(_secure)] | None = None
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256", "ES256", "EdDSA")
    scopes_claim: Name = "scope"
    roles_claim: Name = "roles"


@dataclass(frozen=True, slots=True)
class Verified:
    """What a token that was verified says: who it is, with which scopes and roles (as the issuer names them),
    until when (aware UTC)."""

    issuer: str
    subject: str
    scopes: frozenset[str]
    roles: frozenset[str]
    expires_at: datetime

    @property
    def name(self) -> str:
        """What the audit trail calls it: a subject means something only along with its issuer."""
        return f"oidc:{self.issuer}|{self.subject}"


class Oidc:
    """Verifies the tokens of one issuer."""

    def __init__(
        self,
        issuer: Issuer,
        client: httpx.AsyncClient,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`client`: of `decision.sources.web.open_client`; it stays the caller's to close."""
        self._issuer = issuer
        self._jwks = Jwks(issuer.url, issuer.jwks_url, client, monotonic)
        self._clock, self._monotonic = clock, monotonic
        self._remembered: OrderedDict[bytes, tuple[Verified, float]] = OrderedDict()
        self._keys: Keys | None = None  # with which the remembered were verified

    async def verify(self, token: str) -> Verified | Refusal:
        """What the token says, or why it is refused. Expected outcomes raise nothing."""
        if len(token) > LARGEST:  # before anything is made of it
            return Refusal.MALFORMED
        digest = sha256(token.encode("utf-8", "surrogatepass")).digest()
        if (known := await self._recalled(digest)) is not None:
            return known
        header = header_of(token)
        if isinstance(header, Refusal):
            return header
        if header.algorithm not in self._issuer.algorithms:
            return Refusal.ALGORITHM
        keys = await self._jwks.keys()
        if keys is not None and header.kid not in keys:  # it may be a new one
            await self._jwks.fetch()
            keys = await self._jwks.keys()
        if keys is None:
            return Refusal.UNAVAILABLE
        found = self._verified(token, header, keys)
        if isinstance(found, Verified):
            self._remember(digest, found, keys)
        return found

    async def close(self) -> None:
        """Ends what is under way."""
        await self._jwks.close()

    def _verified(self, token: str, header: Header, keys: Keys) -> Verified | Refusal:
        if header.kid not in keys:
            return Refusal.UNKNOWN_KEY
        may = [key.public for key in keys[header.kid] if header.algorithm in key.algorithms]
        if not may:
            return Refusal.ALGORITHM
        claims = claims_of(token, header, may[0])
        if isinstance(claims, Refusal):
            return claims
        if claims.get("iss") != self._issuer.url:
            return Refusal.ISSUER
        meant = claims.get("aud")
        if self._issuer.audience not in (meant if isinstance(meant, list) else [meant]):
            return Refusal.AUDIENCE
        if (wrong := out_of_time(claims, self._clock(), LEEWAY_SECONDS)) is not None:
            return wrong
        return self._said(claims)

    def _said(self, claims: Mapping[str, Any]) -> Verified | Refusal:
        subject = claims.get("sub")
        if not (isinstance(subject, str) and 0 < len(subject) <= _LONGEST_SUBJECT and subject.isprintable()):
            return Refusal.SUBJECT
        scopes = _words(_found(claims, self._issuer.scopes_claim))
        roles = _words(_found(claims, self._issuer.roles_claim))
        if scopes is None or roles is None:
            return Refusal.MALFORMED
        until = datetime.fromtimestamp(claims["exp"], UTC)
        return Verified(self._issuer.url, subject, scopes, roles, until)

    async def _recalled(self, digest: bytes) -> Verified | None:
        if digest not in self._remembered:
            return None
        if await self._jwks.keys() is not self._keys:  # the key it was verified with may be gone
            self._remembered.clear()
        verified, until = self._remembered.get(digest, (None, 0.0))
        if verified is None:
            return None
        over = (self._clock() - verified.expires_at).total_seconds() >= LEEWAY_SECONDS
        if over or self._monotonic() >= until:
            del self._remembered[digest]
            return None
        self._remembered.move_to_end(digest)
        return verified

    def _remember(self, digest: bytes, verified: Verified, keys: Keys) -> None:
        if keys is not self._keys:
            self._keys = keys
            self._remembered.clear()
        self._remembered[digest] = verified, self._monotonic() + REMEMBERED_SECONDS
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)


def _found(claims: Mapping[str, Any], name: str) -> Any:
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _words(said: Any) -> frozenset[str] | None:
    """None where it is neither a list of strings nor a string."""
    if said is None:
        return frozenset()
    listed = said.split(" ") if isinstance(said, str) else said
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        return None
    return frozenset(each for each in listed if each)
