-- Contact policies, budgets, reservations and control groups. What is counted follows from decisions and
-- responses; `counters` only keeps it at hand.

ALTER TABLE decisions ADD COLUMN activation TEXT NOT NULL DEFAULT 'immediate';

-- One row for each contact policy and target that a customer ever had a contact under. `times`: the newest
-- contacts, a JSON list; `reserved`: how many of all may be taken away again; `begun`: what is not later does
-- not count; `until`: until when the policy holds back, NULL where it does not. By the customer's own id.
CREATE TABLE counters (
    customer_id TEXT NOT NULL,
    policy      TEXT NOT NULL,
    target      TEXT NOT NULL,
    times       TEXT NOT NULL,
    reserved    INTEGER NOT NULL,
    begun       INTEGER,
    until       INTEGER,
    PRIMARY KEY (customer_id, policy, target)
) STRICT, WITHOUT ROWID;
CREATE INDEX counters_holding ON counters (customer_id, until) WHERE until IS NOT NULL;

-- What a customer's counters were counted by: the contact policies, and how many names the customer had. Where
-- that has changed, they are counted anew from the ledger.
CREATE TABLE countings (
    customer_id TEXT PRIMARY KEY,
    basis       TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row per item of a deferred decision. `state`: reserved, firm or released; `settled_at`: since when it is
-- not reserved any more. `budget`, `begins` and `amount`: what it took of which budget, if of any.
CREATE TABLE reservations (
    decision_id TEXT NOT NULL,
    treatment   TEXT NOT NULL,
    customer_id TEXT NOT NULL,
    due_at      INTEGER NOT NULL,
    budget      TEXT,
    begins      INTEGER,
    amount      INTEGER NOT NULL,
    state       TEXT NOT NULL,
    settled_at  INTEGER,
    PRIMARY KEY (decision_id, treatment)
) STRICT, WITHOUT ROWID;
CREATE INDEX reservations_due ON reservations (due_at) WHERE state = 'reserved';
CREATE INDEX reservations_open ON reservations (customer_id) WHERE state = 'reserved';

-- What is taken of a budget, in times or ten-thousandths of the currency; `reserved`: the part of it that may
-- be given back. `begins`: of the calendar period it is for, 0 where there is none.
CREATE TABLE budgets (
    budget   TEXT NOT NULL,
    begins   INTEGER NOT NULL,
    used     INTEGER NOT NULL,
    reserved INTEGER NOT NULL,
    PRIMARY KEY (budget, begins)
) STRICT, WITHOUT ROWID;

-- Whether a customer is in a control group, as it was found at the first exposure; `since`: the begin of the
-- group's validity as it was written, which names the window.
CREATE TABLE memberships (
    customer_id   TEXT NOT NULL,
    control_group TEXT NOT NULL,
    since         TEXT NOT NULL,
    member        INTEGER NOT NULL,
    share         REAL NOT NULL,
    exposed_at    INTEGER NOT NULL,
    PRIMARY KEY (customer_id, control_group, since)
) STRICT, WITHOUT ROWID;
