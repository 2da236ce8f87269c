"""The event store: what customers did, in PostgreSQL, acknowledged only when durable."""

import asyncio
import logging
import os
from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Literal, TypeAlias, cast
from urllib.parse import urlsplit

import asyncpg
import msgspec
from msgspec import Meta

from embeddings.context import Identifier, Moment
from embeddings.errors import EventStoreUnavailable, InvalidInput, Overloaded
from serving.state.changes import Changes

_log = logging.getLogger("opportune.serve")

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
CREATE INDEX IF NOT EXISTS redemptions_by_offer ON events (offer_id) WHERE type = 'redemption';
"""

_LARGEST_GROUP = 5_000
"""Events in one statement, unless a single request holds more."""
_MOST_WAITING = 2 * _LARGEST_GROUP
"""Events that may wait for those before them to be stored: so many that more would wait for several commits."""

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

_REDEEMED = """
SELECT offer_id, count(*) AS times
FROM events
WHERE type = 'redemption' AND (at >= $1 OR received_at > $2)
GROUP BY offer_id
"""

_FAILURES = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
)

_DEAD = (ConnectionError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.OperatorInterventionError)
"""What a connection fails with whose PostgreSQL has ended since it was used last."""
_SILENT = "the event store does not answer; no event is known to be stored, and sending them again is harmless"


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


_Waiting: TypeAlias = tuple[Sequence[Event], "asyncio.Future[list[Event]]"]


class EventStore:
    """Events in PostgreSQL, written in groups: what comes while one commit is under way shares the next.

    It answers while ``connected`` is entered, on the event loop that entered it.

    Attributes:
        changes: where other workers see what was stored here, and this one theirs.
        writing: customers whose events are being stored at this moment, so that a read may or may not see them.
        answering: whether PostgreSQL answered when it was last asked.
        refused: how many events were not stored because it did not.

    Args:
        url: of PostgreSQL.
    """

    def __init__(self, url: str, changes: Changes) -> None:
        self._url = url
        self._pool = cast("asyncpg.Pool", None)
        self._waiting: deque[_Waiting] = deque()
        self._events_waiting = 0
        self._writer: asyncio.Task[None] | None = None
        self.changes = changes
        self.writing: Counter[str] = Counter()
        self.answering = True
        self.refused = 0

    async def prepare(self) -> None:
        """Create the table if it is not there.

        Raises:
            EventStoreUnavailable: PostgreSQL does not answer at this URL.
            InvalidInput: it is no URL of a PostgreSQL.
        """
        try:
            connection = await asyncpg.connect(self._url, timeout=5, command_timeout=60)
            try:
                async with connection.transaction():
                    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
                    await connection.execute(_SCHEMA)
            finally:
                connection.terminate()
        except (ValueError, OverflowError):  # whose text may hold a part of a password
            raise InvalidInput(
                "--database or OPPORTUNE_DATABASE",
                "expected a URL such as postgresql://USER@HOST:5432/NAME; in a password / @ : are %2F %40 %3A",
            ) from None
        except (*_FAILURES, asyncpg.PostgresError) as error:
            host = urlsplit(self._url).hostname
            place = "" if host is None else f" (host {host})"
            raise EventStoreUnavailable(f"PostgreSQL does not answer: {_said(error)}{place}") from error
        except (KeyError, RuntimeError) as error:  # asyncpg looks for the user's name, and for passwords in the home
            raise EventStoreUnavailable(
                f"user id {os.geteuid()} has no name or no home; give the URL a user, and set HOME"
            ) from error

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[None]:
        """Be able to answer; connections are made when they are needed, so that PostgreSQL may be away meanwhile."""
        self._pool = await asyncpg.create_pool(
            self._url, min_size=0, max_size=4, command_timeout=5, timeout=5, reset=_keep
        )
        try:
            yield
        finally:
            self._pool.terminate()

    async def add(self, events: Sequence[Event]) -> list[Event]:
        """Store events durably; returns those that were new, each id once.

        Raises:
            Overloaded: too many wait already.
            EventStoreUnavailable: nothing is known to be stored; sending them again is harmless.
        """
        if self._events_waiting + len(events) > _MOST_WAITING:
            raise Overloaded(f"{self._events_waiting} events wait to be stored; send these again later")
        self._events_waiting += len(events)
        future: asyncio.Future[list[Event]] = asyncio.get_running_loop().create_future()
        self._waiting.append((events, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        customers = {event.customer_id for event in events}
        self.writing.update(customers)
        try:
            # A client that goes away must not take the group's other events with it.
            return await asyncio.shield(future)
        finally:
            self.writing.subtract(customers)
            for customer in customers:
                if not self.writing[customer]:
                    del self.writing[customer]

    async def _write(self) -> None:
        """Store what waits, group after group, until nothing does."""
        try:
            while self._waiting:
                group = [self._waiting.popleft()]
                events = len(group[0][0])
                while self._waiting and events + len(self._waiting[0][0]) <= _LARGEST_GROUP:
                    events += len(self._waiting[0][0])
                    group.append(self._waiting.popleft())
                self._events_waiting -= events
                try:
                    await self._insert(group)
                except Exception:  # whatever it is, every request must be answered
                    # Mostly one request's values are refused by PostgreSQL: the others must not pay for them.
                    for one in group:
                        await self._insert_alone(one)
        finally:
            self._writer = None

    async def _insert_alone(self, one: _Waiting) -> None:
        try:
            await self._insert([one])
        except Exception as error:
            one[1].set_exception(error)

    async def _insert(self, group: Sequence[_Waiting]) -> None:
        """Store a group in one transaction and tell each request which of its events were new."""
        once = {event.event_id: event for events, _ in reversed(group) for event in reversed(events)}
        # In one order always: two servers with the same events in different orders would wait for each other.
        columns = zip(*(_row(once[event_id]) for event_id in sorted(once)), strict=True)
        try:
            records = await self._fetch(_INSERT, *(list(column) for column in columns))
        except EventStoreUnavailable as error:
            self.refused += len(once)
            for _, future in group:
                future.set_exception(EventStoreUnavailable(str(error)))
            return
        # Of the stored ones and of duplicates: a worker that died between commit and count may have stored those.
        for customer in {event.customer_id for event in once.values()}:
            self.changes.add(customer)
        if any(event.type == "redemption" for event in once.values()):
            self.changes.add_redemptions()
        new = {record["event_id"] for record in records}
        for events, future in group:
            # Of several requests with the same event the first one brought it.
            mine = {event.event_id for event in events} & new
            new -= mine
            future.set_result(sorted((once[event_id] for event_id in mine), key=lambda event: event.at))

    async def since(self, customer_id: str, cut_off: datetime, snapshot: datetime) -> Iterable[Event]:
        """A customer's events that a snapshot of histories cannot hold, oldest first.

        Args:
            customer_id: who.
            cut_off: events at or after this moment are not in the snapshot,
            snapshot: nor are earlier ones that arrived after the snapshot was made.

        Raises:
            EventStoreUnavailable: PostgreSQL does not answer.
        """
        records = await self._fetch(_SINCE, customer_id, cut_off, snapshot)
        return [Event(**dict(record)) for record in records]

    async def redeemed(self, cut_off: datetime, snapshot: datetime) -> dict[str, int]:
        """How often each offer was redeemed in events that a snapshot of histories cannot hold, by its id.

        Args:
            cut_off: events at or after this moment are not in the snapshot,
            snapshot: nor are earlier ones that arrived after the snapshot was made.

        Raises:
            EventStoreUnavailable: PostgreSQL does not answer.
        """
        records = await self._fetch(_REDEEMED, cut_off, snapshot)
        return {record["offer_id"]: record["times"] for record in records}

    async def ping(self) -> None:
        """EventStoreUnavailable if PostgreSQL does not answer."""
        await self._fetch("SELECT 1")

    async def _fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """The rows that a statement finds which may run twice, as all of ours may: a dead connection is no answer.

        Raises:
            EventStoreUnavailable: PostgreSQL does not answer; the log says why once, until it does again.
        """
        try:
            try:
                records = await self._pool.fetch(query, *arguments)
            except _DEAD:
                records = await self._pool.fetch(query, *arguments)
        except _FAILURES as error:
            if self.answering:
                _log.error("the event store is silent: %s; events are refused, answers degraded", _said(error))
                self.answering = False
            raise EventStoreUnavailable(_SILENT) from error
        if not self.answering:
            _log.info("the event store answers again")
            self.answering = True
        return records


def _said(error: Exception) -> str:
    return str(error) or f"{type(error).__name__} after 5 s"


async def _keep(_connection: object) -> None:
    """What to do with a connection that comes back to the pool: nothing, as no statement here leaves a trace on it."""


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
