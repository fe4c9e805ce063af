"""Routes for what somebody may ask of us about themselves."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from decision.api.body import StrictRoute
from decision.api.customers import CustomerId
from decision.api.decisions import Parts
from decision.api.problems import documented
from decision.privacy.export import Exporting
from decision.privacy.messages import CustomerExport

router = APIRouter(prefix="/v1", tags=["privacy"], route_class=StrictRoute)


@router.get(
    "/customers/{customer_id}/export",
    operation_id="exportCustomer",
    response_model=CustomerExport,
    responses=documented(404),
)
async def export_customer(customer_id: CustomerId, parts: Parts) -> StreamingResponse:
    """Everything that is held of a customer: values with source and time, consents, names, what limits them,
    every decision with what it was made from and why it came out so, and who looked at any of it."""
    exporting = Exporting(parts.store, parts.live, parts.replaying, parts.clock)
    held = await exporting.held(customer_id)
    return StreamingResponse(exporting.written(held), media_type="application/json")
