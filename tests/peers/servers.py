"""Real servers as processes: each from an environment of its own, on a free port, gone at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
READY_SECONDS = 90.0
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Models:
    """An MLServer, and per model: its `rows`, and scikit-learn's own outputs on them."""

    url: str
    expected: dict[str, dict[str, Any]]


def environment(name: str) -> Path:
    """The folder of programs of `.venv-{name}`; the test fails where `make peers` has not made it."""
    programs = ROOT / f".venv-{name}" / "bin"
    if not (programs / name).exists():
        pytest.fail(f"there is no {name} in {programs.parent}: run `make peers`, which installs it")
    return programs


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def run(command: Sequence[str | Path], folder: Path) -> None:
    """A command in `folder`; the test fails with what it said where it does."""
    done = subprocess.run(
        command, cwd=folder, env=_variables(folder), capture_output=True, text=True, timeout=READY_SECONDS
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def serving(command: Sequence[str | Path], folder: Path, ready: str) -> Iterator[None]:
    """The server that `command` starts in `folder`, from when `ready` answers 200; its log is there, too."""
    log = folder / "server.log"
    with log.open("wb") as written:
        # A session of its own: servers fork workers, and the group ends with all of them.
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_variables(folder),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _await(process, ready, log)
        yield
    finally:
        _end(process)


def _variables(folder: Path) -> dict[str, str]:
    # Both keep files at home or in the user's runtime folder, and two runs would meet there.
    kept = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}
    return kept | {"HOME": str(folder), "PYTHONUNBUFFERED": "1"}


def _await(process: subprocess.Popen[bytes], ready: str, log: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, f"the server ended by itself:\n{log.read_text()}"
        try:
            if httpx.get(ready, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.1)
    raise AssertionError(f"the server is not ready after {READY_SECONDS} s:\n{log.read_text()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, kind)
        except ProcessLookupError:
            break
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.wait(STOP_SECONDS)
