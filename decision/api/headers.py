"""What every response says to browsers, whoever made it: a route, a refusal of a middleware, or a fault."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Nothing here is a page: what a browser is made to open as one runs nothing, and is framed nowhere. There is
# no Strict-Transport-Security: whoever ends TLS before this service knows whether that holds.
ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)

_NAMES = frozenset(name for name, _ in ALWAYS)


def outermost(app: FastAPI) -> None:
    """Puts the headers around all of the application, and so around what answers for a fault in it."""
    stack = app.build_middleware_stack
    app.build_middleware_stack = lambda: SecurityHeaders(stack())  # type: ignore[method-assign]


class SecurityHeaders:
    """Middleware that adds the headers to every response; one that a response has already stays as it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                own = _NAMES.intersection([name for name, _ in headers])
                message["headers"] = [*headers, *(_but(own) if own else ALWAYS)]
            await send(message)

        await self._app(scope, receive, told)


def _but(own: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    return [each for each in ALWAYS if each[0] not in own]
