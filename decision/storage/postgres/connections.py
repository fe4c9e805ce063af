"""Connections to PostgreSQL: a pool for what is asked; one apart, for news and for the learner's lock."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, TypeVar

import asyncpg

from decision.errors import StoreUnavailable
from decision.storage.postgres.migrate import migrate
from decision.storage.postgres.partitions import keep_partitions
from decision.storage.postgres.sessions import Connection as Connection
from decision.storage.postgres.sessions import Sessions

T = TypeVar("T")

log = logging.getLogger(__name__)

CHANNEL = "decision_news"
"""What is notified when there is another catalog, snapshot or pin."""
_LEADER = 0x6E62_615F_6C65  # the advisory lock of the learner that leads, as `pg_locks` shows it
_CONNECTIONS = 8
# How long anyone waits for a connection, and then for what is asked, whatever the database is doing.
_WAIT_SECONDS, _SECONDS = 3.0, 5.0
# What is large may take longer: a thousand take a second or two where nothing else is done.
_SECONDS_PER_RECORD = 0.03
_CONNECT_SECONDS = 3.0
_ATTEMPTS = 10
_UPKEEP_SECONDS = 3600.0
# The database, or the way to it, cannot do now what it could do at another time: connections (08), rights to
# write (25006), to enter (28, 3D), resources, as a full disk (53), operators and time-outs (57), its system
# (58), locks (55P03), others (40).
_PASSING = ("08", "25006", "25P03", "28", "3D", "40", "53", "55P03", "57", "58")
# After these a session is of no use, though the driver may not know it yet.
_LOST = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.ReadOnlySQLTransactionError,
)
AGAIN = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)


@contextmanager
def unavailable(what: str = "the database cannot be used now") -> Iterator[None]:
    """Turns what may pass by itself into StoreUnavailable. What is a fault of ours stays what it is."""
    try:
        yield
    except Exception as error:
        if (said := passing(error, what)) is None:
            raise
        raise said from error


def passing(error: BaseException, what: str = "the database cannot be used now") -> StoreUnavailable | None:
    """What is said of an error that may pass by itself."""
    if isinstance(error, asyncpg.PostgresError):
        return StoreUnavailable(f"{what}: {error}") if (error.sqlstate or "08").startswith(_PASSING) else None
    if isinstance(error, (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError)):
        return StoreUnavailable(f"{what}: {str(error) or type(error).__name__}")
    return None


class Connections:
    """Opens, reads, writes, closes. Belongs to the event loop that opened it.

    `url`: as libpq has it, `postgresql://user:password@host:port/database?…`.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._sessions: Sessions | None = None
        self._apart: asyncpg.Connection[asyncpg.Record] | None = None
        self._apart_busy = asyncio.Lock()
        self._leads = False
        self._heard = asyncio.Event()
        self._upkeep: asyncio.Task[None] | None = None
        self._under_way = 0
        self._over = asyncio.Event()

    async def open(self) -> None:
        """Connects and brings the schema up to date. Raises StoreUnavailable."""
        if self._sessions is not None:
            return
        try:
            with unavailable("the database cannot be opened"):
                connection = await self._connect()
                try:
                    await migrate(connection)
                    await self._keep_partitions(connection)
                finally:
                    await connection.close()
        except asyncpg.PostgresError as error:  # as of an option in the URL, or of a role without its rights
            raise StoreUnavailable(f"the database cannot be opened: {error}") from error
        self._sessions = Sessions(self._pooled, _CONNECTIONS, _WAIT_SECONDS, _SECONDS)
        self._upkeep = asyncio.create_task(self._keep_up(), name="partitions")

    async def close(self) -> None:
        """Waits for what is under way, then disconnects. May be called again."""
        upkeep, self._upkeep = self._upkeep, None
        if upkeep is not None:
            upkeep.cancel()
            await asyncio.gather(upkeep, return_exceptions=True)
        sessions, self._sessions = self._sessions, None
        if sessions is not None:
            while self._under_way:
                self._over.clear()
                await self._over.wait()
            await sessions.close(_SECONDS)
        async with self._apart_busy:
            apart, self._apart, self._leads = self._apart, None, False
            if apart is not None:
                apart.terminate()  # the server ends what it was held for: the lock, and the news

    async def ping(self) -> None:
        """Asks the server. Raises StoreUnavailable if it does not answer."""
        await self._read("SELECT 1")

    def waiting(self) -> int:
        """How much is asked of the database at this moment and not answered yet."""
        return self._under_way

    async def _connect(self, **more: Any) -> asyncpg.Connection[asyncpg.Record]:
        settings = {"application_name": "decision", "timezone": "UTC", "search_path": "public"}
        settings["client_connection_check_interval"] = "1000"  # what nobody waits for any more is given up
        options = {"timeout": _CONNECT_SECONDS, "server_settings": settings, **more}
        try:
            return await asyncpg.connect(self._url, **options)
        except ValueError as error:  # of the URL, which is not shown: there may be a password in it
            raise StoreUnavailable("the URL of the database cannot be read") from error

    async def _pooled(self) -> Connection:
        # The plan of a prepared statement is made once: with months of partitions, to plan takes longer than
        # to look one up.
        connection = await self._connect()
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        return connection

    def _connected(self, records: int = 1) -> Lent:
        """A session, for as long as so many records may take. Raises StoreUnavailable, also for what fails
        within."""
        return Lent(self, _SECONDS + records * _SECONDS_PER_RECORD)

    async def _read(self, sql: str, *given: Any, records: int = 1) -> list[asyncpg.Record]:
        async with self._connected(records) as connection:
            return await connection.fetch(sql, *given)

    async def _read_one(self, sql: str, *given: Any) -> asyncpg.Record | None:
        async with self._connected() as connection:
            return await connection.fetchrow(sql, *given)

    @asynccontextmanager
    async def _aside(self) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """A connection of its own, for what takes long. Raises StoreUnavailable."""
        if self._sessions is None:
            raise StoreUnavailable("the store is not open")
        with unavailable():
            connection = await self._connect()
            try:
                yield connection
            finally:
                await connection.close(timeout=_SECONDS)

    async def _read_aside(self, sql: str, *given: Any) -> list[asyncpg.Record]:
        async with self._aside() as connection:
            return await connection.fetch(sql, *given)

    async def _transact(self, work: Callable[[Connection], Awaitable[T]], records: int = 1) -> T:
        """The result of `work` on so many records in a transaction; again where it came into another's way.
        What it raises undoes it. A connection that is lost during the commit leaves open whether it was
        made."""
        for attempt in range(_ATTEMPTS):
            async with self._connected(records) as connection:
                try:
                    async with connection.transaction():
                        return await work(connection)
                except AGAIN as error:
                    log.info("a transaction met another, attempt %d: %s", attempt + 1, error)
            await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))
        raise StoreUnavailable("the database is too busy: a transaction always met another")

    async def news(self, seconds: float) -> None:
        """See `decision.storage.port.Catalogs.news`. Where the server knows no NOTIFY, it only waits."""
        try:
            async with asyncio.timeout(seconds):
                await self._listening()
                await self._heard.wait()
        except TimeoutError:
            pass
        except StoreUnavailable:
            await asyncio.sleep(seconds)
        self._heard.clear()

    async def _listening(self) -> asyncpg.Connection[asyncpg.Record]:
        async with self._apart_busy:
            if self._sessions is None:
                raise StoreUnavailable("the store is not open")
            if self._apart is None or self._apart.is_closed():
                self._leads = False
                with unavailable():
                    connection = await self._connect(command_timeout=_SECONDS)
                    try:
                        await self._alive(connection)
                        await self._listen(connection)
                    except BaseException:  # also where nobody waits any more: half of it is of no use
                        connection.terminate()
                        raise
                self._apart = connection
            return self._apart

    async def _listen(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        try:
            await connection.add_listener(CHANNEL, self._hear)
        except asyncpg.FeatureNotSupportedError:
            log.warning("this database has no LISTEN: news are looked for now and then")

    async def _alive(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        """Has the server notice within seconds that we are gone, so that a lock does not outlive its holder.
        Over a socket of this machine there is nothing to set."""
        for name, value in (("keepalives_idle", 3), ("keepalives_interval", 1), ("keepalives_count", 3)):
            await connection.execute(f"SET tcp_{name} = {value}")
        await connection.execute("SET tcp_user_timeout = 6000")

    def _hear(self, *_: object) -> None:
        self._heard.set()

    async def lead(self) -> bool:
        """See `decision.storage.port.Learning.lead`: a lock that lives as long as its session."""
        connection = await self._listening()
        async with self._apart_busy:
            try:
                with unavailable():
                    if self._leads:
                        await connection.execute("SELECT 1")  # a session that is gone leads no more
                    else:
                        taken = await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LEADER)
                        self._leads = bool(taken)
            except StoreUnavailable:
                connection.terminate()  # the lock goes with it, as soon as the server hears of it
                self._leads = False
                raise
            return self._leads

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(_UPKEEP_SECONDS)
            try:
                async with self._aside() as connection:
                    await self._keep_partitions(connection)
            except StoreUnavailable as error:
                log.warning("partitions to come were not looked for: %s", error)

    async def _keep_partitions(self, connection: Connection) -> None:
        """Without them all goes on: there are some in stock, and what has none is kept beside them."""
        try:
            await keep_partitions(connection)
        except asyncpg.PostgresError as error:  # somebody reads for long, or ids of that month are there
            log.warning("partitions to come were not made, and are tried again: %s", error)


class Lent:
    """A session on loan, which is cut when it takes too long. Written out, as every query goes through it."""

    __slots__ = ("_connection", "_cutting", "_owner", "_seconds", "_sessions")

    def __init__(self, owner: Connections, seconds: float) -> None:
        self._owner = owner
        self._seconds = seconds

    async def __aenter__(self) -> Connection:
        owner = self._owner
        if owner._sessions is None:
            raise StoreUnavailable("the store is not open")
        self._sessions = owner._sessions
        owner._under_way += 1
        try:
            self._connection = self._sessions.take() or await self._sessions.open()
        except BaseException as error:
            self._over()
            if (said := passing(error)) is None:
                raise
            raise said from error
        self._cutting = asyncio.get_running_loop().call_later(self._seconds, self._connection.terminate)
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cutting.cancel()
        if isinstance(error, _LOST) or (getattr(error, "sqlstate", None) or "").startswith("57P"):
            self._connection.terminate()  # it ends; or the next may be one that can write
        self._sessions.give_back(self._connection, cancelled=isinstance(error, asyncio.CancelledError))
        self._over()
        if error is not None and (said := passing(error)) is not None:
            raise said from error

    def _over(self) -> None:
        self._owner._under_way -= 1
        self._owner._over.set()
