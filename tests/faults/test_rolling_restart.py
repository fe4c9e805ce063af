"""A rolling restart under load: nobody's request fails, and nothing that was answered is missing."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest
from load import Load, check
from service import PROC, Service, serving, until
from support import catalog_document

from arbitration.catalog.problems import Source
from decision.clock import utc_now
from decision.publishing import check_document
from decision.settings import opened
from decision.storage.port import Cursor

pytestmark = pytest.mark.skipif(not (PROC / "self" / "cmdline").exists(), reason="finds processes in /proc")


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A database in which the small catalog is published."""
    checked = check_document(Source(catalog_document()))
    assert checked.published is not None
    async with opened(f"sqlite:{tmp_path / 'service.db'}") as store:
        await store.publish_catalog(checked.published.version, checked.document, utc_now())
    return tmp_path / "service.db"


def restart(service: Service, load: Load) -> None:
    """Has every process replaced, one after the other, while the load goes on."""
    before = service.processes()
    service.process.send_signal(signal.SIGHUP)
    until(
        lambda: not set(before[1:]) & set(service.processes()) and len(before) == len(service.processes()),
        f"all but the first of {before} are replaced:\n{service.said()}",
        seconds=60,
    )
    assert service.processes()[0] == before[0]
    until(load.more_acknowledged(random.randint(10, 40)), "it goes on")


async def restarted(path: Path, times: int, callers: int, *options: str) -> Load:
    """What the callers were told while a service was restarted again and again, and then ended."""
    with (
        serving(f"sqlite:{path}", path.with_suffix(".log"), *options) as service,
        Load(service.url, "only", callers=callers) as load,
    ):
        until(load.more_acknowledged(20), "it has begun")
        for _ in range(times):
            restart(service, load)
        assert (load.lost, load.refused, load.wrong) == (0, [], [])
        assert service.end() == 0
    async with opened(f"sqlite:{path}") as store:
        await check(store, load)
        decisions, responses, _ = await store.unread(Cursor(), 1_000_000)
    # Whatever was in flight when it was told to end was answered: nothing was done and not told.
    assert (len(decisions), len(responses)) == (len(load.answered), len(load.acknowledged))
    return load


async def test_two_restarts_and_an_end_fail_no_request(path: Path) -> None:
    await restarted(path, 2, 4, "--no-learner")


@pytest.mark.long
async def test_twenty_restarts_of_two_workers_and_a_learner_fail_no_request(path: Path) -> None:
    load = await restarted(path, 20, 8, "--workers", "2", "--interval", "0.2")
    print(f"{len(load.answered)} decisions and {len(load.acknowledged)} responses in 20 restarts")


@pytest.mark.long
def test_of_two_services_on_one_database_one_learns_and_the_other_takes_over(path: Path) -> None:
    """Within 10 s of a kill -9 of one learner and its supervisor."""
    logs = [path.with_suffix(f".{number}.log") for number in range(2)]
    with serving(f"sqlite:{path}", logs[0]) as first, serving(f"sqlite:{path}", logs[1]) as second:
        until(lambda: "decision.learner learning" in first.said(), "the first learns")
        until(lambda: "another learner leads; standing by" in second.said(), "the second stands by")
        assert "decision.learner learning" not in second.said()
        for pid in reversed(first.processes()):
            os.kill(pid, signal.SIGKILL)
        until(lambda: "decision.learner learning" in second.said(), "the second takes over", seconds=10)
        assert second.end() == 0
