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


def verdict(report: Report, actor: str) -> Event:
    """What a what-if found of bounds, for the audit trail: figures only."""
    bounds: list[Json] = [
        asdict(bound) | {"of": list(bound.of), "left_out": list(bound.left_out)} for bound in report.bounds
    ]
    detail: dict[str, Json] = {"since": report.since, "until": report.until, "decisions": report.judged}
    detail["bounds"] = bounds
    return Event(KIND, actor, f"catalog:{report.candidate}", detail, state=True)


class Verdicts:
    """The newest verdict of each version that has one."""

    def __init__(self) -> None:
        self._violations: dict[str, tuple[Violation, ...]] = {}

    def apply(self, entry: Entry) -> None:
        """Follows one entry of the trail."""
        if entry.event.kind == KIND:
            version = entry.event.subject.removeprefix("catalog:")
            self._violations[version] = tuple(_violations(entry.event.detail))

    def violations(self, version: str) -> tuple[Violation, ...] | None:
        """Of the newest verdict on a version; None where there is none."""
        return self._violations.get(version)


def check_publishable(register: Register, version: str) -> None:
    """Raises Rejected (409 `fairness_bound`) where the newest verdict on a version says that it violates a
    bound. One that was never judged may be published."""
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
        for each in detail["bounds"]
        if each["verdict"] == "violated"
    ]
