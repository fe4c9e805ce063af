"""What the routes work with: the parts of the service, made once per process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from fastapi import Request

from decision.access.authentication import Authentication
from decision.access.rates import Rates
from decision.api.guard import Guard
from decision.api.watching import Watching
from decision.auditing import Auditing
from decision.clock import new_id, utc_now
from decision.deciding import Deciding
from decision.gathering import Gatherer
from decision.governance.governing import Governing
from decision.governance.scheduling import Scheduling
from decision.live import Live
from decision.metrics import Metrics
from decision.overview import Overview
from decision.pinning import Pinning
from decision.register import Register
from decision.releasing import Releasing
from decision.replaying import Replaying
from decision.reporting import Reporting
from decision.responding import Responding
from decision.sources.connections import Connections
from decision.sources.registry import Sources
from decision.storage.port import Store

if TYPE_CHECKING:  # who has no such tokens does not pay for what reads them
    from decision.access.oidc import Issuer, Oidc

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
    register: Register
    auditing: Auditing
    guard: Guard
    governing: Governing
    scheduling: Scheduling
    oidc: Oidc | None
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
    issuer: Issuer | None = None,
    local: bool = False,
) -> Context:
    """Puts the parts together around a store. `issuer`: whose tokens are accepted; `local`: the service
    listens to this machine only, and needs no keys while there are none."""
    metrics = Metrics()
    register, auditing = Register(store), Auditing(store, clock)
    oidc = None if issuer is None else _oidc(issuer, clock)
    guard = Guard(
        Authentication(register, clock, metrics.credential_refused, oidc=oidc, local=local), Rates(), auditing
    )
    sources = Sources(connections or {}, metrics.source_called)
    alarm = metrics.snapshots_refused
    live = Live(store, poll_seconds, sources.prepare, alarm, signing_key, register.refresh)
    gatherer = Gatherer(sources)
    governing = Governing(store, live, register, clock, ids)
    return Context(
        store,
        live,
        Deciding(store, live, gatherer, clock, ids, timeout_ms, metrics, register.halts),
        Replaying(store, live),
        Responding(store, live, clock),
        Releasing(store, live, clock, poll_seconds),
        sources,
        Overview(store, live, gatherer, clock),
        Reporting(store, live),
        Pinning(store, live, clock),
        metrics,
        Watching(store, live, sources, metrics, clock),
        register,
        auditing,
        guard,
        governing,
        Scheduling(governing, register, clock, poll_seconds),
        oidc,
        clock,
    )


def _oidc(issuer: Issuer, clock: Callable[[], datetime]) -> Oidc:
    from decision.access.oidc import Oidc
    from decision.sources.web import open_client

    return Oidc(issuer, open_client(), clock)


async def context_of(request: Request) -> Context:
    """The parts, for a route (FastAPI dependency; were it no coroutine, it would be called in a thread)."""
    context: Context = request.app.state.context
    return context
