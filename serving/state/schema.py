"""The tables of the event store in PostgreSQL, and the migration of those of an earlier version."""

import asyncpg
from asyncpg.pool import PoolConnectionProxy

# Two servers that start at once must not both create the tables: the lock's number is any constant of ours.
_LOCK = 7_250_001

_MOST_SECONDS = 3_600.0
"""How long the rows of an earlier version may take to be written anew, a minute for some ten million."""

_TABLE = """
CREATE TABLE IF NOT EXISTS events (
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
CREATE INDEX IF NOT EXISTS redemptions_by_offer ON events (offer_id) WHERE type = 'redemption';
CREATE SEQUENCE IF NOT EXISTS event_groups;
"""

_HAS_COLUMN = """
SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'events'::regclass AND attname = $1 AND NOT attisdropped)
"""

# seq: the order of arrival: events of one group share the upper bits. What was there before gets the order in which it
#   lies, which is that in which it came.
# xid: the transaction that brought it. A reader who knows that all before some number had ended reads from there on and
#   misses none, in whatever order they end.
# arrived_at: the server's clock at arrival, where the event lies ahead of it.
_COMPLETE = """
ALTER TABLE events
    ADD COLUMN seq bigint NOT NULL DEFAULT nextval('event_groups') << 20,
    ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    ADD COLUMN arrived_at timestamptz;
UPDATE events SET arrived_at = received_at WHERE at > received_at;
CREATE INDEX events_by_arrival ON events (customer_id, seq);
DROP INDEX IF EXISTS events_by_customer;
"""


async def create(connection: asyncpg.Connection | PoolConnectionProxy) -> None:
    """Create the tables, or complete those of an earlier version; nothing that they hold is lost."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK, timeout=_MOST_SECONDS)
        await connection.execute(_TABLE)
        if not await connection.fetchval(_HAS_COLUMN, "seq"):
            await connection.execute(_COMPLETE, timeout=_MOST_SECONDS)
        if not await connection.fetchval(_HAS_COLUMN, "context"):
            await connection.execute("ALTER TABLE events ADD COLUMN context jsonb")
