"""The event store: what customers did, in PostgreSQL, acknowledged only when durable."""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple, cast

import asyncpg
import msgspec

from embeddings.catalogue.changes import CustomerState
from embeddings.catalogue.context import seconds_of
from embeddings.database.connection import DEAD, FAILURES, pooled, said
from embeddings.database.numbering import number
from embeddings.errors import EventStoreUnavailable, Overloaded
from serving.state.event import Event, Row, Stored
from serving.state.invalidations import Invalidations
from serving.state.statements import INSERT, PAGE, REDEEMED, Page, Span

_log = logging.getLogger("opportune.serve")

_SOURCE = "http"
"""Within which event ids are unique. Senders have no keys yet by which they could be told apart."""
_LARGEST_GROUP = 5_000
"""Events in one statement, unless a single request holds more."""
_MOST_WAITING = 2 * _LARGEST_GROUP
"""Events that may wait for those before them to be stored: so many that more would wait for several commits."""

_SILENT = "the event store does not answer; no event is known to be stored, and sending them again is harmless"


class _Waiting(NamedTuple):
    events: Sequence[Event]
    now: int
    future: "asyncio.Future[list[Stored]]"


class EventStore:
    """Events in PostgreSQL, written in groups: what comes while one commit is under way shares the next.

    It answers while ``connected`` is entered, on the event loop that entered it.

    Attributes:
        invalidations: where other workers see what was stored here, and this one theirs.
        server: a number that tells what this server and its workers have stored from what others have.

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
        self.server = secrets.randbits(62)
        self._answering = True

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[None]:
        """Answer within the block; connections are made when they are needed, so PostgreSQL may be away meanwhile."""
        async with pooled(self._url, statement_seconds=5, init=number) as self._pool:
            yield

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
            records = await self.fetch(INSERT, _SOURCE, self.server, *(list(column) for column in columns))
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
        (found,) = await self.fetch(PAGE, *span.values, customer_id, *between, str(mark), most)
        ended, newest, *columns, body = found
        told = None if body is None else msgspec.json.decode(body, type=CustomerState)
        if newest is None:
            return Page(mark, [], told)
        return Page(min(int(ended), newest + 1), list(map(Row, *columns)), told)

    async def redeemed(self, span: Span) -> dict[str, int]:
        """Return how often each offer was redeemed in events that a snapshot of histories cannot hold, by its id.

        Raises:
            EventStoreUnavailable: PostgreSQL does not answer.
        """
        records = await self.fetch(REDEEMED, *span.values)
        return {record["offer_id"]: record["times"] for record in records}

    async def ping(self) -> None:
        """Raise EventStoreUnavailable if PostgreSQL does not answer."""
        await self.fetch("SELECT 1")

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
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
