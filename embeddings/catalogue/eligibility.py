"""Eligible sets: the catalogue rows that a context allows, computed before anything is searched or ranked, exactly.

A context without a location means any location. On a channel that shows what a location carries, it allows what any
location carries.
"""

from datetime import UTC, datetime
from functools import cached_property
from typing import NamedTuple, TypeAlias

import haversine
import numpy as np
from numpy.typing import NDArray

from embeddings.catalogue.columns import Catalogue, ChannelRule
from embeddings.catalogue.context import Context, GeoPoint
from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.errors import InvalidInput, UnknownReference
from embeddings.remembered import Remembered

REMEMBERED_BYTES = 64 * 2**20
"""How much memory remembered sets and the keys to them may take."""

_Key: TypeAlias = tuple[object, ...]


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
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._remembered: Remembered[EligibleSet] = Remembered(REMEMBERED_BYTES)
        self._places: dict[str, Place] = {}  # of the locations asked about so far: looking an id up costs more
        offers, promotions = catalogue.offers, catalogue.promotions
        self._restricted_O = (np.diff(offers.channels.offsets) > 0) | (np.diff(offers.locations.offsets) > 0)
        self._offer_bounds = np.unique(np.concatenate([offers.starts_O, offers.ends_O]))
        self._promotion_bounds = np.unique(np.concatenate([promotions.starts_G, promotions.ends_G]))

    def channel(self, channel: str, field: str = "context.channel") -> int:
        """Return the channel's code; raise UnknownReference if the catalogue does not declare it."""
        code = self._catalogue.channel_code(channel)
        if code is None:
            known = ", ".join(self._catalogue.channels)
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
        locations = self._catalogue.locations
        if isinstance(location, GeoPoint):
            placed_M = np.flatnonzero(np.isfinite(locations.coordinates_M2).all(axis=1))
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
            if row is None:
                raise UnknownReference(field, f"expected the id of a location in the catalogue; got {location!r}")
            place = self._places[location] = Place((row,))
        return place

    def products(self, context: Context, place: Place, moment: int) -> EligibleSet:
        """Return the product rows that a context allows at a moment, in seconds since 1970 UTC."""
        channel = self.channel(context.channel)
        rule = self._catalogue.channels[context.channel]
        match rule:
            case ChannelRule.EVERYTHING:
                key: _Key = (rule,)
            case ChannelRule.ASSORTMENT:
                key = (rule, place.rows)
            case ChannelRule.PROMOTED:
                key = (rule, place.rows, channel, _span(self._promotion_bounds, moment))
        found = self._remembered.find(key)
        return found or self._remembered.keep(key, self._find_products(rule, channel, place, moment))

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
        return EligibleSet.derived(allowed, rows[times >= self._catalogue.offers.uses_O[rows]])

    def _find_products(self, rule: ChannelRule, channel: int, place: Place, moment: int) -> EligibleSet:
        catalogue = self._catalogue
        match rule:
            case ChannelRule.EVERYTHING:
                return self.recommendable
            case ChannelRule.ASSORTMENT:
                assortment = catalogue.locations.assortment
                carried = [assortment.values] if place.rows is None else [assortment[row] for row in place.rows]
                return EligibleSet.of(self._shown(_union(carried)), FOREVER)
            case ChannelRule.PROMOTED:
                promotions = catalogue.promotions
                active_G = (promotions.channels_G == channel) & (promotions.starts_G <= moment)
                active_G &= moment < promotions.ends_G
                if place.rows is not None:
                    active_G &= np.isin(promotions.locations_G, place.rows)
                rows = _union([promotions.products[group] for group in np.flatnonzero(active_G).tolist()])
                return EligibleSet.of(self._shown(rows), _next(self._promotion_bounds, moment))

    @cached_property
    def recommendable(self) -> EligibleSet:
        """Return the products that may be shown at all."""
        return EligibleSet.of(np.flatnonzero(self._catalogue.products.recommendable_N).astype(np.int32), FOREVER)

    def _shown(self, rows: NDArray[np.int32]) -> NDArray[np.int32]:
        return rows[self._catalogue.products.recommendable_N[rows]]

    def _find_offers(self, channel: int, place: Place, audiences: tuple[int, ...], moment: int) -> EligibleSet:
        offers = self._catalogue.offers
        allowed_O = (offers.starts_O <= moment) & (moment < offers.ends_O)
        allowed_O &= (offers.audiences_O < 0) | np.isin(offers.audiences_O, audiences)
        for row in np.flatnonzero(allowed_O & self._restricted_O).tolist():
            admitted = _admits(offers.channels[row], (channel,)) and _admits(offers.locations[row], place.rows)
            allowed_O[row] = admitted
        return EligibleSet.of(np.flatnonzero(allowed_O).astype(np.int32), _next(self._offer_bounds, moment))


def _union(parts: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    if len(parts) == 1:
        return np.unique(parts[0])
    return np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int32)


def _admits(declared: NDArray[np.int32], asked: tuple[int, ...] | None) -> bool:
    """Return whether a declared list (empty: no restriction) admits any of the codes asked for (None: anything)."""
    return not len(declared) or asked is None or bool(np.isin(declared, asked).any())


def _span(bounds: NDArray[np.int64], moment: int) -> int:
    """Return the number of the span between bounds that holds a moment; nothing changes within one span."""
    return int(bounds.searchsorted(moment, side="right"))


def _next(bounds: NDArray[np.int64], moment: int) -> datetime:
    following = _span(bounds, moment)
    return datetime.fromtimestamp(int(bounds[following]), UTC) if following < len(bounds) else FOREVER
