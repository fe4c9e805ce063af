"""The service as it runs in production, processes and all: killed, and its processes killed one by one."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
from load import Load, check
from service import PROC, Service, serving, until
from support import catalog_document

from arbitration.catalog.problems import Source
from arbitration.policy.state import State
from decision.api.context import utc_now
from decision.learner import Learner
from decision.publishing import check_document
from decision.settings import opened
from decision.storage.port import Cursor, DecisionRecord, ResponseRecord, Store

CALLERS = 4
POLICIES = len(catalog_document()["policies"])

pytestmark = pytest.mark.skipif(not (PROC / "self" / "cmdline").exists(), reason="finds processes in /proc")


def command(pid: int) -> list[bytes]:
    """The command line of a process; empty where it has ended."""
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return []


def those(service: Service, kind: bytes) -> list[int]:
    """The processes of a service that are a `worker`, or that `learn`."""
    return [pid for pid in service.processes() if kind in command(pid)]


def another(service: Service, kind: bytes, than: int) -> int:
    """Waits until another one of a kind is there than the one that is gone."""
    until(lambda: those(service, kind) not in ([], [than]), f"there is another {kind!r} than {than}")
    (found,) = those(service, kind)
    return found


def url(path: Path) -> str:
    return f"sqlite:{path}"


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A database in which the small catalog is published."""
    checked = check_document(Source(catalog_document()))
    assert checked.published is not None
    async with opened(f"sqlite:{tmp_path / 'service.db'}") as store:
        await store.publish_catalog(checked.published.version, checked.document, utc_now())
    return tmp_path / "service.db"


async def ledger(store: Store) -> tuple[list[DecisionRecord], list[ResponseRecord]]:
    """All that was ever committed."""
    decisions, responses, _ = await store.unread(Cursor(), 1_000_000)
    return decisions, responses


async def settled(store: Store) -> bool:
    """Whether the learner has read all there is. Its snapshots are committed together with its cursor."""
    decisions, responses, _ = await store.unread(await store.cursor(), 1)
    return not decisions and not responses


async def until_settled(store: Store, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not await settled(store):
            await asyncio.sleep(0.02)


async def sums(store: Store) -> dict[tuple[str, str], list[float]]:
    """What the live snapshots hold, by lineage and arm: the events, then all other sums."""
    found = {}
    for lineage, version in (await store.live_snapshots()).items():
        record = await store.snapshot(version)
        assert record is not None
        state = State.from_bytes(record.content)
        for arm, row in state.rows.items():
            parts = [state.count[row], state.squares[row], *state.moment[row], *state.outer[row]]
            found[lineage, arm] = [float(part) for part in parts]
    return found


async def relearned(store: Store, path: Path) -> dict[tuple[str, str], list[float]]:
    """The same, learned by one learner from a copy of the ledger at `path` in which nothing is learned."""
    publication = await store.live_catalog()
    assert publication is not None
    document = await store.catalog(publication.version)
    assert document is not None
    decisions, responses = await ledger(store)
    async with opened(f"sqlite:{path}") as copy:
        await copy.publish_catalog(publication.version, document, utc_now())
        await copy.commit_decisions(decisions)
        await copy.commit_responses(responses)
        learner = Learner(copy, utc_now)
        while await learner.step():
            pass
        return await sums(copy)


async def check_learned(store: Store, path: Path) -> None:
    """The learned state is that of the ledger, and each answer in it counted once."""
    await until_settled(store)
    learned, again = await sums(store), await relearned(store, path)
    assert learned.keys() == again.keys()
    for key, values in again.items():
        assert learned[key] == pytest.approx(values, abs=1e-9), key
    _, responses = await ledger(store)  # each one is the only answer to its item
    events: Counter[str] = Counter()
    for (lineage, _), values in learned.items():
        events[lineage] += round(values[0])
    assert list(events.values()) == [len(responses)] * POLICIES  # every policy learns from all


async def test_a_kill_of_the_service_under_load_loses_nothing(path: Path) -> None:
    log = path.with_suffix(".log")
    with serving(url(path), log) as service, Load(service.url, "first", callers=CALLERS) as first:
        until(first.more_acknowledged(random.randint(60, 160)), "responses are acknowledged")
        (learner,) = those(service, b"learn")
        for pid in (service.process.pid, *those(service, b"worker")):
            os.kill(pid, signal.SIGKILL)
        first.join()
        assert first.lost == CALLERS
        assert first.wrong == []
        until(lambda: not command(learner), "the learner ends when its supervisor is no more")

    with serving(url(path), log) as service, httpx.Client(base_url=service.url, timeout=20) as client:
        for decision_id, content in first.answered.items():
            assert client.get(f"/v1/decisions/{decision_id}").content == content
        for message in first.acknowledged.values():
            reply = client.post("/v1/responses", json=message)
            assert reply.json() == {"recorded": 0, "duplicates": 1}
        with Load(service.url, "second", callers=CALLERS) as second:
            until(second.more_acknowledged(40), "it goes on")
        async with opened(url(path)) as store:
            await check(store, first, second)
            await check_learned(store, path.with_name("copy.db"))
            _, responses = await ledger(store)
            # Each caller had at most one response on its way when the service was killed.
            assert len(responses) <= len(first.acknowledged) + len(second.acknowledged) + CALLERS
            await the_supervisor_is_killed(service, store, (first, second))


async def the_supervisor_is_killed(service: Service, store: Store, before: Sequence[Load]) -> None:
    """Under load again: the others end by themselves, and in order, for nothing is done and not told."""
    decisions, responses = await ledger(store)
    with Load(service.url, "third", callers=CALLERS) as third:
        until(third.more_acknowledged(20), "it goes on")
        pids = service.processes()
        assert len(pids) == 3
        service.process.kill()
        third.join()
    until(lambda: not [pid for pid in pids if command(pid)], "no process is left")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{service.url}/healthz")
    await check(store, *before, third)
    after = await ledger(store)
    assert len(after[0]) - len(decisions) == len(third.answered)
    assert len(after[1]) - len(responses) == len(third.acknowledged)


async def test_whichever_is_killed_is_started_again_and_everything_is_counted_once(
    path: Path,
) -> None:
    with serving(url(path), path.with_suffix(".log"), "--interval", "0.2") as service:
        until(lambda: those(service, b"learn"), "the learner runs")
        supervisor = service.processes()[0]
        with Load(service.url, "only", callers=CALLERS, persistent=True) as callers:
            for kind in (b"learn", b"worker"):
                (victim,) = those(service, kind)
                until(callers.more_acknowledged(random.randint(40, 120)), "responses are acknowledged")
                lost = callers.lost
                os.kill(victim, signal.SIGKILL)
                another(service, kind, victim)
                assert kind == b"worker" or callers.lost == lost
            until(callers.more_acknowledged(40), "responses are acknowledged")
            # Their connections broke; those they opened next waited for the next worker: none was refused.
            assert 1 <= callers.lost <= CALLERS
        async with opened(url(path)) as store:
            await check(store, callers)
            await check_learned(store, path.with_name("copy.db"))
        pids = service.processes()
        assert (len(pids), pids[0]) == (3, supervisor)
        assert service.end() == 0
        assert [pid for pid in pids if command(pid)] == []
