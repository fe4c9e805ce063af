"""A place that one process fills, where a process cannot even be started."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from decision.serving.child import Child
from decision.serving.post import Post
from decision.serving.slots import Slots
from decision.serving.supervisor import Supervisor


async def test_who_cannot_be_relieved_stays(caplog: pytest.LogCaptureFixture) -> None:
    """As after an upgrade that took the program away."""
    commands = [["sleep", "60"], ["/nowhere/python"]]

    async def start(name: str) -> Child:
        return await Child.start(name, commands.pop(0), (), {})

    post = Post("worker 1", start)
    child = await post.fill()
    assert not await post.relieve()
    assert await post.fill() is child
    assert "cannot be started; the old one stays" in caplog.text
    assert await child.stop(10)
    child.release()


async def test_what_was_taken_for_one_that_cannot_be_started_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("decision.serving.supervisor.Slots", lambda: Slots(tmp_path))
    supervisor = Supervisor([], ["/nowhere/python"], 1, [])
    before = _open()
    for _ in range(3):
        with pytest.raises(FileNotFoundError):
            await supervisor._start_worker("worker 1")
    assert supervisor._slots.take() == 0
    await asyncio.sleep(0)
    assert _open() == before
    supervisor._slots.close()


def _open() -> int:
    """How many descriptors this process has, where that can be seen."""
    seen = Path("/proc/self/fd")
    return len(list(seen.iterdir())) if seen.is_dir() else 0
