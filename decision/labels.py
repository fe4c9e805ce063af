"""Labels: what each shown item came to. Pure; the learner reads and writes them.

A label is worked out anew from all that was heard of its item, so the order in which it came does not
matter: a contact opens it, outcomes close it, and where none comes until the response window has passed,
silence does.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from arbitration.catalog.scalars import duration
from decision.storage.port import DecisionRecord, Label, Outcomes, ResponseRecord

if TYPE_CHECKING:
    from arbitration.catalog.model import Channel

ItemKey = tuple[str, str]
"""(decision id, treatment)."""

SILENCE = "no_response"


def label_of(
    decision: DecisionRecord,
    treatment: str,
    channel: Channel,
    responses: Collection[ResponseRecord],
    now: datetime,
) -> Label | None:
    """What is known of an item at `now`, or None where there was no contact yet. `responses`: all to its
    decision, in any order.

    The contact is the decision itself, where the channel says so and it was not deferred, or the first thing
    heard of the item. A reported silence counts only where nothing else was heard. Whatever a caller's clock
    says, nothing occurred before the decision.
    """
    if decision.mode != "live":
        return None
    mine = [each for each in responses if each.treatment == treatment]
    corrected = {response.corrects for response in responses} if mine else ()
    answers = [each for each in mine if each.outcome != "impression" and each.response_id not in corrected]
    if len(answers) > 1:
        answers.sort(
            key=lambda each: (max(each.occurred_at, decision.decided_at), each.received_at, each.response_id)
        )
    said = [each for each in answers if each.outcome != SILENCE] or answers[:1]
    if said:
        outcomes = tuple((each.outcome, each.value) for each in said)
        return Label(decision.decision_id, treatment, outcomes, None)
    contacts = [max(each.occurred_at, decision.decided_at) for each in mine]
    if channel.contact == "decision" and decision.activation != "deferred":
        contacts.append(decision.decided_at)
    if not contacts:
        return None
    due = min(contacts) + _window(channel.response_window)
    if due <= now:
        return Label(decision.decision_id, treatment, ((SILENCE, None),), None)
    return Label(decision.decision_id, treatment, None, due)


_window = lru_cache(duration)


def reward(channel: Channel, outcomes: Outcomes) -> float:
    """What several outcomes of one item are worth together on a channel: float ≥ 0, and at most 1 but for
    `sum`. An outcome that the channel does not list is worth 0."""
    return _combined(channel, [channel.rewards.get(outcome, 0.0) for outcome, _ in outcomes])  # type: ignore[call-overload]


def value(channel: Channel, outcomes: Outcomes) -> float:
    """The money reported with several outcomes of one item, combined in the same way; none reported is 0."""
    return _combined(channel, [amount or 0.0 for _, amount in outcomes])


def _combined(channel: Channel, parts: Sequence[float]) -> float:
    match channel.combine:
        case "last":
            return parts[-1]
        case "sum":
            return sum(parts)
        case "max":
            return max(parts)
