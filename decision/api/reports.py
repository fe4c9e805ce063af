"""Routes for reports."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Response

from decision.api.body import StrictRoute
from decision.api.decisions import Parts
from decision.api.problems import documented
from decision.messages import BudgetsReply, ControlGroupsReply

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


@router.get("/budgets", operation_id="reportBudgets", response_model=BudgetsReply, responses=documented())
async def budgets(parts: Parts) -> Response:
    """What is taken of each budget, what of that is only reserved, and what is left."""
    return _json({"budgets": await parts.reporting.budgets()})


def _json(content: dict[str, object]) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")
