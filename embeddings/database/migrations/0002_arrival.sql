-- seq: the order of arrival: events of one group share the upper bits. What was there before gets the order in which it
--   lies, which is that in which it came.
-- xid: the transaction that brought it. A reader who knows that all before some number had ended reads from there on and
--   misses none, in whatever order they end.
-- arrived_at: the server's clock at arrival, where the event lies ahead of it.
-- Earlier versions had no sequence of groups.
CREATE SEQUENCE IF NOT EXISTS event_groups;
ALTER TABLE events
    -- squawk-ignore adding-field-with-default
    ADD COLUMN seq bigint NOT NULL DEFAULT nextval('event_groups') << 20,
    ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    ADD COLUMN arrived_at timestamptz;
UPDATE events SET arrived_at = received_at WHERE at > received_at;
CREATE INDEX events_by_arrival ON events (customer_id, seq);
DROP INDEX IF EXISTS events_by_customer;
CREATE INDEX IF NOT EXISTS redemptions_by_offer ON events (offer_id) WHERE type = 'redemption';
