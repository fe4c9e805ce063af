"""The route of the fairness report."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Response

from decision.api.body import StrictRoute
from decision.api.decisions import Parts
from decision.api.problems import documented
from decision.fairness.messages import FairnessReply
from decision.fairness.report import FairnessReport, Window
from decision.messages import Key, Time

router = APIRouter(prefix="/v1/reports", tags=["reports"], route_class=StrictRoute)


@router.get("/fairness", operation_id="reportFairness", response_model=FairnessReply, responses=documented())
async def fairness(
    parts: Parts,
    since: Annotated[Time | None, Query(description="Decisions from then on; default: all.")] = None,
    until: Annotated[Time | None, Query(description="Decisions before then; default: all.")] = None,
    attribute: Annotated[Key | None, Query(description="Only this sensitive attribute.")] = None,
    channel: Annotated[Key | None, Query(description="Only decisions on this channel.")] = None,
) -> Response:
    """What was shown to, and accepted by, the customers with each value of a sensitive attribute, how these
    compare, and how sure that is. It says how much they differ, not why."""
    report = FairnessReport(parts.store, parts.live)
    found = await report.make(parts.clock(), Window(since, until, channel), attribute)
    return Response(orjson.dumps(found), media_type="application/json")
