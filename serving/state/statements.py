"""What is asked of PostgreSQL about events, and what a snapshot of histories leaves to be asked for."""

from datetime import datetime, timedelta
from typing import NamedTuple, Self

from embeddings.catalogue.changes import CustomerState
from embeddings.release.bundle import DatabaseMark, HistoriesManifest
from serving.state.event import Row

LONGEST_TRANSACTION = timedelta(days=1)
"""No transaction that brings events takes longer: what it brings has arrived at most so long before it is seen."""

INSERT = """
WITH given AS (
    SELECT *
    FROM unnest($3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::text[], $8::text[], $9::text[],
                $10::text[], $11::float8[], $12::float8[], $13::text[], $14::timestamptz[], $15::bigint[],
                $16::jsonb[])
        AS event (event_id, customer_id, type, at, product_id, offer_id, location, channel, quantity, value,
                  recommendation_id, arrived_at, place, context)
), fresh AS (
    INSERT INTO event_keys (source, event_id, day)
    SELECT $1, event_id, timezone('UTC', greatest(at, now()))::date FROM given
    ON CONFLICT (source, event_id) DO NOTHING
    RETURNING event_id
)
INSERT INTO events (source, server, event_id, customer_id, type, at, product_id, offer_id, location, channel, quantity,
                    value, recommendation_id, arrived_at, context, seq, xid)
SELECT $1, $2, event_id, customer_id, type, at, product_id, offer_id, location, channel, quantity, value,
       recommendation_id, arrived_at, context, (SELECT nextval('event_groups') << 20) + place,
       (SELECT event_transaction())
FROM given
WHERE event_id IN (SELECT event_id FROM fresh)
RETURNING event_id, seq
"""

# The first condition says no more than those in brackets; by it PostgreSQL leaves out the days before.
_SINCE = """
    greatest(at, received_at) >= $1 AND (at >= $2 OR CASE
        WHEN $4::text IS NULL THEN received_at > $3 ELSE NOT pg_visible_in_snapshot(xid, $4::text::pg_snapshot) END)
"""

# Impressions would soon outnumber all else: they count with the next release. A mark of 0 is before all transactions.
PAGE = f"""
SELECT pg_snapshot_xmin(event_snapshot())::text AS mark, max(transaction) AS newest,
       array_agg(seq) AS seq, array_agg(arrived) AS arrived, array_agg(at) AS at, array_agg(type) AS type,
       array_agg(product_id) AS product_id, array_agg(offer_id) AS offer_id, array_agg(location) AS location,
       array_agg(channel) AS channel, array_agg(quantity) AS quantity, array_agg(value) AS value,
       (SELECT CASE WHEN withdrawn THEN json_build_object('id', id)::text ELSE body::text END
        FROM catalogue WHERE kind = 'customer' AND id = $5) AS told
FROM (
    SELECT seq, coalesce(floor(extract(epoch FROM arrived_at)), 0)::bigint AS arrived,
           floor(extract(epoch FROM at))::bigint AS at, type, product_id, offer_id, location, channel, quantity, value,
           xid::text::bigint AS transaction
    FROM events
    WHERE {_SINCE} AND customer_id = $5 AND seq > $6 AND seq < $7 AND xid >= $8::text::xid8 AND type <> 'impression'
    ORDER BY seq DESC
    LIMIT $9
) AS newest
"""  # noqa: S608 - a condition of ours

REDEEMED = f"""
SELECT offer_id, count(*) AS times
FROM events
WHERE {_SINCE} AND type = 'redemption'
GROUP BY offer_id
"""  # noqa: S608

# Of the transactions that a snapshot has not seen: those that ran then, and those that came later.
BROUGHT = """
SELECT event_snapshot()::text AS snapshot, now() AS at, array_agg(customer_id) AS customers,
       coalesce(bool_or(type = 'redemption'), false) AS redeemed
FROM (
    SELECT customer_id, type
    FROM events
    WHERE (xid = ANY ($1::text[]::xid8[]) OR xid >= $2::text::xid8) AND greatest(at, received_at) >= $3
      AND server IS DISTINCT FROM $4 AND type <> 'impression'
    LIMIT $5
) AS brought
"""


class Span(NamedTuple):
    """The events that a snapshot of histories cannot hold.

    Attributes:
        cut_off: it holds no event of this moment or a later one.
        snapshot: the moment at which it was made; it holds no event that arrived later, whenever that happened.
        mark: of what was read of this database to make it, where it was made of that: it holds no event that was not
            read, whenever that arrived, and ``snapshot`` says nothing.
    """

    cut_off: datetime
    snapshot: datetime
    mark: DatabaseMark | None = None

    @classmethod
    def of(cls, manifest: HistoriesManifest) -> Self:
        """Return the events that the histories of a manifest cannot hold."""
        return cls(manifest.data_cut_off, manifest.created_at, manifest.mark or None)

    @property
    def values(self) -> tuple[object, ...]:
        """Return what statements are asked with: the least moment or arrival of such an event, and what tells it."""
        if self.mark is None:
            return min(self.cut_off, self.snapshot), self.cut_off, self.snapshot, None
        least = min(self.cut_off, self.mark.at - LONGEST_TRANSACTION)
        return least, self.cut_off, self.snapshot, self.mark.snapshot


class Page(NamedTuple):
    """Some of a customer's events.

    Attributes:
        mark: every transaction before this one had ended, so what it brought has been read or lies elsewhere. No later
            than the one after the newest that brought a row: a transaction that brought none may be forgotten when
            PostgreSQL is killed, and its number given to another.
        rows: the newest first.
        told: what the database says of the customer; None where it knows nothing.
    """

    mark: int
    rows: list[Row]
    told: CustomerState | None = None
