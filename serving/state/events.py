"""The event store: what customers did, in PostgreSQL, acknowledged only when durable."""

from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Literal

import asyncpg
import msgspec
from msgspec import Meta

from embeddings.context import Identifier, Moment
from embeddings.errors import EventStoreUnavailable

EventType = Literal["impression", "click", "view", "add_to_cart", "purchase", "redemption", "dismissal"]

_SCHEMA = """
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
CREATE INDEX IF NOT EXISTS events_by_customer ON events (customer_id, at);
"""

# Two servers that start at once must not both create the table: the lock's number is any constant of ours.
_LOCK = 7_250_001

_INSERT = """
INSERT INTO events (event_id, customer_id, type, at, product_id, offer_id, location, channel, quantity, value,
                    recommendation_id)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[],
                     $8::text[], $9::float8[], $10::float8[], $11::text[])
ON CONFLICT (event_id) DO NOTHING
RETURNING event_id
"""

_SINCE = """
SELECT event_id, customer_id, type, at, product_id, offer_id, location, channel, quantity, value, recommendation_id
FROM events
WHERE customer_id = $1 AND (at >= $2 OR received_at > $3)
ORDER BY at, received_at, event_id
"""

_FAILURES = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
)


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something a customer did, as the HTTP contract has it.

    Attributes:
        event_id: chosen by the sender; a second event with the same id changes nothing.
        recommendation_id: the recommendation that led to it, if one did.
    """

    event_id: Identifier
    type: EventType
    customer_id: Identifier
    at: Moment
    product_id: Identifier | None = None
    offer_id: Identifier | None = None
    location: Identifier | None = None
    channel: Identifier | None = None
    quantity: Annotated[float, Meta(gt=0)] = 1
    value: Annotated[float, Meta(ge=0)] | None = None
    recommendation_id: Identifier | None = None


class EventStore:
    """Events in PostgreSQL. Concurrent requests share the commits that PostgreSQL groups by itself.

    Attributes:
        writing: customers whose events are being stored at this moment, so that a read may or may not see them.
    """

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self.writing: Counter[str] = Counter()

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str) -> AsyncGenerator["EventStore"]:
        """Connect, creating the table if it is not there.

        Raises:
            EventStoreUnavailable: PostgreSQL does not answer at this URL.
        """
        try:
            pool = await asyncpg.create_pool(url, min_size=1, max_size=4, command_timeout=5, timeout=5)
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
                await connection.execute(_SCHEMA)
        except (*_FAILURES, asyncpg.PostgresError) as error:
            raise EventStoreUnavailable(f"PostgreSQL does not answer: {error}") from error
        try:
            yield cls(pool)
        finally:
            pool.terminate()

    async def add(self, events: Sequence[Event]) -> list[Event]:
        """Store events durably; returns those that were new, each id once.

        Raises:
            EventStoreUnavailable: nothing is known to be stored; sending them again is harmless.
        """
        once = {event.event_id: event for event in reversed(events)}
        # In one order always: two requests with the same events in different orders would wait for each other.
        columns = zip(*(_row(once[event_id]) for event_id in sorted(once)), strict=True)
        customers = Counter({event.customer_id for event in events})
        self.writing += customers
        try:
            new = await self._pool.fetch(_INSERT, *(list(column) for column in columns))
        except _FAILURES as error:
            raise EventStoreUnavailable(f"PostgreSQL did not store the events: {error}") from error
        finally:
            self.writing -= customers
        return sorted((once[record["event_id"]] for record in new), key=lambda event: event.at)

    async def since(self, customer_id: str, cut_off: datetime, snapshot: datetime) -> Iterable[Event]:
        """A customer's events that a snapshot of histories cannot hold, oldest first.

        Args:
            customer_id: who.
            cut_off: events at or after this moment are not in the snapshot,
            snapshot: nor are earlier ones that arrived after the snapshot was made.

        Raises:
            EventStoreUnavailable: PostgreSQL does not answer.
        """
        try:
            records = await self._pool.fetch(_SINCE, customer_id, cut_off, snapshot)
        except _FAILURES as error:
            raise EventStoreUnavailable(f"PostgreSQL did not answer: {error}") from error
        return [Event(**dict(record)) for record in records]

    async def ping(self) -> None:
        """EventStoreUnavailable if PostgreSQL does not answer."""
        try:
            await self._pool.execute("SELECT 1")
        except _FAILURES as error:
            raise EventStoreUnavailable(f"PostgreSQL does not answer: {error}") from error


def _row(event: Event) -> tuple[object, ...]:
    return (
        event.event_id,
        event.customer_id,
        event.type,
        event.at,
        event.product_id,
        event.offer_id,
        event.location,
        event.channel,
        event.quantity,
        event.value,
        event.recommendation_id,
    )
