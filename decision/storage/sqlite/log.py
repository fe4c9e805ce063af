"""The write-ahead log beside an SQLite file: what was committed is on the disk once this file was synced.

SQLite runs with `synchronous = NORMAL`: a COMMIT appends to the log and syncs nothing; a checkpoint syncs the
log before it copies from it, and the database before the log may be begun anew (https://sqlite.org/wal.html,
and `walCheckpoint` and `walRestartLog` in its wal.c). So a commit is in the log or, synced, in the database,
and a sync of the log that begins after the COMMIT has it on the disk, whatever others do to it meanwhile.
SQLite takes no locks on this file, so to close a descriptor of it loses none; and it is not deleted while a
connection that has used it is open.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

_HEADER, _FRAME_HEADER = 32, 24
_PAGE_SIZE, _SALTS = slice(8, 12), slice(16, 24)
_sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class Log:
    """The log of the database that a connection has open. Close it before the connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()  # from now on there is a log
        (_, _, file), *_ = connection.execute("PRAGMA database_list").fetchall()
        self._path = Path(f"{file}-wal")
        self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        self._named = False

    def sync(self) -> None:
        """Returns when all that was committed before the call is on the disk. Raises OSError; then nobody
        knows what is, and to sync again does not tell: the system may take for written what was not."""
        if not self._named:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
            self._named = True
        _sync(self._file)

    def reaches(self, frames: int) -> bool:
        """Whether the log has so many frames, each a page: the last of them is then of the same salts as the
        log (https://sqlite.org/fileformat2.html, section 4)."""
        header = os.pread(self._file, _HEADER, 0)
        if len(header) < _HEADER:
            return False
        frame = _FRAME_HEADER + int.from_bytes(header[_PAGE_SIZE], "big")
        return os.pread(self._file, 8, _HEADER + (frames - 1) * frame + 8) == header[_SALTS]

    def close(self) -> None:
        """Lets the file go."""
        os.close(self._file)
