"""Another process that publishes catalogs and commits snapshots while decisions are measured.

    python -m benchmarks.speed.swaps STORE ARMS PORT

Reads lines: `KIND N SECONDS` makes N new versions ready, and says so; the next line, `go`, has them written,
one in the middle of each so many seconds; it says when all are. `catalog` and `snapshot` are written into the
store, as a publish by the command line and a learner do; what that takes is done before, so that only what
the service does of itself is seen. `publish` has the service do it: documents are sent to it, on PORT.
"""

from __future__ import annotations

import asyncio
import copy
import http.client
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import orjson

from arbitration.catalog.problems import Source
from arbitration.snapshot import lineage
from benchmarks.speed.servers import WIDTH
from benchmarks.speed.workload import POLICY, World, world
from decision.clock import utc_now
from decision.publishing import check_document
from decision.settings import opened
from decision.storage.port import SnapshotRecord, Store

ROOT = Path(__file__).parents[2]
Kind = Literal["catalog", "snapshot", "publish"]
Write = Callable[[], Awaitable[object]]


class Swaps:
    """The process, as who measures sees it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def prepare(self, kind: Kind, count: int, every: float) -> None:
        """Waits until `count` versions are ready to be written, `every` so many seconds."""
        self._say(f"{kind} {count} {every}")
        self.done()

    def go(self) -> None:
        """Begins to write them, and does not wait."""
        self._say("go")

    def done(self) -> None:
        """Waits until it has done what it was told."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "done\n", "the process that swaps has failed"

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()


@contextmanager
def swapping(url: str, arms: int, port: int) -> Iterator[Swaps]:
    """Runs it beside, on the same processors as the caller."""
    command = [sys.executable, "-m", "benchmarks.speed.swaps", url, str(arms), str(port)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        yield Swaps(process)  # it ends when its input does


async def _swap(url: str, arms: int, port: int) -> None:
    made = world(arms, width=WIDTH)
    makes: dict[str, Callable[[Store, World, int], Write]] = {
        "catalog": _catalog,
        "snapshot": _snapshot,
        "publish": partial(_publish, port),
    }
    number = 0
    async with opened(url) as store:
        while line := sys.stdin.readline():
            kind, count, every = line.split()
            numbers = range(number + 1, number + 1 + int(count))
            number += int(count)
            writes = [makes[kind](store, made, each) for each in numbers]
            _done()
            assert sys.stdin.readline() == "go\n"
            for write in writes:
                await asyncio.sleep(float(every) / 2)
                await write()
                await asyncio.sleep(float(every) / 2)
            _done()


def _done() -> None:
    sys.stdout.write("done\n")
    sys.stdout.flush()


def _changed(made: World, number: int) -> dict[str, Any]:
    document = copy.deepcopy(made.document)
    document["actions"][0]["lever"] = 1 + number / 1000
    return document


def _publish(port: int, _: Store, made: World, number: int) -> Write:
    body = orjson.dumps(_changed(made, number))

    async def write() -> None:
        caller = http.client.HTTPConnection("localhost", port)
        caller.request("POST", "/v1/catalog/publish", body, {"content-type": "application/json"})
        answer = caller.getresponse()
        assert answer.status == 200, answer.read()
        caller.close()

    return write


def _catalog(store: Store, made: World, number: int) -> Write:
    checked = check_document(Source(_changed(made, number)))
    assert checked.published is not None, checked.problems
    version, content = checked.published.version, checked.document
    return lambda: store.publish_catalog(version, content, utc_now())


def _snapshot(store: Store, made: World, number: int) -> Write:
    state = made.states[POLICY]
    state.count[0] += number
    digest, content = state.to_bytes()
    line = lineage(made.catalog, POLICY)

    async def write() -> None:
        cursor = await store.cursor()
        record = SnapshotRecord(f"{line}-{digest}", line, utc_now(), content)
        await store.commit_learning([], [record], cursor, expected=cursor, lineages=[line])

    return write


if __name__ == "__main__":
    os.nice(10)  # it is not what is measured
    asyncio.run(_swap(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
