"""Watches the service from outside and from inside: each request that passes, and what stands each moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from arbitration.snapshot import PRIOR, lineage
from decision.errors import StoreUnavailable
from decision.live import Live, Serving
from decision.metrics import Metrics
from decision.sources.registry import Sources
from decision.storage.port import Store

log = logging.getLogger(__name__)

_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"})
_SECONDS = 1.0
_PATIENCE = 2.0
_LOOKED_THROUGH = 64  # of the newest snapshots, for when the one that is served was made


class Watched:
    """Middleware that counts requests, by the template of their route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on, and looks at the status that comes back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 500  # where nothing comes back

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, seen)
        finally:
            self._metrics.in_flight.inc(-1)
            route = getattr(scope.get("route"), "path", "")
            method = scope["method"] if scope["method"] in _METHODS else ""
            self._metrics.answered(method, route, status)


class Watching:
    """Keeps the gauges up to date that nothing else moves. `clock` gives aware UTC."""

    def __init__(
        self, store: Store, live: Live, sources: Sources, metrics: Metrics, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._live = live
        self._sources = sources
        self._metrics = metrics
        self._clock = clock
        self._known: Serving | None = None
        self._made: dict[str, datetime | None] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look, each second."""
        self._metrics.hold()
        self._task = asyncio.create_task(self._watch(), name="watching")

    async def stop(self) -> None:
        """Ends it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._metrics.settle()

    async def look(self) -> None:
        """Looks once. Never fails: where the store cannot be read, that is what is seen."""
        self._metrics.settle()
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._store.ping()
                if self._live.ready and self._live.serving is not self._known:
                    await self._meet(self._live.serving)
            self._metrics.store_up.set(1)
        except (StoreUnavailable, TimeoutError):
            self._metrics.store_up.set(0)
        self._metrics.waiting.set(self._store.waiting())
        for source, is_open in self._sources.circuits().items():
            self._metrics.circuits.labels(source).set(is_open)
        now = self._clock()
        for policy, made in self._made.items():
            age = 0.0 if made is None else (now - made).total_seconds()
            self._metrics.snapshot_age.labels(policy).set(age)

    async def _meet(self, serving: Serving) -> None:
        publication = await self._store.live_catalog()
        if publication is not None and publication.version == serving.published.version:
            self._metrics.catalog_published.set(publication.published_at.timestamp())
        made: dict[str, datetime | None] = dict.fromkeys(self._made)  # of policies that are gone: none
        for policy, snapshot in serving.snapshots.items():
            made[policy] = None if snapshot.version == PRIOR else await self._when(serving, policy)
        self._made, self._known = made, serving

    async def _when(self, serving: Serving, policy: str) -> datetime | None:
        version = serving.snapshots[policy].version
        line = lineage(serving.published.compiled, policy)
        found = dict(await self._store.snapshots(line, _LOOKED_THROUGH))
        if version in found:
            return found[version]
        record = await self._store.snapshot(version)
        return None if record is None else record.created_at

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:  # the watch must outlive whatever it meets
                log.exception("what stands could not be looked at")
            await asyncio.sleep(_SECONDS)
