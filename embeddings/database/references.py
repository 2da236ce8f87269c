"""What states name: whether the catalogue holds it, and whether anything still refers to what goes."""

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Literal, TypeAlias

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
)
from embeddings.database.connection import Connection
from embeddings.errors import InvalidInput, StillReferred, UnknownReference

Key: TypeAlias = tuple[Kind, str]
"""The kind and the id of a thing."""
Fault: TypeAlias = tuple[int, InvalidInput]
"""The place of a change among others, and what is wrong with it."""
_Name: TypeAlias = tuple[Kind | Literal["channel"], str]
"""What a state names: the kind and the id."""

_UNKNOWN = """
SELECT id FROM unnest($2::text[]) AS named (id)
WHERE NOT EXISTS (SELECT FROM catalogue WHERE kind = $1 AND catalogue.id = named.id AND NOT withdrawn)
"""

_STATES = """
SELECT catalogue.kind, catalogue.id, body::text FROM catalogue
JOIN unnest($1::text[], $2::text[]) AS given (kind, id) ON catalogue.kind = given.kind AND catalogue.id = given.id
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


async def unknown_references(
    connection: Connection, changes: Sequence[Change], channels: Collection[str] | None
) -> list[Fault]:
    """Return the new names that neither the catalogue nor the changes themselves hold, each with its change's place.

    A name that the last state of the same thing holds is not new: what it names may have gone since.
    """
    unknown: set[_Name] = {*await _unknown(connection, changes)}
    found: list[tuple[int, Key, _Name, UnknownReference]] = []
    for place, change in enumerate(changes):
        key = kind_of(change), change.id
        if unknown:
            found += [(place, key, name, fault) for name, fault in _unknown_names(change, unknown)]
        if channels is not None:
            found += [(place, key, name, fault) for name, fault in _unknown_channels(change, channels)]
    held = await _held(connection, {key for _, key, _, _ in found})
    new = ((place, fault) for place, key, name, fault in found if name not in held.get(key, ()))
    return [
        (place, fault)
        for place, of_one in groupby(new, key=itemgetter(0))
        for fault in first_few(fault for _, fault in of_one)
    ]


async def _unknown(connection: Connection, changes: Sequence[Change]) -> set[Key]:
    """Return what changes name and will not be there after them."""
    named: dict[Kind, set[str]] = {}
    for change in changes:
        for _, kinds, ids in _references(change):
            for kind in kinds:
                named.setdefault(kind, set()).update(ids)
    unknown: set[Key] = set()
    for kind, ids in named.items():
        if not ids:
            continue
        unknown.update((kind, one) for (one,) in await connection.fetch(_UNKNOWN, kind, list(ids)))
    for change in changes:
        key = kind_of(change), change.id
        if not isinstance(change, Withdrawal):
            unknown.discard(key)
        elif change.id in named.get(change.kind, ()):
            unknown.add(key)
    return unknown


async def _held(connection: Connection, keys: Collection[Key]) -> dict[Key, set[_Name]]:
    """Return what the last states of things name, also of those that were withdrawn."""
    held: dict[Key, set[_Name]] = {}
    if not keys:
        return held
    for kind, one, body in await connection.fetch(_STATES, [kind for kind, _ in keys], [one for _, one in keys]):
        try:
            state = msgspec.json.decode(body, type=STATES[kind])
        except (msgspec.ValidationError, InvalidInput):  # a later version wrote what this one does not know
            continue
        names = held[kind, one] = {("channel", channel) for _, channel in _channels(state)}
        names.update((named, one) for _, kinds, ids in _references(state) for one in ids for named in kinds)
    return held


def _unknown_names(change: Change, unknown: Collection[_Name]) -> Iterator[tuple[_Name, UnknownReference]]:
    for field, kinds, ids in _references(change):
        for place, one in enumerate(ids):
            if all((kind, one) in unknown for kind in kinds):
                expected = f"expected a {' or '.join(kinds)} that the catalogue holds; got {one!r}"
                yield (kinds[0], one), UnknownReference(field.format(place), expected)


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


def _unknown_channels(change: Change, channels: Collection[str]) -> Iterator[tuple[_Name, UnknownReference]]:
    for field, one in _channels(change):
        if one not in channels:
            yield ("channel", one), UnknownReference(field, f"expected one of {', '.join(channels)}; got {one!r}")


def _channels(change: Change) -> Iterator[tuple[str, str]]:
    """Yield the field and the name of every channel that a state names."""
    match change:
        case OfferState() | PlacementState():
            yield from ((f"channels[{place}]", one) for place, one in enumerate(change.channels or ()))
        case PromotionState():
            yield "channel", change.channel
        case _:
            pass


async def check_unreferred(connection: Connection, gone: Sequence[Key]) -> None:
    """Raise StillReferred if offers that have not ended, or placements, refer to things that were withdrawn."""
    found = await connection.fetch(_REFERRING, [kind for kind, _ in gone], [one for _, one in gone])
    if found:
        who = ", ".join(f"{kind} {one!r} refers to {referred!r}" for kind, one, referred in found)
        raise StillReferred(f"{who}; change or withdraw these first, or wait until such offers have ended")
