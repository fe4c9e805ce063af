"""The route for responses: what came back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Discriminator, Field, Tag

from decision import browsing
from decision.api.body import StrictRoute
from decision.api.decisions import Parts
from decision.api.problems import ALONE, LISTED, documented
from decision.messages import RecordedReply, ResponseMessage

router = APIRouter(prefix="/v1", tags=["responses"], route_class=StrictRoute)
Messages = Annotated[list[ResponseMessage], Field(min_length=1, max_length=1000)]


def _form(body: object) -> str:
    return LISTED if isinstance(body, list) else ALONE


OneOrMore = Annotated[
    Annotated[ResponseMessage, Tag(ALONE)] | Annotated[Messages, Tag(LISTED)], Discriminator(_form)
]


@router.post("/responses", operation_id="respond", responses=documented(400, 409, 413, 415))
async def respond(body: OneOrMore, parts: Parts, http: Request) -> RecordedReply:
    """Records one response or a list, all or none, durably. A `response_id` counts once."""
    messages = body if isinstance(body, list) else [body]
    parts.guard.charge(http, len(messages) - 1)
    if (browser := browsing.parties(http.state.actor)) is not None:
        messages = await browsing.taken(messages, *browser, parts.store, listed=isinstance(body, list))
    new = await parts.responding.respond(messages, listed=isinstance(body, list))
    for message, was_new in zip(messages, new, strict=True):
        if was_new:
            parts.metrics.responded(message.outcome)
    return RecordedReply(recorded=sum(new), duplicates=len(new) - sum(new))
