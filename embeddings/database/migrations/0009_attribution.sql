-- Which decision an event followed from.

-- The decision that a sender names in an event; none if it is no id of ours.
CREATE FUNCTION decision_named(recommendation_id text) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN recommendation_id ~ '^[0-9a-f]{12}7[0-9a-f]{3}8[0-9a-f]{15}$' THEN recommendation_id::uuid END
$$;

-- The moment that an id begins with.
CREATE FUNCTION decision_moment(id uuid) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT timestamptz '1970-01-01 00:00:00+00'
        + ('x' || substr(replace(id::text, '-', ''), 1, 12))::bit(48)::bigint * interval '1 millisecond'
$$;

-- The place of an item among those that were shown, from 1; none if it was not.
CREATE FUNCTION shown_rank(items text [], kinds text [], kind text, item text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN kinds[array_position(items, item)] = kind THEN array_position(items, item)
        -- The product and the offer of one id.
        ELSE array_position(items, item, coalesce(array_position(items, item), 0) + 1)
    END
$$;

-- What an event is attributed to; see `attributed`.
CREATE TYPE attribution AS (
    source text,
    event_id text,
    customer_id text,
    type text,
    at timestamptz,
    product_id text,
    offer_id text,
    quantity double precision,
    value double precision,
    how text,
    kind text,
    item text,
    shown_at timestamptz,
    impression_source text,
    impression_id text,
    decision uuid
);

-- Constants, by which PostgreSQL leaves out the partitions of other days.
CREATE FUNCTION lies_within(spans tstzmultirange) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(string_agg(format('at >= %L AND at < %L', lower(one), upper(one)), ' OR '), 'false')
    FROM unnest(spans) AS one
$$;

-- Joins the events of some time to what was shown: an event that names its recommendation to that one and to no other; any
-- other event but impressions to what its customer was shown last, of the same product or the same offer, at most so long
-- before it: that is an impression that was reported, or a decision. Each event has one row at most.
-- since, until: of when events happened or arrived, whichever is later: so each belongs to one time, and what is attributed
--   then does not change any more. until itself is left out.
-- how: named, impression or decision. shown_at: when that was. What follows is of the decision, where it is kept, if the
--   impression names one; rank: the item's place in it.
-- Decisions are unnested once and joined to numbered keys by hash, then one pass in the order of time finds the last before
-- each event. For this the planner has to know how many customers there are: they are handed over.
CREATE FUNCTION attributed(since timestamptz, until timestamptz, within interval)
RETURNS TABLE (
    source text, event_id text, customer_id text, type text, at timestamptz, product_id text, offer_id text,
    quantity double precision, value double precision, how text, shown_at timestamptz, impression_source text,
    impression_id text, recommendation_id text, channel text, location text, version text, catalogue_seq bigint,
    rank integer, score double precision, propensity double precision, share double precision
)
LANGUAGE plpgsql STABLE
SET timezone = 'UTC' SET enable_nestloop = off SET enable_mergejoin = off SET jit = off SET work_mem = '64MB' AS $$
#variable_conflict use_column
DECLARE
    spans tstzmultirange;
    customers text [];
    found attribution [];
BEGIN
    SELECT range_agg(tstzrange(day - within, day + interval '1 day')), array_agg(DISTINCT customer_id)
    INTO spans, customers
    FROM (
        SELECT DISTINCT date_trunc('day', at, 'UTC') AS day, customer_id FROM events
        WHERE greatest(at, received_at) >= since AND greatest(at, received_at) < until
            AND recommendation_id IS NULL AND customer_id IS NOT NULL AND type <> 'impression'
    ) AS seeking;
    EXECUTE format($query$
        WITH customers AS (
            SELECT customer_id, customer FROM unnest($4) WITH ORDINALITY AS given (customer_id, customer)
        ), happened AS MATERIALIZED (
            SELECT row_number() OVER () AS n, source, event_id, customer_id, type, at, product_id, offer_id, quantity,
                   value, recommendation_id
            FROM events
            WHERE greatest(at, received_at) >= $1 AND greatest(at, received_at) < $2
        ), seeking AS MATERIALIZED (
            SELECT n, customer, at, product_id, offer_id FROM happened JOIN customers USING (customer_id)
            WHERE recommendation_id IS NULL AND type <> 'impression'
        ), wanted AS MATERIALIZED (
            SELECT n, customer, at, 'product' AS kind, product_id AS item FROM seeking WHERE product_id IS NOT NULL
            UNION ALL
            SELECT n, customer, at, 'offer', offer_id FROM seeking WHERE offer_id IS NOT NULL
        ), keys AS MATERIALIZED (
            SELECT row_number() OVER () AS key, customer, kind, item FROM wanted GROUP BY customer, kind, item
        ), decided AS (
            -- Moments of events are often cut to the second: what happens in that of the answer comes after it.
            SELECT customer, unnest(kinds) AS kind, unnest(items) AS item, date_trunc('second', at) AS at, id
            FROM decisions JOIN customers USING (customer_id)
            WHERE %1$s
        ), impressions AS MATERIALIZED (
            SELECT customer, product_id, offer_id, at, decision_named(recommendation_id) AS id, source, event_id
            FROM events JOIN customers USING (customer_id)
            WHERE type = 'impression' AND (%1$s) AND greatest(at, received_at) >= %2$L AND greatest(at, received_at) < $2
        ), line AS (
            SELECT key, at, 0 AS sort, NULL::bigint AS n, id, NULL AS source, NULL AS event_id
            FROM decided JOIN keys USING (customer, kind, item)
            UNION ALL
            SELECT key, at, 1, NULL, id, source, event_id
            FROM impressions JOIN keys USING (customer) WHERE kind = 'product' AND item = product_id
            UNION ALL
            SELECT key, at, 1, NULL, id, source, event_id
            FROM impressions JOIN keys USING (customer) WHERE kind = 'offer' AND item = offer_id
            UNION ALL
            SELECT key, at, 2, n, NULL, NULL, NULL FROM wanted JOIN keys USING (customer, kind, item)
        ), placed AS MATERIALIZED (
            SELECT *, count(*) FILTER (WHERE n IS NULL) OVER (
                PARTITION BY key ORDER BY at, sort, id, source, event_id ROWS UNBOUNDED PRECEDING
            ) AS place
            FROM line
        ), latest AS (
            SELECT DISTINCT ON (event.n) event.n, kind, item, shown.sort, shown.at, shown.source, shown.event_id, shown.id
            FROM placed AS event JOIN placed AS shown USING (key, place) JOIN keys USING (key)
            WHERE event.n IS NOT NULL AND shown.n IS NULL AND event.at <= shown.at + $3
            ORDER BY event.n, shown.at DESC, shown.sort DESC, shown.id DESC, shown.source DESC, shown.event_id DESC, kind
        ), joined AS (
            SELECT n, 'named' AS how, NULL AS kind, NULL AS item, NULL::timestamptz AS shown_at, NULL AS source,
                   NULL AS event_id, decision_named(recommendation_id) AS id
            FROM happened WHERE recommendation_id IS NOT NULL
            UNION ALL
            SELECT n, CASE sort WHEN 0 THEN 'decision' ELSE 'impression' END, kind, item, CASE sort WHEN 1 THEN at END,
                   source, event_id, id
            FROM latest
        )
        SELECT array_agg((
            happened.source, happened.event_id, customer_id, type, at, product_id, offer_id, quantity, value, how, kind,
            item, shown_at, joined.source, joined.event_id, id
        )::attribution)
        FROM joined JOIN happened USING (n)
        WHERE how <> 'named' OR id IS NOT NULL
    $query$, lies_within(spans), lower(spans)) INTO found USING since, until, within, customers;
    SELECT range_agg(tstzrange(day, day + interval '1 day')) INTO spans
    FROM (
        SELECT DISTINCT date_trunc('day', decision_moment(decision), 'UTC') AS day FROM unnest(found)
        WHERE decision IS NOT NULL
    ) AS days;
    RETURN QUERY EXECUTE format($query$
        SELECT source, event_id, customer_id, type, at, product_id, offer_id, quantity, value, how,
               coalesce(shown_at, decided_at), impression_source, impression_id, replace(id::text, '-', ''), channel,
               location, version, catalogue_seq, rank, scores[rank], coalesce(propensities[rank], 1), share
        FROM (
            SELECT one.*, kept.id, kept.at AS decided_at, channel, location, version, catalogue_seq, scores, propensities,
                   share, CASE
                       WHEN how <> 'named' THEN shown_rank(items, kinds, kind, item)
                       ELSE coalesce(
                           shown_rank(items, kinds, 'offer', offer_id), shown_rank(items, kinds, 'product', product_id)
                       )
                   END AS rank
            -- OFFSET keeps the condition within, where it leaves out partitions even if it is false.
            FROM unnest($1) AS one
            LEFT JOIN (SELECT * FROM decisions WHERE %s OFFSET 0) AS kept ON decision = kept.id
        ) AS attributed
        WHERE how <> 'named' OR id IS NOT NULL
    $query$, lies_within(spans)) USING found;
END
$$;
