"""The daily partitions of events and decisions: made ahead, and dropped when their time is over.

What lies before the first day is in ``events_past``, and what lies in no other partition in ``events_other``.

What takes a lock that requests would wait behind waits for it a moment itself, and gives up: there is a next time.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from datetime import date
from typing import NamedTuple

import asyncpg

from embeddings.database.connection import Connection, connected
from embeddings.errors import OpportuneError

_log = logging.getLogger("opportune.serve")

# One server at a time: the lock's number is any constant of ours.
_LOCK = 7_250_002
_DAYS_AHEAD = 3
"""An event may lie a day ahead; the others are for a service that is kept from making partitions for a while."""
_EVERY_SECONDS = 3_600.0
_WAIT_MS = 100
_AT_ONCE = 10_000
"""Rows deleted in one transaction: who sends an id again that is being deleted waits for its end."""

_DAYS = f"""
SELECT 'decisions' AS parent, timezone('UTC', now())::date + ahead AS day
FROM generate_series(0, {_DAYS_AHEAD}) AS ahead
UNION
SELECT 'events', day FROM (
    SELECT timezone('UTC', now())::date + ahead AS day FROM generate_series(0, {_DAYS_AHEAD}) AS ahead
    UNION SELECT unnest($1::date[])
) AS wanted
WHERE day::timestamp AT TIME ZONE 'UTC' >= (
    SELECT substring(pg_get_expr(relpartbound, oid) FROM $$TO \\('(.*)'\\)$$)::timestamptz
    FROM pg_class WHERE oid = 'events_past'::regclass
)
ORDER BY parent, day
"""  # noqa: S608 - a number of ours

_TODAY = "timezone('UTC', now())::date - $1::integer"

# Conditions are tried in any order, also on tables that are no partitions: CASE keeps names without a day from to_date.
_OVER = f"""
SELECT format('DROP TABLE %I', relname)
FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = $2::text::regclass AND CASE
    WHEN relname ~ '_[0-9]{{8}}$' THEN to_date(right(relname, 8), 'YYYYMMDD') < {_TODAY} ELSE false
END
ORDER BY relname
"""  # noqa: S608

_DELETE = f"""
DELETE FROM {{part}} WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {{part}} WHERE greatest(at, received_at) < ({_TODAY})::timestamp AT TIME ZONE 'UTC' LIMIT $2
))
"""  # noqa: S608
_DELETE_PAST, _DELETE_OTHER = (_DELETE.format(part=part) for part in ("events_past", "events_other"))

_DELETE_OTHER_DECISIONS = f"""
DELETE FROM decisions_other WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM decisions_other WHERE at < ({_TODAY})::timestamp AT TIME ZONE 'UTC' LIMIT $2
))
"""  # noqa: S608

# A day whose partition is still there, as somebody reads it, keeps its keys with its events.
_DELETE_KEYS = f"""
DELETE FROM event_keys WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM event_keys WHERE day < {_TODAY} AND day <> ALL (ARRAY(
        SELECT to_date(substring(relname FROM '[0-9]+$'), 'YYYYMMDD')
        FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
        WHERE inhparent = 'events'::regclass AND relname ~ '_[0-9]+$'
    )) LIMIT $2
))
"""  # noqa: S608


class Kept(NamedTuple):
    """For how many days before today what is kept; for ever where it is None."""

    events: int | None
    decisions: int | None


FOR_EVER = Kept(None, None)


async def look_after_days(url: str, keep: Kept) -> None:
    """Make and forget days at once and now and then, until cancelled; `keep_days` says how."""
    while True:
        try:
            async with connected(url, refuses="to change the partitions of its tables") as connection:
                await keep_days(connection, keep)
        except OpportuneError as error:
            _log.warning("partitions are looked after again in an hour: %s", error)
        await asyncio.sleep(_EVERY_SECONDS)


async def keep_days(connection: Connection, keep: Kept = FOR_EVER, days: Collection[date] = ()) -> None:
    """Make the partitions of the coming days and of some others, and forget what is of days that are over.

    Where another server is at it, nothing is done.

    Args:
        connection: of its own, outside of a transaction.
        keep: how much is kept.
        days: of which events are about to be brought in; those of the past need no partitions.
    """
    async with _alone(connection) as alone:
        if not alone:
            return
        for record in await connection.fetch(_DAYS, days):
            await _quickly(connection, "SELECT make_day($1, $2)", record["parent"], record["day"])
        if keep.events is not None:
            # Keys last: an id counts once as long as its event is kept.
            await _forget(connection, "events", keep.events, _DELETE_PAST, _DELETE_OTHER, _DELETE_KEYS)
        if keep.decisions is not None:
            await _forget(connection, "decisions", keep.decisions, _DELETE_OTHER_DECISIONS)


async def _forget(connection: Connection, parent: str, days: int, *statements: str) -> None:
    """Drop the partitions of days that are over, then delete what statements find of such days."""
    for record in await connection.fetch(_OVER, days, parent):
        await _quickly(connection, record[0])
    for statement in statements:
        while await connection.execute(statement, days, _AT_ONCE) == f"DELETE {_AT_ONCE}":
            pass


@asynccontextmanager
async def _alone(connection: Connection) -> AsyncGenerator[bool]:
    """Keep others from doing the same within the block; yield False if another is at it.

    Where the block fails or is cancelled, nothing more is asked of a PostgreSQL that may be silent: the lock ends with
    the connection.
    """
    alone = bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK))
    yield alone
    if alone:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


async def _quickly(connection: Connection, statement: str, *arguments: object) -> None:
    """Change partitions in a transaction, unless a lock or the partition of another server is in the way."""
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = {_WAIT_MS}")
            await connection.execute(statement, *arguments)
    except (asyncpg.LockNotAvailableError, asyncpg.CheckViolationError) as error:
        _log.info("partitions are left as they are for now: %s", error)
