"""`decision serve` as it runs in production, as processes: started, looked at from outside, ended."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROC = Path("/proc")


def until(done: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Waits for it, and fails where it takes longer than that."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)


class Service:
    """The service on the store `url`; what it says goes to the file `log`. `options` are added to the
    command."""

    def __init__(self, url: str, log: Path, *options: str) -> None:
        self._log = log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [
            sys.executable,
            "-m",
            "decision",
            "serve",
            "--store",
            url,
            "--port",
            str(self.port),
            *options,
        ]
        with log.open("ab") as said:
            self.process = subprocess.Popen(command, stdout=said, stderr=said)

    def wait_until_ready(self) -> None:
        """Until it decides; with a learner, until that runs too."""
        until(self._ready, "the service is ready")

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.said()
        # Asked often: a client of httpx would take some 30 ms of processor time each time.
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def said(self) -> str:
        """Its log, up to now."""
        return self._log.read_text()

    def processes(self) -> list[int]:
        """All its processes, the first one first."""
        parents = dict(_parents())
        found = [self.process.pid]
        for one in found:
            found += [child for child, parent in parents.items() if parent == one]
        return found

    def resident(self) -> int:
        """The memory of all its processes in bytes, what they share counted for each."""
        pages = [int((PROC / str(pid) / "statm").read_text().split()[1]) for pid in self.processes()]
        return sum(pages) * os.sysconf("SC_PAGESIZE")

    def end(self) -> int:
        """Ends it in order; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


def _parents() -> Iterator[tuple[int, int]]:
    for directory in PROC.iterdir():
        if directory.name.isdigit():
            try:
                status = (directory / "stat").read_text()
            except OSError:  # it ended meanwhile
                continue
            # The name, in brackets, may hold anything.
            yield int(directory.name), int(status.rpartition(")")[2].split()[1])


@contextmanager
def serving(url: str, log: Path, *options: str) -> Iterator[Service]:
    """Runs the service until it is ready, and beyond; whatever happens, none of its processes is left."""
    service = Service(url, log, *options)
    try:
        service.wait_until_ready()
        yield service
    finally:
        left = service.processes() if service.process.poll() is None else []
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        service.process.wait()
