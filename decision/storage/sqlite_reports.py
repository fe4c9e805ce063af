"""What is counted over all customers, in SQLite."""

from __future__ import annotations

from collections import defaultdict

from decision.storage import rows
from decision.storage.port import BudgetPeriod, BudgetUse, ControlGroupSize
from decision.storage.sqlite_connections import Connections

_SIZES = """
    SELECT control_group, since, member, count(*), total(share), total(share * (1 - share)) FROM memberships
     GROUP BY control_group, since, member ORDER BY control_group, since, member DESC
"""
_OUTCOMES = """
    SELECT control_group, since, member, outcome, count(DISTINCT memberships.customer_id)
      FROM memberships JOIN responses
        ON responses.customer_id = memberships.customer_id AND occurred_at >= exposed_at
     GROUP BY control_group, since, member, outcome ORDER BY outcome
"""


class SqliteReports(Connections):
    """Implements `decision.storage.port.Reports`."""

    async def control_groups(self) -> list[ControlGroupSize]:
        outcomes: dict[rows.Row, dict[str, int]] = defaultdict(dict)
        for *group, outcome, customers in await self._read_aside(_OUTCOMES):
            outcomes[tuple(group)][outcome] = customers
        return [
            ControlGroupSize(
                name, since, bool(member), customers, expected, variance, outcomes[name, since, member]
            )
            for name, since, member, customers, expected, variance in await self._read_aside(_SIZES)
        ]

    async def budgets(self) -> list[BudgetUse]:
        found = await self._read_aside(
            "SELECT budget, begins, used, reserved FROM budgets ORDER BY budget, begins DESC"
        )
        return [
            BudgetUse(BudgetPeriod(budget, rows.moment(begins) if begins else None), used, reserved)
            for budget, begins, used, reserved in found
        ]
