"""Encodes a customer's history and context as the customer tower's input, the same offline and online.

Letters: B customers, L events, A attributes, C context codes (channel, location, weekday, hour, and what the
recipe declares besides), N products, D dimensions.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from embeddings import kernel
from embeddings.arrays import Table
from embeddings.catalogue.columns import Catalogue
from embeddings.catalogue.eligibility import Place
from embeddings.customer.history import INTERACTION_TYPES, History, Purchases

WEEKDAYS, HOURS = 7, 24
_DAY, _HOUR = 86_400, 3_600
_THURSDAY = 3  # 1970-01-01


Moments = TypeVar("Moments", int, NDArray[np.int64])
"""Seconds since 1970 UTC, one or an array of them."""


class Situation(NamedTuple):
    """A request's context in the catalogue's codes.

    Attributes:
        channel: code, -1 if unknown.
        location: row of where the customer is taken to be, -1 if unknown.
        moment: seconds since 1970 UTC.
        attributes: codes of the context attributes, as in ``Catalogue.context``.
        placed: whether it is said that the customer is at the location; else it is where they usually are.
        ahead: whether it is not the moment of a visit, but of a message that goes out ahead of one.
    """

    channel: int
    location: int
    moment: int
    attributes: tuple[int, ...] = ()
    placed: bool = True
    ahead: bool = False

    def at(self, place: Place, purchases: Purchases) -> "Situation":
        """Return the situation at a place, for a customer who made some purchases.

        A place of one location is where the customer is. Of several it is the one that the customer visits most, or the
        nearest one; without a place it is the location that the customer visits most, if there is any. Models read that
        location. What may be shown, the place alone says.
        """
        rows = place.rows
        if rows is not None and len(rows) == 1:
            return self._replace(location=rows[0], placed=True)
        location = purchases.usual_location(rows)
        return self._replace(location=place.nearest if location < 0 else location, placed=False)


class TowerInput(NamedTuple):
    """The input of the customer tower.

    Attributes:
        products_BL: int64 product rows of the latest interactions, newest first; -1 pads.
        types_BL: int64 codes of event types; 0 pads.
        ages_BL: float32, ``log2(1 + days since the event)``; 0 pads.
        attributes_BA: int64 codes of customer attributes; 0 is unknown.
        context_BC: int64 codes of channel, location, weekday and hour, each shifted by one, then of the situation's
            attributes; 0 is unknown, as is a location that is not said but only usual.
    """

    products_BL: NDArray[np.int64]
    types_BL: NDArray[np.int64]
    ages_BL: NDArray[np.float32]
    attributes_BA: NDArray[np.int64]
    context_BC: NDArray[np.int64]


def encode(
    histories: Sequence[History], situations: Sequence[Situation], length: int, longest_absence: float = math.inf
) -> TowerInput:
    """Return the tower input of some customers, each in their own situation.

    Args:
        histories: B histories; every event in them counts as past.
        situations: B situations.
        length: the most events to read, the latest ones; L is what the longest history needs, at least 1.
        longest_absence: days since the newest event beyond which training saw next to nobody: for whoever stayed away
            for longer, events are as old as after so many days.
    """
    events_BE = [history.events_E for history in histories]
    moments_B = [
        _moment(history, one.moment, longest_absence) for history, one in zip(histories, situations, strict=True)
    ]
    products_BL, types_BL, ages_BL = kernel.latest(events_BE, INTERACTION_TYPES, moments_B, length)
    return TowerInput(
        products_BL=products_BL,
        types_BL=types_BL,
        ages_BL=ages_BL,
        attributes_BA=np.array([history.attributes_A for history in histories], np.int64).reshape(len(histories), -1),
        context_BC=np.array([_codes(situation) for situation in situations], np.int64),
    )


def _moment(history: History, moment: int, longest_absence: float) -> int:
    """Return a moment, brought as near to the newest event of a history as training saw."""
    events_E = history.events_E
    if math.isinf(longest_absence) or not len(events_E):
        return moment
    return min(moment, int(events_E["at"][-1]) + round(longest_absence * _DAY))


def _codes(situation: Situation) -> tuple[int, ...]:
    return (
        situation.channel + 1,
        situation.location + 1 if situation.placed else 0,
        weekday_of(situation.moment) + 1,
        int(hour_of(situation.moment)) + 1,
        *situation.attributes,
    )


def weekday_of(moment: Moments) -> Moments:
    """Return the day of the week in UTC, Monday 0, of a moment or of some."""
    return (moment // _DAY + _THURSDAY) % WEEKDAYS


def hour_of(moment: int) -> float:
    """Return the hour of the day in UTC, with its fraction."""
    return moment % _DAY / _HOUR


def situation_sizes(catalogue: Catalogue) -> tuple[int, ...]:
    """Return how many codes each column of ``TowerInput.context_BC`` has, the unknown one included."""
    return (
        len(catalogue.channels) + 1,
        len(catalogue.locations.ids) + 1,
        WEEKDAYS + 1,
        HOURS + 1,
        *catalogue.context.sizes,
    )


def gather(vectors_ND: NDArray[np.float32] | Table[np.float32], rows_BL: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the vectors (B, L, D) of some rows; zeros where a row is -1."""
    return kernel.gather(vectors_ND, rows_BL)
