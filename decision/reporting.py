"""Reports: whether control groups have the size they should have, what the machine brings over them, and what
is left of budgets."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from arbitration.catalog.scalars import DECIMALS
from arbitration.control import sample_ratio
from arbitration.facts import rfc3339
from decision.errors import FieldError, Rejected
from decision.lift import ALARM, CONFIDENCE, comparisons
from decision.limiting import budget_name, budget_total
from decision.live import Live
from decision.storage.port import ControlGroupSize, Reports


class Reporting:
    """Makes reports from the store. Raises StoreUnavailable, and Rejected while no catalog is published."""

    def __init__(self, reports: Reports, live: Live) -> None:
        self._reports = reports
        self._live = live

    async def control_groups(self) -> list[dict[str, Any]]:
        """Each control group and window with anybody in or out of it; see
        `decision.messages.ControlGroupReport`."""
        catalog = self._live.serving.published.compiled.model
        behaviours = {control.id: control.behaviour for control in catalog.control_groups}
        windows: dict[tuple[str, str], dict[bool, ControlGroupSize]] = {}
        for size in await self._reports.control_groups():
            windows.setdefault((size.control_group, size.since), {})[size.member] = size
        found = []
        for (name, since), sides in windows.items():
            assigned = sum(side.customers for side in sides.values())
            expected = sum(side.expected for side in sides.values())
            variance = sum(side.variance for side in sides.values())
            members = sides[True].customers if True in sides else 0
            chance = sample_ratio(assigned, members, expected, variance)
            found.append(
                {
                    "id": name,
                    "since": since or None,
                    "behaviour": behaviours.get(name),
                    "members": _side(sides.get(True)),
                    "others": _side(sides.get(False)),
                    "expected_share": expected / assigned,
                    "share": members / assigned,
                    "p_value": chance,
                    "sample_ratio_mismatch": chance < ALARM,
                }
            )
        return found

    async def lift(
        self, now: datetime, days: int, outcomes: Collection[str] | None, control_group: str | None
    ) -> dict[str, Any]:
        """What became of customers in and out of control groups; see `decision.messages.LiftReply`.

        Raises Rejected (422) where the live catalog knows no such outcome, or neither it nor the ledger such
        a control group.
        """
        catalog = self._live.serving.published.compiled
        known = {outcome for channel in catalog.channels.values() for outcome in channel.outcomes}
        errors = [
            FieldError("outcome", "unknown_outcome", f"no channel knows {outcome}")
            for outcome in sorted(set(outcomes or ()) - known)
        ]
        cohorts = [] if errors else await self._reports.cohorts(now, days, outcomes, control_group)
        declared = {control.id for control in catalog.model.control_groups}
        if control_group is not None and control_group not in declared and not cohorts:
            text = "there is no such control group"
            errors.append(FieldError("control_group", "unknown_control_group", text))
        if errors:
            raise Rejected(422, "invalid_request", "The request has faults.", errors)
        return {
            "as_of": rfc3339(now),
            "days": days,
            "outcomes": None if outcomes is None else sorted(set(outcomes)),
            "confidence": CONFIDENCE,
            "currency": catalog.model.currency,
            "comparisons": comparisons(cohorts, catalog),
        }

    async def budgets(self) -> list[dict[str, Any]]:
        """Each budget in each period in which anything was taken of it; see
        `decision.messages.BudgetReport`."""
        catalog = self._live.serving.published.compiled.model
        totals = {
            budget_name(action.id, action.budget): budget_total(action.budget)
            for action in catalog.actions
            if action.budget is not None
        }
        found = []
        for use in await self._reports.budgets():
            action, unit, each = use.period.budget.split(":")
            total = totals.get(use.period.budget)

            def amount(counted: int, unit: str = unit) -> float:
                return counted / 10**DECIMALS if unit == "money" else counted

            found.append(
                {
                    "action": action,
                    "unit": catalog.currency if unit == "money" else unit,
                    "each": None if each == "ever" else each,
                    "begins": None if use.period.begins is None else rfc3339(use.period.begins),
                    "total": None if total is None else amount(total),
                    "used": amount(use.used),
                    "reserved": amount(use.reserved),
                    "left": None if total is None else amount(max(0, total - use.used)),
                }
            )
        return found


def _side(size: ControlGroupSize | None) -> dict[str, Any]:
    if size is None:
        return {"customers": 0, "outcomes": {}}
    return {"customers": size.customers, "outcomes": size.outcomes}
