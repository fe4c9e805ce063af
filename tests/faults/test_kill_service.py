"""The service as it runs in production, processes and all: ended in order, killed, and its learner killed."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from support import asking, catalog_document

from arbitration.catalog.problems import Source
from arbitration.policy.state import State
from decision.api.context import utc_now
from decision.learner import Learner
from decision.publishing import check_document
from decision.settings import opened
from decision.storage.port import Cursor, DecisionRecord, ResponseRecord, Store

CALLERS = 4
POLICIES = len(catalog_document()["policies"])
CUSTOMERS = [f"c-{number}" for number in range(CALLERS)]
PROC = Path("/proc")

pytestmark = pytest.mark.skipif(not (PROC / "self" / "cmdline").exists(), reason="finds processes in /proc")


def until(done: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.01)


class Api:
    """`decision serve` on the database at `path`, as a process; the learner is its child."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "decision", "serve", "--store", f"sqlite:{path}"]
        command += ["--port", str(port), "--interval", "0.2"]
        with path.with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            until(self._ready, "the service is ready")
            until(lambda: bool(self.learners()), "the learner runs")
        except BaseException:
            self.kill()
            raise

    def _ready(self) -> bool:
        assert self.process.poll() is None, self._path.with_suffix(".log").read_text()
        try:
            return httpx.get(f"{self.url}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def learners(self) -> list[int]:
        """The learners on this database, whoever their parent is."""
        wanted = {b"learn", f"sqlite:{self._path}".encode()}
        found = []
        for directory in PROC.iterdir():
            if directory.name.isdigit():
                try:
                    words = (directory / "cmdline").read_bytes().split(b"\0")
                except OSError:  # it ended meanwhile
                    continue
                if wanted <= set(words):
                    found.append(int(directory.name))
        return found

    def kill(self) -> None:
        """kill -9 of the API process alone."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """Ends the service in order; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


@contextmanager
def serving(path: Path) -> Iterator[Api]:
    """Runs the service; whatever happens, none of its processes is left."""
    api = Api(path)
    try:
        yield api
    finally:
        if api.process.poll() is None:
            api.kill()
        for learner in api.learners():
            os.kill(learner, signal.SIGKILL)


class Callers:
    """Threads that decide and answer, one after the other, until the service is gone or they are stopped.

    `answered`: each reply by its decision id, and `acknowledged`: each response sent whose reply came.
    """

    def __init__(self, url: str, turn: str) -> None:
        self.answered: dict[str, bytes] = {}
        self.acknowledged: dict[str, dict[str, Any]] = {}
        self.lost = 0
        self.faults: list[str] = []
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(url, turn, number)) for number in range(CALLERS)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.join()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def done(self, responses: int) -> Callable[[], bool]:
        """Whether that many responses more than now are acknowledged (or something went wrong)."""
        wanted = len(self.acknowledged) + responses
        return lambda: len(self.acknowledged) >= wanted or bool(self.faults)

    def _call(self, url: str, turn: str, number: int) -> None:
        chance = random.Random(number)
        with httpx.Client(base_url=url, timeout=20) as client:
            try:
                for count in range(1_000_000):
                    if self._stopped.is_set():
                        return
                    self._round(client, number, f"r-{turn}-{number}-{count}", chance)
            except httpx.TransportError:
                self.lost += 1

    def _round(self, client: httpx.Client, number: int, response_id: str, chance: random.Random) -> None:
        churn = {"nps": chance.randint(0, 10), "plan": chance.choice(["Basic", "Max"])}
        reply = client.post("/v1/decisions", json=asking(CUSTOMERS[number], "panel", profile=churn))
        if not self._well(reply):
            return
        decision = reply.json()
        self.answered[decision["decision_id"]] = reply.content
        message = {
            "response_id": response_id,
            "decision_id": decision["decision_id"],
            "treatment": decision["placements"][0]["items"][0]["treatment"],
            "outcome": chance.choice(["accepted", "rejected"]),
        }
        if self._well(client.post("/v1/responses", json=message)):
            self.acknowledged[response_id] = message

    def _well(self, reply: httpx.Response) -> bool:
        if reply.status_code != 200:
            self.faults.append(reply.text)
            self._stopped.set()
        return reply.status_code == 200


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
    end = time.monotonic() + seconds
    while not await settled(store):
        assert time.monotonic() < end, "the learner does not catch up"
        time.sleep(0.02)


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


def test_sigterm_ends_the_service_and_its_learner_in_order(path: Path) -> None:
    with serving(path) as api:
        assert len(api.learners()) == 1
        assert api.end() == 0
        assert api.learners() == []


async def test_a_kill_of_the_service_under_load_loses_nothing(path: Path) -> None:
    with serving(path) as api, Callers(api.url, "first") as first:
        until(first.done(random.randint(60, 160)), "responses are acknowledged")
        api.kill()
        first.join()
        assert first.faults == []
        assert first.lost == CALLERS
        until(lambda: not api.learners(), "the learner ends when its parent is no more")

    with serving(path) as api, httpx.Client(base_url=api.url, timeout=20) as client:
        for decision_id, content in first.answered.items():
            assert client.get(f"/v1/decisions/{decision_id}").content == content
        for message in first.acknowledged.values():
            reply = client.post("/v1/responses", json=message)
            assert reply.json() == {"recorded": 0, "duplicates": 1}
        with Callers(api.url, "second") as second:
            until(second.done(40), "it goes on")
        assert second.faults == []
        async with opened(f"sqlite:{path}") as store:
            await check_learned(store, path.with_name("copy.db"))
            _, responses = await ledger(store)
            ids = [response.response_id for response in responses]
            assert len(ids) == len(set(ids))
            assert {*first.acknowledged, *second.acknowledged} <= set(ids)
            # Each caller had at most one response on its way when the service was killed.
            assert len(ids) <= len(first.acknowledged) + len(second.acknowledged) + CALLERS
        assert api.end() == 0


async def test_a_killed_learner_is_started_again_and_has_counted_everything_once(path: Path) -> None:
    with serving(path) as api:
        (learner,) = api.learners()
        with Callers(api.url, "only") as callers:
            for _ in range(2):
                until(callers.done(random.randint(40, 120)), "responses are acknowledged")
                os.kill(learner, signal.SIGKILL)
                until(partial(_others, api, learner), "it is started again")
                (learner,) = _others(api, learner)
            until(callers.done(40), "responses are acknowledged")
        assert callers.faults == []
        assert callers.lost == 0
        async with opened(f"sqlite:{path}") as store:
            await check_learned(store, path.with_name("copy.db"))
        assert api.learners() == [learner]
        assert api.end() == 0
        assert api.learners() == []


def _others(api: Api, learner: int) -> list[int]:
    return [pid for pid in api.learners() if pid != learner]
