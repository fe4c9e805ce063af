"""The guard: the one place where it is decided whether a call may pass, and where it is written down.

It stands in the class of every route, before the body is read; `decision.access.scopes` says what each needs.
A route that is not in that table cannot be made, so none can be forgotten.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError

from decision.access.actor import Actor
from decision.access.authentication import Authentication
from decision.access.rates import Limit, Rates, Taken
from decision.access.scopes import Need
from decision.auditing import Auditing
from decision.errors import FieldError, Rejected, StoreUnavailable
from decision.storage.port import Event, Json

log = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]

_MINUTE = 60
_OF_A_VISITOR = Limit(120, _MINUTE)
# What a path says is kept for good: only what cannot be of somebody.
_NAMES = {"decision_id": re.compile(r"[0-9a-f-]{36}"), "policy": re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")}


class Guard:
    """Lets calls pass, or does not."""

    def __init__(self, authentication: Authentication, rates: Rates, auditing: Auditing) -> None:
        self._authentication = authentication
        self._rates = rates
        self._auditing = auditing

    async def passed(self, need: Need, request: Request, handler: Handler) -> Response:
        """What the handler answers, where the caller may call it. Raises Rejected (401, 403, 429), and what
        the handler raises; StoreUnavailable where it cannot be written down: then nothing was done."""
        actor, state = await self._authentication.caller(request.headers), request.state
        state.actor = actor
        state.taken = self._taken(actor, 1)
        if need.scope not in actor.scopes or (actor.visitor is not None and not need.browsers):
            raise Rejected(
                403,
                "scope_missing",
                "The credential does not allow this.",
                [FieldError("Authorization", "scope_missing", f"it lacks the scope {need.scope}")],
            )
        if need.audit is None:
            response = await handler(request)
        else:
            response = await self._written_down(need, request, handler, actor)
        if state.taken is not None:
            response.headers.update(state.taken.headers())
        return response

    def close(self) -> None:
        """Gives back what it holds."""
        self._rates.close()

    def charge(self, request: Request, more: int) -> None:
        """Counts what a call that was let in asks for beyond one. Raises Rejected (429)."""
        if more > 0:
            request.state.taken = self._taken(request.state.actor, more, held=1)

    def _taken(self, actor: Actor, cost: int, held: int = 0) -> Taken | None:
        key, taken = actor.key, None
        if key is not None and actor.visitor is not None:  # one must not use up what is for all
            taken = self._rates.take(f"{key.first}|{actor.visitor}", _OF_A_VISITOR, cost, held)
        if key is not None and key.limit is not None and (taken is None or taken.allowed):
            taken = self._rates.take(key.first, Limit(key.limit, _MINUTE), cost, held)
        if taken is not None and not taken.allowed:
            raise TooMany(taken)
        return taken

    async def _written_down(self, need: Need, request: Request, handler: Handler, actor: Actor) -> Response:
        subject = await self._subject(need, request)
        assert need.audit is not None
        await self._auditing.record(Event(need.audit, actor.name, subject))
        try:
            response = await handler(request)
        except BaseException as error:
            await self._refused(need.audit, actor, subject, error)
            raise
        return response

    async def _refused(self, kind: str, actor: Actor, subject: str, error: BaseException) -> None:
        """Notes that it came to nothing, or may have. Where that cannot be, the first entry stands alone."""
        detail: dict[str, Json] = {"problem": "cancelled"}
        if isinstance(error, Rejected):
            detail = {"problem": error.code}
        elif isinstance(error, RequestValidationError):
            detail = {"problem": "invalid_request"}
        elif not isinstance(error, asyncio.CancelledError):
            detail = {"problem": type(error).__name__}
        try:
            await asyncio.shield(self._auditing.record(Event(f"{kind}.refused", actor.name, subject, detail)))
        except StoreUnavailable as unavailable:
            log.warning("that a call came to nothing could not be written down: %s", unavailable)

    async def _subject(self, need: Need, request: Request) -> str:
        if need.subject is None:
            return ""
        value = str(request.path_params[need.subject])
        if need.subject == "customer_id":
            return await self._auditing.mark(value)
        known = _NAMES[need.subject].fullmatch(value) is not None
        return f"{need.subject.removesuffix('_id')}:{value if known else '?'}"


class TooMany(Rejected):
    """A key was used more often than it may be."""

    def __init__(self, taken: Taken) -> None:
        error = FieldError("Authorization", "rate_limited", "the limit of this key is reached")
        super().__init__(429, "rate_limited", "This key was used too often; wait.", [error], taken.headers())


async def actor_of(request: Request) -> Actor:
    """Who calls, for a route (FastAPI dependency)."""
    actor: Actor = request.state.actor
    return actor


Caller = Annotated[Actor, Depends(actor_of)]
