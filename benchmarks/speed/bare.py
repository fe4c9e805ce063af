"""The yardstick: an endpoint of FastAPI with the messages of the service, and nothing behind them.

    python benchmarks/speed/bare.py PORT

As FastAPI's users write it: the request is validated, a reply of three items is built for each, and FastAPI
validates and writes that by its `response_model`. uvicorn with uvloop and httptools, one process, no access
log. `/bytes` takes the same request and answers bytes made before: what is left without a reply to write.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import uvicorn
from fastapi import FastAPI, Response
from uuid_utils import uuid7

from decision.messages import DecisionReply, DecisionRequest, ItemReply, PlacementReply

app = FastAPI()


@app.post("/v1/decisions", response_model=DecisionReply)
async def decide(request: DecisionRequest) -> DecisionReply:
    """Three items, the same for everybody."""
    return _reply(request)


@app.post("/bytes", response_model=DecisionReply)
async def decide_bytes(request: DecisionRequest) -> Response:
    """The same, written beforehand."""
    return Response(_WRITTEN, media_type="application/json")


def _reply(request: DecisionRequest) -> DecisionReply:
    items = [
        ItemReply(
            action=f"action_{rank}",
            group="retention",
            treatment=f"action_{rank}_desktop",
            rank=rank,
            content={"headline": "Stay another year, and get 20 % off"},
            propensity=0.313245,
            priority=17.412345,
            selection_probability=0.823412,
            is_fallback=False,
            reasons=["eligible"],
        )
        for rank in (1, 2, 3)
    ]
    return DecisionReply(
        decision_id=str(uuid7()),
        request_id=request.request_id,
        customer_id=request.customer_id,
        decided_at=datetime.now(UTC).isoformat(),
        catalog_version="0123456789abcdef",
        channel=request.channel,
        not_before=None,
        reserved_until=None,
        placements=[PlacementReply(id="panel", items=items, no_action_reason=None)],
        control_group=None,
        degraded=[],
    )


_WRITTEN = _reply(DecisionRequest(customer_id="c-1", channel="desktop")).model_dump_json().encode()


if __name__ == "__main__":
    uvicorn.run(
        app, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
