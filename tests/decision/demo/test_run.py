"""The demo as a user runs it: a process that starts everything, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from decision.demo.screen import chart
from decision.demo.tally import RECENT, Sums, Tally

PATIENCE = 40.0  # seconds; a loaded machine is slow, a hanging one is a failure


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def demo(tmp_path: Path, port: int, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "decision", "demo", "--customers", "200", "--port", str(port), *options]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines_until(process: subprocess.Popen[str], wanted: str) -> list[str]:
    """What it prints up to the line that contains `wanted`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if wanted in line:
            return lines
    pytest.fail(f"it ended without saying '{wanted}': {lines}")


def assert_nothing_left(tmp_path: Path, port: int, patience: float = 0.0) -> None:
    """The directory is gone, the port is free, and no process knows the directory, at once or in a moment."""
    assert list(tmp_path.iterdir()) == []
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
    deadline = time.monotonic() + patience
    while left := _knowing(str(tmp_path)):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def _knowing(text: str) -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # ended while we looked
            if text.encode() in (command := file.read_bytes()):
                found.append(command.decode().replace("\0", " "))
    return found


def test_it_ends_by_itself_and_says_what_came_of_it(tmp_path: Path) -> None:
    port = free_port()
    with demo(tmp_path, port, "--seconds", "3") as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert "200 simulated customers imported" in out
    summary = re.search(
        r"last tenth: ([\d.]+)%, ([\d.]+) × the random baseline of ([\d.]+)% .*?([\d,]+) decisions, "
        r"p50 (\d+) ms, p99 (\d+) ms",
        out,
    )
    assert summary, out
    acceptance, _, random = (float(number) for number in summary.groups()[:3])
    assert 0 < acceptance < 100
    assert 3 < random < 20
    assert int(summary[4].replace(",", "")) >= 20
    assert_nothing_left(tmp_path, port)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here to paste the lines into")
def test_every_line_to_paste_works_as_it_stands(tmp_path: Path) -> None:
    port = free_port()
    with demo(tmp_path, port) as process:
        commands = [line for line in lines_until(process, "/metrics") if line.startswith("curl")]
        assert len(commands) == 6
        for command in commands:
            done = subprocess.run(
                ["bash", "-c", f"{command} --fail"], capture_output=True, text=True, timeout=PATIENCE
            )
            assert (done.returncode, done.stderr) == (0, ""), command
            assert done.stdout
            if command.endswith("/replay"):
                assert done.stdout.startswith('{"identical":true')
        _end(process, signal.SIGINT)
    assert_nothing_left(tmp_path, port)


@pytest.mark.parametrize(
    ("number", "when"),
    [(signal.SIGINT, "published"), pytest.param(signal.SIGTERM, "imported", marks=pytest.mark.long)],
)
def test_a_signal_ends_all_of_it_at_any_time(tmp_path: Path, number: signal.Signals, when: str) -> None:
    port = free_port()
    with demo(tmp_path, port) as process:
        lines_until(process, when)
        _end(process, number)
    assert_nothing_left(tmp_path, port)


def _end(process: subprocess.Popen[str], number: signal.Signals) -> None:
    process.send_signal(number)
    process.send_signal(number)  # impatience does no harm
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with demo(tmp_path, port) as process:
            out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert out == ""
    assert f"port {port} cannot be used" in err
    assert "--port" in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_service_that_dies_is_told_of(tmp_path: Path) -> None:
    port = free_port()
    with demo(tmp_path, port) as process:
        lines_until(process, "/metrics")
        found = _child_of(process.pid)
        os.kill(found, signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "the service ended with code" in err
    assert "Traceback" not in err
    assert_nothing_left(tmp_path, port, patience=10.0)  # nobody is there to wait for the learner


def _child_of(parent: int) -> int:
    children = Path(f"/proc/{parent}/task/{parent}/children")
    if not children.exists():
        pytest.skip("this system does not tell who started whom")
    return int(children.read_text().split()[0])


def test_steps_get_coarser_and_lose_nothing() -> None:
    tally = Tally()
    for number in range(10_000):
        sums = Sums(items=2, accepted=number % 2, sampled=1, random=0.1, best=0.5)
        tally.visit("web", 0.001, sums, [("arm", bool(number % 2)), ("other", False)])
    assert 80 <= len(tally.steps) <= 160
    assert sum(step.items for step in tally.steps) == tally.whole.items == 20_000
    assert tally.whole.acceptance == pytest.approx(0.25)
    assert tally.last(2_000).items == pytest.approx(2_000, rel=0.2)
    assert tally.last(RECENT).items == pytest.approx(RECENT, rel=0.3)
    assert tally.last(RECENT).random_acceptance == pytest.approx(0.1)


def test_the_chart_fits_and_shows_both_references() -> None:
    steps = [Sums(100, n, n, 10, 0.9, 3.0) for n in range(1, 31)]
    lines = chart(steps, rows=8, columns=20).plain.split("\n")
    assert len(lines) == 8
    assert all(len(line) <= 20 + 20 for line in lines)
    assert any(line.endswith("9% a random arm") for line in lines)
    assert any(line.endswith("30% best possible") for line in lines)
    assert lines[-1].startswith("█" * 15) or "█" in lines[-1]
    assert lines[-1][:20].count("█") > lines[-4][:20].count("█")
    assert chart([Sums()]).plain.count("\n") == 7
