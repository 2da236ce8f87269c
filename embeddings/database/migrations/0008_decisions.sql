-- What was shown to whom, in partitions of a day.

-- Makes a day's partition of a table whose partitions are days. Where there is one, or the day's rows have begun to lie
-- elsewhere, it does nothing. Attached and not created in place, it waits for no insert and no reader of other days.
CREATE FUNCTION make_day(parent text, day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    name text := parent || to_char(day, '"_"YYYYMMDD');
    key text := substring(pg_get_partkeydef(parent::regclass) FROM '^RANGE \((.*)\)$');
    starts timestamptz := day::timestamp AT TIME ZONE 'UTC';
    ends timestamptz := (day + 1)::timestamp AT TIME ZONE 'UTC';
    elsewhere boolean;
BEGIN
    IF to_regclass(name) IS NULL THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE %s >= $1 AND %s < $2)', parent || '_other', key, key)
        INTO elsewhere USING starts, ends;
        IF NOT elsewhere THEN
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS)', name, parent);
            EXECUTE format(
                'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name, starts, ends
            );
        END IF;
    END IF;
END
$$;
-- squawk-ignore ban-drop-function
DROP FUNCTION make_event_day(date);

-- id: it begins with the milliseconds of its moment (a UUID of version 7), so that a look-up knows the day.
-- at: that very moment, by the clock of the server that answered. asked_at: the moment that the request asked about.
-- customer_id: none of somebody anonymous.
-- place: latitude, longitude and radius in km, of a request that had those in place of a location.
-- placement: what the request named.
-- share: of how many decisions of its kind one was stored, as a probability.
-- items, kinds, scores, sources, propensities: of each item in the order in which they were shown. propensities: with which
--   probability it was shown at its place; none where nothing was left to chance, and so 1 of each.
CREATE TABLE decisions (
    id uuid NOT NULL,
    at timestamptz NOT NULL,
    asked_at timestamptz NOT NULL,
    customer_id text,
    channel text NOT NULL,
    location text,
    place double precision [],
    placement text,
    context jsonb,
    version text NOT NULL,
    catalogue_seq bigint NOT NULL,
    personalised boolean NOT NULL,
    degraded boolean NOT NULL,
    share double precision NOT NULL,
    items text [] NOT NULL,
    kinds text [] NOT NULL,
    scores double precision [] NOT NULL,
    sources text [] NOT NULL,
    propensities double precision [],
    PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);
CREATE INDEX decisions_by_customer ON decisions (customer_id, at) WHERE customer_id IS NOT NULL;
CREATE TABLE decisions_other PARTITION OF decisions DEFAULT;

-- What a server hands over of one decision; a later version that hands over more has a type of its own.
CREATE TYPE decision AS (
    id uuid,
    at timestamptz,
    asked_at timestamptz,
    customer_id text,
    channel text,
    location text,
    place double precision [],
    placement text,
    context jsonb,
    version text,
    catalogue_seq bigint,
    personalised boolean,
    degraded boolean,
    share double precision,
    items text [],
    kinds text [],
    scores double precision [],
    sources text [],
    propensities double precision []
);
