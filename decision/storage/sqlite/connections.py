"""The two connections to an SQLite file: one reads and one writes, for the most part on the event loop."""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TextIO, TypeVar

from decision.errors import StoreUnavailable
from decision.storage.rows import Row
from decision.storage.sqlite.migrate import migrate
from decision.storage.sqlite.writer import Operation, Writer

T = TypeVar("T")

# A reader in WAL mode waits for nobody, but for the moment in which another process closes or recovers
# the file. Short, since the event loop stands still meanwhile.
_READ_TIMEOUT = 0.25


class Connections:
    """Opens, reads, writes, closes. Belongs to the thread (and event loop) that opened it.

    Reads run inline on the event loop: a point read from the page cache takes about 10 µs, and a hop to
    a thread and back costs several times that, and more when the interpreter lock is busy.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path).absolute()
        self._reader: sqlite3.Connection | None = None
        self._writer: Writer | None = None
        self._leading: TextIO | None = None

    async def open(self) -> None:
        """Creates the file if there is none and brings the schema up to date.

        Raises StoreUnavailable if the file cannot be opened or was written by a newer release.
        """
        if self._reader is not None:
            return
        await asyncio.to_thread(self._prepare)
        try:
            self._reader = sqlite3.connect(self._path, timeout=_READ_TIMEOUT, isolation_level=None)
            self._reader.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            self._close_reader()
            raise StoreUnavailable(f"{self._path} cannot be read: {error}") from error
        self._writer = Writer(self._path)

    def _prepare(self) -> None:
        try:
            connection = sqlite3.connect(self._path, isolation_level=None)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self._path} cannot be opened: {error}") from error
        with closing(connection):
            try:
                migrate(connection)
                _refuse_read_only(connection)
            except StoreUnavailable as error:
                raise StoreUnavailable(f"{self._path}: {error}") from error

    async def close(self) -> None:
        """Waits for what is being written, then disconnects. May be called again."""
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.close()
        self._close_reader()
        leading, self._leading = self._leading, None
        if leading is not None:
            leading.close()

    def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    async def ping(self) -> None:
        """Reads from the file itself. Raises StoreUnavailable if that fails."""
        self._read("SELECT version FROM schema_migrations LIMIT 1")

    def _lead(self) -> bool:
        """Takes the lock on a file beside the database, unless another has it. The system gives it back when
        this process ends, in whatever way."""
        if self._reader is None:
            raise StoreUnavailable("the store is not open")
        if self._leading is None:
            try:
                file = self._path.with_name(f"{self._path.name}-learner").open("a")
            except OSError as error:
                raise StoreUnavailable(f"the lock of the learner cannot be taken: {error}") from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            self._leading = file
        return True

    def _read(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        if self._reader is None:
            raise StoreUnavailable("the store is not open")
        try:
            return self._reader.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the read failed: {error}") from error

    def _look(self, sql: str, parameters: Sequence[Any]) -> Row:
        """The one row of what is read for every decision: from the connection that writes, where it is free,
        as another finds its cache of pages out of date after each commit."""
        connection = None if self._writer is None else self._writer.reader()
        if connection is not None:
            try:
                found: list[Row] = connection.execute(sql, parameters).fetchall()
                return found[0]
            except sqlite3.Error:  # it waits for nobody; the other may, and says what is wrong
                pass
        return self._read(sql, parameters)[0]

    def _read_one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        rows = self._read(sql, parameters)
        return rows[0] if rows else None

    async def _read_aside(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """As `_read`, for what takes long: in a thread, on a connection of its own."""

        def read() -> list[Row]:
            with closing(sqlite3.connect(self._path, timeout=_READ_TIMEOUT)) as connection:
                connection.execute("PRAGMA query_only = ON")
                return connection.execute(sql, parameters).fetchall()

        if self._reader is None:
            raise StoreUnavailable("the store is not open")
        try:
            return await asyncio.to_thread(read)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the read failed: {error}") from error

    async def _aside(self, sql: str, timeout: float = _READ_TIMEOUT) -> list[Row]:
        """A statement outside of any transaction: in a thread, on a connection of its own. Raises
        StoreUnavailable, also where others do not let the file go within `timeout` seconds."""

        def run() -> list[Row]:
            with closing(sqlite3.connect(self._path, timeout=timeout, isolation_level=None)) as connection:
                return connection.execute(sql).fetchall()

        if self._reader is None:
            raise StoreUnavailable("the store is not open")
        try:
            return await asyncio.to_thread(run)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{sql} failed: {error}") from error

    async def _checkpoint(self) -> bool:
        """Takes what is in the log beside the file into it, and empties the log; whether it could: a reader
        may hold it up."""
        [(busy, *_)] = await self._aside("PRAGMA wal_checkpoint(TRUNCATE)")
        return not busy

    @contextmanager
    def _one_state(self) -> Iterator[None]:
        """Reads within see one state of the database. Never await inside: the connection is shared."""
        self._read("BEGIN")
        try:
            yield
        finally:
            self._read("COMMIT")

    def waiting(self) -> int:
        """How many records wait to be written, or are being written."""
        return 0 if self._writer is None else self._writer.waiting

    async def _write(self, operation: Operation[T], records: int = 1, *, brief: bool = False) -> T:
        """Runs it in the writer. Raises StoreBusy, StoreUnavailable, and what it raises itself. `brief`: it
        may keep the event loop waiting."""
        if self._writer is None:
            raise StoreUnavailable("the store is not open")
        return await self._writer.run(operation, records, brief=brief)

    async def _settle(self) -> None:
        """Waits until all that can be read now is on the disk."""
        if self._writer is None:
            raise StoreUnavailable("the store is not open")
        await self._writer.settle()


def _refuse_read_only(connection: sqlite3.Connection) -> None:
    """Tries to write, and changes nothing. Where another process has the lock, that one can write."""
    try:
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("DELETE FROM schema_migrations WHERE version < 0")
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise StoreUnavailable(f"the database cannot be written: {error}") from error
