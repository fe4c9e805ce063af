"""Request bodies: bounded in size, strict JSON, and faults named by field."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute
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

    async def body(self) -> bytes:
        """The whole body; as the framework does it, but without a stream in between. Raises
        ClientDisconnect."""
        if not hasattr(self, "_body"):
            parts, more = [], True
            while more:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                parts.append(message.get("body", b""))
                more = message.get("more_body", False)
            self._body = b"".join(parts)
        return self._body

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


class DirectRoute(StrictRoute):
    """A strict route whose body is one model, without the work that FastAPI does for what this has none of:
    parameters, dependencies, forms, streams. The endpoint is called with (the model, the parts of the
    service, the request). What is not plainly right goes FastAPI's way from where it is read, which then says
    what is wrong with it as everywhere."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **more: Any) -> None:
        super().__init__(path, endpoint, **more)
        assert self.body_field is not None
        model = self.body_field.field_info.annotation
        assert isinstance(model, type)
        assert issubclass(model, BaseModel)
        need, usual = NEEDED[self.operation_id or ""], APIRoute.get_route_handler(self)

        async def answer(request: Request) -> Response:
            found = await _read(request, model)
            if found is not None:
                response: Response = await endpoint(found, request.app.state.context, request)
                return response
            async with AsyncExitStack() as stack:
                for kind in ("middleware", "inner", "function"):  # where it looks for what is to be closed
                    request.scope[f"fastapi_{kind}_astack"] = stack
                return await usual(request)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            request = StrictRequest(scope, receive)
            guard: Guard = request.app.state.guard
            response = await guard.passed(need, request, answer)
            await response(scope, receive, send)

        self.app = app


class Direct:
    """Middleware, the innermost, that has direct routes found by one look-up, and errors of theirs become
    problems as everywhere. Where requests are traced FastAPI finds the route, since it names spans by it."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute], handlers: Mapping[Any, Any]) -> None:
        self._app = app
        handled = {kind: handler for kind, handler in handlers.items() if kind is not Exception}
        self._found = {
            (method, route.path): (route, ExceptionMiddleware(route.app, handled))
            for route in routes
            if isinstance(route, DirectRoute)
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what is no direct route's."""
        if scope["type"] == "http" and "fastapi.telemetry" not in scope:
            found = self._found.get((scope["method"], scope["path"]))
            if found is not None:
                scope["route"], app = found
                scope["path_params"] = {}
                await app(scope, receive, send)
                return
        await self._app(scope, receive, send)


_JSON = frozenset({"application/json", "application/json; charset=utf-8"})


async def _read(request: Request, model: type[BaseModel]) -> BaseModel | None:
    """The body, where it is one, and right. Raises what `StrictRequest.json` does."""
    try:
        body = await request.body()
    except ClientDisconnect as error:
        raise HTTPException(400) from error  # for nobody, and no fault of ours
    if not body or request.headers.get("content-type") not in _JSON:
        return None
    try:
        return model.model_validate(await request.json())
    except ValidationError:
        return None
