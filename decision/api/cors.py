"""Browsers on the origins of publishable keys may decide and respond; no page may anything else (CORS, as the
Fetch standard has it)."""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PATHS = frozenset({"/v1/decisions", "/v1/responses"})
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": "authorization, content-type, visitor-token",
    "Access-Control-Max-Age": "600",
}
_EXPOSED = "RateLimit, RateLimit-Policy, Retry-After"


class Cors:
    """Middleware that tells browsers what they may. `allowed`: the origins, now."""

    def __init__(self, app: ASGIApp, allowed: Callable[[], frozenset[str]]) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a preflight; else passes on, and lets the page see the reply where it may."""
        origin = _origin(scope)
        if origin is None or scope["path"] not in _PATHS:
            await self._app(scope, receive, send)
            return
        allowed = origin in self._allowed()
        headers = {"Vary": "Origin"}
        if allowed:
            headers["Access-Control-Allow-Origin"] = origin
        if scope["method"] == "OPTIONS":
            await Response(status_code=204, headers=headers | (_PREFLIGHT if allowed else {}))(
                scope, receive, send
            )
            return
        if allowed:
            headers["Access-Control-Expose-Headers"] = _EXPOSED

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await self._app(scope, receive, told)


def _origin(scope: Scope) -> str | None:
    if scope["type"] != "http":
        return None
    for name, value in scope["headers"]:
        if name == b"origin":
            return str(value, "latin-1")
    return None
