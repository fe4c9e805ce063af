-- Whether what is stored of a customer is not to be used. NULL: nobody has said so.
ALTER TABLE customers ADD COLUMN restricted boolean;

-- That somebody was erased, and nothing of whom: `mark` stands for each id the customer had.
CREATE TABLE tombstones (
    mark      text COLLATE "C" PRIMARY KEY,
    erased_at bigint NOT NULL
);

-- A row that was erased and made anew has another `born`: what was read of it before is no longer so, whatever
-- its revision. Rows of before have 1.
ALTER TABLE standings ADD COLUMN born bigint NOT NULL DEFAULT 1;
ALTER TABLE standings ALTER COLUMN born SET DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
