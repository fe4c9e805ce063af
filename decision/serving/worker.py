"""One API process: gets ready, accepts, and leaves without failing anybody."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from decision import collecting, tracing
from decision.api.admission import Door
from decision.api.app import create_app
from decision.api.context import build
from decision.serving.tether import say_ready, when_gone
from decision.serving.wire import Wire
from decision.settings import open_store, signing_key
from decision.sources.connections import Connections

if TYPE_CHECKING:
    from decision.access.settings import Access

log = logging.getLogger(__name__)

# A request that is under way has both, one after the other; beside them it takes up to 2 s to close what is
# open, and all of it has to fit into the grace of `decision.serving.post`.
_DRAIN_SECONDS = 2.0
_FINISH_SECONDS = 5
# Longer than proxies keep idle connections (60 s is usual): who closes first while the other sends fails it.
_KEEP_ALIVE_SECONDS = 75
_DRAIN_LOOK_SECONDS = 0.02
# Seconds per open connection, and at most. For each so many that are open, one more is then accepted at once:
# who is busy looks seldom, and nobody is to be kept waiting outside, where nothing bounds the wait.
_ACCEPT_PAUSE, _LONGEST_ACCEPT_PAUSE = 0.000_2, 0.002
_OPEN_PER_ACCEPTED = 8
# How long a thread may keep the interpreter from others that wait for it. A catalog is compiled in one, for
# some tenths of a second; a decision changes threads several times, and would each time wait for 5 ms, as it
# is by default.
_TURN = 0.000_5
# More wait where connections wait to be accepted.
_MOST_CONNECTIONS, _FULL_PAUSE = 4_000, 0.1


def work(
    sockets: Sequence[int],
    store_url: str,
    *,
    connections: Connections,
    timeout_ms: int,
    access: Access | None = None,
    local: bool = False,
) -> None:
    """Serves on the listening sockets with these descriptors until SIGINT or SIGTERM, or until its supervisor
    is gone. `local`: they listen to this machine only. Raises StoreUnavailable where the store cannot be
    opened."""
    tracing.set_up()
    sys.setswitchinterval(_TURN)
    uvloop.run(_work(sockets, store_url, connections, timeout_ms, access, local))


async def _work(
    sockets: Sequence[int],
    store_url: str,
    connections: Connections,
    timeout_ms: int,
    access: Access | None,
    local: bool,
) -> None:
    context = build(
        open_store(store_url),
        connections=connections,
        timeout_ms=timeout_ms,
        signing_key=signing_key(),
        issuer=None if access is None else access.oidc,
        local=local,
    )
    app = create_app(context)
    config = uvicorn.Config(
        app,
        http=Wire,
        server_header=False,
        ws="none",
        lifespan="off",  # it is ours, so that what fails in it is told as it is
        access_log=False,
        log_config=None,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_FINISH_SECONDS,
    )
    async with app.router.lifespan_context(app):
        with collecting.settled():
            listening = [socket.socket(fileno=number) for number in sockets]
            await Server(config, listening, app.state.door).serve()


class Server(uvicorn.Server):
    """Accepts in turns with its fellows, and drains before it closes a connection.

    uvicorn's own shutdown closes idle connections at once. A client that is just sending its next request on
    one has it failed, and must not repeat it unless it knows that it may. So first every client is told to
    come again on another connection, with the next reply it gets.
    """

    def __init__(self, config: uvicorn.Config, listening: Sequence[socket.socket], door: Door) -> None:
        """`listening`: bound sockets, which become this server's to close."""
        super().__init__(config)
        self._loop = asyncio.get_running_loop()
        self._listening = list(listening)
        self._door = door
        self._arriving: set[asyncio.Task[object]] = set()
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to accept, and says so."""
        await super().startup(sockets=[])
        when_gone(self.drain)
        for each in self._listening:
            each.setblocking(False)
            self._watch(each)
        say_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called at a signal."""
        self._loop.call_soon_threadsafe(self.drain)

    def drain(self) -> None:
        """Accepts no more, and ends when the connections are gone, or when it has waited long enough."""
        if self._draining is None:
            self._door.closing = True
            self._draining = self._loop.create_task(self._drain())

    async def _drain(self) -> None:
        for each in self._listening:
            self._loop.remove_reader(each)
            try:
                while self._take(each):  # who has connected already would be cut off
                    pass
            except OSError:  # there are no descriptors left, most likely
                log.exception("a connection could not be accepted")
            each.close()
        self._listening.clear()
        end = self._loop.time() + _DRAIN_SECONDS
        while (self._arriving or self.server_state.connections) and self._loop.time() < end:
            await asyncio.sleep(_DRAIN_LOOK_SECONDS)
        self.should_exit = True

    def _watch(self, listening: socket.socket) -> None:
        if not self._door.closing:
            self._loop.add_reader(listening, self._noticed, listening)

    def _noticed(self, listening: socket.socket) -> None:
        """Leaves the connection to whoever has fewer, for a moment: else the first to wake takes them all."""
        self._loop.remove_reader(listening)
        pause = min(_ACCEPT_PAUSE * len(self.server_state.connections), _LONGEST_ACCEPT_PAUSE)
        self._loop.call_later(pause, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        if self._door.closing:
            return
        pause = 0.0
        if len(self.server_state.connections) >= _MOST_CONNECTIONS:
            pause = _FULL_PAUSE
        else:
            many = 1 + len(self.server_state.connections) // _OPEN_PER_ACCEPTED
            try:
                while many and self._take(listening):
                    many -= 1
            except OSError:  # there are no descriptors left, most likely
                log.exception("a connection could not be accepted")
                pause = _FULL_PAUSE
        self._loop.call_later(pause, self._watch, listening)

    def _take(self, listening: socket.socket) -> bool:
        """Accepts one connection; False where none waits (any more)."""
        try:
            connection, _ = listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # who vanished is noticed
        task: asyncio.Task[object] = self._loop.create_task(
            self._loop.connect_accepted_socket(self._protocol, connection)
        )
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)
        return True

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state={}
        )
        return made
