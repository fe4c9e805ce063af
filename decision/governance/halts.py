"""What nobody is shown any more, from one moment to the next: emergency stops, by whom, when and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, get_args

from decision.errors import FieldError, Rejected
from decision.storage.port import Entry, Event

Scope = Literal["action", "group", "channel"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
BEGIN: Final = "halt.begin"
END: Final = "halt.end"

_NAMED = 20


@dataclass(frozen=True, slots=True)
class Halt:
    """An action, group or channel of which nothing is shown to anybody, since `at`."""

    id: str
    scope: str
    target: str
    why: str
    by: str
    at: datetime


class Halts:
    """The halts in force, as they follow from the audit trail. They do not depend on the catalog: what is
    halted stays so in each that is published later."""

    def __init__(self) -> None:
        self._halts: dict[str, Halt] = {}
        self.in_force: tuple[tuple[str, str], ...] = ()
        """(scope, target), sorted: what a decision is told of them."""

    def apply(self, entry: Entry) -> None:
        """Follows one entry of the trail."""
        event = entry.event
        if event.kind == BEGIN:
            scope, _, target = event.subject.partition(":")
            id, why = str(event.detail["id"]), str(event.detail["why"])
            self._halts[id] = Halt(id, scope, target, why, event.actor, entry.at)
        elif event.kind == END:
            self._halts.pop(str(event.detail["id"]), None)
        else:
            return
        self.in_force = tuple(sorted({(halt.scope, halt.target) for halt in self._halts.values()}))

    @property
    def all(self) -> tuple[Halt, ...]:
        """Those in force, in the order they began in."""
        return tuple(self._halts.values())

    def halt(self, id: str) -> Halt:
        """One of those in force. Raises Rejected (404)."""
        if id not in self._halts:
            fault = FieldError("halt_id", "unknown_halt", "no halt in force has this id")
            raise Rejected(404, "unknown_halt", "There is no such halt in force.", [fault])
        return self._halts[id]

    def begin(self, actor: str, id: str, scope: Scope, target: str, why: str) -> Event:
        """The event that halts. Raises Rejected (409) where it is halted already."""
        for halt in self._halts.values():
            if (halt.scope, halt.target) == (scope, target):
                fault = FieldError("target", "already_halted", f"halted by {halt.by}, as {halt.id}")
                raise Rejected(409, "already_halted", f"The {scope} '{target}' is halted already.", [fault])
        return Event(BEGIN, actor, f"{scope}:{target}", {"id": id, "why": why}, state=True)

    def end(self, actor: str, id: str, why: str) -> Event:
        """The event that ends a halt. Raises Rejected (404) where there is none."""
        halt = self.halt(id)
        return Event(END, actor, f"{halt.scope}:{halt.target}", {"id": id, "why": why}, state=True)


def check_known(document: Mapping[str, Any], scope: Scope, target: str) -> None:
    """Raises Rejected (422) where a catalog document has nothing of this id, and says what it has."""
    names = sorted(each["id"] for each in document.get(f"{scope}s", ()))
    if target in names:
        return
    more = ", …" if len(names) > _NAMED else ""
    message = f"the live catalog has no {scope} of this id; it has: {', '.join(names[:_NAMED])}{more}"
    detail = f"There is no such {scope} in the live catalog."
    raise Rejected(422, "unknown_target", detail, [FieldError("target", "unknown_target", message)])
