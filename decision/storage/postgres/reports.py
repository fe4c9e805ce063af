"""What is counted over all customers, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from decision.storage import counted, rows
from decision.storage.port import BudgetUse, Cohort, ControlGroupSize
from decision.storage.postgres.connections import Connections

# Each customer once, by whatever names: what was found at the very first exposure.
_EXPOSED = """
    WITH exposed AS MATERIALIZED (
        SELECT DISTINCT ON (customer, control_group, since)
               coalesce(survivor, named.customer_id) AS customer, control_group, since, member, share,
               exposed_at
          FROM memberships AS named LEFT JOIN merges ON merges.customer_id = named.customer_id
         ORDER BY customer, control_group, since, exposed_at, named.customer_id
    )
"""
_NOT_CORRECTED = """
    NOT EXISTS (SELECT 1 FROM responses AS correction
                 WHERE correction.customer_id = said.customer_id AND correction.corrects = said.response_id
                   AND correction.decision_id = said.decision_id)
"""
_SIZES = f"""{_EXPOSED}
    SELECT control_group, since, member, count(*), sum(share), sum(share * (1 - share)) FROM exposed
     GROUP BY control_group, since, member ORDER BY control_group, since, member DESC
"""
_OUTCOMES = f"""{_EXPOSED}
    SELECT control_group, since, member, outcome, count(DISTINCT exposed.customer)
      FROM responses AS said LEFT JOIN merges ON merges.customer_id = said.customer_id
           JOIN exposed ON exposed.customer = coalesce(survivor, said.customer_id)
            AND occurred_at >= exposed_at
     WHERE {_NOT_CORRECTED} GROUP BY control_group, since, member, outcome ORDER BY outcome
"""
# One statement, so that sizes and outcomes are of one moment. $1: now, $2: how long a customer counts, $3:
# outcomes or NULL, $4: a control group or NULL. `best`: per catalog version and channel, what counts where
# nothing else is asked for. `item`: what a treatment was shown as.
_COHORTS = f"""{_EXPOSED},
    chosen AS MATERIALIZED (
        SELECT customer, control_group, since, share, member, exposed_at, exposed_at + $2::bigint AS ends,
               row_number() OVER () AS number
          FROM exposed WHERE $4::text IS NULL OR control_group = $4
    ),
    rewards AS MATERIALIZED (
        SELECT version, channel ->> 'id' AS channel, reward.key AS outcome,
               reward.value::double precision AS paid
          FROM catalogs,
               json_array_elements(convert_from(document, 'UTF8')::json -> 'channels') AS channel,
               json_each_text(channel -> 'rewards') AS reward
         WHERE $3::text[] IS NULL
    ),
    best AS MATERIALIZED (
        SELECT version, channel, outcome
          FROM (SELECT *, max(paid) OVER (PARTITION BY version, channel) AS most FROM rewards) AS ranked
         WHERE paid > 0 AND paid = most
    ),
    heard AS MATERIALIZED (
        SELECT coalesce(survivor, said.customer_id) AS customer, channel, coalesce(value, 0) AS value,
               greatest(decided_at, least(occurred_at, received_at)) AS at,
               CASE treatment WHEN '' THEN '' END AS untreated,
               CASE WHEN treatment <> '' THEN (
                   SELECT item
                     FROM json_array_elements(convert_from(reply, 'UTF8')::json -> 'placements') AS placement,
                          json_array_elements(placement -> 'items') AS item
                    WHERE item ->> 'treatment' = treatment LIMIT 1
               ) END AS item
          FROM responses AS said JOIN decisions USING (decision_id)
               LEFT JOIN merges ON merges.customer_id = said.customer_id
         WHERE CASE WHEN $3::text[] IS NULL
                    THEN (catalog_version, channel, outcome) IN (SELECT version, channel, outcome FROM best)
                    ELSE outcome = ANY($3) END
           AND {_NOT_CORRECTED}
    ),
    won AS (
        SELECT control_group, since, share, member, number, heard.value, dimension, name
          FROM heard JOIN chosen USING (customer)
               CROSS JOIN LATERAL (VALUES ('overall', ''), ('channel', channel), ('group', item ->> 'group'),
                                          ('action', item ->> 'action'), ('untreated', untreated)
                                  ) AS of(dimension, name)
         WHERE at >= exposed_at AND at < ends AND ends <= $1 AND name IS NOT NULL
    )
    SELECT control_group, since, share, member, NULL AS dimension, '' AS name, count(*),
           count(*) FILTER (WHERE ends <= $1)::double precision, 0
      FROM chosen GROUP BY control_group, since, share, member
     UNION ALL
    SELECT control_group, since, share, member, dimension, name, count(*), sum(each), sum(each * each)
      FROM (SELECT control_group, since, share, member, dimension, name, sum(value) AS each FROM won
             GROUP BY control_group, since, share, member, number, dimension, name) AS customers
     GROUP BY control_group, since, share, member, dimension, name
     ORDER BY control_group, since, share, member, dimension NULLS FIRST, name
"""


class PostgresReports(Connections):
    """Implements `decision.storage.port.Reports`."""

    async def control_groups(self) -> list[ControlGroupSize]:
        outcomes = await self._read_aside(_OUTCOMES)
        return counted.sizes(map(tuple, await self._read_aside(_SIZES)), map(tuple, outcomes))

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
            None if outcomes is None else sorted(outcomes),
            control_group,
        )
        return counted.cohorts(map(tuple, await self._read_aside(_COHORTS, *asked)))

    async def budgets(self) -> list[BudgetUse]:
        return counted.budgets(map(tuple, await self._read_aside(counted.BUDGETS)))
