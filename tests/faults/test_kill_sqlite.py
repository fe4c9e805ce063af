"""kill -9 at any moment loses no decision that was acknowledged."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

from decision.storage.sqlite.store import SqliteStore

# Prints an id once its commit returned, from several callers at once, until it is killed.
_PROGRAM = """
import asyncio, itertools, sys
from datetime import UTC, datetime
from decision.storage.port import DecisionRecord
from decision.storage.sqlite.store import SqliteStore

async def main(path, turn):
    store = SqliteStore(path)
    await store.open()
    numbers = itertools.count()
    async def caller():
        while True:
            id = f"d-{turn}-{next(numbers)}"
            await store.commit_decisions([DecisionRecord(id, "c-1", id, "h", datetime.now(UTC), "web", "live",
                                                         "v1", {}, b"x" * 2000, b"y" * 1000)])
            sys.stdout.write(id + "\\n")
            sys.stdout.flush()
    await asyncio.gather(*(caller() for _ in range(16)))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_every_acknowledged_decision_survives_a_kill(tmp_path: Path) -> None:
    path, moments = tmp_path / "store.db", random.Random()
    acknowledged: list[str] = []
    for turn in range(3):
        fresh = _run_and_kill(path, turn, moments.uniform(0.05, 0.4))
        assert len(fresh) > 16, "it was killed before it did much"
        acknowledged += fresh

        store = SqliteStore(path)
        await store.open()
        found = await store.decisions(acknowledged)
        await store.close()
        assert [id for id in acknowledged if id not in found] == []


def _run_and_kill(path: Path, turn: int, seconds: float) -> list[str]:
    command = [sys.executable, "-c", _PROGRAM, str(path), str(turn)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline()]  # the clock runs from the first acknowledgement
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        lines += process.stdout.readlines()
        timer.join()
    # The last line may be cut off in the middle of an id.
    return [line.strip() for line in lines if line.endswith("\n")]
