"""Placements: what a request comes to under one, and the hours in which it shows nothing."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from msgspec import UNSET

from embeddings.catalogue.changes import PlacementState
from embeddings.catalogue.columns import Catalogue
from embeddings.catalogue.eligibility import Place
from embeddings.catalogue.placement import span_of
from embeddings.errors import InvalidInput, UnknownReference
from serving.ranked import Kind
from serving.recommendation import LIMIT, PRODUCTS, RecommendRequest, Stopped

_NAMED = 20
"""How many placements an error names: an answer must not outgrow its request by much."""


QUIET = Stopped("quiet_hours", "It is within the quiet hours of the placement, by the clock of the location.")


class Terms(NamedTuple):
    """What one answer is to be.

    Attributes:
        kinds: of items.
        limit: how many items, at most.
        placement: whose rules hold; None where none is asked for, or none is declared.
    """

    kinds: Sequence[Kind]
    limit: int
    placement: PlacementState | None = None


def terms_of(
    request: RecommendRequest, placements: Mapping[str, PlacementState], named: str | None, field: str = "placement"
) -> Terms:
    """Return what a request comes to under the placement that it names.

    Without declared placements the name is a label. A placement gives the defaults, and a request only narrows them.

    Args:
        request: the request.
        placements: those that are declared.
        named: the placement, if any.
        field: the field of the request that names it.

    Raises:
        UnknownReference: it is none of those declared.
        InvalidInput: the request asks for what the placement does not show.
    """
    if named is None or not placements:
        kinds = PRODUCTS if request.kinds is UNSET else request.kinds
        return Terms(kinds, LIMIT if request.limit is UNSET else request.limit)
    placement = placements.get(named)
    if placement is None:
        raise UnknownReference(field, _expected(named, placements))
    channel = request.context.channel
    if placement.channels is not None and channel not in placement.channels:
        only = ", ".join(placement.channels) or "none"
        raise InvalidInput(
            "context.channel", f"expected one of the channels of placement {named!r}, {only}; got {channel!r}"
        )
    return Terms(_kinds(request, placement), _limit(request, placement), placement)


def is_quiet(placement: PlacementState, catalogue: Catalogue, place: Place, moment: int) -> bool:
    """Return whether a placement shows nothing at a moment, in seconds since 1970 UTC.

    The clock is that of the nearest location of the request; where it has none, or its time zone is unknown, that of
    the placement; else UTC.
    """
    if placement.quiet_hours is None:
        return False
    zone = catalogue.locations.time_zones.get(place.nearest) or placement.time_zone or "UTC"
    return span_of(placement.quiet_hours).holds(moment, zone)


def _kinds(request: RecommendRequest, placement: PlacementState) -> Sequence[Kind]:
    kinds = placement.kinds if request.kinds is UNSET else request.kinds
    for number, kind in enumerate(kinds):
        if kind not in placement.kinds:
            shown = " and ".join(placement.kinds)
            raise InvalidInput(
                f"kinds[{number}]", f"expected {shown}, as placement {placement.id!r} shows; got {kind!r}"
            )
    if request.filters and "product" not in kinds:
        raise InvalidInput("filters", f"expected none: placement {placement.id!r} shows no products")
    return kinds


def _limit(request: RecommendRequest, placement: PlacementState) -> int:
    if request.limit is UNSET:
        return placement.slots
    if request.limit > placement.slots:
        raise InvalidInput(
            "limit", f"expected at most {placement.slots}, the slots of placement {placement.id!r}; got {request.limit}"
        )
    return request.limit


def _expected(named: str, placements: Mapping[str, PlacementState]) -> str:
    known = sorted(placements)
    more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    close = get_close_matches(named, known, 1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"expected one of the placements {', '.join(known[:_NAMED])}{more}; got {named!r}{meant}"
