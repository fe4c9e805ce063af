-- Whether what is stored of a customer is not to be used. NULL: nobody has said so.
ALTER TABLE customers ADD COLUMN restricted INTEGER;

-- That somebody was erased, and nothing of whom: `mark` stands for each id the customer had. AUTOINCREMENT: the
-- greatest `seq` there is tells whether anybody was erased since, also the same customer again.
CREATE TABLE tombstones (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    mark      TEXT NOT NULL UNIQUE,
    erased_at INTEGER NOT NULL
) STRICT;
