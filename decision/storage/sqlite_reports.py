"""What is counted over all customers, in SQLite."""

from __future__ import annotations

from collections import defaultdict

from decision.storage import rows
from decision.storage.port import BudgetPeriod, BudgetUse, ControlGroupSize
from decision.storage.sqlite_connections import Connections

# Each customer once, by whatever names: what was found at the very first exposure.
_EXPOSED = """
    WITH exposed AS (
        SELECT coalesce(survivor, named.customer_id) AS customer, control_group, since, member, share,
        exposed_at,
               row_number() OVER (PARTITION BY coalesce(survivor, named.customer_id), control_group, since
                                  ORDER BY exposed_at) AS place
          FROM memberships AS named LEFT JOIN merges ON merges.customer_id = named.customer_id
    )
"""
_SIZES = f"""{_EXPOSED}
    SELECT control_group, since, member, count(*), total(share), total(share * (1 - share)) FROM exposed
     WHERE place = 1 GROUP BY control_group, since, member ORDER BY control_group, since, member DESC
"""
_OUTCOMES = f"""{_EXPOSED}
    SELECT control_group, since, member, outcome, count(DISTINCT customer) FROM exposed JOIN (
        SELECT coalesce(survivor, heard.customer_id) AS who, outcome, occurred_at
          FROM responses AS heard LEFT JOIN merges ON merges.customer_id = heard.customer_id
    ) ON who = customer AND occurred_at >= exposed_at
     WHERE place = 1 GROUP BY control_group, since, member, outcome ORDER BY outcome
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
