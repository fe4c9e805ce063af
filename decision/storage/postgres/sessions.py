"""Sessions with PostgreSQL that are lent out: a pool as lean as what is done with it.

asyncpg's own makes a timeout, a proxy and a future for each loan, which costs as much as a short query.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

log = logging.getLogger(__name__)

# Seconds after which a session that nobody needed is closed.
_UNUSED_SECONDS = 300.0


class Sessions:
    """At most so many, opened by `connect` when they are needed. Belongs to the event loop it is made on.

    `wait`: seconds to wait for one while all are lent; `end`: for the server to hear that nobody waits for an
    answer any more.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[Connection]], most: int, wait: float, end: float
    ) -> None:
        self._connect = connect
        self._most = most
        self._wait, self._end = wait, end
        self._loop = asyncio.get_running_loop()
        self._lent = 0
        self._spare: deque[tuple[Connection, float]] = deque()
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._ending = set[asyncio.Task[None]]()

    def take(self) -> Connection | None:
        """A session that is there, the one used last; None where there is none."""
        now = self._loop.time()
        while self._spare and now - self._spare[0][1] > _UNUSED_SECONDS:
            self._spare.popleft()[0].terminate()
        while self._spare:
            connection, _ = self._spare.pop()
            if not connection.is_closed():
                self._lent += 1
                return connection
        return None

    async def open(self) -> Connection:
        """Another session, or the next that is given back. Raises TimeoutError, and what connecting does."""
        if self._lent < self._most:
            self._lent += 1
        else:
            connection = await self._turn()
            if connection is not None and not connection.is_closed():
                return connection
        try:
            return await self._connect()
        except BaseException:
            self._free(None)
            raise

    async def _turn(self) -> Connection | None:
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiting.append(waiter)
        late = self._loop.call_later(self._wait, _give_up, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._free(waiter.result())  # it was our turn at the same moment
            raise
        finally:
            late.cancel()

    def give_back(self, connection: Connection, *, cancelled: bool) -> None:
        """Takes a session back. Who is `cancelled` does not wait for the server to hear of it; but until it
        has, the session keeps its place: there are never more."""
        if not cancelled or connection.is_closed():
            self._free(connection)
            return
        ending = self._loop.create_task(self._ended(connection))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _ended(self, connection: Connection) -> None:
        try:
            await connection.execute("SELECT 1", timeout=self._end)  # has its turn when the query has ended
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.info("a session did not end in time, and was cut: %s", str(error) or type(error).__name__)
            connection.terminate()
        self._free(connection)

    def _free(self, connection: Connection | None) -> None:
        if connection is not None and not connection.is_closed() and connection.is_in_transaction():
            connection.terminate()
        if connection is not None and connection.is_closed():
            connection = None
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(connection)  # without one, it connects in its place
                return
        self._lent -= 1
        if connection is not None:
            self._spare.append((connection, self._loop.time()))

    async def close(self, seconds: float) -> None:
        """Ends all sessions; none is lent any more."""
        await asyncio.gather(*self._ending)
        spare = [connection for connection, _ in self._spare if not connection.is_closed()]
        self._spare.clear()
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(connection.close() for connection in spare))
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # it does not answer
            for connection in spare:
                connection.terminate()


def _give_up(waiter: asyncio.Future[Connection | None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())
