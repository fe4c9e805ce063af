"""Lift: what the machine brings over a control group, by what became of the customers of both."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

from arbitration.catalog.compile import CompiledCatalog
from arbitration.control import sample_ratio
from arbitration.evaluation import Lift, Sample, difference_in_means
from decision.storage.port import Cohort, OutcomeSums

CONFIDENCE = 0.95
ALARM = 0.001
"""Below which p-value a control group is said not to have the size it should have. Where all is well, one
report in a thousand says so by chance."""

Line = tuple[str, str]
"""(dimension, name)."""
Unfair = Literal["held_out_of_control", "nothing_untreated_reported", "value_out_of_range"]

OVERALL: Line = ("overall", "")
UNTREATED: Line = ("untreated", "")
_DIMENSIONS = ("overall", "group", "channel", "action")
_NOBODY = OutcomeSums(0, 0.0, 0.0)


def comparisons(cohorts: Iterable[Cohort], catalog: CompiledCatalog) -> list[dict[str, Any]]:
    """Each control group, in each window and with each share, against those who came meanwhile and are not in
    it; see `decision.messages.LiftComparison`. `catalog`: the live one, for what the groups do."""
    pairs: dict[tuple[str, str, float], dict[bool, Cohort]] = {}
    for cohort in cohorts:
        pairs.setdefault((cohort.control_group, cohort.since, cohort.share), {})[cohort.member] = cohort
    behaviours = {control.id: control.behaviour for control in catalog.model.control_groups}
    found = []
    for (name, since, share), sides in pairs.items():
        treated = sides.get(False) or Cohort(name, since, share, False, 0, 0, {})
        control = sides.get(True) or Cohort(name, since, share, True, 0, 0, {})
        assigned = treated.assigned + control.assigned
        chance = sample_ratio(assigned, control.assigned, assigned * share, assigned * share * (1 - share))
        behaviour = behaviours.get(name)
        unfair: dict[Line, Unfair] = {}
        if behaviour == "no_action":
            unfair = _unfair(catalog, control)
        found.append(
            {
                "control_group": name,
                "since": since or None,
                "behaviour": behaviour,
                "share": share,
                "treated": _customers(treated),
                "control": _customers(control),
                "p_value": chance,
                "sample_ratio_mismatch": chance < ALARM,
                "lines": [_line(line, treated, control, unfair) for line in _lines(treated, control)],
            }
        )
    return found


def _unfair(catalog: CompiledCatalog, control: Cohort) -> dict[Line, Unfair]:
    """The lines that would compare how outcomes are reported, and not how many there are.

    Who is shown nothing cannot answer it: that they buy without is known only where it is reported without a
    treatment, and then it is of no action.
    """
    found: dict[Line, Unfair] = {}
    for candidates in catalog.candidates.values():
        for group, covered in candidates.controls:
            if group.id == control.control_group:
                for number in covered.nonzero()[0]:
                    arm = candidates.arms[number]
                    found["action", arm.action.id] = found["group", arm.group.id] = "held_out_of_control"
    if UNTREATED not in control.outcomes:
        found[OVERALL] = "nothing_untreated_reported"
        found |= {("channel", channel): "nothing_untreated_reported" for channel in catalog.channels}
    return found


def _lines(*cohorts: Cohort) -> list[Line]:
    """Overall, and wherever anybody had an outcome."""
    named = {OVERALL, *(line for cohort in cohorts for line in cohort.outcomes)} - {UNTREATED}
    return sorted(named, key=lambda line: (_DIMENSIONS.index(line[0]), line[1]))


def _line(line: Line, treated: Cohort, control: Cohort, unfair: dict[Line, Unfair]) -> dict[str, Any]:
    sides = [(cohort.mature, cohort.outcomes.get(line, _NOBODY)) for cohort in (treated, control)]
    why = unfair.get(line)
    return {
        "by": line[0],
        "name": line[1] or None,
        "treated": _side(*sides[0]),
        "control": _side(*sides[1]),
        "rate": _figure([Sample(mature, sums.customers, sums.customers) for mature, sums in sides], why),
        "value": _figure([Sample(mature, sums.value, sums.squares) for mature, sums in sides], why)
        if all(sums.value >= 0 and math.isfinite(sums.squares) for _, sums in sides)
        else _refused(why or "value_out_of_range"),
    }


def _figure(samples: list[Sample], why: Unfair | None) -> dict[str, Any]:
    if why is not None:
        return _refused(why)
    return _spelled(difference_in_means(*samples, confidence=CONFIDENCE))


def _refused(why: Unfair) -> dict[str, Any]:
    return _spelled(Lift()) | {"reason": why}


def _spelled(lift: Lift) -> dict[str, Any]:
    return {
        "difference": lift.estimate,
        "low": lift.low,
        "high": lift.high,
        "relative": lift.ratio,
        "relative_low": lift.ratio_low,
        "relative_high": lift.ratio_high,
        "reason": lift.reason,
        "measured": lift.measured,
        "bound": lift.bound,
    }


def _customers(cohort: Cohort) -> dict[str, Any]:
    return {
        "customers": cohort.assigned,
        "mature": cohort.mature,
        "untreated": cohort.outcomes.get(UNTREATED, _NOBODY).customers,
    }


def _side(mature: int, sums: OutcomeSums) -> dict[str, Any]:
    return {
        "customers": mature,
        "with_outcome": sums.customers,
        "rate": sums.customers / mature if mature else None,
        "value": sums.value,
        "value_per_customer": sums.value / mature if mature else None,
    }
