-- Times are microseconds since 1970-01-01 UTC. Columns that hold JSON as given are TEXT; what must come
-- back byte for byte is BLOB. A secondary index on a rowid table ends with the rowid, here `seq`, so an
-- index on (customer_id) is one on (customer_id, seq).

CREATE TABLE customers (
    customer_id TEXT PRIMARY KEY,
    attributes  TEXT NOT NULL,
    scores      TEXT NOT NULL,
    consents    TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE identities (
    type        TEXT NOT NULL,
    value       TEXT NOT NULL,
    customer_id TEXT NOT NULL,
    PRIMARY KEY (type, value)
) STRICT, WITHOUT ROWID;
CREATE INDEX identities_of_customer ON identities (customer_id);

-- No reference to customers: a stop also holds for a customer without a stored profile.
CREATE TABLE stops (
    customer_id TEXT NOT NULL,
    scope       TEXT NOT NULL,
    target      TEXT NOT NULL,
    until       INTEGER, -- NULL: for good
    PRIMARY KEY (customer_id, scope, target)
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: a position is never used twice, so a reader's cursor stays true. With one writer at a
-- time, the order of `seq` is the order of commits.
CREATE TABLE decisions (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    decision_id     TEXT NOT NULL,
    customer_id     TEXT NOT NULL,
    request_id      TEXT,
    request_hash    TEXT NOT NULL,
    decided_at      INTEGER NOT NULL,
    channel         TEXT NOT NULL,
    mode            TEXT NOT NULL,
    catalog_version TEXT NOT NULL,
    snapshots       TEXT NOT NULL,
    inputs          BLOB NOT NULL,
    reply           BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX decisions_by_id ON decisions (decision_id);
CREATE UNIQUE INDEX decisions_by_request ON decisions (customer_id, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX decisions_of_customer ON decisions (customer_id);

CREATE TABLE responses (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    response_id TEXT NOT NULL,
    decision_id TEXT NOT NULL,
    customer_id TEXT NOT NULL,
    treatment   TEXT NOT NULL,
    outcome     TEXT NOT NULL,
    value       REAL,
    occurred_at INTEGER NOT NULL,
    received_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX responses_by_id ON responses (customer_id, response_id);
CREATE INDEX responses_of_customer ON responses (customer_id);
CREATE INDEX responses_of_decision ON responses (decision_id);

CREATE TABLE catalogs (
    version  TEXT PRIMARY KEY,
    document BLOB NOT NULL
) STRICT;

CREATE TABLE publications (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    version      TEXT NOT NULL,
    published_at INTEGER NOT NULL
) STRICT;

CREATE TABLE labels (
    decision_id TEXT NOT NULL,
    treatment   TEXT NOT NULL,
    outcome     TEXT,
    due_at      INTEGER,
    PRIMARY KEY (decision_id, treatment)
) STRICT, WITHOUT ROWID;
CREATE INDEX labels_due ON labels (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE snapshots (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    version    TEXT NOT NULL UNIQUE,
    lineage    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    content    BLOB NOT NULL
) STRICT;

-- The newest of each lineage, kept apart from `snapshots`: every worker polls it, so it must not cost
-- more as snapshots pile up; and a state that comes back (a correction undone) is the newest again.
-- `rounds`: the last round of the learner that it holds everything of.
CREATE TABLE live_snapshots (
    lineage TEXT PRIMARY KEY,
    version TEXT NOT NULL,
    rounds  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE learner_cursor (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    decisions INTEGER NOT NULL,
    responses INTEGER NOT NULL,
    rounds    INTEGER NOT NULL
) STRICT;
