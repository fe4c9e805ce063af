"""The messages of governance: halts, changes of the catalog, and what differs."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from decision.governance.changes import State
from decision.governance.halts import Scope
from decision.messages import Key, Message, Reply, Time

# What people are to read says what it seems to say: no control characters, and none that change the direction
# of what follows.
_UNREADABLE = r"\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
Text = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=2_000,
        strip_whitespace=True,
        pattern=rf"^[^\x00-\x08\x0b-\x1f{_UNREADABLE}]+$",
    ),
]
Title = Annotated[
    str,
    StringConstraints(
        min_length=1, max_length=200, strip_whitespace=True, pattern=rf"^[^\x00-\x1f{_UNREADABLE}]+$"
    ),
]
Document = Annotated[dict[str, Any], Field(description="The catalog, as one JSON document.")]


class HaltRequest(Message):
    """What is to be shown to nobody any more, and why. The reason stays in the audit trail for good: no
    personal data."""

    scope: Scope
    target: Key
    why: Text


class HaltReply(Reply):
    """An emergency stop in force."""

    id: str
    scope: Scope
    target: str
    why: str
    by: str
    at: str


class HaltsReply(Reply):
    """All in force, in the order they began in."""

    halts: list[HaltReply]


class DraftRequest(Message):
    """A catalog to be published one day. Title and reason stay in the audit trail for good."""

    document: Document
    title: Title
    why: Text


class EditRequest(Message):
    """Another document for a change; an approval it had is void."""

    document: Document
    why: Text
    title: Title | None = None


class ReasonRequest(Message):
    """Why."""

    why: Text


class ApproveRequest(Message):
    """Why, and `version`: of the document that is approved, as the change shows it."""

    why: Text
    version: Key


class CommentRequest(Message):
    """A remark."""

    comment: Text


class PublishChangeRequest(Message):
    """Why, the `version` of the document, as the change shows it, and when: `at` (default: now) and `until`,
    when the catalog that was live before is put back, unless another was published meanwhile."""

    why: Text
    version: Key
    at: Time | None = None
    until: Time | None = None


class DifferenceReply(Reply):
    """One difference: what was before, what is after (null where there is none), and both in words."""

    kind: str
    path: str
    before: Any
    after: Any
    text: str


class PartDifferenceReply(Reply):
    """All that differs in one part of the catalog."""

    part: str
    kind: str
    changes: list[DifferenceReply]


class DiffReply(Reply):
    """What differs from the catalog `against`, as data, and `text` as lines to read."""

    against: str | None
    parts: list[PartDifferenceReply]
    text: list[str]


class NoteReply(Reply):
    """One step of a change."""

    step: str
    by: str
    at: str
    detail: dict[str, Any]


class ApprovalReply(Reply):
    """Somebody's approval, of the document `version`."""

    by: str
    at: str
    version: str


class ChangeSummary(Reply):
    """A change of the catalog. `base`: what was live when its document was written; `authors`: who wrote it;
    `approved_by_another`: whether somebody else has approved this very document; `at`: when it is to be
    published; `until`: when what was live before is put back; `failure`: why that was not done."""

    id: str
    title: str
    state: State
    version: str
    base: str | None
    authors: list[str]
    approval: ApprovalReply | None
    approved_by_another: bool
    at: str | None
    until: str | None
    failure: str | None


class ChangesReply(Reply):
    """Changes, the newest first."""

    changes: list[ChangeSummary]


class ChangeReply(ChangeSummary):
    """A change with all its steps and comments, and what it would change of the catalog that is live now;
    where it is over, what it has changed."""

    history: list[NoteReply]
    warnings: list[str]
    diff: DiffReply
