"""Databases as sources: one SELECT that finds at most one row, through SQLAlchemy's async engine."""

from __future__ import annotations

import asyncio
import sqlite3
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID
from weakref import WeakSet

import orjson

from arbitration.catalog.model import FactType
from arbitration.catalog.scalars import duration
from arbitration.catalog.sources import SqlSource
from decision.sources.connections import Connection
from decision.sources.port import Cause, Key, Row, Served, SourceFault

if TYPE_CHECKING:
    from sqlalchemy import Executable
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.ext.asyncio import AsyncEngine

_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
_INTERRUPT_SECONDS = 0.01
_INT64 = 2**63

# SQLSTATE classes. Data: this one customer's, the statement is fine. System: the statement is not why.
_DATA_STATES = ("21", "22")
_SYSTEM_STATES = ("08", "40", "53", "55", "57", "58", "XX")
_SYSTEM_SQLITE = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOTADB,
}


@dataclass(slots=True)
class _Call:
    """`driver`: the driver's connection, while a statement runs on it."""

    driver: Any = None
    unwanted: bool = False


class Sql:
    """A database as a `Source`. Belongs to one event loop.

    Inputs are bound as what they are (text, bigint, double, boolean, timestamp with time zone, text[]),
    so a query converts where its column is of another type: `WHERE id = CAST(:customer_id AS bigint)`.
    The query becomes a subquery with LIMIT 2: one round trip, never more than two rows, and nothing but a
    SELECT is possible. A single value is not bounded: it crosses the wire whole.
    """

    def __init__(self, spec: SqlSource, served: Sequence[Served], connection: Connection) -> None:
        """`served`: the values asked for. Nothing is opened before the first fetch."""
        self._query = spec.query
        self._inputs = tuple(spec.inputs)
        self._timeout = duration(spec.timeout).total_seconds()
        self._served = tuple(served)
        self._connection = connection
        self._engine: AsyncEngine | None = None
        self._drivers: WeakSet[Any] = WeakSet()
        self._statements: dict[tuple[type, ...], Executable] = {}
        self._under_way: dict[asyncio.Task[Row | None], _Call] = {}
        self._interrupting: set[asyncio.Task[None]] = set()

    async def fetch(self, keys: Sequence[Key]) -> Sequence[Row | None]:
        """The row for each key, one statement after the other; None where there is none.

        Raises SourceFault. A cancelled call ends at once; what it had asked is stopped behind its back.
        """
        return [await self._one(key) for key in keys]

    async def close(self) -> None:
        """Ends the calls under way (they raise SourceFault) and closes the connections."""
        tasks = dict(self._under_way)
        for task, call in tasks.items():
            if call.driver is None:
                task.cancel()
            else:
                self._leave(task, call)
        if tasks:
            await asyncio.wait(tasks, timeout=2 * _CLOSE_SECONDS)
        engine, self._engine = self._engine, None
        if engine is None:
            return
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await engine.dispose()
        except TimeoutError:
            # A server that hangs does not answer a goodbye either.
            for driver in list(self._drivers):
                driver.terminate()

    async def _one(self, key: Key) -> Row | None:
        # A task of its own: a driver that is cancelled tidies up first, which takes as long as the
        # database likes.
        call = _Call()
        task = asyncio.create_task(self._ask(key, call))
        self._under_way[task] = call
        task.add_done_callback(self._ended)
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            self._leave(task, call)
            raise
        if task.cancelled():
            raise SourceFault(Cause.UNAVAILABLE, "closed", ill=False)
        return task.result()

    def _ended(self, task: asyncio.Task[Row | None]) -> None:
        del self._under_way[task]
        if not task.cancelled():
            task.exception()  # or asyncio complains of what nobody is left to look at

    def _leave(self, task: asyncio.Task[Row | None], call: _Call) -> None:
        call.unwanted = True
        if call.driver is None:
            # Still connecting, and that goes on: where it takes longer than calls may, there would never
            # be a connection otherwise.
            return
        if hasattr(call.driver, "interrupt"):
            # aiosqlite: its thread would run the statement to the end, and only then hear of the rest.
            helper = asyncio.create_task(_interrupt(task, call))
            self._interrupting.add(helper)
            helper.add_done_callback(self._interrupting.discard)
        else:
            task.cancel()

    async def _ask(self, key: Key, call: _Call) -> Row | None:
        from sqlalchemy.exc import SQLAlchemyError
        from sqlalchemy.exc import TimeoutError as NoneFree

        # Errors' texts hold values, so nothing is chained: `from None`.
        try:
            if self._engine is None:
                self._engine = _engine(self._connection, self._timeout, self._drivers)
            connection = await self._engine.connect()
        except NoneFree:
            raise SourceFault(Cause.UNAVAILABLE, "no connection is free") from None
        except (SQLAlchemyError, OSError, ImportError, ValueError, TypeError) as error:
            raise SourceFault(Cause.UNAVAILABLE, _kind(error)) from None
        try:
            if call.unwanted:
                return None
            statement = self._statement(key)
            assert connection.sync_connection is not None
            call.driver = connection.sync_connection.connection.driver_connection
            result = await connection.execute(statement, dict(zip(self._inputs, key, strict=True)))
            call.driver = None
            columns, rows = list(result.keys()), result.all()
        except SQLAlchemyError as error:
            raise _fault(error) from None
        except OSError as error:
            raise SourceFault(Cause.UNAVAILABLE, _kind(error)) from None
        except (ValueError, ArithmeticError) as error:
            # The driver's, of a value that it cannot send or read.
            raise SourceFault(Cause.BAD_REPLY, _kind(error), ill=False) from None
        except sqlite3.Warning:
            raise SourceFault(Cause.BAD_REPLY, "more than one statement") from None
        finally:
            call.driver = None
            await connection.close()
        return self._row(columns, [tuple(row) for row in rows])

    def _row(self, columns: list[str], rows: list[tuple[object, ...]]) -> Row | None:
        for value in self._served:
            if (count := columns.count(value.path)) != 1:
                raise SourceFault(Cause.BAD_REPLY, f"{count or 'no'} columns are named {value.path!r}")
        if len(rows) > 1:
            raise SourceFault(Cause.BAD_REPLY, "more than one row", ill=False)
        if not rows:
            return None
        found = dict(zip(columns, rows[0], strict=True))
        return {
            value.name: _converted(value.type, found[value.path])
            for value in self._served
            if found[value.path] is not None
        }

    def _statement(self, key: Key) -> Executable:
        types = tuple(map(type, key))
        if types not in self._statements:
            self._statements[types] = _statement(self._query, dict(zip(self._inputs, types, strict=True)))
        return self._statements[types]


def driver(url: str) -> None:
    """Imports SQLAlchemy and a database's driver, which takes tenths of a second. What is wrong with the URL
    is told by the first call."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    with suppress(SQLAlchemyError, ImportError, ValueError):
        make_url(url).get_dialect().import_dbapi()


def _statement(query: str, inputs: dict[str, type]) -> Executable:
    import sqlalchemy as sa

    bound: dict[type, sa.types.TypeEngine[Any]] = {
        bool: sa.Boolean(),
        int: sa.BigInteger(),
        float: sa.Double(),
        str: sa.String(),
        datetime: sa.DateTime(timezone=True),
        tuple: sa.ARRAY(sa.String()).with_variant(sa.JSON(), "sqlite"),
    }
    # The line break ends a comment on the last line.
    asked = sa.text(query.rstrip().rstrip(";") + "\n")
    used = asked.compile().params
    asked = asked.bindparams(
        *(sa.bindparam(name, type_=bound[kind]) for name, kind in inputs.items() if name in used)
    )
    found = asked.columns().subquery("found")
    return sa.select(sa.literal_column("*")).select_from(found).limit(sa.literal_column("2"))


def _engine(connection: Connection, timeout: float, drivers: WeakSet[Any]) -> AsyncEngine:
    from sqlalchemy import event, make_url
    from sqlalchemy.exc import DisconnectionError
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import AsyncAdaptedQueuePool

    url = make_url(connection.url.get_secret_value())
    arguments: dict[str, Any] = {}
    if url.drivername == "postgresql+asyncpg":
        # Naive timestamps are UTC, also where the database compares them with an input.
        settings = {"default_transaction_read_only": "on", "timezone": "UTC"}
        # A cancel that reaches the server just before its statement is lost.
        settings["statement_timeout"] = f"{max(1, round(timeout * 1000))}ms"
        arguments = {"server_settings": settings, "timeout": _CONNECT_SECONDS}
        if connection.ca_file is not None:
            arguments["ssl"] = ssl.create_default_context(cafile=connection.ca_file)
    elif url.drivername == "sqlite+aiosqlite":
        arguments = {"timeout": timeout}  # for a lock, which cannot be interrupted
    engine = create_async_engine(
        url,
        connect_args=arguments,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=connection.calls,
        max_overflow=0,
        pool_timeout=timeout,
        # No BEGIN and no ROLLBACK: each would be a round trip more.
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,
        skip_autocommit_rollback=True,
        hide_parameters=True,
        json_deserializer=orjson.loads,
    )

    def connected(adapted: Any, _record: object) -> None:
        drivers.add(adapted.driver_connection)
        if url.get_backend_name() == "sqlite":
            cursor = adapted.cursor()
            cursor.execute("PRAGMA query_only = ON")
            cursor.close()

    def lent(adapted: Any, _record: object, _proxy: object) -> None:
        # What the other side closed meanwhile is known here without asking it.
        closed = getattr(adapted.driver_connection, "is_closed", None)
        if closed is not None and closed():
            raise DisconnectionError

    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "checkout", lent)
    return engine


async def _interrupt(task: asyncio.Task[Row | None], call: _Call) -> None:
    # Again and again, as a statement that has not begun yet is not interrupted. Never once the call is
    # through: its connection may be another's by then.
    while call.driver is not None and not task.done():
        with suppress(ValueError, sqlite3.Error):
            await call.driver.interrupt()
        await asyncio.wait((task,), timeout=_INTERRUPT_SECONDS)


def _fault(error: SQLAlchemyError) -> SourceFault:
    from sqlalchemy import exc

    kind = _kind(error)
    if not isinstance(error, exc.DBAPIError):
        return SourceFault(Cause.BAD_REPLY, kind)
    state = getattr(error.orig, "sqlstate", None) or ""
    code = getattr(error.orig, "sqlite_errorcode", None)
    if state == "57014":
        return SourceFault(Cause.TIMEOUT, kind)
    if isinstance(error, exc.DataError) or state.startswith(_DATA_STATES) or kind == "DataError":
        return SourceFault(Cause.BAD_REPLY, kind, ill=False)
    if error.connection_invalidated:
        wrong = False
    elif code is not None:
        # SQLite calls a syntax error operational too.
        wrong = code & 0xFF not in _SYSTEM_SQLITE
    elif state:
        wrong = not state.startswith(_SYSTEM_STATES)
    else:
        wrong = isinstance(error, exc.ProgrammingError | exc.NotSupportedError | exc.IntegrityError)
    return SourceFault(Cause.BAD_REPLY if wrong else Cause.UNAVAILABLE, kind)


def _kind(error: BaseException) -> str:
    """The name of the driver's own error where there is one: it says more than SQLAlchemy's."""
    error = getattr(error, "orig", None) or error
    return type(error.__cause__ or error).__name__


def _converted(kind: FactType, raw: object) -> object:
    """`raw` as JSON has it, where the declared type says how; else as it is."""
    match kind, raw:
        case "bool", int() if raw in (0, 1):
            return bool(raw)
        case "int", Decimal() if raw.is_finite() and abs(raw) < _INT64 and raw == int(raw):
            return int(raw)
        case "double", Decimal() if raw.is_finite():
            return float(raw)
        case "timestamp", datetime() | date():
            return _instant(raw).isoformat()
        case "timestamp", str():
            # Text is how SQLite keeps a time, as a rule without an offset.
            with suppress(ValueError):
                return _instant(datetime.fromisoformat(raw)).isoformat()
        case "string", UUID():
            return str(raw)
        case "strings", list():
            return [str(item) if isinstance(item, UUID) else item for item in raw]
        case "strings", str():
            with suppress(orjson.JSONDecodeError):
                return orjson.loads(raw)
    return raw


def _instant(raw: date) -> datetime:
    if not isinstance(raw, datetime):
        return datetime.combine(raw, time(0), UTC)
    return raw if raw.tzinfo is not None else raw.replace(tzinfo=UTC)
