-- A response may correct an earlier one, which then no longer counts; and `treatment` may be '': what a customer
-- did after a decision, whatever was shown.
ALTER TABLE responses ADD COLUMN corrects TEXT;
CREATE INDEX responses_corrected ON responses (customer_id, corrects) WHERE corrects IS NOT NULL;

-- All that came of an item, in the order in which it occurred: a JSON list of [outcome, value]. Before, only the
-- best outcome was kept. What the learner has not read yet it will add itself.
ALTER TABLE labels RENAME COLUMN outcome TO outcomes;
UPDATE labels SET outcomes = coalesce((
    SELECT json_group_array(json_array(outcome, json(value))) FROM (
        SELECT outcome, CASE WHEN value IS NULL THEN 'null' ELSE printf('%!.17g', value) END AS value
          FROM responses JOIN decisions USING (decision_id)
         WHERE responses.decision_id = labels.decision_id AND responses.treatment = labels.treatment
           AND responses.seq <= (SELECT responses FROM learner_cursor)
           AND outcome NOT IN ('impression', 'no_response')
         ORDER BY max(occurred_at, decided_at), received_at, response_id
    ) HAVING count(*) > 0
), '[["no_response",null]]') WHERE outcomes IS NOT NULL;

-- The learner's round in which a snapshot was last its lineage's newest: a state may come back.
ALTER TABLE snapshots ADD COLUMN rounds INTEGER NOT NULL DEFAULT 0;

-- Decisions of customers who were erased: never to be learned from (again). `unlearned`: it is done.
CREATE TABLE erasures (
    decision_id TEXT PRIMARY KEY,
    unlearned   INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX erasures_open ON erasures (decision_id) WHERE unlearned = 0;

-- Snapshots that are served in place of the newest of their lineage.
CREATE TABLE pins (
    lineage   TEXT PRIMARY KEY,
    version   TEXT NOT NULL,
    pinned_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
