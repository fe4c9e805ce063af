"""What a database has counted over all customers, from its rows to records. Pure; shared by all backends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from decision.storage import rows
from decision.storage.port import BudgetPeriod, BudgetUse, Cohort, ControlGroupSize, OutcomeSums

BUDGETS = "SELECT budget, begins, used, reserved FROM budgets ORDER BY budget, begins DESC"


def sizes(groups: Iterable[rows.Row], outcomes: Iterable[rows.Row]) -> list[ControlGroupSize]:
    """From (control_group, since, member, customers, Σ share, Σ share·(1 - share)), and (control_group,
    since, member, outcome, customers)."""
    found: dict[rows.Row, dict[str, int]] = defaultdict(dict)
    for *group, outcome, customers in outcomes:
        found[tuple(group)][outcome] = customers
    return [
        ControlGroupSize(name, since, bool(member), customers, expected, variance, found[name, since, member])
        for name, since, member, customers, expected, variance in groups
    ]


def cohorts(counted: Iterable[rows.Row]) -> list[Cohort]:
    """From (control_group, since, share, member, dimension, name, …): of each cohort first, without a
    dimension, how many there are and how many of them are mature; then the sums by dimension and name."""
    found: list[Cohort] = []
    sums: dict[tuple[str, str], OutcomeSums] = {}
    for name, since, share, member, dimension, of, count, first, second in counted:
        if dimension is None:
            sums = {}
            found.append(Cohort(name, since, share, bool(member), count, int(first), sums))
        else:
            sums[dimension, of] = OutcomeSums(count, first, second)
    return found


def budgets(taken: Iterable[rows.Row]) -> list[BudgetUse]:
    """From the rows of `BUDGETS`."""
    return [
        BudgetUse(BudgetPeriod(budget, rows.moment(begins) if begins else None), used, reserved)
        for budget, begins, used, reserved in taken
    ]
