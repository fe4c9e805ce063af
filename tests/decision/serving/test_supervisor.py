"""The supervisor with small processes in the places of workers and learner: who is started, replaced and
ended, and when."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from socket import AF_INET

import pytest

from decision.serving.supervisor import listen

# Each does as the file named like it says: gets ready, never does, ends at once, or does not end in order.
CHILD = """
import os, signal, sys
from pathlib import Path
from socket import AF_INET
place, name = Path(sys.argv[1]), sys.argv[2]
def tell(what):
    with (place / "told").open("a") as told:
        told.write(f"{name} {os.getpid()} {what}\\n")
def end(*_):
    tell("ends")
    sys.exit(0)
mode = (place / name).read_text()
signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "stubborn" else end)
tell("starts")
if mode == "fails":
    sys.exit(3)
if mode != "slow":
    tell("ready")
    os.write(0, b"!")
try:
    while os.read(0, 1):
        pass
except ConnectionResetError:
    pass
if mode != "stubborn":
    tell("gone")
"""
SUPERVISOR = """
import asyncio, sys
from decision.serving import post, supervisor
place, workers, grace, patience = sys.argv[1], 2, float(sys.argv[2]), float(sys.argv[3])
supervisor.GRACE_SECONDS = post.GRACE_SECONDS = grace
post.READY_SECONDS, post._PAUSE_SECONDS = patience, 0.02
child = [sys.executable, "-IS", place + "/child.py", place]
async def run():
    listening = supervisor.listen("127.0.0.1", 0)
    return await supervisor.Supervisor(listening, [*child, "worker"], workers, [*child, "learner"]).run()
sys.exit(asyncio.run(run()))
"""


def until(done: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.005)


pytestmark = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes in /proc")


class Family:
    """A supervisor with two workers and a learner, as processes."""

    def __init__(self, place: Path) -> None:
        self._place = place
        (place / "child.py").write_text(CHILD)
        (place / "told").touch()
        self.behave("worker", "fine")
        self.behave("learner", "fine")

    def start(self, grace: float = 10.0, patience: float = 10.0, stdin: int | None = None) -> None:
        """`patience`: seconds that a successor has to get ready."""
        command = [sys.executable, "-c", SUPERVISOR, str(self._place), str(grace), str(patience)]
        self.process = subprocess.Popen(command, stdin=stdin)

    def behave(self, name: str, how: str) -> None:
        """How those of this name behave that are started from now on."""
        (self._place / name).write_text(how)

    def told(self) -> list[tuple[str, int, str]]:
        """What the children told, in order: (name, process, what)."""
        lines = (line.split() for line in (self._place / "told").read_text().splitlines())
        return [(name, int(pid), what) for name, pid, what in lines]

    def all(self, name: str, what: str) -> list[int]:
        """The processes of this name that told this."""
        return [pid for told, pid, said in self.told() if (told, said) == (name, what)]

    def ready(self, workers: int, learners: int) -> None:
        """Waits until so many have ever been ready."""
        until(
            lambda: (
                len(self.all("worker", "ready")) >= workers and len(self.all("learner", "ready")) >= learners
            ),
            f"{workers} workers and {learners} learners: {self.told()}",
        )

    def alive(self) -> list[int]:
        """Those that run; one that has ended has no command line, even where nobody has taken note yet."""
        found = []
        for pid in {pid for _, pid, _ in self.told()}:
            with suppress(OSError):
                found += [pid] if Path(f"/proc/{pid}/cmdline").read_bytes() else []
        return found

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=10)


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    family = Family(tmp_path)
    yield family
    if family.process.poll() is None:
        family.process.kill()
        family.process.wait()
    until(lambda: not family.alive(), "no process is left")


def test_all_are_started_and_ended_in_order(family: Family) -> None:
    family.start()
    family.ready(2, 1)
    assert family.told()[:2] == [("worker", family.told()[0][1], what) for what in ("starts", "ready")]
    assert family.end() == 0
    assert len(family.all("worker", "ends")) == 2
    assert len(family.all("learner", "ends")) == 1
    assert family.alive() == []


def test_a_first_worker_that_does_not_get_ready_ends_the_service_with_its_code(family: Family) -> None:
    family.behave("worker", "fails")
    family.start()
    assert family.process.wait(timeout=10) == 3
    assert [(name, what) for name, _, what in family.told()] == [
        ("worker", "starts")
    ]  # only once, and no other


def test_who_dies_is_replaced(family: Family) -> None:
    family.start()
    family.ready(2, 1)
    for name, workers, learners in (("worker", 3, 1), ("learner", 3, 2)):
        os.kill(family.all(name, "ready")[0], signal.SIGKILL)
        family.ready(workers, learners)
    family.behave("worker", "fails")  # and goes on when the new ones die as well
    os.kill(family.all("worker", "ready")[1], signal.SIGKILL)
    until(lambda: len(family.all("worker", "starts")) >= 6, "it is tried again")
    family.behave("worker", "fine")
    family.ready(4, 2)
    assert family.end() == 0


def test_a_rolling_restart_replaces_one_after_the_other_once_the_next_is_ready(family: Family) -> None:
    family.start()
    family.ready(2, 1)
    before = len(family.told())
    first, second = family.all("worker", "ready")
    (learner,) = family.all("learner", "ready")
    family.process.send_signal(signal.SIGHUP)
    until(lambda: family.all("learner", "ends"), "all are replaced")
    third, fourth = family.all("worker", "ready")[2:]
    assert family.told()[before:] == [
        ("worker", third, "starts"),
        ("worker", third, "ready"),
        ("worker", first, "ends"),
        ("worker", fourth, "starts"),
        ("worker", fourth, "ready"),
        ("worker", second, "ends"),
        ("learner", family.all("learner", "ready")[1], "starts"),
        ("learner", family.all("learner", "ready")[1], "ready"),
        ("learner", learner, "ends"),
    ]
    assert family.end() == 0


@pytest.mark.parametrize(("how", "patience"), [("slow", 1.0), ("fails", 10.0)])
def test_a_new_worker_that_does_not_get_ready_leaves_the_old_ones(
    family: Family, how: str, patience: float
) -> None:
    family.start(patience=patience)
    family.ready(2, 1)
    before = set(family.alive())
    family.behave("worker", how)
    family.process.send_signal(signal.SIGHUP)
    until(lambda: len(family.all("worker", "starts")) == 3, "one is tried")
    until(lambda: set(family.alive()) == before, "it is gone again")
    if how == "slow":
        return  # whoever is fine may be too slow as well, for so little patience
    family.behave("worker", "fine")
    family.process.send_signal(signal.SIGHUP)  # and the next rolling restart goes through
    family.ready(4, 2)
    until(lambda: not before & set(family.alive()), "all are replaced")
    assert len(family.all("worker", "starts")) == 5
    assert family.end() == 0


def test_all_end_when_the_supervisor_is_killed(family: Family) -> None:
    family.start()
    family.ready(2, 1)
    family.process.kill()
    family.process.wait()
    until(lambda: not family.alive(), "all are gone")
    assert sorted(name for name, _, what in family.told() if what == "gone") == [
        "learner",
        "worker",
        "worker",
    ]


def test_who_does_not_end_in_order_is_killed_when_the_grace_is_over(family: Family) -> None:
    family.behave("learner", "stubborn")
    family.start(grace=0.5)
    family.ready(2, 1)
    assert family.end() == 1
    assert family.all("worker", "ends") != []
    assert family.alive() == []


def test_it_may_be_ended_in_the_middle_of_a_rolling_restart(family: Family) -> None:
    family.start()
    family.ready(2, 1)
    family.behave("worker", "slow")
    family.process.send_signal(signal.SIGHUP)
    until(lambda: len(family.all("worker", "starts")) == 3, "one is on its way")
    assert family.end() == 0
    assert len(family.all("worker", "ends")) == 3
    assert family.alive() == []


def test_the_hang_up_of_a_terminal_ends_it(family: Family) -> None:
    terminal, end = os.openpty()
    family.start(stdin=end)
    os.close(end)
    family.ready(2, 1)
    os.close(terminal)
    family.process.send_signal(signal.SIGHUP)
    assert family.process.wait(timeout=10) == 0
    assert len(family.all("worker", "starts")) == 2


def test_it_listens_on_every_address_of_a_name_or_says_why_not() -> None:
    listening = listen("localhost", 0)
    addresses = {each.getsockname()[0] for each in listening}
    assert "127.0.0.1" in addresses
    with pytest.raises(OSError, match="Address already in use"):
        listen("127.0.0.1", next(each for each in listening if each.family == AF_INET).getsockname()[1])
    with pytest.raises(OSError, match="assign"):
        listen("192.0.2.1", 0)  # an address for documentation: nobody has it
    for each in listening:
        each.close()


def test_it_imports_nothing_of_the_service() -> None:
    code = (
        "import sys, decision.serving.supervisor; "
        "print(*{'arbitration', 'numpy', 'fastapi', 'pydantic', 'uvicorn', 'typer'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == ""
