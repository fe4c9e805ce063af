"""Request bodies: bounded in size, strict JSON, and faults named by field."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from decision.access.scopes import NEEDED
from decision.api.guard import Guard
from decision.api.problems import problem_of, respond
from decision.errors import FieldError, Rejected
from decision.strict_json import parse

MIB = 1024 * 1024
LIMIT = MIB
# A catalog of thousands of treatments is larger than any other request; None: read as a stream.
LIMITS = {
    "/v1/catalog/changes": 16 * MIB,
    "/v1/catalog/diff": 16 * MIB,
    "/v1/catalog/publish": 16 * MIB,
    "/v1/catalog/validate": 16 * MIB,
    "/v1/customers:import": None,
    "/v1/customers:push": None,
}


class BodyLimit:
    """Middleware that refuses bodies over the limit with 413, whether or not they say their length."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts what is received; the application sees at most the limit."""
        limit = _limit(scope["path"]) if scope["type"] == "http" else None
        if limit is None:
            await self._app(scope, receive, send)
            return
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > limit:
                await respond(problem_of(_too_large(limit)))(scope, receive, send)
                return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise _too_large(limit)
            return message

        await self._app(scope, counted, send)


def _limit(path: str) -> int | None:
    return LIMITS.get("/v1/catalog/changes" if path.startswith("/v1/catalog/changes/") else path, LIMIT)


def _too_large(limit: int) -> Rejected:
    error = FieldError("body", "too_large", f"at most {limit} bytes")
    return Rejected(413, "body_too_large", f"A body has at most {limit} bytes here.", [error])


class StrictRequest(Request):
    """A request whose JSON is parsed strictly: no NaN, no Infinity, valid UTF-8."""

    async def json(self) -> Any:
        """The body as JSON. Raises Rejected (400 malformed, 422 not finite, naming the field)."""
        if not hasattr(self, "_json"):
            self._json = parse(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """A route that is guarded, and reads its body as a `StrictRequest`. It cannot be made unless it is said
    what it needs (`decision.access.scopes`)."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler, given a strict request, behind the guard."""
        handler = super().get_route_handler()
        need = NEEDED[self.operation_id or ""]

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        async def guarded(request: Request) -> Response:
            guard: Guard = request.app.state.guard
            return await guard.passed(need, request, strict)

        return strict if need.scope is None else guarded
