"""The change log: writes changes of the catalogue with the state that they make, and reads them in their order.

Both are written in one transaction under one lock, so the order of ``seq`` is that of the commits: who has read up to
some number has missed none before it.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from embeddings.catalogue.changes import STATES, Change, Kind, Withdrawal, kind_of, withdrawn
from embeddings.database.connection import Connection
from embeddings.database.paging import fetch_rows
from embeddings.database.references import Fault, Key, check_unreferred, unknown_references
from embeddings.errors import InvalidChanges, InvalidInput, RepeatedChanges, Stale

NOTIFICATION = "opportune_catalogue"
"""The channel on which PostgreSQL tells the newest ``seq`` after each commit."""

_LOCK = 7_250_003
"""Held by who writes changes, to the end of the transaction; any constant of ours."""

_LAST = "SELECT coalesce(max(seq), 0) FROM catalogue_changes"

_NEWEST = f"SELECT log::text, ({_LAST}) FROM catalogue_log"  # noqa: S608 - a statement of ours

# A cluster on a timeline, and a database there.
_IDENTIFY = """
UPDATE catalogue_log
SET place = here.place, log = gen_random_uuid()
FROM (
    SELECT concat_ws('/', system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8), pg_database.oid) AS place
    FROM pg_control_system(), pg_database WHERE datname = current_database()
) AS here
WHERE catalogue_log.place <> here.place
"""

_WRITE = """
WITH given AS (
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[]::jsonb[]) WITH ORDINALITY AS given (kind, id, body, place)
), fresh AS (
    SELECT given.kind, given.id, given.body, $4::bigint + row_number() OVER (ORDER BY place) AS seq, catalogue.since,
           given.body IS NULL AS withdrawn, catalogue.body AS earlier
    FROM given LEFT JOIN catalogue ON catalogue.kind = given.kind AND catalogue.id = given.id
    WHERE CASE WHEN given.body IS NULL THEN NOT catalogue.withdrawn
               ELSE catalogue.id IS NULL OR catalogue.withdrawn OR catalogue.body <> given.body END
), logged AS (
    INSERT INTO catalogue_changes (seq, actor, kind, id, body) SELECT seq, $5, kind, id, body FROM fresh
)
INSERT INTO catalogue (kind, id, seq, since, withdrawn, body)
SELECT kind, id, seq, coalesce(since, seq), withdrawn, coalesce(body, earlier) FROM fresh
ON CONFLICT (kind, id) DO UPDATE SET seq = excluded.seq, withdrawn = excluded.withdrawn, body = excluded.body
"""

_PRESENT = """
SELECT catalogue.kind, catalogue.id, catalogue.seq
FROM unnest($1::text[], $2::text[]) AS named (kind, id)
JOIN catalogue ON catalogue.kind = named.kind AND catalogue.id = named.id
WHERE NOT catalogue.withdrawn
"""

_READ = "SELECT seq, at, actor, kind, id, body::text FROM catalogue_changes WHERE seq > $1 ORDER BY seq LIMIT $2"

_OVERTAKEN = """
EXISTS (SELECT FROM catalogue_changes AS later
        WHERE later.kind = log.kind AND later.id = log.id AND later.seq > log.seq AND later.seq <= $1 + $2)
"""

_AT_ONCE_BYTES = 2**24
"""What the states of one page hold, at most; a page of one change may hold more."""

# What is stored is compressed, and told without being read: a page too large in that is not read to know its size.
_FITS = f"""
WITH newest AS (
    SELECT coalesce(log.body, catalogue.body) AS body
    FROM catalogue_changes AS log JOIN catalogue ON catalogue.kind = log.kind AND catalogue.id = log.id
    WHERE log.seq > $1 AND log.seq <= $1 + $2 AND log.kind <> 'customer' AND NOT {_OVERTAKEN}
)
SELECT CASE WHEN (SELECT sum(pg_column_size(body)) FROM newest) > $3 THEN false
            ELSE coalesce((SELECT sum(octet_length((body - 'content'::text)::text)) FROM newest) <= $3, true) END
"""  # noqa: S608 - statements of ours

# In the order of the log, in which whatever a state names lies before it; of each thing the last state. What was
# withdrawn keeps its last state. Of promotions that are over there can be millions of rows: they are read without, and
# count as withdrawn. Nobody who follows shows the content of offers.
_CHANGED = f"""
SELECT max(seq) AS seq,
       coalesce(array_agg(id) FILTER (WHERE kind = 'customer'), '{{}}') AS customers,
       coalesce(array_agg(kind ORDER BY seq) FILTER (WHERE shown), '{{}}') AS kinds,
       coalesce(array_agg(id ORDER BY seq) FILTER (WHERE shown), '{{}}') AS ids,
       coalesce(array_agg(gone ORDER BY seq) FILTER (WHERE shown), '{{}}') AS gone,
       coalesce(array_agg(body ORDER BY seq) FILTER (WHERE shown), '{{}}') AS bodies
FROM (
    SELECT log.seq, log.kind, log.id, log.body IS NULL AS gone,
           CASE WHEN (log.kind IN ('promotion', 'placement') AND log.body IS NULL)
                    OR (log.kind = 'promotion' AND (catalogue.body ->> 'ends')::timestamptz <= $3)
                THEN NULL ELSE (coalesce(log.body, catalogue.body) - 'content'::text)::text END AS body,
           log.kind IN ('product', 'location', 'offer', 'promotion', 'placement') AS shown
    FROM catalogue_changes AS log JOIN catalogue ON catalogue.kind = log.kind AND catalogue.id = log.id
    WHERE log.seq > $1 AND log.seq <= $1 + $2 AND NOT {_OVERTAKEN}
) AS changes
"""  # noqa: S608 - statements of ours


class Entry(NamedTuple):
    """One change as it was written.

    Attributes:
        seq: its place in the order of all changes, from 1.
        body: the new state as JSON; None for a withdrawal.
    """

    seq: int
    at: datetime
    actor: str
    kind: Kind
    id: str
    body: str | None


class Position(NamedTuple):
    """A change of a log, up to which something was read.

    Attributes:
        log: which one; that of another database is another one.
        seq: of the change; 0 before the first.
    """

    log: str
    seq: int


class Changed(NamedTuple):
    """What some changes have made of the catalogue.

    Attributes:
        seq: of the newest of them.
        states: the last of each thing, of products, locations, offers, promotions and placements; what was withdrawn is
            there as not shown, and placements that were, and promotions that were or are over, as withdrawals.
        customers: the ids of customers of whom something else is known now.
        unreadable: how many states a later version wrote, which this one cannot read.
    """

    seq: int
    states: list[Change]
    customers: frozenset[str]
    unreadable: int


def change_of(kind: Kind, one: str, body: str | None) -> Change:
    """Return the change that brings a state in JSON, or a withdrawal.

    Raises:
        msgspec.ValidationError: a later version wrote what this one does not know.
    """
    return Withdrawal(kind=kind, id=one) if body is None else msgspec.json.decode(body, type=STATES[kind])


async def last(connection: Connection) -> int:
    """Return the ``seq`` of the newest change; 0 if there is none."""
    return int(str(await connection.fetchval(_LAST)))


async def newest(connection: Connection) -> Position:
    """Return the log that a database has, and its newest change."""
    record = await connection.fetchrow(_NEWEST)
    assert record is not None  # noqa: S101 - the migration has filled the table
    return Position(*record)


async def identify(connection: Connection) -> None:
    """Have the log another identity if the database was restored, copied or taken back; to be done on new connections.

    Nearly always it finds that it was not, and changes nothing.
    """
    await connection.execute(_IDENTIFY)


async def write(
    connection: Connection,
    changes: Sequence[Change],
    actor: str,
    *,
    channels: Collection[str] | None = None,
) -> int:
    """Write changes, all or none, and return the ``seq`` of the newest change of all.

    A state that is the present one, and the withdrawal of what is not there, change nothing and are not logged.

    Args:
        connection: to the database; a transaction of its own.
        changes: of different things, each checked by itself.
        actor: who makes them.
        channels: that offers and promotions may name; None for any.

    Raises:
        RepeatedChanges: two of them are of one thing.
        InvalidChanges: some name what the catalogue does not hold, and did not name it before.
        StillReferred: live offers or placements refer to what they withdraw.
    """
    keys: list[Key] = [(kind_of(one), one.id) for one in changes]
    repeats = repeated(list(enumerate(keys)))
    if repeats:
        raise RepeatedChanges(repeats)
    async with connection.transaction():
        await lock(connection)
        faults = await unknown_references(connection, changes, channels)
        if faults:
            raise InvalidChanges(faults)
        seq = await last(connection)
        bodies = [None if isinstance(one, Withdrawal) else msgspec.json.encode(one).decode() for one in changes]
        done = await connection.execute(
            _WRITE, [kind for kind, _ in keys], [one for _, one in keys], bodies, seq, actor
        )
        seq += int(done.rpartition(" ")[2])
        gone: list[Key] = [key for key, body in zip(keys, bodies, strict=True) if body is None]
        if gone:
            await check_unreferred(connection, gone)
        await connection.execute("SELECT pg_notify($1, $2)", NOTIFICATION, str(seq))
    return seq


async def lock(connection: Connection) -> None:
    """Wait until nobody else writes changes, and let nobody until the end of the transaction."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)


async def read(connection: Connection, after: int, most: int) -> list[Entry]:
    """Return the changes that follow one, oldest first, at most so many; fewer if they are large."""
    records, _ = await fetch_rows(connection, _READ, after, most)
    return [Entry(*record) for record in records]


async def changed(connection: Connection, after: int, most: int, since: datetime) -> Changed:
    """Return what some changes have made, oldest first; there must be changes after the one that is named.

    Fewer than may count do if their states are large. Offers come without their content.

    Args:
        connection: to the database.
        after: the ``seq`` of the last change that does not count.
        most: how many changes do, at most.
        since: promotions that ended before this moment are over.
    """
    while most > 1 and not await connection.fetchval(_FITS, after, most, _AT_ONCE_BYTES):
        most //= 2
    record = await connection.fetchrow(_CHANGED, after, most, since)
    assert record is not None  # noqa: S101 - sums of no rows are a row
    states: list[Change] = []
    unreadable = 0
    columns = (record[name] for name in ("kinds", "ids", "gone", "bodies"))
    for kind, one, gone, body in zip(*columns, strict=True):
        if body is None:
            states.append(Withdrawal(kind=kind, id=one))
            continue
        try:
            state = msgspec.json.decode(body, type=STATES[kind])
        except (msgspec.ValidationError, InvalidInput):  # a later version wrote what this one does not know
            unreadable += 1
        else:
            states.append(withdrawn(state) if gone else state)
    return Changed(record["seq"] or after, states, frozenset(record["customers"]), unreadable)


def repeated(keys: Sequence[tuple[int, Key]]) -> list[Fault]:
    """Return the things that stand at a place and at an earlier one, too."""
    first: dict[Key, int] = {}
    for place, key in keys:
        first.setdefault(key, place)
    return [
        (place, InvalidInput("id", f"expected each id once; {key[1]!r} stands at [{first[key]}], too"))
        for place, key in keys
        if first[key] != place
    ]


async def check_expected(connection: Connection, expected: Mapping[Key, int | None]) -> None:
    """Raise Stale unless things have the ``seq`` that is expected of them; None where there must be none of that id.

    It holds until the end of the transaction if that has taken the `lock`.
    """
    kinds, ids = [kind for kind, _ in expected], [one for _, one in expected]
    found = {(kind, one): seq for kind, one, seq in await connection.fetch(_PRESENT, kinds, ids)}
    for key, seq in expected.items():
        if found.get(key) != seq:
            kind, one = key
            now = "there is none" if key not in found else f'it has changed since: its ETag is "{found[key]}" now'
            raise Stale(f"{kind} {one!r} is another than the request expects: {now}")
