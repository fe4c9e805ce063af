"""What the routes of privacy answer."""

from __future__ import annotations

from typing import Any, Literal

from decision.messages import (
    ConsentReply,
    ExplanationReply,
    HeldBackReply,
    HistoryDecision,
    IdentityMessage,
    Reply,
    StopReply,
)


class HeldValue(Reply):
    """A value that is stored of a customer. `source`: who keeps it, which is this service; `told_at`: when it
    was last told to us (null: before that was kept); `description` and `pii`: as the live catalog has it,
    null where it declares no such value any more."""

    name: str
    value: Any
    source: Literal["store"]
    told_at: str | None
    description: str | None
    pii: bool | None


class HeldConsent(ConsentReply):
    """A consent that is stored. `description` and `profiling`: of the purpose, as the live catalog has it."""

    purpose: str
    description: str | None
    profiling: bool | None


class HeldMembership(Reply):
    """Whether the customer was found to be in a control group, which had this share then. `since`: when the
    group's window begins, where it begins."""

    control_group: str
    since: str | None
    member: bool
    share: float


class HeldDecision(HistoryDecision):
    """A decision, with all that is recorded of it. `recorded_as`: the id it was made for, or what stands for
    an identity that led to nobody then. `inputs`: every fact it was made from. `explanation` is null where it
    cannot be made again; then `unexplained` says why."""

    recorded_as: str
    request_id: str | None
    catalog_version: str
    snapshots: dict[str, str]
    inputs: dict[str, Any]
    reply: dict[str, Any]
    explanation: ExplanationReply | None
    unexplained: str | None


class HeldEntry(Reply):
    """Somebody looked at, or changed, what is held of the customer."""

    seq: int
    at: str
    kind: str
    actor: str
    detail: dict[str, Any]


class CustomerExport(Reply):
    """Everything that is held of a customer. `recorded_as`: all that the history was recorded under;
    decisions come in the order in which they were made."""

    customer_id: str
    exported_at: str
    merged: list[str]
    recorded_as: list[str]
    identities: list[IdentityMessage]
    restricted: bool
    values: list[HeldValue]
    consents: list[HeldConsent]
    stops: list[StopReply]
    held_back: list[HeldBackReply]
    control_groups: list[HeldMembership]
    decisions: list[HeldDecision]
    audit: list[HeldEntry]
