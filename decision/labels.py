"""Labels: what each shown item finally came to. Pure; the learner reads and writes them.

A contact opens a label (an outcome is awaited until the channel's response window ends), an outcome
closes it, a better outcome revises it. The rewards of the channel say which of two outcomes is better.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from arbitration.catalog.scalars import duration
from decision.storage.port import DecisionRecord, Label, ResponseRecord

if TYPE_CHECKING:
    from arbitration.catalog.model import Channel

ItemKey = tuple[str, str]
"""(decision id, treatment)."""


def contacted(
    decision: DecisionRecord, channel: Channel, treatments: Iterable[str], known: Mapping[ItemKey, Label]
) -> Iterable[Label]:
    """The labels that a decision opens by itself, on a channel where it is the contact. A deferred one is
    not: its contact is the impression, and there may be none."""
    if decision.mode != "live" or decision.activation == "deferred" or channel.contact != "decision":
        return
    due = decision.decided_at + duration(channel.response_window)
    for treatment in treatments:
        if (decision.decision_id, treatment) not in known:
            yield Label(decision.decision_id, treatment, None, due)


def answered(response: ResponseRecord, channel: Channel, known: Label | None) -> Label | None:
    """The label after a response, or None where it stays as it was."""
    if response.outcome == "impression":
        if known is not None:
            return None
        due = response.occurred_at + duration(channel.response_window)
        return Label(response.decision_id, response.treatment, None, due)
    if (
        known is not None
        and known.outcome is not None
        and _rank(channel, response.outcome) <= _rank(channel, known.outcome)
    ):
        return None
    return Label(response.decision_id, response.treatment, response.outcome, None)


def silent(label: Label) -> Label:
    """The label after its response window has passed without an answer."""
    return Label(label.decision_id, label.treatment, "no_response", None)


def _rank(channel: Channel, outcome: str) -> tuple[float, bool]:
    # Of two outcomes with the same reward, an answer says more than silence.
    return reward(channel, outcome), outcome != "no_response"


def reward(channel: Channel, outcome: str) -> float:
    """What an outcome is worth on a channel, in 0..1; one that the channel does not list is worth 0."""
    rewards: Mapping[str, float] = channel.rewards  # type: ignore[assignment]
    return rewards.get(outcome, 0.0)
