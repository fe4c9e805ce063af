"""From the headers of a request to who calls. In one place, so that every way in is guarded alike.

What the caller hears is short: which of several things is wrong with a credential helps who guesses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from decision.access.actor import LOCAL, Actor
from decision.access.keys import PUBLISHABLE, SECRET, Key
from decision.access.scopes import ROLES, SCOPES
from decision.errors import FieldError, Rejected
from decision.register import Register

if TYPE_CHECKING:  # who has no such tokens does not pay for what reads them
    from decision.access.oidc import Oidc
    from decision.access.visitors import Visitor

log = logging.getLogger(__name__)

VISITOR = "visitor-token"
_LONGEST = 16_384
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Authentication:
    """Knows callers by their keys and tokens. `local`: the service listens to this machine only, and may be
    used from it without a key while none was ever made."""

    def __init__(
        self,
        register: Register,
        clock: Callable[[], datetime],
        refused: Callable[[str], None],
        *,
        oidc: Oidc | None,
        local: bool,
    ) -> None:
        """`refused`: is told the cause of each refusal of a credential."""
        self._register = register
        self._clock = clock
        self._refused = refused
        self._oidc = oidc
        self._local = local

    @property
    def open(self) -> bool:
        """Whether nobody is asked who they are."""
        return self._local and self._oidc is None and not len(self._register.keys)

    async def caller(self, headers: Mapping[str, str]) -> Actor:
        """Who calls. Raises Rejected (401, 403)."""
        if self.open:
            # A page from elsewhere can have its name lead to this machine, or call it blindly by its own; the
            # browser still says which name it was, and where the page is from.
            if _named(headers.get("host", "")) not in _LOOPBACK:
                raise _forbidden("host", "Without keys, the service is called as localhost.", "Host")
            if (origin := headers.get("origin")) is not None and _named(origin) not in _LOOPBACK:
                raise _forbidden("origin", "Without keys, no page from elsewhere may call.", "Origin")
            return LOCAL
        given = headers.get("authorization", "")
        scheme, _, token = given.partition(" ")
        if not given:
            raise _unknown("credentials_missing", "This needs a key: Authorization: Bearer ….")
        if scheme.lower() != "bearer" or not token or len(token) > _LONGEST or not token.isascii():
            raise self._refused_for("malformed")
        if token.startswith((SECRET, PUBLISHABLE)):
            return self._with_key(token, headers)
        if self._oidc is None:
            raise self._refused_for("malformed")
        return await self._with_token(token, self._oidc)

    async def _with_token(self, token: str, oidc: Oidc) -> Actor:
        from decision.access.tokens import Refusal

        found = await oidc.verify(token)
        if isinstance(found, Refusal):
            if found is Refusal.UNAVAILABLE:
                raise Rejected(503, "issuer_unavailable", "Who issued this token cannot be asked now.")
            raise self._refused_for(found)
        roles = frozenset[str]().union(*(ROLES.get(role, frozenset()) for role in found.roles))
        return Actor(found.name, roles | (found.scopes & frozenset(SCOPES)))

    def _refused_for(self, cause: str, field: str = "Authorization") -> Rejected:
        log.debug("a credential was refused: %s", cause)
        self._refused(cause)
        detail = "The credential is malformed, unknown, expired or revoked."
        return _unknown("credentials_invalid", detail, field)

    def _with_key(self, token: str, headers: Mapping[str, str]) -> Actor:
        key, now = self._register.keys.found(token), self._clock()
        if key is None:
            raise self._refused_for("unknown")
        if (refusal := key.refusal(now)) is not None:
            raise self._refused_for(refusal)
        visitor = None if key.publishable is None else self._visitor(key, headers, now)
        return Actor(f"key:{key.first}", key.scopes, key, visitor)

    def _visitor(self, key: Key, headers: Mapping[str, str], now: datetime) -> Visitor:
        from decision.access.visitors import Visitor, read

        assert key.publishable is not None
        if headers.get("origin") not in key.publishable.origins:
            raise _forbidden("origin", "This key does not work on pages from there.", "Origin")
        found = read(headers.get(VISITOR, ""), key.id, key.publishable.verifying, now)
        if isinstance(found, Visitor):
            return found
        raise self._refused_for(f"visitor:{found}", VISITOR)


@lru_cache(maxsize=256)
def _named(place: str) -> str | None:
    """The host in a `Host` or an `Origin`; None where there is none."""
    try:
        return urlsplit(place if "://" in place else f"//{place}").hostname
    except ValueError:
        return None


def _unknown(code: str, detail: str, field: str = "Authorization") -> Rejected:
    challenge = "Bearer" if code == "credentials_missing" else 'Bearer error="invalid_token"'  # RFC 6750, 3
    error = FieldError(field, code, "is needed, and must be valid")
    return Rejected(401, code, detail, [error], {"WWW-Authenticate": challenge})


def _forbidden(code: str, detail: str, field: str) -> Rejected:
    return Rejected(403, code, detail, [FieldError(field, code, "is not allowed")])
