-- Events of the days before the first that has a partition, such as those of tables, in a partition of their own: in that
--   for what lies elsewhere, each new day would have to look through them. The bound stays what it is now.
CREATE TABLE events_past (LIKE events INCLUDING DEFAULTS);
DO $$
DECLARE
    day date := least(
        timezone('UTC', now())::date,
        (SELECT min(to_date(substr(relname, 8), 'YYYYMMDD'))
         FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
         WHERE inhparent = 'events'::regclass AND relname ~ '^events_[0-9]+$')
    );
    starts timestamptz := day::timestamp AT TIME ZONE 'UTC';
BEGIN
    WITH moved AS (DELETE FROM events_other WHERE greatest(at, received_at) < starts RETURNING *)
    INSERT INTO events_past SELECT * FROM moved;
    EXECUTE format('ALTER TABLE events ATTACH PARTITION events_past FOR VALUES FROM (MINVALUE) TO (%L)', starts);
END
$$;
-- Rows lie about in the order of time: ranges of pages tell the days, for those that are over to be forgotten.
CREATE INDEX events_past_by_day ON events_past USING brin (greatest(at, received_at)) WITH (autosummarize = on);
