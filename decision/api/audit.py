"""The route for the audit trail."""

from __future__ import annotations

from typing import Annotated

import orjson
from fastapi import APIRouter, Query, Response

from decision.access.messages import AuditReply
from decision.api.body import StrictRoute
from decision.api.decisions import Parts
from decision.api.problems import documented
from decision.auditing import to_json
from decision.messages import Key

router = APIRouter(prefix="/v1", tags=["audit"], route_class=StrictRoute)


@router.get("/audit", operation_id="readAudit", response_model=AuditReply, responses=documented())
async def read(
    parts: Parts,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    customer_id: Annotated[Key | None, Query()] = None,
) -> Response:
    """The audit trail, oldest first: all of it, or what is about one customer. `after`: the last entry that
    is known already. Customers are in it by a mark, which tells nothing of them."""
    subjects = None if customer_id is None else [await parts.auditing.mark(customer_id)]
    entries = await parts.store.entries(after, limit, subjects=subjects)
    body = orjson.dumps({"entries": [to_json(entry) for entry in entries]})
    return Response(body, media_type="application/json")
