"""Whether a catalog version was found to keep the fairness bounds, as it follows from the audit trail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from decision.errors import FieldError, Rejected
from decision.storage.port import Entry, Event, Json

if TYPE_CHECKING:
    from decision.register import Register
    from decision.whatif.report import Report

KIND: Final = "verdict.fairness"


@dataclass(frozen=True, slots=True)
class Violation:
    """A bound that a what-if found violated: `ratio` is below `least`."""

    bound: str
    ratio: float
    least: float


def verdict(report: Report, actor: str, *, narrowed: bool = False) -> Event:
    """What a what-if found of bounds, for the audit trail: figures only. `narrowed`: on a chosen part of the
    log, so that it lifts nothing."""
    bounds: list[Json] = [
        asdict(bound) | {"of": list(bound.of), "left_out": list(bound.left_out)} for bound in report.bounds
    ]
    detail: dict[str, Json] = {"since": report.since, "until": report.until, "decisions": report.judged}
    detail |= {"narrowed": narrowed, "bounds": bounds}
    return Event(KIND, actor, f"catalog:{report.candidate}", detail, state=True)


class Verdicts:
    """What stands of each version that was judged: a bound that was found violated is so until a what-if on
    the whole log finds it kept."""

    def __init__(self) -> None:
        self._violations: dict[str, dict[str, Violation]] = {}
        self._not_judged: dict[str, tuple[str, ...]] = {}

    def apply(self, entry: Entry) -> None:
        """Follows one entry of the trail."""
        if entry.event.kind != KIND:
            return
        version, detail = entry.event.subject.removeprefix("catalog:"), entry.event.detail
        standing = self._violations.setdefault(version, {})
        found: dict[str, set[str]] = {}  # the candidate and the live catalog may each have one of that id
        for each in _bounds(detail):
            found.setdefault(str(each["id"]), set()).add(str(each["verdict"]))
        for id, verdicts in found.items():
            if verdicts == {"kept"} and not detail.get("narrowed", False):
                standing.pop(id, None)
        standing |= {each.bound: each for each in _violations(detail)}
        self._not_judged[version] = tuple(id for id, verdicts in found.items() if "not_judged" in verdicts)

    def violations(self, version: str) -> tuple[Violation, ...] | None:
        """That stand of a version; None where it was never judged."""
        found = self._violations.get(version)
        return None if found is None else tuple(found.values())

    def not_judged(self, version: str) -> tuple[str, ...]:
        """The bounds of the live catalog that the newest what-if of a version could not judge it by."""
        return self._not_judged.get(version, ())


def check_publishable(register: Register, version: str) -> None:
    """Raises Rejected (409 `fairness_bound`) where a version was found to violate a bound, and not found to
    keep it since. One that was never judged may be published."""
    found = register.verdicts.violations(version)
    if found:
        errors = [
            FieldError(
                f"fairness.{each.bound}",
                "fairness_bound",
                f"the what-if found a ratio of {each.ratio:.3f}, the least is {each.least:g}",
            )
            for each in found
        ]
        raise Rejected(409, "fairness_bound", "A what-if found that it violates fairness bounds.", errors)


def _violations(detail: Mapping[str, Any]) -> list[Violation]:
    return [
        Violation(str(each["id"]), float(each["ratio"]), float(each["min_ratio"]))
        for each in _bounds(detail)
        if each["verdict"] == "violated"
    ]


def _bounds(detail: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(detail["bounds"])
