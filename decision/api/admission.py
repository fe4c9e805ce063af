"""The door: the one place where requests are refused for load, before anything is done for them.

How much is in flight is bounded, and with it memory, and the wait of who is let in while all goes at its
usual speed. Where the ledger, or the machine, is slower than usual, that many wait too long: so each that was
answered late lowers the bound by a tenth, and each in time raises it by one (additive increase and
multiplicative decrease, as TCP does with its window). That holds for any cause of slowness, and needs no
estimate of how fast things should be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from decision.api.problems import problem, respond
from decision.errors import FieldError, Rejected
from decision.waiting import until

OF_OPERATIONS = frozenset({"/healthz", "/readyz", "/metrics"})
"""Never refused, and not counted: who runs the service must see it when it is full."""

_MOST_IN_FLIGHT, _LEAST_IN_FLIGHT = 256, 64
# A decision's request is some 200 bytes, a batch of them as many times that. The most is what a batch decides
# at once (`decision.deciding`).
_BYTES_PER_UNIT, _MOST_WEIGHT = 1024, 64
_WEIGHT_UNTOLD = 16
# What is large may take longer: a thousand decisions take a second where nothing else is done.
_LATE_SECONDS, _LATE_SECONDS_PER_UNIT = 1.0, 0.1
# How long the next piece of a body may take to come: who sends nothing must not keep others out.
_BODY_SECONDS = 10.0
_MISSING = FieldError("body", "timeout", "nothing more of it came in time")
_REFUSAL = problem(503, "overloaded", "Too much is under way; nothing was done for this request.")
_RETRY = {"Retry-After": "1"}


class Door:
    """How much is inside, and how much may be. `closing`: the process is about to end; it still serves who
    comes on a connection that is open, and asks them to use another next time."""

    def __init__(self) -> None:
        self.closing = False
        self.weight = 0
        self.bound = float(_MOST_IN_FLIGHT)

    def refusal(self, weight: int) -> str | None:
        """Why one more cannot be let in: `full`, or `slow` where only a lowered bound is met; None where it
        can."""
        if self.weight + weight <= self.bound:
            return None
        return "full" if self.weight + weight > _MOST_IN_FLIGHT else "slow"

    def enter(self, weight: int) -> None:
        """Lets a request in."""
        self.weight += weight

    def leave(self, weight: int, waited: float) -> None:
        """It has been answered, or given up, `waited` seconds after it was read."""
        self.weight -= weight
        if waited > _LATE_SECONDS + weight * _LATE_SECONDS_PER_UNIT:
            self.bound = max(self.bound * 0.9, _LEAST_IN_FLIGHT)
        else:
            self.bound = min(self.bound + 1, _MOST_IN_FLIGHT)


class Admission:
    """Middleware that asks the door. `shed` is told the reason of each refusal."""

    def __init__(self, app: ASGIApp, door: Door, shed: Callable[[str], None]) -> None:
        self._app = app
        self._door = door
        self._shed = shed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it with 503 and `Retry-After`, its body unread."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        door = self._door

        async def told(message: Message) -> None:
            if door.closing and message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        if scope["path"] in OF_OPERATIONS:
            await self._app(scope, receive, told)
            return
        weight = _weigh(scope)
        reason = door.refusal(weight)
        if reason is not None:
            self._shed(reason)
            await respond(_REFUSAL, _RETRY)(scope, receive, told)
            return
        clock = asyncio.get_running_loop().time
        read_at: float | None = None

        async def read() -> Message:
            nonlocal read_at
            if read_at is not None:
                return await receive()
            try:
                message = await until(clock() + _BODY_SECONDS, _received(receive))
            except TimeoutError:
                raise Rejected(408, "body_timeout", "The body did not come.", [_MISSING]) from None
            if not message.get("more_body", False):
                read_at = clock()  # from now on it is we who keep it waiting
            return message

        door.enter(weight)
        try:
            await self._app(scope, read, told)
        finally:
            door.leave(weight, 0.0 if read_at is None else clock() - read_at)


async def _received(receive: Receive) -> Message:
    return await receive()


def _weigh(scope: Scope) -> int:
    """How much a request counts for, by the size of its body."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = int(value) if value.isdigit() else 0
            return min(1 + length // _BYTES_PER_UNIT, _MOST_WEIGHT)
        if name == b"transfer-encoding":
            return _WEIGHT_UNTOLD
    return 1
