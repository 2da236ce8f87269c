-- The catalogue as it is now, and every change of it. Both are written in one transaction, under one lock: the order of
--   `seq` is the order of commits.
-- body: the whole state of one thing, in the words of the management API.
CREATE TABLE catalogue_changes (
    seq bigint PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    kind text NOT NULL,
    id text NOT NULL,
    -- None where the thing was withdrawn.
    body jsonb
);
CREATE INDEX catalogue_changes_by_id ON catalogue_changes (kind, id, seq);
-- seq: of the last change. since: of the first; what was loaded from tables keeps their order by it.
-- body: stays as it was last when the thing is withdrawn.
CREATE TABLE catalogue (
    kind text NOT NULL,
    id text NOT NULL,
    seq bigint NOT NULL,
    since bigint NOT NULL,
    withdrawn boolean NOT NULL,
    body jsonb NOT NULL,
    PRIMARY KEY (kind, id)
) PARTITION BY LIST (kind);
CREATE TABLE customers PARTITION OF catalogue FOR VALUES IN ('customer');
CREATE TABLE products PARTITION OF catalogue FOR VALUES IN ('product');
CREATE TABLE locations PARTITION OF catalogue FOR VALUES IN ('location');
CREATE TABLE offers PARTITION OF catalogue FOR VALUES IN ('offer');
CREATE TABLE campaigns PARTITION OF catalogue FOR VALUES IN ('campaign');
CREATE TABLE segments PARTITION OF catalogue FOR VALUES IN ('segment');
CREATE TABLE promotions PARTITION OF catalogue FOR VALUES IN ('promotion');
CREATE INDEX catalogue_by_seq ON catalogue (kind, seq);
