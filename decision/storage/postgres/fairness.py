"""What a fairness report counts, in PostgreSQL. Values are taken as they were recorded with each decision."""

from __future__ import annotations

from arbitration.evaluation.ratios import Rate
from decision.storage.fairness import Counting, Measured, measured
from decision.storage.postgres.connections import Connections

# $1, $2: since, until; $3: channel or NULL; $4: traits; $5: scopes; $6: lines; $7: accepted; $8: now; $9: the
# fact of each trait. `cell`: a trait and a level (see `level_of_cell`).
_COUNTED = """
    WITH decided AS MATERIALIZED (
        SELECT decision_id, coalesce(survivor, made.customer_id) AS customer, channel, catalog_version,
               decided_at, convert_from(inputs, 'UTF8')::jsonb AS inputs,
               convert_from(reply, 'UTF8')::json -> 'placements' AS placements
          FROM decisions AS made LEFT JOIN merges ON merges.customer_id = made.customer_id
         WHERE mode = 'live' AND decided_at >= $1 AND decided_at < $2
           AND ($3::text IS NULL OR channel = $3)
           AND NOT EXISTS (SELECT 1 FROM erasures WHERE erasures.decision_id = made.decision_id)
           AND length(inputs) > 0
    ),
    trait AS MATERIALIZED (
        SELECT place - 1 AS trait, cut ->> 0 AS kind, cut -> 1 AS names, cut -> 2 AS edges, fact
          FROM ROWS FROM (jsonb_array_elements($4::text::jsonb), unnest($9::text[]))
               WITH ORDINALITY AS each(cut, fact, place)
    ),
    known AS MATERIALIZED (
        SELECT decision_id, customer, channel, 1000000 * trait + coalesce(CASE
                   WHEN kind = 'text' AND jsonb_typeof(held) = 'string' THEN
                        (SELECT min(number) FROM jsonb_array_elements_text(names)
                                WITH ORDINALITY AS each(name, number) WHERE name = held #>> '{}')
                   WHEN kind = 'bool' AND jsonb_typeof(held) = 'boolean' THEN 1 + held::boolean::int
                   WHEN kind = 'number' AND jsonb_typeof(held) = 'number' THEN
                        (SELECT 1 + count(*) FROM jsonb_array_elements(edges) AS edge
                          WHERE edge::numeric <= held::numeric)
                   WHEN kind = 'time' AND jsonb_typeof(held) = 'object' THEN
                        (SELECT 1 + count(*) FROM jsonb_array_elements(edges) AS edge
                          WHERE edge::numeric
                             <= floor(extract(epoch FROM (held ->> 'timestamp')::timestamptz)))
               END, 0) AS cell
          FROM decided CROSS JOIN trait CROSS JOIN LATERAL (SELECT inputs -> 'facts' -> fact AS held) AS had
         WHERE inputs -> 'objects' IS DISTINCT FROM 'true'::jsonb
    ),
    place AS MATERIALIZED (
        SELECT scope - 1 AS scope, channel
          FROM jsonb_array_elements($5::text::jsonb) WITH ORDINALITY AS each(channels, scope)
               CROSS JOIN LATERAL jsonb_array_elements_text(channels) AS channel
    ),
    base AS MATERIALIZED (
        SELECT scope, cell, customer, count(*) AS n FROM known JOIN place USING (channel)
         GROUP BY scope, cell, customer
    ),
    line AS MATERIALIZED (
        SELECT number - 1 AS line, each ->> 0 AS dimension, each ->> 1 AS name, scope, channel
          FROM jsonb_array_elements($6::text::jsonb) WITH ORDINALITY AS of(each, number)
               JOIN place ON scope = (each ->> 2)::bigint
    ),
    term AS MATERIALIZED (
        SELECT each ->> 0 AS version, each ->> 1 AS channel, each -> 2 AS accepted,
               (each ->> 3)::bigint AS awaited
          FROM jsonb_array_elements($7::text::jsonb) AS each
    ),
    item AS MATERIALIZED (
        SELECT decided.decision_id, decided.channel, item ->> 'action' AS action, item ->> 'group' AS family,
               (outcomes IS NOT NULL)::int AS heard,
               EXISTS (SELECT 1 FROM json_array_elements(outcomes::json) AS said
                        WHERE accepted ? (said ->> 0))::int AS won
          FROM decided CROSS JOIN LATERAL json_array_elements(placements) AS placement
               CROSS JOIN LATERAL json_array_elements(placement -> 'items') AS item
               LEFT JOIN term ON version = catalog_version AND term.channel = decided.channel
                    AND decided_at + awaited <= $8
               LEFT JOIN labels ON labels.decision_id = decided.decision_id
                    AND labels.treatment = item ->> 'treatment' AND awaited IS NOT NULL
         WHERE item ->> 'action' IS NOT NULL
    ),
    named AS MATERIALIZED (
        SELECT decision_id, line, scope, sum(heard) AS heard, sum(won) AS won
          FROM item JOIN line ON line.channel = item.channel
           AND name = CASE dimension WHEN 'group' THEN family WHEN 'action' THEN action ELSE '' END
         GROUP BY decision_id, line, scope
    ),
    seen AS MATERIALIZED (
        SELECT line, scope, cell, customer, count(*) AS s, sum(heard) AS heard, sum(won) AS won
          FROM named JOIN known USING (decision_id)
         GROUP BY line, scope, cell, customer
    )
    SELECT 'all', cell, scope, count(*), sum(n), 0, sum(n * n), 0, 0, 0, 0, 0, 0
      FROM base GROUP BY scope, cell
     UNION ALL
    SELECT 'line', cell, line, count(*), sum(s), sum(n * s), sum(s * s), count(*) FILTER (WHERE heard > 0),
           sum(heard), sum(won), sum(heard * heard), sum(heard * won), sum(won * won)
      FROM seen JOIN base USING (scope, cell, customer) GROUP BY line, cell
"""


class PostgresFairness(Connections):
    """Implements `decision.storage.port.Reports.fairness`."""

    async def fairness(self, counting: Counting) -> dict[Measured, Rate]:
        facts = [trait.fact for trait in counting.traits]
        found = await self._read_aside(_COUNTED, *counting.parameters(), facts)
        return measured(counting, map(tuple, found))
