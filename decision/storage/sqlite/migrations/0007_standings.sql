
-- One row per customer for whom a live decision was made: whatever changes what limits the customer, but for its
-- names and its erasure, changes `revision` with it, in the same transaction. `counters`: a JSON list of
-- [policy, target, times, reserved, begun, until]; `basis`: what they are counted by, NULL: they must be counted.
-- They follow from the ledger, and are counted from it when they are next asked for.
CREATE TABLE standings (
    customer_id TEXT PRIMARY KEY,
    revision    INTEGER NOT NULL,
    basis       TEXT,
    counters    TEXT NOT NULL
) STRICT, WITHOUT ROWID;
DROP TABLE counters;
DROP TABLE countings;

-- One index for both: every index of customers costs each decision a page of its own.
CREATE UNIQUE INDEX decisions_by_customer ON decisions (customer_id, request_id);
DROP INDEX decisions_by_request;
DROP INDEX decisions_of_customer;
