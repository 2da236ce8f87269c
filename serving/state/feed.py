"""Follows what other servers store in the same PostgreSQL, so that it counts here, too.

The events themselves are the feed: every so often a worker asks for the customers of those that transactions brought
which it had not seen when it asked before. Nothing has to be sent, so nothing can be lost on the way.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import NamedTuple

import asyncpg

from embeddings.database.connection import FAILURES, ONLY_WHAT_IS_NEEDED
from embeddings.database.numbering import number
from serving.state.events import EventStore
from serving.state.invalidations import Invalidations
from serving.state.statements import BROUGHT, LONGEST_TRANSACTION

_log = logging.getLogger("opportune.serve")

_POLL_SECONDS = 0.25
_MOST = 10_000
"""Events looked at one by one; where there are more, everything is read again."""


class _Seen(NamedTuple):
    """The transactions that have been seen: all but the later ones and those that ran at the time.

    Attributes:
        running: their numbers.
        after: the number from which on all are later; None if nothing is to be asked for yet.
        at: the moment.
    """

    running: list[str]
    after: str | None
    at: datetime


_NOTHING_YET = _Seen([], None, datetime.now(UTC))


class Feed:
    """Counts what other servers have stored in this worker's invalidations, within a second.

    Args:
        url: of PostgreSQL.
        store: of this server, whose own events its workers tell each other.
    """

    def __init__(self, url: str, store: EventStore) -> None:
        self._url = url
        self._server = store.server
        self._invalidations: Invalidations = store.invalidations

    async def follow(self) -> None:
        """Follow until cancelled. Whenever a connection was lost, everything is read again.

        PostgreSQL may have been restored, or killed and started again: what was seen before says nothing of what
        follows.
        """
        while True:
            try:
                await self._follow()
            except (*FAILURES, asyncpg.PostgresError) as error:  # the event store says so, where requests need it
                _log.debug("what other servers store is not followed: %s", error)
            await asyncio.sleep(_POLL_SECONDS)

    async def _follow(self) -> None:
        """Follow as long as one connection lasts."""
        connection = await asyncpg.connect(self._url, timeout=5, command_timeout=5, server_settings=ONLY_WHAT_IS_NEEDED)
        try:
            await number(connection)
            seen = await self._look(connection, _NOTHING_YET)
            self._invalidations.lose()
            while True:
                await asyncio.sleep(_POLL_SECONDS)
                seen = await self._look(connection, seen)
        finally:
            connection.terminate()

    async def _look(self, connection: asyncpg.Connection, seen: _Seen) -> _Seen:
        """Count what other servers have stored that had not been seen; return what has been seen now."""
        record = await connection.fetchrow(
            BROUGHT, seen.running, seen.after, seen.at - LONGEST_TRANSACTION, self._server, _MOST
        )
        assert record is not None  # noqa: S101 - an aggregate finds one row
        customers: list[str] = record["customers"] or []
        if len(customers) == _MOST:
            self._invalidations.lose()
        elif customers:
            self._invalidations.add_elsewhere(set(customers), record["redeemed"])
        _, after, running = str(record["snapshot"]).split(":")
        return _Seen(running.split(",") if running else [], after, record["at"])
