"""The decisions, what was shown to whom, in PostgreSQL: written in groups, beside the requests, and read by id."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import NamedTuple

import asyncpg

from embeddings.database.connection import said
from serving.settings import DecisionsKind
from serving.state.decision import SAMPLED, Decision, is_drawn, moment_of
from serving.state.events import EventStore

_log = logging.getLogger("opportune.serve")

_EVERY_SECONDS = 0.2
_SOON_SECONDS = 1.0
"""Within which a decision is stored, unless PostgreSQL is slow."""
_LARGEST_GROUP = 2_000
"""Items in one statement, unless a single decision holds more: to encode them takes the event loop about 2 ms."""
_MOST_WAITING = 50_000
"""Items that may wait to be stored: some 20 MiB."""
_LEAVING_SECONDS = 2.0
"""How long what still waits may take to be stored once the service leaves: `serving.workers` waits for little more."""

# It may run twice: where it is not known whether it was committed, it does.
_INSERT = """
INSERT INTO decisions (id, at, asked_at, customer_id, channel, location, place, placement, context, version,
                       catalogue_seq, personalised, degraded, share, items, kinds, scores, sources, propensities)
SELECT id, at, asked_at, customer_id, channel, location, place, placement, context, version, catalogue_seq,
       personalised, degraded, share, items, kinds, scores, sources, propensities
FROM unnest($1::decision[])
ON CONFLICT DO NOTHING
"""

FIND = """
SELECT at, asked_at, customer_id, channel, location, place, placement, context, version, catalogue_seq, personalised,
       degraded, share, items, kinds, scores, sources, propensities
FROM decisions
WHERE id = $1 AND at = $2
"""

_REFUSED = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, ValueError, OverflowError)
"""What a statement fails with because of the values of a decision: it would fail again."""


class Losing(NamedTuple):
    """A time in which decisions are lost: since when, and how many."""

    since: datetime
    decisions: int


class DecisionStore:
    """Decisions in PostgreSQL. They are not as precious as events: no answer waits for them to be stored.

    What does not fit into what may wait is dropped and counted. It stores while ``writing`` is entered, on the event
    loop that entered it.

    Attributes:
        stored, dropped: how many so far.
        losing: None as long as everything is stored.

    Args:
        url: of PostgreSQL.
        kind: which decisions are stored.
        events: has connections to read with.
    """

    def __init__(self, url: str, kind: DecisionsKind, events: EventStore) -> None:
        self._url = url
        self._kind: DecisionsKind = kind
        self._share = SAMPLED if kind == "sampled" else 1.0
        self._events = events
        self._waiting: deque[Decision] = deque()
        self._items_waiting = 0
        self._connection: asyncpg.Connection | None = None
        self._told_to_leave = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._answering = True
        self.stored = self.dropped = 0
        self.losing: Losing | None = None

    def wants(self, recommendation_id: str) -> bool:
        """Return whether the decision of this id is to be stored."""
        return self._kind == "all" or (self._kind == "sampled" and is_drawn(recommendation_id))

    def add(self, decision: Decision) -> None:
        """Have a decision stored soon; drop it if too many wait."""
        size = 1 + len(decision.items)
        if self._items_waiting + size > _MOST_WAITING:
            self._drop(1)
            return
        self._items_waiting += size
        self._waiting.append(decision)

    @asynccontextmanager
    async def writing(self) -> AsyncGenerator[asyncio.Task[None]]:
        """Store decisions within the block, whenever PostgreSQL answers; what waits at its end is lost.

        Yields the task that does so.
        """
        self._writer = asyncio.create_task(self._write_on(), name="decisions")
        try:
            yield self._writer
        finally:
            self._writer.cancel()
            self._hang_up()

    async def leave(self) -> None:
        """Store what waits, and wait for PostgreSQL no longer than a moment: the log says what is lost."""
        self._told_to_leave.set()
        if self._writer is None:
            return
        await asyncio.wait([self._writer], timeout=_LEAVING_SECONDS)
        if self._waiting:
            _log.error("%d decisions are lost: PostgreSQL has not taken them before the end", len(self._waiting))

    async def find(self, recommendation_id: str) -> asyncpg.Record | None:
        """Return a stored decision by its id, or None if there is none; one made just now is waited for.

        Raises:
            EventStoreUnavailable: PostgreSQL does not answer.
        """
        at = moment_of(recommendation_id)
        if at is None:
            return None
        while True:
            found = await self._events.fetch(FIND, recommendation_id, at)
            if found or not 0 <= time.time() - at.timestamp() <= _SOON_SECONDS:
                return found[0] if found else None
            await asyncio.sleep(_EVERY_SECONDS)

    async def _write_on(self) -> None:
        """Store what waits now and then; once told to leave, until nothing does."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_SECONDS):
                    await self._told_to_leave.wait()
            await self._write()
            if self._told_to_leave.is_set():
                if not self._waiting:
                    return
                await asyncio.sleep(_EVERY_SECONDS)

    async def _write(self) -> None:
        """Store what waits, group after group, until nothing does or PostgreSQL does not take it."""
        while self._waiting:
            group: list[Decision] = []
            items = 0
            for one in self._waiting:
                if group and items + len(one.items) > _LARGEST_GROUP:
                    break
                items += len(one.items)
                group.append(one)
            if not await self._settled(group):
                return
            for one in group:  # whatever came meanwhile is behind them
                self._waiting.popleft()
                self._items_waiting -= 1 + len(one.items)
        self.losing = None

    async def _settled(self, group: Sequence[Decision]) -> bool:
        """Store a group, but for those that PostgreSQL refuses; return False if it does not answer."""
        try:
            await self._insert(group)
        except _REFUSED as error:
            if len(group) == 1:
                _log.error("decision %s is lost, PostgreSQL refuses it: %s", group[0].recommendation_id, said(error))
                self._drop(1)
                return True
            half = len(group) // 2
            return await self._settled(group[:half]) and await self._settled(group[half:])
        except Exception as error:  # whatever it is, what comes later must be stored
            if self._answering:
                _log.error("decisions cannot be stored: %s", said(error))
                self._answering = False
            self._hang_up()
            return False
        if not self._answering:
            _log.info("decisions are stored again")
            self._answering = True
        self.stored += len(group)
        return True

    async def _insert(self, group: Sequence[Decision]) -> None:
        connection = self._connection
        if connection is None:
            connection = self._connection = await asyncpg.connect(self._url, timeout=5, command_timeout=5)
        await connection.execute(_INSERT, [one.values(self._share) for one in group])

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def _drop(self, count: int) -> None:
        self.dropped += count
        since, before = self.losing or (datetime.now(UTC).replace(microsecond=0), 0)
        self.losing = Losing(since, before + count)
