"""What a fairness report counts, in SQLite. Values are taken as they were recorded with each decision."""

from __future__ import annotations

from arbitration.evaluation.ratios import Rate
from decision.storage.fairness import Counting, Measured, measured
from decision.storage.sqlite.connections import Connections

# ?1, ?2: since, until; ?3: channel or NULL; ?4: traits; ?5: scopes; ?6: lines; ?7: accepted; ?8: now; then
# the path of each trait in the recorded facts. `facts`: the values there, as a JSON list, parsed once a
# decision. What is sorted is numbers: `who` is a customer, `cell` a trait and a level (see `level_of_cell`).
# CROSS JOIN: as it is written, so that nothing is gone through for each decision but what is looked up.
_COUNTED = """
    WITH decided AS MATERIALIZED (
        SELECT seq, decision_id, coalesce(survivor, made.customer_id) AS customer, channel, catalog_version,
               decided_at, json_extract(CAST(inputs AS TEXT), '$.objects'{paths}) AS facts
          FROM decisions AS made LEFT JOIN merges ON merges.customer_id = made.customer_id
         WHERE mode = 'live' AND decided_at >= ?1 AND decided_at < ?2 AND (?3 IS NULL OR channel = ?3)
           AND decision_id NOT IN (SELECT decision_id FROM erasures) AND length(inputs) > 0
    ),
    person AS MATERIALIZED (SELECT customer, min(seq) AS who FROM decided GROUP BY customer),
    trait AS MATERIALIZED (
        SELECT key AS trait, '$[' || (key + 1) || ']' AS path, json_extract(value, '$[0]') AS kind,
               json_extract(value, '$[1]') AS names, json_extract(value, '$[2]') AS edges
          FROM json_each(?4)
    ),
    valued AS (
        SELECT seq, who, channel, trait, kind, names, edges, json_type(facts, path) AS type,
               json_extract(facts, path) AS value
          FROM decided CROSS JOIN person USING (customer) CROSS JOIN trait
         WHERE json_extract(facts, '$[0]') IS NOT 1
    ),
    known AS MATERIALIZED (
        SELECT seq, who, channel, 1000000 * trait + coalesce(CASE
                   WHEN kind = 'text' AND type = 'text' THEN
                        (SELECT each.key + 1 FROM json_each(names) AS each WHERE each.value = valued.value)
                   WHEN kind = 'bool' AND type IN ('true', 'false') THEN 1 + value
                   WHEN kind = 'number' AND type IN ('integer', 'real') THEN
                        (SELECT 1 + count(*) FROM json_each(edges) AS edge WHERE edge.value <= valued.value)
                   WHEN kind = 'time' AND type = 'object' THEN
                        (SELECT 1 + count(*) FROM json_each(edges) AS edge WHERE edge.value <= CAST(
                            strftime('%s', substr(json_extract(valued.value, '$.timestamp'), 1, 19)) AS REAL))
               END, 0) AS cell
          FROM valued
    ),
    place AS MATERIALIZED (
        SELECT scope.key AS scope, each.value AS channel
          FROM json_each(?5) AS scope, json_each(scope.value) AS each
    ),
    base AS MATERIALIZED (
        SELECT scope, cell, who, count(*) AS n FROM known CROSS JOIN place USING (channel)
         GROUP BY scope, cell, who
    ),
    line AS MATERIALIZED (
        SELECT key AS line, json_extract(value, '$[0]') AS dimension, json_extract(value, '$[1]') AS name,
               json_extract(value, '$[2]') AS scope, channel
          FROM json_each(?6) JOIN place ON scope = json_extract(value, '$[2]')
    ),
    term AS MATERIALIZED (
        SELECT json_extract(value, '$[0]') AS version, json_extract(value, '$[1]') AS channel,
               json_extract(value, '$[2]') AS accepted, json_extract(value, '$[3]') AS awaited
          FROM json_each(?7)
    ),
    item AS MATERIALIZED (
        SELECT seq, decided.channel, json_extract(item.value, '$.action') AS action,
               json_extract(item.value, '$.group') AS family, outcomes IS NOT NULL AS heard,
               outcomes IS NOT NULL AND EXISTS (
                   SELECT 1 FROM json_each(outcomes) AS said
                    WHERE json_extract(said.value, '$[0]') IN (SELECT value FROM json_each(accepted))
               ) AS won
          FROM decided CROSS JOIN decisions USING (seq)
               CROSS JOIN json_each(CAST(reply AS TEXT), '$.placements') AS placement
               CROSS JOIN json_each(placement.value, '$.items') AS item
               LEFT JOIN term ON version = decided.catalog_version AND term.channel = decided.channel
                    AND decided.decided_at + awaited <= ?8
               LEFT JOIN labels ON labels.decision_id = decided.decision_id
                    AND labels.treatment = json_extract(item.value, '$.treatment') AND awaited IS NOT NULL
         WHERE json_extract(item.value, '$.action') IS NOT NULL
    ),
    named AS MATERIALIZED (
        SELECT seq, line, scope, sum(heard) AS heard, sum(won) AS won
          FROM item JOIN line ON line.channel = item.channel
           AND name = CASE dimension WHEN 'group' THEN family WHEN 'action' THEN action ELSE '' END
         GROUP BY seq, line
    ),
    seen AS MATERIALIZED (
        SELECT line, scope, cell, who, count(*) AS s, sum(heard) AS heard, sum(won) AS won
          FROM named CROSS JOIN known USING (seq)
         GROUP BY line, scope, cell, who
    )
    SELECT 'all', cell, scope, count(*), sum(n), 0, sum(n * n), 0, 0, 0, 0, 0, 0
      FROM base GROUP BY scope, cell
     UNION ALL
    SELECT 'line', cell, line, count(*), sum(s), sum(n * s), sum(s * s), sum(heard > 0), sum(heard), sum(won),
           sum(heard * heard), sum(heard * won), sum(won * won)
      FROM seen CROSS JOIN base USING (scope, cell, who) GROUP BY line, cell
"""


class SqliteFairness(Connections):
    """Implements `decision.storage.port.Reports.fairness`."""

    async def fairness(self, counting: Counting) -> dict[Measured, Rate]:
        paths = [f'$.facts."{trait.fact}"' for trait in counting.traits]
        places = "".join(f", ?{number}" for number, _ in enumerate(paths, start=9))
        found = await self._read_aside(
            _COUNTED.format(paths=places or ", NULL"), (*counting.parameters(), *paths)
        )
        return measured(counting, found)
