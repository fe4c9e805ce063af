"""What browsers may ask and get to see: one visitor, whom the site has signed for, and nothing of what is
known or thought of anybody."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import orjson

from decision.errors import FieldError, Rejected
from decision.messages import DecisionRequest, IdentityMessage, ResponseMessage
from decision.storage.port import Store, pseudonym

if TYPE_CHECKING:
    from decision.access.actor import Actor
    from decision.access.keys import Publishable
    from decision.access.visitors import Visitor


_MOST = 50
"""Responses that a page may report at once."""


def parties(actor: Actor) -> tuple[Visitor, Publishable] | None:
    """The visitor and what the key is for; None where the caller is no browser."""
    if actor.visitor is None:
        return None
    assert actor.key is not None
    assert actor.key.publishable is not None
    return actor.visitor, actor.key.publishable


def asked(request: DecisionRequest, visitor: Visitor, key: Publishable) -> DecisionRequest:
    """The request as the visitor's own. Raises Rejected (403), which names what a browser may not ask for."""
    named = None if request.identity is None else (request.identity.type, request.identity.value)
    signed = None if visitor.identity is None else (visitor.identity.type, visitor.identity.value)
    channels = {request.channel, *(request.channels or ())} - {None}
    refused = [
        FieldError(field, "not_for_browsers", message)
        for field, wrong, message in (
            ("customer_id", request.customer_id not in (None, visitor.customer_id), "is another's"),
            ("identity", named not in (None, signed), "is another's"),
            ("channel", not channels <= key.channels, "the key is not for this channel"),
            ("profile", bool(request.profile), "is not for browsers to say"),
            ("explain", request.explain, "explanations are not for browsers"),
            ("mode", request.mode != "live", "browsers decide live"),
            ("timeout_ms", request.timeout_ms is not None, "is not for browsers to say"),
        )
        if wrong
    ]
    if refused:
        raise Rejected(403, "not_for_browsers", "A browser may not ask for this.", refused)
    identity = visitor.identity
    named_by = None if identity is None else IdentityMessage(type=identity.type, value=identity.value)
    return request.model_copy(update={"customer_id": visitor.customer_id, "identity": named_by})


def shown(reply: bytes) -> bytes:
    """Of a reply, what a page needs to show it and to report on it."""
    whole = orjson.loads(reply)
    part = {name: whole[name] for name in ("decision_id", "request_id", "decided_at")}
    part["placements"] = [
        {
            "id": placement["id"],
            "items": [
                {name: item[name] for name in ("treatment", "rank", "content", "is_fallback")}
                for item in placement["items"]
            ],
        }
        for placement in whole["placements"]
    ]
    return orjson.dumps(part)


async def taken(
    messages: Sequence[ResponseMessage], visitor: Visitor, key: Publishable, store: Store, *, listed: bool
) -> list[ResponseMessage]:
    """A visitor's responses to their own decisions, each of which counts once, whatever id the page gives it.
    Raises Rejected (403, 422); a decision of somebody else's is as unknown as one that is not there."""
    if len(messages) > _MOST:
        error = FieldError("body", "too_many", f"a page reports at most {_MOST} at once")
        raise Rejected(422, "too_many", "Too many responses at once.", [error])
    if visitor.identity is None:
        names = await store.names(visitor.customer_id or "")
        own = set(names.keys)
    else:
        found = await store.resolve(visitor.identity)
        own = {pseudonym(visitor.identity)} | (
            set() if found is None else set((await store.names(found)).keys)
        )
    decisions = await store.decisions([message.decision_id for message in messages])
    refused: list[FieldError] = []
    for number, message in enumerate(messages):
        prefix = f"[{number}]." if listed else ""
        decision = decisions.get(message.decision_id)
        if decision is None or decision.customer_id not in own:
            text = "there is no decision with this id"
            refused.append(FieldError(f"{prefix}decision_id", "unknown_decision", text))
        if message.outcome not in key.outcomes:
            text = f"the key may report {', '.join(sorted(key.outcomes))}"
            refused.append(FieldError(f"{prefix}outcome", "not_for_browsers", text))
        for field in ("value", "corrects", "occurred_at"):
            if getattr(message, field) is not None:
                refused.append(
                    FieldError(f"{prefix}{field}", "not_for_browsers", "is not for browsers to say")
                )
    if refused:
        unknown = all(each.code == "unknown_decision" for each in refused)
        code = "invalid_response" if unknown else "not_for_browsers"
        raise Rejected(422 if unknown else 403, code, "A response is not this visitor's to give.", refused)
    return [message.model_copy(update={"response_id": _once(message)}) for message in messages]


def _once(message: ResponseMessage) -> str:
    said = f"{message.decision_id}|{message.treatment}|{message.outcome}"
    return "browser:" + blake2b(said.encode(), digest_size=16).hexdigest()
