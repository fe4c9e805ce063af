"""Changes of the catalog on their way: drafted, submitted, approved, published; by whom, when and why.

Pure: a change is what its entries in the audit trail make of it, one after the other. A document is named by
its version only, which is the hash of its content; so an approval covers that document and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, get_args

from decision.errors import FieldError, Rejected
from decision.storage.port import Entry, Event, Json

State = Literal[
    "draft", "submitted", "approved", "scheduled", "rejected", "withdrawn", "published", "expired"
]
Step = Literal[
    "edit", "submit", "approve", "reject", "comment", "withdraw", "schedule", "publish", "fail", "expire"
]
STATES: Final[tuple[State, ...]] = get_args(State)
STEPS: Final[tuple[Step, ...]] = get_args(Step)

_OPEN: Final[frozenset[State]] = frozenset({"draft", "submitted", "approved", "scheduled", "rejected"})
_ON_ITS_WAY: Final = _OPEN - {"rejected"}
POSSIBLE: Final[Mapping[Step, frozenset[State]]] = {
    "edit": _OPEN,
    "submit": frozenset({"draft", "rejected"}),
    "approve": frozenset({"submitted", "approved", "scheduled"}),
    "reject": frozenset({"submitted", "approved", "scheduled"}),
    "comment": frozenset(STATES),
    "withdraw": _OPEN,
    "schedule": _ON_ITS_WAY,
    "publish": _ON_ITS_WAY,
    "fail": frozenset({"scheduled", "published"}),
    "expire": frozenset({"published"}),
}
"""In which states each step can be taken, if nothing else speaks against it."""

_BECOMES: Final[Mapping[str, State]] = {
    "edit": "draft",
    "submit": "submitted",
    "reject": "rejected",
    "withdraw": "withdrawn",
    "schedule": "scheduled",
    "publish": "published",
    "expire": "expired",
}
_PREFIX: Final = "change."
DIRECT: Final = ("catalog.publish", "catalog.rollback")
"""Publications without a change."""


class Note(NamedTuple):
    """One step of a change, as it is in the audit trail."""

    step: str
    by: str
    at: datetime
    detail: Mapping[str, Json]


class Approval(NamedTuple):
    """Somebody's, of the document `version`."""

    by: str
    at: datetime
    version: str


class Schedule(NamedTuple):
    """When a change is to be published, by whose order, and until when. `before`: its state until then."""

    at: datetime
    by: str
    until: datetime | None
    before: State


@dataclass(frozen=True, slots=True)
class Change:
    """One change. `version`: of the document as it is now; `base`: of the catalog that was live when it was
    written; `authors`: all who wrote some of it, the first one first. `until`: when the catalog before it is
    put back. `failure`: why what was planned was not done."""

    id: str
    title: str
    state: State
    version: str
    base: str | None
    authors: tuple[str, ...]
    history: tuple[Note, ...]
    approval: Approval | None = None
    schedule: Schedule | None = None
    until: datetime | None = None
    failure: str | None = None

    @property
    def approved_by_another(self) -> bool:
        """Whether this very document is approved by somebody who wrote none of it."""
        approval = self.approval
        return approval is not None and approval.version == self.version and approval.by not in self.authors

    @property
    def open(self) -> bool:
        """Whether it may still be published."""
        return self.state in _OPEN

    @property
    def replaced(self) -> str | None:
        """The catalog in whose place it came; that it was written for, where it never did."""
        published = (_text(note.detail.get("previous")) for note in self.history if note.step == "publish")
        return next(published, self.base)

    def warnings(self, live: str | None) -> list[str]:
        """What whoever approves or publishes it should know, where `live` is the catalog that is live."""
        found = []
        if self.open and self.base != live:
            found.append(
                "The live catalog is not the one this was written for: it undoes what was published since,"
                " as the difference shows."
            )
        if self.open and self.version == live:
            found.append("This very catalog is live.")
        if self.open and self.approval is not None and not self.approved_by_another:
            found.append("It is approved by one of its authors only.")
        return found


def allow(change: Change, step: Step, actor: str, *, four_eyes: bool) -> None:
    """Raises Rejected where this actor cannot take this step now: 409 where nobody can, 403 where it is for
    another, or needs another before."""
    if change.state not in POSSIBLE[step]:
        raise _wrong(f"It is {change.state}.")
    if step == "submit" and actor not in change.authors:
        # Or somebody could put through alone what another has not finished.
        fault = FieldError("change_id", "not_an_author", "whoever edits it becomes one")
        raise Rejected(403, "not_an_author", "Only its authors submit a change.", [fault])
    if step == "approve":
        if four_eyes and actor in change.authors:
            fault = FieldError("change_id", "own_change", "it needs an approval by another than its authors")
            raise Rejected(403, "own_change", "Nobody approves a change of their own.", [fault])
        if change.schedule is not None and change.schedule.before == "draft":
            raise _wrong("It was planned without being submitted.")
        # One of its author's, from when that was enough, does not stand in the way of another's.
        if change.state != "submitted" and (change.approved_by_another or actor in change.authors):
            raise _wrong("It is approved already.")
    if step in ("schedule", "publish") and four_eyes and not change.approved_by_another:
        raise approval_needed(change.version)


def seen(change: Change, version: str | None) -> None:
    """Raises Rejected (409) where the document is not the one that the actor names: who approves or publishes
    must not cover what came in its place meanwhile."""
    if version != change.version:
        fault = FieldError("version", "changed", f"the document of the change is not {version}")
        raise Rejected(409, "changed", "The change has another document: look at it as it is now.", [fault])


def _wrong(state: str) -> Rejected:
    fault = FieldError("change_id", "wrong_state", state)
    return Rejected(409, "wrong_state", "The change is not in a state for this.", [fault])


def approval_needed(version: str) -> Rejected:
    """Says which way a document has to go."""
    fault = FieldError("version", "approval_needed", f"nobody but its authors has approved {version}")
    way = (
        "The live catalog asks for four eyes: draft it with POST /v1/catalog/changes, submit it, have"
        " somebody else approve it, then publish it."
    )
    return Rejected(403, "approval_needed", way, [fault])


def event(change_id: str, step: str, actor: str, detail: Mapping[str, Json]) -> Event:
    """What is kept of a step."""
    known = {key: value for key, value in detail.items() if value is not None}
    return Event(_PREFIX + step, actor, f"change:{change_id}", known, state=True)


def begun(entry: Entry) -> Change:
    """A change from the entry of its draft."""
    detail: Mapping[str, Any] = entry.event.detail
    return Change(
        id=entry.event.subject.partition(":")[2],
        title=detail["title"],
        state="draft",
        version=detail["version"],
        base=detail.get("base"),
        authors=(entry.event.actor,),
        history=(_note(entry),),
    )


def after(change: Change, entry: Entry) -> Change:
    """A change after its next entry."""
    note, detail = _note(entry), entry.event.detail
    step: str = note.step
    change = replace(change, history=(*change.history, note))
    if step == "comment":
        return change
    if step == "approve":
        approval = Approval(note.by, note.at, str(detail["version"]))
        state: State = "approved" if change.state == "submitted" else change.state
        schedule = change.schedule
        if schedule is not None:
            schedule = schedule._replace(before="approved")
        return replace(change, state=state, approval=approval, schedule=schedule)
    if step == "fail":
        state = change.state if change.schedule is None else change.schedule.before
        return replace(change, state=state, schedule=None, until=None, failure=str(detail["message"]))
    if step == "edit":
        change = replace(
            change,
            title=str(detail.get("title", change.title)),
            version=str(detail["version"]),
            base=_text(detail.get("base")),
            authors=tuple(dict.fromkeys((*change.authors, note.by))),
        )
    if step in ("edit", "submit", "reject"):
        change = replace(change, approval=None)
    planned = None
    if step == "schedule":
        before = change.schedule.before if change.schedule is not None else change.state
        planned = Schedule(_time(detail["at"]), note.by, _end(detail), before)
    until = _end(detail) if step == "publish" else None
    return replace(change, state=_BECOMES[step], schedule=planned, until=until, failure=None)


def _note(entry: Entry) -> Note:
    return Note(entry.event.kind.removeprefix(_PREFIX), entry.event.actor, entry.at, entry.event.detail)


def _text(value: Json) -> str | None:
    return None if value is None else str(value)


def _time(value: Json) -> datetime:
    return datetime.fromisoformat(str(value))


def _end(detail: Mapping[str, Json]) -> datetime | None:
    until = detail.get("until")
    return None if until is None else _time(until)


class Published(NamedTuple):
    """A publication that is live, or comes back when those after it expire. `change`: of the change that was
    published, if it was one."""

    version: str
    until: datetime | None = None
    change: str | None = None


class Changes:
    """All changes, and what is live by them, as they follow from the audit trail."""

    def __init__(self) -> None:
        self.all: dict[str, Change] = {}
        self.told: dict[tuple[str, datetime], Note] = {}
        """Who published a version at a time, and why, where that is known."""
        self.proved: set[str] = set()
        """The versions that were live with an approval by another than their authors."""
        # What is live on top of what comes back after it. Below one that does not expire nothing comes back.
        self._live: list[Published] = []

    def apply(self, entry: Entry) -> None:
        """Follows one entry of the trail."""
        kind, detail = entry.event.kind, entry.event.detail
        if kind in DIRECT:
            version = entry.event.subject.partition(":")[2]
            # What is live already, published again, expires when it would have: a job that does so every hour
            # must not make for good what was to be for a day.
            again = self._live and self._live[-1].version == version == detail.get("previous")
            if not again:
                self._live = [Published(version)]
            self.told[version, entry.at] = _note(entry)
        if not kind.startswith(_PREFIX):
            return
        id = entry.event.subject.partition(":")[2]
        if kind == _PREFIX + "draft":
            self.all[id] = begun(entry)
            return
        before = self.all[id]
        change = self.all[id] = after(before, entry)
        if kind == _PREFIX + "publish":
            self._published(change, _text(detail.get("previous")))
            self._tell(entry, change.version, change)
            if change.approved_by_another:
                self.proved.add(change.version)
        elif kind == _PREFIX + "expire":
            version = str(detail["version"])
            left = self._left(entry.at)
            self._live = left if left and left[-1].version == version else [Published(version)]
            self._tell(entry, version, change)
        elif kind == _PREFIX + "fail" and before.state == "published":
            self._live = []

    def _tell(self, entry: Entry, version: str, change: Change) -> None:
        known: dict[str, Json] = {"title": change.title, **entry.event.detail, "change": change.id}
        self.told[version, entry.at] = _note(entry)._replace(detail=known)

    def _published(self, change: Change, previous: str | None) -> None:
        if change.until is None:
            self._live = []
        elif not self._live or self._live[-1].version != previous:
            self._live = [] if previous is None else [Published(previous)]
        self._live.append(Published(change.version, change.until, change.id))

    def _left(self, now: datetime) -> list[Published]:
        """What is live without all that has expired."""
        left = self._live[:-1]
        while left and left[-1].until is not None and left[-1].until <= now:
            left.pop()
        return left

    def change(self, id: str) -> Change:
        """One change. Raises Rejected (404)."""
        if id not in self.all:
            fault = FieldError("change_id", "unknown_change", "no change has this id")
            raise Rejected(404, "unknown_change", "There is no such change.", [fault])
        return self.all[id]

    def ready(self, version: str, *, four_eyes: bool) -> Change | None:
        """A change with this document that is approved or planned, and could be published now."""
        for change in self.all.values():
            ready = change.state in ("approved", "scheduled") and change.version == version
            if ready and (change.approved_by_another or not four_eyes):
                return change
        return None

    def due(self, now: datetime) -> list[Change]:
        """Changes that are to be published by now, the earliest first."""
        found = [each for each in self.all.values() if each.schedule and each.schedule.at <= now]
        return sorted(found, key=lambda each: (each.schedule.at if each.schedule else now, each.id))

    def expired(self, now: datetime) -> tuple[Change, str] | None:
        """The live change, where its time is over, and the version to put back."""
        if not self._live:
            return None
        live = self._live[-1]
        if live.change is None or live.until is None or live.until > now:
            return None
        left = self._left(now)
        # What lies at the bottom does not expire, so there is always something to go back to.
        return self.all[live.change], left[-1].version
