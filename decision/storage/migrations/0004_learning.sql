-- A response may correct an earlier one, which then no longer counts; and `treatment` may be '': what a customer
-- did after a decision, whatever was shown.
ALTER TABLE responses ADD COLUMN corrects TEXT;
CREATE INDEX responses_corrected ON responses (customer_id, corrects) WHERE corrects IS NOT NULL;

-- All that came of an item, in the order in which it occurred: a JSON list of [outcome, value]. Before, only the
-- best outcome was kept.
ALTER TABLE labels RENAME COLUMN outcome TO outcomes;
UPDATE labels SET outcomes = json_array(json_array(outcomes, (
    SELECT max(value) FROM responses
     WHERE responses.decision_id = labels.decision_id AND responses.treatment = labels.treatment
       AND responses.outcome = labels.outcomes
))) WHERE outcomes IS NOT NULL;

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
