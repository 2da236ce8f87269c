-- Events in partitions of a day, each known by its sender's id for it, and numbered anew in another cluster.

-- Transactions have numbers that no other cluster, and no earlier state of this one, has given out: PostgreSQL's own,
-- shifted. Where a database was restored, its old rows carry low numbers, and those of new rows begin at the microseconds
-- since 1970, which are always ahead of what was counted before. `embeddings/database/numbering.py` sets the shift.
CREATE TABLE event_numbering (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    cluster text NOT NULL,
    shift bigint NOT NULL
);
INSERT INTO event_numbering (cluster, shift) VALUES ('none yet', 0);
CREATE FUNCTION event_transaction() RETURNS xid8 LANGUAGE sql STABLE AS $$
    SELECT (pg_current_xact_id()::text::bigint + shift)::text::xid8 FROM event_numbering
$$;
CREATE FUNCTION event_snapshot() RETURNS pg_snapshot LANGUAGE sql STABLE AS $$
    SELECT format(
        '%s:%s:%s',
        pg_snapshot_xmin(now)::text::bigint + shift,
        pg_snapshot_xmax(now)::text::bigint + shift,
        (SELECT string_agg((one::text::bigint + shift)::text, ',' ORDER BY one) FROM pg_snapshot_xip(now) AS one)
    )::pg_snapshot
    FROM event_numbering, pg_current_snapshot() AS now
$$;

-- An id counts once within its source, whatever moment it is sent with: so this table has no partitions.
-- day: that of the event's partition, with which the key is forgotten.
CREATE TABLE event_keys (
    source text NOT NULL,
    event_id text NOT NULL,
    day date NOT NULL,
    PRIMARY KEY (source, event_id)
);
-- Rows of a day lie together, as they came: ranges of pages tell them, at hardly any cost to what comes.
CREATE INDEX event_keys_by_day ON event_keys USING brin (day) WITH (autosummarize = on);

-- A day is that of the later of the event's moment and its arrival, in UTC: what happened or arrived after some moment
-- lies in the days from that moment on.
-- server: which running server has stored it; none if it was brought in otherwise.
-- squawk-ignore renaming-table
ALTER TABLE events RENAME TO events_before;
DROP INDEX events_by_arrival;
DROP INDEX redemptions_by_offer;
CREATE TABLE events (
    source text NOT NULL,
    event_id text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    customer_id text NOT NULL,
    type text NOT NULL,
    at timestamptz NOT NULL,
    product_id text,
    offer_id text,
    location text,
    channel text,
    quantity double precision NOT NULL,
    value double precision,
    recommendation_id text,
    arrived_at timestamptz,
    context jsonb,
    seq bigint NOT NULL DEFAULT nextval('event_groups') << 20,
    xid xid8 NOT NULL DEFAULT event_transaction(),
    server bigint
) PARTITION BY RANGE (greatest(at, received_at));
CREATE INDEX events_by_arrival ON events (customer_id, seq);
CREATE INDEX events_by_transaction ON events (xid);
CREATE INDEX redemptions_by_offer ON events (offer_id) WHERE type = 'redemption';
-- What lies in no day's partition: an insert never fails for want of one.
CREATE TABLE events_other PARTITION OF events DEFAULT;

-- Makes a day's partition. Where there is one, or the day's events have begun to lie elsewhere, it does nothing.
-- Attached and not created in place, it waits for no insert and no reader of other days.
CREATE FUNCTION make_event_day(day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    name text := to_char(day, '"events_"YYYYMMDD');
    starts timestamptz := day::timestamp AT TIME ZONE 'UTC';
    ends timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass(name) IS NULL AND NOT EXISTS (
        SELECT FROM events_other WHERE greatest(at, received_at) >= starts AND greatest(at, received_at) < ends
    ) THEN
        EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING DEFAULTS)', name);
        EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, starts, ends);
    END IF;
END
$$;

SELECT make_event_day(day)
FROM (SELECT DISTINCT (greatest(at, received_at) AT TIME ZONE 'UTC')::date AS day FROM events_before ORDER BY day);
INSERT INTO event_keys (source, event_id, day)
SELECT 'http', event_id, (greatest(at, received_at) AT TIME ZONE 'UTC')::date FROM events_before;
INSERT INTO events (
    source, event_id, received_at, customer_id, type, at, product_id, offer_id, location, channel, quantity, value,
    recommendation_id, arrived_at, context, seq, xid
)
SELECT
    'http', event_id, received_at, customer_id, type, at, product_id, offer_id, location, channel, quantity, value,
    recommendation_id, arrived_at, context, seq, xid
FROM events_before;
-- squawk-ignore ban-drop-table
DROP TABLE events_before;
