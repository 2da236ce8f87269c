"""Eligible sets: the catalogue rows that a context allows, computed before anything is searched or ranked, exactly.

A context without a location means any location. On a channel that shows what a location carries, it allows what any
location carries.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple, TypeAlias

import haversine
import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import among
from embeddings.catalogue.columns import Catalogue, ChannelRule
from embeddings.catalogue.context import Context, GeoPoint
from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.catalogue.filters import PriceRange, key_of, matching
from embeddings.errors import InvalidInput, UnknownReference
from embeddings.remembered import Remembered

REMEMBERED_BYTES = 64 * 2**20
"""How much memory remembered sets and the keys to them may take."""

_Key: TypeAlias = tuple[object, ...]
_List: TypeAlias = tuple[int, NDArray[np.int32] | None]
"""A location and the product rows, ascending, that it lists; None for all there are."""
_NO_ROWS = np.zeros(0, np.int64)
_MUCH = 0.1
"""Of the products; beyond that eligible sets are not derived from those of the release."""


class Place(NamedTuple):
    """The locations of a context, as catalogue rows.

    Attributes:
        rows: the locations, the nearest first; None for any location.
    """

    rows: tuple[int, ...] | None

    @property
    def nearest(self) -> int:
        """Return the row of the nearest location, or -1 if the context has no particular location."""
        return self.rows[0] if self.rows else -1


class Eligibility:
    """Finds the eligible set of a context, and remembers it for the span of time in which the set holds.

    Not safe for several threads: it belongs to the event loop.

    Args:
        catalogue: at present.
        published: that of the release, where the catalogue came of it by changes: the sets of products are derived from
            its sets, so that what was made for those, such as copies to search, serves them too.
    """

    def __init__(self, catalogue: Catalogue, published: "Eligibility | None" = None) -> None:
        self.catalogue = catalogue
        self._remembered: Remembered[EligibleSet] = Remembered(REMEMBERED_BYTES)
        self._places: dict[str, Place] = {}  # of the locations asked about so far: looking an id up costs more
        offers, promotions = catalogue.offers, catalogue.promotions
        self._restricted_O = (np.diff(offers.channels.offsets) > 0) | (np.diff(offers.locations.offsets) > 0)
        self._offer_bounds = np.unique(np.concatenate([offers.starts_O, offers.ends_O]))
        self._promotion_bounds = np.unique(np.concatenate([promotions.starts_G, promotions.ends_G]))
        self._changed_C = _NO_ROWS if published is None else self._find_changed(published)
        # Where much has changed, sets of their own are searched faster than parts of others.
        self._published = published if len(self._changed_C) <= _MUCH * len(catalogue.products.ids) else None

    def channel(self, channel: str, field: str = "context.channel") -> int:
        """Return the channel's code; raise UnknownReference if the catalogue does not declare it."""
        code = self.catalogue.channel_code(channel)
        if code is None:
            known = ", ".join(self.catalogue.channels)
            raise UnknownReference(field, f"expected one of {known}; got {channel!r}")
        return code

    def place(self, location: str | GeoPoint | None, field: str = "context.location") -> Place:
        """Return the locations that a value of the request means; errors call the value by ``field``.

        Raises:
            UnknownReference: the id names no location of the catalogue.
            InvalidInput: a point was given, and no location of the catalogue has coordinates.
        """
        if location is None:
            return Place(None)
        locations = self.catalogue.locations
        if isinstance(location, GeoPoint):
            placed_M = np.flatnonzero(np.isfinite(locations.coordinates_M2).all(axis=1) & ~locations.withdrawn_M)
            if not len(placed_M):
                raise InvalidInput(field, "expected a location id: no location of this catalogue has coordinates")
            kilometres_M = haversine.haversine_vector(
                np.array([[location.latitude, location.longitude]]),
                locations.coordinates_M2[placed_M],
                comb=True,
            )[:, 0]
            within_M = kilometres_M <= location.radius_km
            order = np.argsort(kilometres_M[within_M], kind="stable")
            return Place(tuple(placed_M[within_M][order].tolist()))
        place = self._places.get(location)
        if place is None:
            row = locations.ids.row(location)
            if row is None or locations.withdrawn_M[row]:
                raise UnknownReference(field, f"expected the id of a location in the catalogue; got {location!r}")
            place = self._places[location] = Place((row,))
        return place

    def products(self, context: Context, place: Place, moment: int) -> EligibleSet:
        """Return the product rows that a context allows at a moment, in seconds since 1970 UTC."""
        channel = self.channel(context.channel)
        return self.products_of(self.catalogue.channels[context.channel], channel, place, moment)

    def products_of(self, rule: ChannelRule, channel: int, place: Place, moment: int) -> EligibleSet:
        """Return the product rows that a rule allows on a channel, at a moment in seconds since 1970 UTC."""
        if not self._may_lack(rule, place):
            return self.listed(rule, channel, place, moment)
        key = ("available", place.rows, self._key(rule, channel, place, moment))
        found = self._remembered.find(key)
        if found is None:
            lacking = self._lacking(self._lists(rule, channel, place, moment), place)
            available = EligibleSet.derived(self.listed(rule, channel, place, moment), lacking, own=False)
            found = self._remembered.keep(key, available)
        return found

    def listed(self, rule: ChannelRule, channel: int, place: Place, moment: int) -> EligibleSet:
        """Return the same with the products that the place lacks at present."""
        key = self._key(rule, channel, place, moment)
        found = self._remembered.find(key)
        return found or self._remembered.keep(key, self._find_products(rule, channel, place, moment))

    def _key(self, rule: ChannelRule, channel: int, place: Place, moment: int) -> _Key:
        match rule:
            case ChannelRule.EVERYTHING:
                return (rule,)
            case ChannelRule.ASSORTMENT:
                return rule, place.rows
            case ChannelRule.PROMOTED:
                return rule, place.rows, channel, _span(self._promotion_bounds, moment)

    def _may_lack(self, rule: ChannelRule, place: Place) -> bool:
        """Return whether products may be unavailable at a place.

        Without a place, a channel that shows everything does not look at what single locations lack.
        """
        unavailable = self.catalogue.locations.unavailable
        if not len(unavailable.values):
            return False
        if place.rows is None:
            return rule != ChannelRule.EVERYTHING
        return any(unavailable.offsets[row] < unavailable.offsets[row + 1] for row in place.rows)

    def _lacking(self, lists: "list[_List]", place: Place) -> NDArray[np.int32]:
        """Return the products that no location which lists them can give.

        Args:
            lists: of what the locations of the place list; see `_lists`.
            place: where.
        """
        unavailable = self.catalogue.locations.unavailable
        where = range(len(unavailable)) if place.rows is None else place.rows
        wanted_C = np.unique(np.concatenate([unavailable[row] for row in where]))
        available_C = np.zeros(len(wanted_C), np.bool_)
        for location, listed in lists:
            listed_C = among(listed, wanted_C) if listed is not None else np.ones(len(wanted_C), np.bool_)
            available_C |= listed_C & ~among(unavailable[location], wanted_C)
        return wanted_C[~available_C]

    def filtered(self, eligible: EligibleSet, filters: Mapping[str, tuple[str, ...] | PriceRange]) -> EligibleSet:
        """Return the part of an eligible set that filters want; see `filters.matching` for errors."""
        key = ("filters", key_of(filters))
        wanted = self._remembered.find(key)
        if wanted is None:
            wanted = self._remembered.keep(key, EligibleSet.of(matching(self.catalogue.products, filters), FOREVER))
        return eligible.among(wanted.rows_N)

    def offers(
        self, context: Context, place: Place, moment: int, audiences: tuple[int, ...], redeemed_R: NDArray[np.int32]
    ) -> EligibleSet:
        """Return the offer rows that a context allows at a moment to one customer.

        Args:
            context: where and on which channel.
            place: the locations of the context.
            moment: seconds since 1970 UTC.
            audiences: codes of the audiences that the customer belongs to.
            redeemed_R: the offers that the customer has redeemed, a row for each time. One redeemed as often as one
                customer may is not allowed.
        """
        channel = self.channel(context.channel)
        key = ("offers", place.rows, channel, audiences, _span(self._offer_bounds, moment))
        allowed = self._remembered.find(key)
        if allowed is None:
            allowed = self._remembered.keep(key, self._find_offers(channel, place, audiences, moment))
        if not len(redeemed_R):
            return allowed
        rows, times = np.unique(redeemed_R, return_counts=True)
        known = rows < len(self.catalogue.offers.ids)  # the history may know offers that came later
        rows, times = rows[known], times[known]
        return EligibleSet.derived(allowed, rows[times >= self.catalogue.offers.uses_O[rows]])

    def _find_products(self, rule: ChannelRule, channel: int, place: Place, moment: int) -> EligibleSet:
        published = self._published
        if published is not None and rule == ChannelRule.PROMOTED:
            same = published.catalogue.promotions is self.catalogue.promotions
            published = published if same else None
        if rule == ChannelRule.EVERYTHING:
            lists = None
        elif rule == ChannelRule.ASSORTMENT and place.rows is None:
            lists = [self.carried]  # all lists together, worked out once
        else:
            lists = [listed for _, listed in self._lists(rule, channel, place, moment) if listed is not None]
        if published is None or not published.knows(place):
            if lists is None:
                return self.recommendable
            until = _next(self._promotion_bounds, moment) if rule == ChannelRule.PROMOTED else FOREVER
            return EligibleSet.of(self._shown(lists), until)
        whole = published.listed(rule, channel, place, moment)
        allowed_C = self.catalogue.products.recommendable_N[self._changed_C]
        if lists is not None:
            allowed_C &= _in_any(lists, self._changed_C)
        return EligibleSet.derived(whole, self._changed_C[~allowed_C], self._changed_C[allowed_C], own=False)

    def knows(self, place: Place) -> bool:
        """Return whether the catalogue holds all locations of a place, which may be of a later one."""
        return place.rows is None or max(place.rows, default=-1) < len(self.catalogue.locations.ids)

    def _lists(self, rule: ChannelRule, channel: int, place: Place, moment: int) -> "list[_List]":
        """Return what the locations of a place list: of these products a context allows what may be shown."""
        withdrawn_M = self.catalogue.locations.withdrawn_M
        match rule:
            case ChannelRule.EVERYTHING:
                return [(row, None) for row in place.rows or ()]
            case ChannelRule.ASSORTMENT:
                assortment = self.catalogue.locations.assortment
                where = np.flatnonzero(~withdrawn_M).tolist() if place.rows is None else place.rows
                return [(row, assortment[row]) for row in where]
            case ChannelRule.PROMOTED:
                promotions = self.catalogue.promotions
                active_G = (promotions.channels_G == channel) & (promotions.starts_G <= moment)
                active_G &= (moment < promotions.ends_G) & ~withdrawn_M[promotions.locations_G]
                if place.rows is not None:
                    active_G &= np.isin(promotions.locations_G, place.rows)
                groups = np.flatnonzero(active_G).tolist()
                return [(int(promotions.locations_G[group]), promotions.products[group]) for group in groups]

    @cached_property
    def recommendable(self) -> EligibleSet:
        """Return the products that may be shown at all."""
        if self._published is None:
            return EligibleSet.of(np.flatnonzero(self.catalogue.products.recommendable_N).astype(np.int32), FOREVER)
        return self._find_products(ChannelRule.EVERYTHING, -1, Place(None), 0)

    @cached_property
    def carried(self) -> NDArray[np.int32]:
        """Return what any location carries that was not withdrawn."""
        locations = self.catalogue.locations
        open_L = ~np.repeat(locations.withdrawn_M, np.diff(locations.assortment.offsets))
        carried_N = np.zeros(len(self.catalogue.products.ids), np.bool_)
        carried_N[locations.assortment.values[open_L]] = True
        return np.flatnonzero(carried_N).astype(np.int32)

    def _find_changed(self, published: "Eligibility") -> NDArray[np.int64]:
        """Return the products (C) that may be allowed where the release does not allow them, or the other way round."""
        before, now = published.catalogue, self.catalogue
        held = len(before.products.ids)
        changed_N = np.ones(len(now.products.ids), np.bool_)
        changed_N[:held] = before.products.recommendable_N != now.products.recommendable_N[:held]
        inside_N = np.zeros(len(changed_N), np.bool_)
        if before.locations.assortment is not now.locations.assortment:
            for row in range(len(before.locations.ids)):
                _mark_differences(changed_N, inside_N, before.locations.assortment[row], now.locations.assortment[row])
        if before.locations is not now.locations:
            _mark_differences(changed_N, inside_N, published.carried, self.carried)
        closed_M = now.locations.withdrawn_M.copy()
        closed_M[: len(before.locations.withdrawn_M)] ^= before.locations.withdrawn_M
        closed_G = closed_M[now.promotions.locations_G]
        for group in np.flatnonzero(closed_G).tolist():
            changed_N[now.promotions.products[group]] = True
        return np.flatnonzero(changed_N)

    def _shown(self, lists: list[NDArray[np.int32]]) -> NDArray[np.int32]:
        """Return the products of some lists that may be shown, ascending."""
        # Marking takes one step a product of each list; sorting them all together takes ten times as long.
        listed_N = np.zeros(len(self.catalogue.products.ids), np.bool_)
        for rows in lists:
            listed_N[rows] = True
        return np.flatnonzero(listed_N & self.catalogue.products.recommendable_N).astype(np.int32)

    def _find_offers(self, channel: int, place: Place, audiences: tuple[int, ...], moment: int) -> EligibleSet:
        offers = self.catalogue.offers
        allowed_O = (offers.starts_O <= moment) & (moment < offers.ends_O) & ~offers.withdrawn_O
        allowed_O &= (offers.audiences_O < 0) | np.isin(offers.audiences_O, audiences)
        for row in np.flatnonzero(allowed_O & self._restricted_O).tolist():
            where = offers.locations[row]
            still_open = where[~self.catalogue.locations.withdrawn_M[where]]
            admitted = _admits(offers.channels[row], (channel,)) and (
                not len(where) or (len(still_open) > 0 and _admits(still_open, place.rows))
            )
            allowed_O[row] = admitted
        return EligibleSet.of(np.flatnonzero(allowed_O).astype(np.int32), _next(self._offer_bounds, moment))


def _mark_differences(
    changed_N: NDArray[np.bool_], inside_N: NDArray[np.bool_], one: NDArray[np.int32], other: NDArray[np.int32]
) -> None:
    """Mark the rows that only one of two lists holds; ``inside_N`` is room to work in, False before and afterwards."""
    if np.array_equal(one, other):
        return
    inside_N[one] = True
    changed_N[other[~inside_N[other]]] = True
    inside_N[other] = False
    changed_N[one[inside_N[one]]] = True
    inside_N[one] = False


def _in_any(lists: list[NDArray[np.int32]], rows_C: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each of some rows whether any of the lists, each ascending, holds it."""
    inside_C = np.zeros(len(rows_C), np.bool_)
    for one in lists:
        inside_C |= among(one, rows_C)
    return inside_C


def _admits(declared: NDArray[np.int32], asked: tuple[int, ...] | None) -> bool:
    """Return whether a declared list (empty: no restriction) admits any of the codes asked for (None: anything)."""
    return not len(declared) or asked is None or bool(np.isin(declared, asked).any())


def _span(bounds: NDArray[np.int64], moment: int) -> int:
    """Return the number of the span between bounds that holds a moment; nothing changes within one span."""
    return int(bounds.searchsorted(moment, side="right"))


def _next(bounds: NDArray[np.int64], moment: int) -> datetime:
    following = _span(bounds, moment)
    return datetime.fromtimestamp(int(bounds[following]), UTC) if following < len(bounds) else FOREVER
