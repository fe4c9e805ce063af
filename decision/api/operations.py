"""Routes for those who run the service: liveness, readiness, metrics."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from decision.api.body import StrictRoute
from decision.api.decisions import Parts
from decision.api.problems import documented
from decision.errors import Rejected
from decision.messages import HealthReply

router = APIRouter(tags=["operations"], route_class=StrictRoute)


@router.get("/healthz", operation_id="healthz")
async def healthz() -> HealthReply:
    """The process answers. That says nothing of what it needs: to start it again would mend none of that."""
    return HealthReply(status="ok")


@router.get("/readyz", operation_id="readyz", responses=documented())
async def readyz(request: Request, parts: Parts) -> HealthReply:
    """The process can decide: the store is there, and a catalog is loaded. It is not about to end."""
    if request.app.state.door.closing:
        raise Rejected(503, "closing", "This process is about to end.")
    await parts.store.ping()
    if not parts.live.ready:
        raise Rejected(503, "no_catalog", "No catalog has been published yet.")
    return HealthReply(status="ready")


@router.get(
    "/metrics",
    operation_id="metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **documented()},
)
async def metrics(parts: Parts) -> Response:
    """Counters, gauges and histograms, of all processes that belong together, for Prometheus."""
    await parts.watching.look()
    text = await asyncio.to_thread(parts.metrics.exposition)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
