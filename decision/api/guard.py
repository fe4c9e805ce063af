"""The guard: the one place where it is decided whether a call may pass, and where it is written down.

It stands in the class of every route, before the body is read; `decision.access.scopes` says what each needs.
A route that is not in that table cannot be made, so none can be forgotten.
"""

from __future__ import annotations

import asyncio
import logging
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

_MINUTE, _LONGEST = 60, 200


class Guard:
    """Lets calls pass, or does not."""

    def __init__(self, authentication: Authentication, rates: Rates, auditing: Auditing) -> None:
        self._authentication = authentication
        self._rates = rates
        self._auditing = auditing

    async def passed(self, need: Need, request: Request, handler: Handler) -> Response:
        """What the handler answers, where the caller may call it. Raises Rejected (401, 403, 429), and what
        the handler raises; StoreUnavailable where it cannot be written down: then nothing was done."""
        actor = await self._authentication.caller(request.headers)
        request.state.actor = actor
        taken = self._taken(actor, 1)
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
        if taken is not None:
            response.headers.update(taken.headers())
        return response

    def close(self) -> None:
        """Gives back what it holds."""
        self._rates.close()

    def charge(self, actor: Actor, more: int) -> None:
        """Counts what a call asks for beyond one. Raises Rejected (429)."""
        if more > 0:
            self._taken(actor, more)

    def _taken(self, actor: Actor, cost: int) -> Taken | None:
        if actor.key is None or actor.key.limit is None:
            return None
        taken = self._rates.take(actor.key.id, Limit(actor.key.limit, _MINUTE), cost)
        if not taken.allowed:
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
        # It has not been looked at yet: not every text can be kept by every store.
        return f"{need.subject.removesuffix('_id')}:{ascii(value)[1:-1][:_LONGEST]}"


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
