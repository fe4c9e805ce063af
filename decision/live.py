"""What a process serves at this moment: one catalog and its snapshots, swapped as a whole.

New versions are made ready beside the old one, in a thread, and then swapped by one assignment, so no
decision ever sees half of a change. Loading a snapshot is decompression and linear algebra, which release
the interpreter; compiling a catalog holds it, in turns, and shows in the tail of decisions meanwhile
(`benchmarks/results/snapshot_swap.md`). What past decisions were made with is loaded again on demand, for
replays.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from arbitration.catalog.compile import CompiledCatalog
from arbitration.errors import SnapshotError
from arbitration.snapshot import PRIOR, Snapshot, lineage, load, serve
from decision import collecting
from decision.errors import Rejected
from decision.fault_log import FaultLog
from decision.publishing import Published, load_published
from decision.storage.port import Store
from decision.warming import warm

log = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")

Prepare = Callable[[CompiledCatalog], Awaitable[None]]

_REMEMBERED = 16


@dataclass(frozen=True, slots=True)
class Serving:
    """A catalog and, per policy, the snapshot it decides with.

    `learned`: the newest snapshots there were. `settled`: none of them had to be refused.
    """

    published: Published
    snapshots: Mapping[str, Snapshot]
    learned: Mapping[str, str]
    settled: bool


class Live:
    """The live `Serving` of this process, and the way to past ones."""

    def __init__(
        self,
        store: Store,
        poll_seconds: float = 0.5,
        prepare: Prepare | None = None,
        alarm: Callable[[Mapping[str, str]], None] = lambda refused: None,
        signing_key: bytes = b"",
        follow: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`follow`: what else is to be read whenever there may be news; `prepare`: what else has to be made
        ready for a catalog before it is served; `alarm`: is told after every look which snapshots are
        refused, by policy."""
        self._store = store
        self._prepare = prepare
        self._poll_seconds = poll_seconds
        self._serving: Serving | None = None
        self._catalogs: OrderedDict[str, Published] = OrderedDict()
        self._snapshots: OrderedDict[tuple[str, str, str], Snapshot] = OrderedDict()
        self._alarm = alarm
        self._signing_key = signing_key
        self._follow = follow
        self.refused: dict[str, str] = {}
        self._refreshing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def serving(self) -> Serving:
        """What decisions are made with now. Raises Rejected (503) while no catalog is published."""
        if self._serving is None:
            raise Rejected(503, "no_catalog", "No catalog has been published yet.")
        return self._serving

    @property
    def ready(self) -> bool:
        """Whether there is anything to decide with."""
        return self._serving is not None

    async def start(self) -> None:
        """Loads what is live and begins to watch for newer versions."""
        await self.refresh()
        self._task = asyncio.create_task(self._watch(), name="live")

    async def stop(self) -> None:
        """Ends the watch."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def refresh(self) -> None:
        """Swaps to the newest catalog and snapshots, if they are newer than what is served."""
        async with self._refreshing:
            if self._follow is not None:
                await self._follow()
            publication = await self._store.live_catalog()
            if publication is None:
                return
            learned = await self._store.live_snapshots()
            serving = self._serving
            if (
                serving is not None
                and serving.published.version == publication.version
                and serving.learned == learned
                and serving.settled
            ):
                return
            with collecting.loading():
                published = await self.published(publication.version)
                wanted = {
                    policy: learned.get(lineage(published.compiled, policy), PRIOR)
                    for policy in published.compiled.policies
                }
                refused: dict[str, str] = {}
                snapshots = {
                    policy: await self._serve_or_keep(published, policy, version, refused)
                    for policy, version in wanted.items()
                }
                self.refused = refused
                self._alarm(refused)
                if self._prepare is not None:
                    await self._prepare(published.compiled)
                if serving is None or serving.published is not published:
                    await asyncio.to_thread(warm, published, snapshots, datetime.now(UTC))
                self._serving = Serving(published, snapshots, learned, settled=not refused)

    async def published(self, version: str) -> Published:
        """A catalog version, live or past. Raises Rejected (404) where it is not known."""
        if version not in self._catalogs:
            document = await self._store.catalog(version)
            if document is None:
                raise Rejected(404, "unknown_catalog_version", "There is no such catalog version.")
            _remember(self._catalogs, version, await asyncio.to_thread(load_published, version, document))
        self._catalogs.move_to_end(version)
        return self._catalogs[version]

    async def snapshot(self, published: Published, policy: str, version: str) -> Snapshot:
        """A snapshot of a policy, live or past, over the arms of a catalog. Raises SnapshotError."""
        key = (published.version, policy, version)
        if key not in self._snapshots:
            content = None
            if version != PRIOR:
                record = await self._store.snapshot(version)
                if record is None:
                    raise SnapshotError(f"there is no snapshot {version}")
                content = record.content
            _remember(
                self._snapshots, key, await asyncio.to_thread(self._load, published, policy, version, content)
            )
        self._snapshots.move_to_end(key)
        return self._snapshots[key]

    async def _serve_or_keep(
        self, published: Published, policy: str, version: str, refused: dict[str, str]
    ) -> Snapshot:
        try:
            return await self.snapshot(published, policy, version)
        except SnapshotError:
            refused[policy] = version
            if self.refused.get(policy) != version:  # it is tried at every poll, as it may be mended
                log.exception("snapshot %s of policy %s is refused", version, policy)
        line, old = lineage(published.compiled, policy), self._serving
        before = [at for at, _ in await self._store.snapshots(line, _REMEMBERED) if at != version]
        if old is not None and policy in old.snapshots:
            before.insert(0, old.snapshots[policy].version)
        for candidate in before:
            if candidate in (PRIOR, version):
                continue
            try:
                return await self.snapshot(published, policy, candidate)
            except SnapshotError:  # of another lineage, or damaged too
                log.warning("nor can snapshot %s of policy %s be served", candidate, policy)
        return await self.snapshot(published, policy, PRIOR)

    def _load(self, published: Published, policy: str, version: str, content: bytes | None) -> Snapshot:
        if content is None:
            return serve(published.compiled, policy, None, version)
        hashed = version.rpartition("-")[2]
        return load(published.compiled, policy, version, content, hashed, self._signing_key)

    async def _watch(self) -> None:
        faults = FaultLog(log, "the newest catalog or snapshot is not loaded; the old one keeps serving")
        while True:
            try:
                await self._store.news(self._poll_seconds)
                await self.refresh()
                faults.well()
            except Exception as error:  # noqa: BLE001  # the watch must outlive whatever it meets
                faults.fault(error)
                await asyncio.sleep(self._poll_seconds)


def _remember(cache: OrderedDict[K, V], key: K, value: V) -> None:
    cache[key] = value
    while len(cache) > _REMEMBERED:
        cache.popitem(last=False)
