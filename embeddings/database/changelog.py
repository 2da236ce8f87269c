"""The change log: writes changes of the catalogue with the state that they make, and reads them in their order.

Both are written in one transaction under one lock, so the order of ``seq`` is that of the commits: who has read up to
some number has missed none before it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, TypeAlias

import msgspec

from embeddings.catalogue.changes import (
    STATES,
    Change,
    CustomerState,
    Kind,
    OfferState,
    PlacementState,
    ProductState,
    PromotionState,
    Withdrawal,
    first_few,
    kind_of,
    withdrawn,
)
from embeddings.database.connection import Connection
from embeddings.database.paging import fetch_rows
from embeddings.errors import InvalidChanges, InvalidInput, RepeatedChanges, Stale, StillReferred, UnknownReference

NOTIFICATION = "opportune_catalogue"
"""The channel on which PostgreSQL tells the newest ``seq`` after each commit."""

_LOCK = 7_250_003
"""Held by who writes changes, to the end of the transaction; any constant of ours."""

_LAST = "SELECT coalesce(max(seq), 0) FROM catalogue_changes"

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

_UNKNOWN = """
SELECT id FROM unnest($2::text[]) AS named (id)
WHERE NOT EXISTS (SELECT FROM catalogue WHERE kind = $1 AND catalogue.id = named.id AND NOT withdrawn)
"""

_PRESENT = """
SELECT catalogue.kind, catalogue.id, catalogue.seq
FROM unnest($1::text[], $2::text[]) AS named (kind, id)
JOIN catalogue ON catalogue.kind = named.kind AND catalogue.id = named.id
WHERE NOT catalogue.withdrawn
"""

_REFERRING = """
SELECT 'offer' AS referring, id, referred FROM catalogue, LATERAL (
    SELECT 'product' AS kind, jsonb_array_elements_text(body -> 'products') AS referred
    UNION ALL SELECT 'location', jsonb_array_elements_text(body -> 'locations')
    UNION ALL SELECT 'segment', body ->> 'audience'
    UNION ALL SELECT 'campaign', body ->> 'campaign'
) AS names
WHERE catalogue.kind = 'offer' AND NOT withdrawn AND (body ->> 'ends')::timestamptz > now()
  AND (names.kind, referred) IN (SELECT * FROM unnest($1::text[], $2::text[]))
UNION ALL
SELECT 'placement', id, referred FROM catalogue, LATERAL (
    SELECT pin ->> 'kind' AS kind, pin ->> 'id' AS referred FROM jsonb_array_elements(body -> 'pinned') AS pin
    UNION ALL SELECT 'offer', jsonb_array_elements_text(body -> 'fallback')
) AS names
WHERE catalogue.kind = 'placement' AND NOT withdrawn
  AND (names.kind, referred) IN (SELECT * FROM unnest($1::text[], $2::text[]))
ORDER BY 1, 2 LIMIT 20
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
# withdrawn keeps its last state. Nobody who follows shows the content of offers.
_CHANGED = f"""
SELECT max(seq) AS seq,
       coalesce(array_agg(id) FILTER (WHERE kind = 'customer'), '{{}}') AS customers,
       coalesce(array_agg(kind ORDER BY seq) FILTER (WHERE shown), '{{}}') AS kinds,
       coalesce(array_agg(gone ORDER BY seq) FILTER (WHERE shown), '{{}}') AS gone,
       coalesce(array_agg(body ORDER BY seq) FILTER (WHERE shown), '{{}}') AS bodies
FROM (
    SELECT log.seq, log.kind, log.id, log.body IS NULL AS gone,
           (coalesce(log.body, catalogue.body) - 'content'::text)::text AS body,
           log.kind IN ('product', 'location', 'offer', 'placement')
           OR (log.kind = 'promotion' AND (catalogue.body ->> 'ends')::timestamptz > $3) AS shown
    FROM catalogue_changes AS log JOIN catalogue ON catalogue.kind = log.kind AND catalogue.id = log.id
    WHERE log.seq > $1 AND log.seq <= $1 + $2 AND NOT {_OVERTAKEN}
) AS changes
"""  # noqa: S608 - statements of ours

_Key: TypeAlias = tuple[Kind, str]
Fault: TypeAlias = tuple[int, InvalidInput]
"""The place of a change among others, and what is wrong with it."""


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


class Changed(NamedTuple):
    """What some changes have made of the catalogue.

    Attributes:
        seq: of the newest of them.
        states: the last of each thing, of products, locations, offers and promotions; what was withdrawn is there as
            not shown. Of placements, too; there a withdrawal stands for itself.
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
        InvalidChanges: some name what the catalogue does not hold.
        StillReferred: live offers or placements refer to what they withdraw.
    """
    keys: list[_Key] = [(kind_of(one), one.id) for one in changes]
    repeats = repeated(list(enumerate(keys)))
    if repeats:
        raise RepeatedChanges(repeats)
    async with connection.transaction():
        await lock(connection)
        faults = await unknown_references(connection, changes, channels)
        if faults:
            raise InvalidChanges(faults)
        newest = await last(connection)
        bodies = [None if isinstance(one, Withdrawal) else msgspec.json.encode(one).decode() for one in changes]
        done = await connection.execute(
            _WRITE, [kind for kind, _ in keys], [one for _, one in keys], bodies, newest, actor
        )
        newest += int(done.rpartition(" ")[2])
        gone: list[_Key] = [key for key, body in zip(keys, bodies, strict=True) if body is None]
        if gone:
            await _check_unreferred(connection, gone)
        await connection.execute("SELECT pg_notify($1, $2)", NOTIFICATION, str(newest))
    return newest


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
        since: promotions that ended before this moment are left out.
    """
    while most > 1 and not await connection.fetchval(_FITS, after, most, _AT_ONCE_BYTES):
        most //= 2
    record = await connection.fetchrow(_CHANGED, after, most, since)
    assert record is not None  # noqa: S101 - sums of no rows are a row
    states: list[Change] = []
    unreadable = 0
    for kind, gone, body in zip(record["kinds"], record["gone"], record["bodies"], strict=True):
        try:
            state = msgspec.json.decode(body, type=STATES[kind])
        except (msgspec.ValidationError, InvalidInput):  # a later version wrote what this one does not know
            unreadable += 1
        else:
            if gone and isinstance(state, PlacementState):
                states.append(Withdrawal(kind="placement", id=state.id))
            else:
                states.append(withdrawn(state) if gone else state)
    return Changed(record["seq"] or after, states, frozenset(record["customers"]), unreadable)


def repeated(keys: Sequence[tuple[int, _Key]]) -> list[Fault]:
    """Return the things that stand at a place and at an earlier one, too."""
    first: dict[_Key, int] = {}
    for place, key in keys:
        first.setdefault(key, place)
    return [
        (place, InvalidInput("id", f"expected each id once; {key[1]!r} stands at [{first[key]}], too"))
        for place, key in keys
        if first[key] != place
    ]


async def check_expected(connection: Connection, expected: Mapping[_Key, int | None]) -> None:
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


async def unknown_references(
    connection: Connection, changes: Sequence[Change], channels: Collection[str] | None
) -> list[Fault]:
    """Return the names that neither the catalogue nor the changes themselves hold, each with its change's place."""
    unknown = await _unknown(connection, changes)
    faults: list[Fault] = []
    for place, change in enumerate(changes):
        if unknown:
            faults += [(place, fault) for fault in first_few(_unknown_names(change, unknown))]
        if channels is not None:
            faults += [(place, fault) for fault in _unknown_channels(change, channels)]
    return faults


async def _unknown(connection: Connection, changes: Sequence[Change]) -> set[_Key]:
    """Return what changes name and will not be there after them."""
    named: dict[Kind, set[str]] = {}
    for change in changes:
        for _, kinds, ids in _references(change):
            for kind in kinds if ids else ():
                named.setdefault(kind, set()).update(ids)
    unknown: set[_Key] = set()
    for kind, ids in named.items():
        unknown.update((kind, one) for (one,) in await connection.fetch(_UNKNOWN, kind, list(ids)))
    for change in changes:
        key = kind_of(change), change.id
        if not isinstance(change, Withdrawal):
            unknown.discard(key)
        elif change.id in named.get(change.kind, ()):
            unknown.add(key)
    return unknown


def _unknown_names(change: Change, unknown: Collection[_Key]) -> Iterator[UnknownReference]:
    for field, kinds, ids in _references(change):
        for place, one in enumerate(ids):
            if all((kind, one) in unknown for kind in kinds):
                what = " or ".join(kinds)
                yield UnknownReference(field.format(place), f"expected a {what} that the catalogue holds; got {one!r}")


def _references(change: Change) -> Iterator[tuple[str, Sequence[Kind], Sequence[str]]]:
    """Yield the field, possible kinds and ids of all that a state names; the place in a list stands for ``{}``."""
    match change:
        case ProductState():
            for name in _PLACES:
                yield f"{name}[{{}}]", ("location",), getattr(change, name)
        case OfferState():
            if change.audience is not None:
                yield "audience", ("segment",), (change.audience,)
            if change.campaign is not None:
                yield "campaign", ("campaign",), (change.campaign,)
            yield "locations[{}]", ("location",), change.locations or ()
            yield "products[{}]", ("product",), change.products
        case PromotionState():
            yield "location", ("location",), (change.location,)
            yield "products[{}]", ("product",), change.products
        case CustomerState():
            yield "audiences[{}]", ("segment",), change.audiences
        case PlacementState():
            for place, pin in enumerate(change.pinned):
                yield f"pinned[{place}].id", (pin.kind,), (pin.id,)
            yield "excluded[{}]", ("product", "offer"), change.excluded
            yield "fallback[{}]", ("offer",), change.fallback
        case _:
            pass


_PLACES = ("locations", "out_of_stock_at", "withdrawn_at")


def _unknown_channels(change: Change, channels: Collection[str]) -> Iterator[UnknownReference]:
    match change:
        case OfferState() | PlacementState():
            named = {f"channels[{place}]": one for place, one in enumerate(change.channels or ())}
        case PromotionState():
            named = {"channel": change.channel}
        case _:
            return
    for field, one in named.items():
        if one not in channels:
            yield UnknownReference(field, f"expected one of {', '.join(channels)}; got {one!r}")


async def _check_unreferred(connection: Connection, gone: Sequence[_Key]) -> None:
    found = await connection.fetch(_REFERRING, [kind for kind, _ in gone], [one for _, one in gone])
    if found:
        who = ", ".join(f"{kind} {one!r} refers to {referred!r}" for kind, one, referred in found)
        raise StillReferred(f"{who}; change or withdraw these first, or wait until such offers have ended")
