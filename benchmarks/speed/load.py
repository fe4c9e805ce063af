"""Load at a fixed rate, from one thread that does as little as can be for a request.

Open loop: requests arrive at moments drawn before (Poisson arrivals), whether or not earlier ones are
answered, and latency counts from the moment at which a request was to start. So a service that stalls is
charged for everybody who came meanwhile (no coordinated omission). A request takes a free keep-alive
connection, or a new one while there are fewer than `CONNECTIONS`; else it waits for one, and the wait counts.
Nothing is pipelined.

Neither asyncio nor uvloop is used: their timers know milliseconds only, which is more than a request takes.
"""

from __future__ import annotations

import ctypes
import re
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

CONNECTIONS = 128
"""Half of what the service lets in at once (`decision.api.admission`)."""
CALLERS = 32
"""Of a closed loop: enough to keep a processor busy, and too few to wait longer than a decision may take."""
WARM = 0.5
"""Seconds at the begin of a window that do not count; a quarter of the window, if that is less."""
LONGEST = 0.1
"""Seconds: of a service that keeps up, 99 of 100 requests are answered within that."""
KEPT_UP = 0.99
"""Of what is asked in a window, so much is answered in it by a service that keeps up."""
LEAST = 20
"""Requests of a window, on average."""
CLIENT_LIMIT = 0.85
"""Where the client takes more than that of its core, it may be what is measured."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_PATIENCE = 2.0  # seconds after the window, for what is under way
_CLOSED_LOOP_AT_MOST = 50_000  # requests a second
_PR_SET_TIMERSLACK = 29

Spent = Callable[[], Sequence[float]]
"""Seconds of processor time that whatever is watched has taken so far."""


@dataclass(frozen=True, slots=True)
class Server:
    """Who is asked what. `requests`: as they go over the wire; asked in their order, from anywhere on."""

    port: int
    requests: Sequence[bytes]
    spent: Spent = tuple


@dataclass(frozen=True, slots=True)
class Window:
    """What came of one. `offered`: requests a second that arrived; `answered`: that were answered with
    status 200 and nothing degraded; `latency`: seconds from the intended start to the whole answer, of all
    that arrived, those unanswered at the end counted up to then; `failed`: how many were answered otherwise,
    or not at all; `client`: processor time of the client a second; `spent`: of what else is watched; `items`:
    how many an answer has, on average; `size`: bytes of the last answer."""

    offered: float
    answered: float
    latency: np.ndarray
    failed: int
    client: float
    spent: tuple[float, ...]
    items: float
    size: int

    def quantile(self, share: float) -> float:
        """Seconds."""
        return float(np.quantile(self.latency, share, method="higher")) if len(self.latency) else float("nan")

    @property
    def in_time(self) -> bool:
        """Whether the service kept up with it."""
        kept_up = self.answered >= KEPT_UP * self.offered
        return kept_up and not self.failed and self.quantile(0.99) < LONGEST

    @property
    def valid(self) -> bool:
        """Whether the client was not what was measured."""
        return self.client <= CLIENT_LIMIT


def post(path: str, body: bytes) -> bytes:
    """A request as it goes over the wire."""
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: "
    return head.encode() + b"%d\r\n\r\n" % len(body) + body


def open_loop(server: Server, rate: float, seconds: float, seed: int) -> Window:
    """Asks `rate` times a second on average, for `seconds` that count, after some that do not."""
    rng = np.random.default_rng(seed)
    whole = _warm(seconds) + seconds
    rate = max(rate, LEAST / seconds)
    moments = np.cumsum(rng.exponential(1 / rate, int(1.2 * rate * whole) + 100))
    return _Drive(server, moments[moments < whole].tolist(), seconds, CONNECTIONS, seed).run()


def closed_loop(server: Server, seconds: float, seed: int, connections: int = CALLERS) -> Window:
    """Asks again on each connection as soon as it has its answer. There are no latencies."""
    at_once = [0.0] * int(_CLOSED_LOOP_AT_MOST * (_warm(seconds) + seconds))
    return _Drive(server, at_once, seconds, connections, seed).run()


def saturation(server: Server, seconds: float, steps: int, seed: int) -> Window:
    """The window with the highest rate that the service keeps up with, by bisection in so many steps, between
    0.4 and 1.2 of what it answers in a closed loop. Where it keeps up with none of those tried: the last of
    them, which says so."""
    most = closed_loop(server, seconds, seed).answered
    assert most, f"port {server.port} answers nothing in order"
    low, high = 0.4 * most, 1.2 * most
    best = last = None
    for step in range(steps):
        rate = (low + high) / 2
        last = open_loop(server, rate, seconds, seed + step)
        if last.in_time:
            low, best = rate, last
        else:
            high = rate
    found = best or last
    assert found is not None, "at least one step"
    return found


def _warm(seconds: float) -> float:
    return min(WARM, seconds / 4)


class _Connection:
    """One, keep-alive. `request`: the number of the one under way."""

    __slots__ = ("_data", "request", "socket")

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.request = 0
        self._data = b""

    def receive(self) -> bytes | None:
        """The answer once it is whole; empty where the connection was closed instead."""
        try:
            part = self.socket.recv(262_144)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""
        if not part:
            return b""
        data = self._data + part if self._data else part
        end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, end + 2) if end >= 0 else None
        if length is None or len(data) < end + 4 + int(length[1]):
            self._data = data
            return None
        self._data = b""
        return data


class _Drive:
    """One window: request n is sent at `moments[n]` (seconds, ascending), or as soon after as may be."""

    def __init__(
        self, server: Server, moments: Sequence[float], seconds: float, connections: int, seed: int
    ) -> None:
        self._server = server
        self._first = int(np.random.default_rng([seed, 1]).integers(len(server.requests)))
        self._moments = moments
        self._warm = _warm(seconds)
        self._seconds, self._end = seconds, self._warm + seconds
        self._connections = connections
        self._epoll = select.epoll()
        self._open: dict[int, _Connection] = {}
        self._free: list[_Connection] = []
        self._took: list[float | None] = [None] * len(moments)
        self._due = self._sent = self._under_way = 0
        self._answered = self._failed = self._items = self._size = 0

    def run(self) -> Window:
        """Drives it to its end."""
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # else a sleep takes up to 50 µs more
        self._begin = time.perf_counter()
        self._until(self._warm)
        before, client = self._server.spent(), time.process_time()
        self._until(self._end)
        client = (time.process_time() - client) / self._seconds
        spent = tuple((b - a) / self._seconds for a, b in zip(before, self._server.spent(), strict=True))
        self._due = self._sent  # who has not been asked for by now is not any more
        while self._under_way and self._now() < self._end + _PATIENCE:
            self._take(_PATIENCE)
        for connection in self._open.values():
            connection.socket.close()
        self._epoll.close()
        return self._window(client, spent)

    def _now(self) -> float:
        return time.perf_counter() - self._begin

    def _until(self, end: float) -> None:
        moments, count = self._moments, len(self._moments)
        while (now := self._now()) < end:
            while self._due < count and moments[self._due] <= now:
                self._due += 1
            while self._sent < self._due and (self._free or len(self._open) < self._connections):
                self._send()
            # Where some wait for a connection, there is nothing to do before one is free.
            waiting = self._sent < self._due or self._due == count
            self._take((end if waiting else min(moments[self._due], end)) - self._now())

    def _send(self) -> None:
        if self._free:
            connection = self._free.pop()
        else:
            connection = _Connection(self._server.port)
            self._open[connection.socket.fileno()] = connection
            self._epoll.register(connection.socket, select.EPOLLIN)
        connection.request = self._sent
        requests = self._server.requests
        connection.socket.send(requests[(self._first + self._sent) % len(requests)])
        self._sent += 1
        self._under_way += 1

    def _take(self, seconds: float) -> None:
        """Waits at most so long, and takes what has come."""
        if seconds > 0:  # `select` waits to the microsecond, `epoll` to the millisecond
            select.select([self._epoll], (), (), seconds)
        for descriptor, _ in self._epoll.poll(0):
            connection = self._open[descriptor]
            answer = connection.receive()
            if connection in self._free:  # it was idle for too long: nobody waits on it
                self._free.remove(connection)
                del self._open[descriptor]
                connection.socket.close()
            elif answer is not None:
                self._under_way -= 1
                self._judge(connection.request, answer)
                if answer:
                    self._free.append(connection)
                else:
                    del self._open[descriptor]
                    connection.socket.close()

    def _judge(self, request: int, answer: bytes) -> None:
        done = self._now()
        self._took[request] = done - self._moments[request]
        if not answer.startswith(b"HTTP/1.1 200") or b'"degraded":[]' not in answer:
            self._failed += 1
        elif self._warm <= done < self._end:
            self._answered += 1
            self._items += answer.count(b'"rank"')
            self._size = len(answer)

    def _window(self, client: float, spent: tuple[float, ...]) -> Window:
        last = self._now()
        counted = [
            last - moment if took is None else took
            for moment, took in zip(self._moments, self._took, strict=True)
            if moment >= self._warm
        ]
        return Window(
            len(counted) / self._seconds,
            self._answered / self._seconds,
            np.array(counted),
            self._failed + self._under_way,
            client,
            spent,
            self._items / max(self._answered, 1),
            self._size,
        )
