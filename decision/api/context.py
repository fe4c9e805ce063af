"""What the routes work with: the parts of the service, made once per process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from fastapi import Request

from decision.api.watching import Watching
from decision.clock import new_id, utc_now
from decision.deciding import Deciding
from decision.gathering import Gatherer
from decision.live import Live
from decision.metrics import Metrics
from decision.overview import Overview
from decision.pinning import Pinning
from decision.releasing import Releasing
from decision.replaying import Replaying
from decision.reporting import Reporting
from decision.responding import Responding
from decision.sources.connections import Connections
from decision.sources.registry import Sources
from decision.storage.port import Store

TIMEOUT_MS = 150
"""The time of a request that names none, unless the service is told otherwise."""


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of the service."""

    store: Store
    live: Live
    deciding: Deciding
    replaying: Replaying
    responding: Responding
    releasing: Releasing
    sources: Sources
    overview: Overview
    reporting: Reporting
    pinning: Pinning
    metrics: Metrics
    watching: Watching
    clock: Callable[[], datetime]


def build(
    store: Store,
    *,
    clock: Callable[[], datetime] = utc_now,
    ids: Callable[[], str] = new_id,
    poll_seconds: float = 0.5,
    connections: Connections | None = None,
    timeout_ms: int = TIMEOUT_MS,
    signing_key: bytes = b"",
) -> Context:
    """Puts the parts together around a store."""
    metrics = Metrics()
    sources = Sources(connections or {}, metrics.source_called)
    live = Live(store, poll_seconds, sources.prepare, metrics.snapshots_refused, signing_key)
    gatherer = Gatherer(sources)
    return Context(
        store,
        live,
        Deciding(store, live, gatherer, clock, ids, timeout_ms, metrics),
        Replaying(store, live),
        Responding(store, live, clock),
        Releasing(store, live, clock, poll_seconds),
        sources,
        Overview(store, live, gatherer, clock),
        Reporting(store, live),
        Pinning(store, live, clock),
        metrics,
        Watching(store, live, sources, metrics, clock),
        clock,
    )


async def context_of(request: Request) -> Context:
    """The parts, for a route (FastAPI dependency; were it no coroutine, it would be called in a thread)."""
    context: Context = request.app.state.context
    return context
