"""Routes for reports."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Response

from arbitration.catalog.limits import Outcome
from decision.api.body import StrictRoute
from decision.api.decisions import Parts
from decision.api.problems import documented
from decision.messages import BudgetsReply, ControlGroupsReply, Key, LiftReply

router = APIRouter(prefix="/v1/reports", tags=["reports"], route_class=StrictRoute)


@router.get(
    "/control-groups",
    operation_id="reportControlGroups",
    response_model=ControlGroupsReply,
    responses=documented(),
)
async def control_groups(parts: Parts) -> Response:
    """Who is in and out of each control group, what they did, and whether its size can be by chance."""
    return _json({"control_groups": await parts.reporting.control_groups()})


@router.get("/lift", operation_id="reportLift", response_model=LiftReply, responses=documented())
async def lift(
    parts: Parts,
    days: Annotated[
        int, Query(ge=1, le=365, description="How long a customer counts, from the first exposure on.")
    ] = 28,
    outcome: Annotated[
        list[Outcome] | None,
        Query(description="What counts; repeat it for several. Default: what a channel rewards highest."),
    ] = None,
    control_group: Annotated[Key | None, Query(description="Only this one. Default: all.")] = None,
) -> Response:
    """What the machine brings over each control group, in customers with an outcome and in value, with
    intervals that hold however often it is looked at."""
    return _json(await parts.reporting.lift(parts.clock(), days, outcome, control_group))


@router.get("/budgets", operation_id="reportBudgets", response_model=BudgetsReply, responses=documented())
async def budgets(parts: Parts) -> Response:
    """What is taken of each budget, what of that is only reserved, and what is left."""
    return _json({"budgets": await parts.reporting.budgets()})


def _json(content: dict[str, object]) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")
