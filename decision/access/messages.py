"""What is said over the wire of callers and of the audit trail."""

from __future__ import annotations

from typing import Any

from decision.messages import Reply


class BrowserItem(Reply):
    """One pick, as a page may see it. `treatment` is null for a fallback."""

    treatment: str | None
    rank: int
    content: dict[str, str]
    is_fallback: bool


class BrowserPlacement(Reply):
    """The slate of one placement."""

    id: str
    items: list[BrowserItem]


class BrowserReply(Reply):
    """A decision, as a page may see it: what to show, and by what to report on it."""

    decision_id: str
    request_id: str | None
    decided_at: str
    placements: list[BrowserPlacement]


class AuditEntry(Reply):
    """Something that was done. `subject`: to what; a customer by its mark. `hash` chains it to all before."""

    seq: int
    at: str
    actor: str
    kind: str
    subject: str
    detail: dict[str, Any]
    hash: str


class AuditReply(Reply):
    """Entries, oldest first."""

    entries: list[AuditEntry]
