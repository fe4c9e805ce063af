"""The reply to a decision: a pure function of the decision and the catalog's templates.

It is written as bytes here, once; these bytes are sent, recorded, and compared by a replay.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from arbitration.catalog.compile import CompiledCatalog
from arbitration.catalog.scalars import duration
from arbitration.decide import Decision, Item, Slate
from arbitration.explain import explain
from arbitration.facts import rfc3339
from decision.content import Renderer
from decision.publishing import Published


@dataclass(frozen=True, slots=True)
class Asked:
    """What the reply repeats or adds because the request asked for it. Recorded beside the inputs.

    `activation` is None of what was recorded before there was a choice: its reply has none of what came with
    it.
    """

    request_id: str | None = None
    explain: bool = False
    activation: str | None = "immediate"


def reply_bytes(decision: Decision, published: Published, asked: Asked) -> bytes:
    """The JSON reply."""
    renderer = Renderer(decision.inputs)
    placements = [_placement(slate, decision, published, renderer) for slate in decision.slates]
    due = reserved_until(decision, published.compiled) if asked.activation == "deferred" else None
    reply: dict[str, Any] = {
        "decision_id": decision.inputs.decision_id,
        "request_id": asked.request_id,
        "customer_id": decision.inputs.customer_id,
        "decided_at": rfc3339(decision.inputs.now),
        "catalog_version": decision.catalog_version,
        "channel": decision.channel,
        "not_before": decision.not_before,
        "reserved_until": None if due is None else rfc3339(due),
        "placements": placements,
        "control_group": decision.control_group,
        "degraded": [*decision.inputs.degraded, *renderer.failed],
    }
    if asked.activation is None:
        del reply["channel"], reply["not_before"], reply["reserved_until"]
    if asked.explain:
        reply["explanation"] = explain(decision, published.compiled)
    return orjson.dumps(reply)


def reserved_until(decision: Decision, catalog: CompiledCatalog) -> datetime | None:
    """Until when a deferred decision reserves what it shows; None where it shows nothing."""
    if decision.channel is None or not any(slate.items for slate in decision.slates):
        return None
    return decision.inputs.now + duration(catalog.channels[decision.channel].response_window)


def _placement(slate: Slate, decision: Decision, published: Published, renderer: Renderer) -> dict[str, Any]:
    placement = slate.candidates.placement
    items = [_item(item, published, renderer) for item in slate.items]
    fallback = published.templates.fallbacks.get(placement.id)
    # Nothing goes out in quiet hours, on a channel that is halted, or where another one was chosen.
    inputs = decision.inputs
    silent = placement.channel != decision.channel or placement.channel in inputs.quiet
    silent |= ("channel", placement.channel) in inputs.halts
    if not items and fallback is not None and not silent:
        return {
            "id": placement.id,
            "items": [_fallback(renderer.render(placement.id, fallback))],
            "no_action_reason": None,
        }
    return {"id": placement.id, "items": items, "no_action_reason": slate.no_action}


def _item(item: Item, published: Published, renderer: Renderer) -> dict[str, Any]:
    treatment = item.arm.treatment.id
    return {
        "action": item.arm.action.id,
        "group": item.arm.group.id,
        "treatment": treatment,
        "rank": item.rank,
        "content": renderer.render(treatment, published.templates.treatments[treatment]),
        "propensity": item.propensity,
        "priority": item.priority,
        "selection_probability": item.selection_probability,
        "is_fallback": False,
        "reasons": item.arm.reasons,
    }


def _fallback(content: dict[str, str]) -> dict[str, Any]:
    return {
        "action": None,
        "group": None,
        "treatment": None,
        "rank": 1,
        "content": content,
        "propensity": None,
        "priority": None,
        "selection_probability": 1.0,
        "is_fallback": True,
        "reasons": [],
    }
