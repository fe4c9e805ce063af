"""What is counted over all customers, in SQLite."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from decision.storage import counted, rows
from decision.storage.port import BudgetUse, Cohort, ControlGroupSize
from decision.storage.sqlite.connections import Connections

# Each customer once, by whatever names: what was found at the very first exposure. Materialised, or the join
# with what was said may go through all of it for each response.
_EXPOSED = """
    WITH exposed AS MATERIALIZED (
        SELECT customer, control_group, since, member, share, exposed_at FROM (
            SELECT coalesce(survivor, named.customer_id) AS customer, control_group, since, member, share,
                   exposed_at, row_number() OVER (
                       PARTITION BY coalesce(survivor, named.customer_id), control_group, since
                       ORDER BY exposed_at, named.customer_id
                   ) AS place
              FROM memberships AS named LEFT JOIN merges ON merges.customer_id = named.customer_id
        ) WHERE place = 1
    )
"""
_NOT_CORRECTED = """
    NOT EXISTS (SELECT 1 FROM responses AS correction
                 WHERE correction.customer_id = said.customer_id AND correction.corrects = said.response_id
                   AND correction.decision_id = said.decision_id)
"""
_SIZES = f"""{_EXPOSED}
    SELECT control_group, since, member, count(*), total(share), total(share * (1 - share)) FROM exposed
     GROUP BY control_group, since, member ORDER BY control_group, since, member DESC
"""
_OUTCOMES = f"""{_EXPOSED}
    SELECT control_group, since, member, outcome, count(DISTINCT exposed.customer)
      FROM responses AS said LEFT JOIN merges ON merges.customer_id = said.customer_id
           JOIN exposed ON exposed.customer = coalesce(survivor, said.customer_id)
            AND occurred_at >= exposed_at
     WHERE {_NOT_CORRECTED} GROUP BY control_group, since, member, outcome ORDER BY outcome
"""
# One statement, so that sizes and outcomes are of one moment. ?1: now, ?2: how long a customer counts, ?3: a
# JSON list of outcomes or NULL, ?4: a control group or NULL. `best`: per catalog version and channel, what
# counts where nothing else is asked for. `item`: the action and the group that a treatment was shown for.
_COHORTS = f"""{_EXPOSED},
    chosen AS MATERIALIZED (
        SELECT customer, control_group, since, share, member, exposed_at, exposed_at + ?2 AS ends,
               row_number() OVER () AS number
          FROM exposed WHERE ?4 IS NULL OR control_group = ?4
    ),
    best AS MATERIALIZED (
        SELECT version, json_extract(channel.value, '$.id') AS channel, reward.key AS outcome
          FROM catalogs, json_each(CAST(document AS TEXT), '$.channels') AS channel,
               json_each(channel.value, '$.rewards') AS reward
         WHERE reward.value > 0 AND reward.value =
               (SELECT max(other.value) FROM json_each(channel.value, '$.rewards') AS other)
    ),
    heard AS MATERIALIZED (
        SELECT coalesce(survivor, said.customer_id) AS customer, channel, coalesce(value, 0.0) AS value,
               max(decided_at, min(occurred_at, received_at)) AS at,
               CASE treatment WHEN '' THEN '' END AS untreated,
               CASE WHEN treatment <> '' THEN (
                   SELECT json_extract(item.value, '$.action', '$.group')
                     FROM json_each(CAST(reply AS TEXT), '$.placements') AS placement,
                          json_each(placement.value, '$.items') AS item
                    WHERE json_extract(item.value, '$.treatment') = treatment LIMIT 1
               ) END AS item
          FROM responses AS said CROSS JOIN decisions USING (decision_id)
               LEFT JOIN merges ON merges.customer_id = said.customer_id
         WHERE CASE WHEN ?3 IS NULL THEN (catalog_version, channel, outcome) IN best
                    ELSE outcome IN (SELECT value FROM json_each(?3)) END
           AND {_NOT_CORRECTED}
    ),
    won AS (
        SELECT control_group, since, share, member, number, heard.value, dimension.value AS dimension,
               CASE dimension.value
                   WHEN 'overall' THEN ''
                   WHEN 'channel' THEN channel
                   WHEN 'group' THEN json_extract(item, '$[1]')
                   WHEN 'action' THEN json_extract(item, '$[0]')
                   WHEN 'untreated' THEN untreated
               END AS name
          FROM heard JOIN chosen USING (customer)
               CROSS JOIN json_each('["overall", "channel", "group", "action", "untreated"]') AS dimension
         WHERE at >= exposed_at AND at < ends AND ends <= ?1
    )
    SELECT control_group, since, share, member, NULL, '', count(*), total(ends <= ?1), 0.0
      FROM chosen GROUP BY control_group, since, share, member
     UNION ALL
    SELECT control_group, since, share, member, dimension, name, count(*), total(each), total(each * each)
      FROM (SELECT control_group, since, share, member, dimension, name, total(value) AS each FROM won
             WHERE name IS NOT NULL GROUP BY number, dimension, name)
     GROUP BY control_group, since, share, member, dimension, name
     ORDER BY 1, 2, 3, 4, 5, 6
"""


class SqliteReports(Connections):
    """Implements `decision.storage.port.Reports`."""

    async def control_groups(self) -> list[ControlGroupSize]:
        outcomes = await self._read_aside(_OUTCOMES)
        return counted.sizes(await self._read_aside(_SIZES), outcomes)

    async def cohorts(
        self,
        now: datetime,
        days: int,
        outcomes: Collection[str] | None = None,
        control_group: str | None = None,
    ) -> list[Cohort]:
        asked = (
            rows.micros(now),
            timedelta(days=days) // timedelta(microseconds=1),
            None if outcomes is None else rows.text(sorted(outcomes)),
            control_group,
        )
        return counted.cohorts(await self._read_aside(_COHORTS, asked))

    async def budgets(self) -> list[BudgetUse]:
        return counted.budgets(await self._read_aside(counted.BUDGETS))
