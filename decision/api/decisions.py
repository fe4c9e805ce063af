"""Routes for decisions: make, read, replay, explain."""

from __future__ import annotations

import time
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import ValidationError

from arbitration.errors import NextBestActionError
from decision import browsing
from decision.access.actor import Actor
from decision.access.messages import BrowserReply
from decision.api.body import DirectRoute, StrictRoute
from decision.api.context import Context, context_of
from decision.api.problems import documented, problem_of
from decision.errors import FieldError, Rejected, validation_errors
from decision.messages import (
    BatchReply,
    BatchRequest,
    DecisionReply,
    DecisionRequest,
    ExplanationReply,
    Key,
    ReplayReply,
)
from decision.storage.port import Event, Identity, pseudonym

router = APIRouter(prefix="/v1", tags=["decisions"], route_class=StrictRoute)
direct = APIRouter(prefix="/v1", tags=["decisions"], route_class=DirectRoute)
Parts = Annotated[Context, Depends(context_of)]
DecisionId = Annotated[Key, Path()]


class _Json(Response):
    """JSON that is bytes already."""

    def __init__(self, body: bytes) -> None:
        self.status_code, self.background, self.body = 200, None, body
        self.raw_headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
        ]


@direct.post(
    "/decisions",
    operation_id="decide",
    response_model=DecisionReply | BrowserReply,
    responses=documented(400, 409, 413, 415),
)
async def decide(request: DecisionRequest, parts: Parts, http: Request) -> Response:
    """Decides what to show one customer in one situation, and commits it before answering. With a publishable
    key, only for the visitor of the token, and the reply has no more than a page needs."""
    started = time.perf_counter()
    browser = browsing.parties(http.state.actor)
    if browser is not None:
        request = browsing.asked(request, *browser)
    elif request.explain:
        await _shown(request, parts, http.state.actor)
    reply = await parts.deciding.decide(request)
    parts.metrics.seconds.observe(time.perf_counter() - started)
    return _Json(reply if browser is None else browsing.shown(reply))


router.routes.extend(direct.routes)


@router.post(
    "/decisions:batch",
    operation_id="decideBatch",
    response_model=BatchReply,
    responses=documented(400, 413, 415),
)
async def decide_batch(batch: BatchRequest, parts: Parts, http: Request) -> Response:
    """Decides up to 1,000 requests, each for itself: one that fails does not touch its neighbours."""
    parts.guard.charge(http, len(batch.requests) - 1)
    results = await parts.deciding.decide_all(
        [await _allowed(_read(item), parts, http.state.actor) for item in batch.requests]
    )
    replies = []
    for result in results:
        if isinstance(result, NextBestActionError):
            document = problem_of(result)
            replies.append({"status": document["status"], "problem": document})
        else:
            replies.append({"status": 200, "decision": orjson.Fragment(result)})
    return _Json(orjson.dumps({"results": replies}))


async def _allowed(
    request: DecisionRequest | NextBestActionError, parts: Context, actor: Actor
) -> DecisionRequest | NextBestActionError:
    if isinstance(request, DecisionRequest) and request.explain:
        try:
            await _shown(request, parts, actor)
        except Rejected as error:
            return error
    return request


async def _shown(request: DecisionRequest, parts: Context, actor: Actor) -> None:
    """An explanation tells what is known of the customer: it takes the right to that, and is written down as
    any other look. Raises Rejected (403)."""
    if "profiles:read" not in actor.scopes:
        error = FieldError("explain", "scope_missing", "it takes the scope profiles:read")
        raise Rejected(403, "scope_missing", "The credential does not allow this.", [error])
    who = request.customer_id
    if request.identity is not None:
        who = pseudonym(Identity(request.identity.type, request.identity.value))
    subject = await parts.auditing.mark(who or "")
    await parts.auditing.record(Event("decision.explain", actor.name, subject))


def _read(item: object) -> DecisionRequest | NextBestActionError:
    try:
        return DecisionRequest.model_validate(item)
    except ValidationError as error:
        return Rejected(422, "invalid_request", "The request has faults.", validation_errors(error.errors()))


@router.get(
    "/decisions/{decision_id}",
    operation_id="getDecision",
    response_model=DecisionReply,
    responses=documented(404, 410),
)
async def get_decision(decision_id: DecisionId, parts: Parts) -> Response:
    """The reply as it was given, byte for byte."""
    return _Json((await parts.replaying.record(decision_id)).reply)


@router.post(
    "/decisions/{decision_id}/replay",
    operation_id="replayDecision",
    response_model=ReplayReply,
    responses=documented(404, 410),
)
async def replay(decision_id: DecisionId, parts: Parts) -> Response:
    """Makes the decision again from its recorded inputs and versions, and compares the bytes."""
    replayed = await parts.replaying.replay(decision_id)
    return _Json(orjson.dumps({"identical": replayed.identical, "decision": orjson.Fragment(replayed.reply)}))


@router.get(
    "/decisions/{decision_id}/explanation",
    operation_id="explainDecision",
    response_model=ExplanationReply,
    responses=documented(404, 410),
)
async def explanation(decision_id: DecisionId, parts: Parts) -> Response:
    """Why it came out so: the funnel, each removed arm with its rule, each remaining one with its numbers."""
    return _Json(orjson.dumps(await parts.replaying.explanation(decision_id)))
