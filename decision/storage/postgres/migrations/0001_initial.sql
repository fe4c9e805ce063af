-- Times are microseconds since 1970-01-01 UTC; JSON as given is text, what must come back byte for byte bytea.
-- Hot tables are keyed by customer_id first, so that a distributed database can keep a customer in one place;
-- no sequence is on the path of a decision. Keys sort bytewise (COLLATE "C"), on every server alike.

CREATE TABLE customers (
    customer_id text COLLATE "C" PRIMARY KEY,
    attributes  text NOT NULL,
    scores      text NOT NULL,
    consents    text NOT NULL,
    told_at     bigint,
    told_apart  text NOT NULL DEFAULT '{}'
);

CREATE TABLE identities (
    type        text COLLATE "C" NOT NULL,
    value       text COLLATE "C" NOT NULL,
    customer_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (type, value)
);
CREATE INDEX identities_of_customer ON identities (customer_id);

-- Which customer an id that was merged now names, and the pseudonym of every identity that ever was a
-- customer's. Always flat: a survivor is never merged itself.
CREATE TABLE merges (
    customer_id text COLLATE "C" PRIMARY KEY,
    survivor    text COLLATE "C" NOT NULL,
    merged_at   bigint NOT NULL
);
CREATE INDEX merges_of_survivor ON merges (survivor);

-- One row per customer, which everything that limits it goes through: whoever changes its names, stops,
-- contacts or memberships changes `revision` with it, in the same transaction. `counters`: a JSON list of
-- [policy, target, times, reserved, begun, until]; `basis`: what they are counted by, NULL: they must be counted,
-- '': nothing was ever decided for the customer.
CREATE TABLE standings (
    customer_id text COLLATE "C" PRIMARY KEY,
    revision    bigint NOT NULL,
    basis       text,
    counters    text NOT NULL DEFAULT '[]'
) WITH (fillfactor = 70);

CREATE TABLE stops (
    customer_id text COLLATE "C" NOT NULL,
    scope       text COLLATE "C" NOT NULL,
    target      text COLLATE "C" NOT NULL,
    until       bigint, -- NULL: for good
    PRIMARY KEY (customer_id, scope, target)
);

CREATE TABLE memberships (
    customer_id   text COLLATE "C" NOT NULL,
    control_group text COLLATE "C" NOT NULL,
    since         text COLLATE "C" NOT NULL,
    member        boolean NOT NULL,
    share         double precision NOT NULL,
    exposed_at    bigint NOT NULL,
    PRIMARY KEY (customer_id, control_group, since)
);

-- One row per item of a deferred decision; see the columns of the same names in SQLite.
CREATE TABLE reservations (
    customer_id text COLLATE "C" NOT NULL,
    decision_id text COLLATE "C" NOT NULL,
    treatment   text COLLATE "C" NOT NULL,
    due_at      bigint NOT NULL,
    budget      text COLLATE "C",
    begins      bigint,
    amount      bigint NOT NULL,
    state       text NOT NULL,
    settled_at  bigint,
    PRIMARY KEY (customer_id, decision_id, treatment)
);
CREATE INDEX reservations_of_decision ON reservations (decision_id);
CREATE INDEX reservations_due ON reservations (due_at) WHERE state = 'reserved';

-- What customers share: the one thing that decisions of different customers write to.
CREATE TABLE budgets (
    budget   text COLLATE "C" NOT NULL,
    begins   bigint NOT NULL,
    used     bigint NOT NULL,
    reserved bigint NOT NULL,
    PRIMARY KEY (budget, begins)
) WITH (fillfactor = 50);

-- The ledger is partitioned by the time that begins a decision's id (UUIDv7), so that a look-up by id meets
-- one partition, and all that belongs to the decisions of a month goes with it. Ids of another make are in the
-- default partition.
CREATE TABLE decisions (
    customer_id     text COLLATE "C" NOT NULL,
    decision_id     text COLLATE "C" NOT NULL,
    request_id      text COLLATE "C",
    request_hash    text NOT NULL,
    decided_at      bigint NOT NULL,
    channel         text COLLATE "C" NOT NULL,
    mode            text NOT NULL,
    catalog_version text COLLATE "C" NOT NULL,
    snapshots       text NOT NULL,
    inputs          bytea NOT NULL,
    reply           bytea NOT NULL,
    activation      text NOT NULL,
    recorded_at     bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    PRIMARY KEY (customer_id, decision_id)
) PARTITION BY RANGE (decision_id);
CREATE INDEX decisions_by_id ON decisions (decision_id);
CREATE INDEX decisions_of_customer ON decisions (customer_id, recorded_at);
CREATE TABLE decisions_other PARTITION OF decisions DEFAULT;

CREATE TABLE responses (
    customer_id text COLLATE "C" NOT NULL,
    decision_id text COLLATE "C" NOT NULL,
    response_id text COLLATE "C" NOT NULL,
    treatment   text COLLATE "C" NOT NULL,
    outcome     text COLLATE "C" NOT NULL,
    value       double precision,
    occurred_at bigint NOT NULL,
    received_at bigint NOT NULL,
    corrects    text COLLATE "C",
    recorded_at bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    PRIMARY KEY (customer_id, response_id, decision_id)
) PARTITION BY RANGE (decision_id);
CREATE INDEX responses_of_decision ON responses (decision_id);
CREATE INDEX responses_corrected ON responses (customer_id, corrects) WHERE corrects IS NOT NULL;
CREATE TABLE responses_other PARTITION OF responses DEFAULT;

CREATE TABLE labels (
    decision_id text COLLATE "C" NOT NULL,
    treatment   text COLLATE "C" NOT NULL,
    outcomes    text,
    due_at      bigint,
    PRIMARY KEY (decision_id, treatment)
) PARTITION BY RANGE (decision_id);
CREATE INDEX labels_due ON labels (due_at) WHERE due_at IS NOT NULL;
CREATE TABLE labels_other PARTITION OF labels DEFAULT;

-- Which decision answered a request: unique over all partitions.
CREATE TABLE requests (
    customer_id text COLLATE "C" NOT NULL,
    request_id  text COLLATE "C" NOT NULL,
    decision_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (customer_id, request_id)
);

-- What the learner has not read, written with the record itself. The learner gives each a place in its own
-- order when it first sees it, which is after the commit: so none can come to light behind its cursor.
CREATE TABLE unread (
    customer_id text COLLATE "C" NOT NULL,
    kind        text COLLATE "C" NOT NULL, -- decision, response
    id          text COLLATE "C" NOT NULL,
    decision_id text COLLATE "C" NOT NULL,
    recorded_at bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    place       bigint,
    PRIMARY KEY (customer_id, kind, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
CREATE INDEX unread_new ON unread (recorded_at) WHERE place IS NULL;
CREATE INDEX unread_in_order ON unread (kind, place) WHERE place IS NOT NULL;

CREATE TABLE learner_cursor (
    id               integer PRIMARY KEY CHECK (id = 1),
    decisions        bigint NOT NULL,
    responses        bigint NOT NULL,
    rounds           bigint NOT NULL,
    decisions_placed bigint NOT NULL,
    responses_placed bigint NOT NULL
);
INSERT INTO learner_cursor VALUES (1, 0, 0, 0, 0, 0);

CREATE TABLE erasures (
    decision_id text COLLATE "C" PRIMARY KEY,
    unlearned   boolean NOT NULL DEFAULT false
);
CREATE INDEX erasures_open ON erasures (decision_id) WHERE NOT unlearned;

CREATE TABLE catalogs (
    version  text COLLATE "C" PRIMARY KEY,
    document bytea NOT NULL
);

CREATE TABLE publications (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version      text COLLATE "C" NOT NULL,
    published_at bigint NOT NULL
);

CREATE TABLE snapshots (
    version    text COLLATE "C" PRIMARY KEY,
    seq        bigint GENERATED ALWAYS AS IDENTITY,
    lineage    text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    content    bytea NOT NULL,
    rounds     bigint NOT NULL
);
CREATE INDEX snapshots_of_lineage ON snapshots (lineage, rounds, seq);

CREATE TABLE live_snapshots (
    lineage text COLLATE "C" PRIMARY KEY,
    version text COLLATE "C" NOT NULL,
    rounds  bigint NOT NULL
);

CREATE TABLE pins (
    lineage   text COLLATE "C" PRIMARY KEY,
    version   text COLLATE "C" NOT NULL,
    pinned_at bigint NOT NULL
);
