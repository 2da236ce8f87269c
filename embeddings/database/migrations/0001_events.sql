-- What customers did, each event once.
CREATE TABLE events (
    event_id text PRIMARY KEY,
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
    recommendation_id text
);
CREATE INDEX redemptions_by_offer ON events (offer_id) WHERE type = 'redemption';
CREATE SEQUENCE event_groups;
