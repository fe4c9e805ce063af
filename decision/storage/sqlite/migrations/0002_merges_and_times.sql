-- Which customer an id that was merged now names, and the pseudonym of every identity that ever was a
-- customer's: it stays with the first. Always flat: a survivor is never merged itself.
CREATE TABLE merges (
    customer_id TEXT PRIMARY KEY,
    survivor    TEXT NOT NULL,
    merged_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX merges_of_survivor ON merges (survivor);
INSERT INTO merges (customer_id, survivor, merged_at)
SELECT pseudonym(type, value), customer_id, strftime('%s', 'now') * 1000000 FROM identities;

-- When the values of a profile were last told. NULL: before this was kept. `told_apart`: a JSON object, the
-- times of values that have another than `told_at`, by name (attributes.nps). A profile put whole has one
-- time, so this costs it next to nothing.
ALTER TABLE customers ADD COLUMN told_at INTEGER;
ALTER TABLE customers ADD COLUMN told_apart TEXT NOT NULL DEFAULT '{}';
