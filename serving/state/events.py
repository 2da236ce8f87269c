"""The event store: what customers did, in PostgreSQL, acknowledged only when durable."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import NamedTuple, cast

import asyncpg

from embeddings.database.connection import DEAD, FAILURES, said
from embeddings.errors import EventStoreUnavailable, Overloaded
from serving.state.event import Event, Row, Stored, seconds_of
from serving.state.invalidations import Invalidations

_log = logging.getLogger("opportune.serve")

_LARGEST_GROUP = 5_000
"""Events in one statement, unless a single request holds more."""
_MOST_WAITING = 2 * _LARGEST_GROUP
"""Events that may wait for those before them to be stored: so many that more would wait for several commits."""

_INSERT = """
INSERT INTO events (event_id, customer_id, type, at, product_id, offer_id, location, channel, quantity, value,
                    recommendation_id, arrived_at, context, seq)
SELECT event_id, customer_id, type, at, product_id, offer_id, location, channel, quantity, value, recommendation_id,
       arrived_at, context, (SELECT nextval('event_groups') << 20) + place
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::text[], $7::text[],
            $8::text[], $9::float8[], $10::float8[], $11::text[], $12::timestamptz[], $13::bigint[],
            $14::jsonb[])
    AS event (event_id, customer_id, type, at, product_id, offer_id, location, channel, quantity, value,
              recommendation_id, arrived_at, place, context)
ON CONFLICT (event_id) DO NOTHING
RETURNING event_id, seq
"""

# Impressions would soon outnumber all else: they count with the next release. A mark of 0 is before all transactions.
_PAGE = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::text AS mark, max(transaction) AS newest,
       array_agg(seq) AS seq, array_agg(arrived) AS arrived, array_agg(at) AS at, array_agg(type) AS type,
       array_agg(product_id) AS product_id, array_agg(offer_id) AS offer_id, array_agg(location) AS location,
       array_agg(channel) AS channel, array_agg(quantity) AS quantity, array_agg(value) AS value
FROM (
    SELECT seq, coalesce(floor(extract(epoch FROM arrived_at)), 0)::bigint AS arrived,
           floor(extract(epoch FROM at))::bigint AS at, type, product_id, offer_id, location, channel, quantity, value,
           xid::text::bigint AS transaction
    FROM events
    WHERE customer_id = $1 AND seq > $2 AND seq < $3 AND xid >= $4::text::xid8 AND (at >= $5 OR received_at > $6)
      AND type <> 'impression'
    ORDER BY seq DESC
    LIMIT $7
) AS newest
"""

_REDEEMED = """
SELECT offer_id, count(*) AS times
FROM events
WHERE type = 'redemption' AND (at >= $1 OR received_at > $2)
GROUP BY offer_id
"""

_SILENT = "the event store does not answer; no event is known to be stored, and sending them again is harmless"


class Span(NamedTuple):
    """The events that a snapshot of histories cannot hold.

    Attributes:
        cut_off: it holds no event of this moment or a later one.
        snapshot: the moment at which it was made; it holds no event that arrived later, whenever that happened.
    """

    cut_off: datetime
    snapshot: datetime


class Page(NamedTuple):
    """Some of a customer's events.

    Attributes:
        mark: every transaction before this one had ended, so what it brought has been read or lies elsewhere. No later
            than the one after the newest that brought a row: a transaction that brought none may be forgotten when
            PostgreSQL is killed, and its number given to another.
        rows: the newest first.
    """

    mark: int
    rows: list[Row]


class _Waiting(NamedTuple):
    events: Sequence[Event]
    now: int
    future: "asyncio.Future[list[Stored]]"


class EventStore:
    """Events in PostgreSQL, written in groups: what comes while one commit is under way shares the next.

    It answers while ``connected`` is entered, on the event loop that entered it.

    Attributes:
        invalidations: where other workers see what was stored here, and this one theirs.

    Args:
        url: of PostgreSQL.
    """

    def __init__(self, url: str, invalidations: Invalidations) -> None:
        self._url = url
        self._pool = cast("asyncpg.Pool", None)
        self._waiting: deque[_Waiting] = deque()
        self._events_waiting = 0
        self._writer: asyncio.Task[None] | None = None
        self.invalidations = invalidations
        self._answering = True

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[None]:
        """Answer within the block; connections are made when they are needed, so PostgreSQL may be away meanwhile."""
        self._pool = await asyncpg.create_pool(
            self._url, min_size=0, max_size=4, command_timeout=5, timeout=5, reset=_keep
        )
        try:
            yield
        finally:
            self._pool.terminate()

    async def add(self, events: Sequence[Event], now: int) -> list[Stored]:
        """Store events durably; return those that were new, each id once, in the order of their arrival.

        Args:
            events: in the order in which they came.
            now: the clock, in seconds since 1970 UTC, to tell which of them lie ahead of it.

        Raises:
            Overloaded: too many wait already.
            EventStoreUnavailable: nothing is known to be stored; sending them again is harmless.
        """
        if self._events_waiting + len(events) > _MOST_WAITING:
            raise Overloaded(f"{self._events_waiting} events wait to be stored; send these again later")
        self._events_waiting += len(events)
        future: asyncio.Future[list[Stored]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(events, now, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        # A client that goes away must not take the group's other events with it.
        return await asyncio.shield(future)

    async def _write(self) -> None:
        """Store the events that wait, group after group, until none do."""
        try:
            while self._waiting:
                group = [self._waiting.popleft()]
                events = len(group[0].events)
                while self._waiting and events + len(self._waiting[0].events) <= _LARGEST_GROUP:
                    events += len(self._waiting[0].events)
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
            one.future.set_exception(error)

    async def _insert(self, group: Sequence[_Waiting]) -> None:
        """Store a group in one transaction and tell each request which of its events were new."""
        once: dict[str, Stored] = {}
        for one in group:
            for event in one.events:
                if event.event_id not in once:  # of several with one id the first counts
                    arrived = one.now if seconds_of(event.at) > one.now else 0
                    once[event.event_id] = Stored(event, len(once), arrived)
        # In one order always: two servers with the same events in different orders would wait for each other.
        columns = zip(*(once[event_id].values for event_id in sorted(once)), strict=True)
        try:
            records = await self._fetch(_INSERT, *(list(column) for column in columns))
        except EventStoreUnavailable as error:
            for one in group:
                one.future.set_exception(EventStoreUnavailable(str(error)))
            return
        # Of the stored ones and of duplicates: a worker that died between commit and count may have stored those.
        for customer in {one.event.customer_id for one in once.values() if one.event.type != "impression"}:
            self.invalidations.add(customer)
        if any(one.event.type == "redemption" for one in once.values()):
            self.invalidations.add_redemptions()
        seqs: dict[str, int] = {record["event_id"]: record["seq"] for record in records}
        for one in group:
            # Of several requests with the same event the first one brought it.
            mine = [event.event_id for event in one.events if event.event_id in seqs]
            stored = [once[event_id]._replace(seq=seqs.pop(event_id)) for event_id in dict.fromkeys(mine)]
            one.future.set_result(stored)

    async def page(self, customer_id: str, span: Span, between: tuple[int, int], mark: int, most: int) -> Page:
        """Return the newest to arrive of a customer's events that a snapshot of histories cannot hold.

        Impressions are left out.

        Args:
            customer_id: whose events.
            span: the events that the snapshot cannot hold.
            between: only events whose ``seq`` lies between these two.
            mark: only those of this transaction and later ones.
            most: so many at most.

        Raises:
            EventStoreUnavailable: PostgreSQL does not answer.
        """
        (found,) = await self._fetch(_PAGE, customer_id, *between, str(mark), *span, most)
        ended, newest, *columns = found
        if newest is None:
            return Page(mark, [])
        return Page(min(int(ended), newest + 1), list(map(Row, *columns)))

    async def redeemed(self, cut_off: datetime, snapshot: datetime) -> dict[str, int]:
        """Return how often each offer was redeemed in events that a snapshot of histories cannot hold, by its id.

        Args:
            cut_off: the snapshot holds no event of this moment or a later one.
            snapshot: the moment at which it was made; it holds no event that arrived later, whenever that happened.

        Raises:
            EventStoreUnavailable: PostgreSQL does not answer.
        """
        records = await self._fetch(_REDEEMED, cut_off, snapshot)
        return {record["offer_id"]: record["times"] for record in records}

    async def ping(self) -> None:
        """Raise EventStoreUnavailable if PostgreSQL does not answer."""
        await self._fetch("SELECT 1")

    async def _fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Return the rows that a statement finds; run it again if the connection was dead.

        The statement must be one that may run twice, as all of ours may.

        Raises:
            EventStoreUnavailable: PostgreSQL does not answer; the log says why once, until it does again.
        """
        try:
            try:
                records = await self._pool.fetch(query, *arguments)
            except DEAD:
                records = await self._pool.fetch(query, *arguments)
        except FAILURES as error:
            if self._answering:
                _log.error("the event store is silent: %s; events are refused, answers degraded", said(error))
                self._answering = False
            raise EventStoreUnavailable(_SILENT) from error
        if not self._answering:
            _log.info("the event store answers again")
            self._answering = True
        return records


async def _keep(_connection: object) -> None:
    """Do nothing with a connection that comes back to the pool: no statement here leaves a trace on it."""
