"""One customer's past worked out for sources and ranker, once for as long as the history does not grow.

Everything holds as of the newest purchase; what only ages since then is aged by the ranker itself.
Letters: E purchases, R products bought, G groups of products bought, V visits, C columns.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.history import EVENT_CODES, Events, History, Purchases
from embeddings.statistics import FIGURES, Statistics

DAY = 86_400

DECAYS = (0.995, 0.97, 0.9)
"""What remains of a purchase's weight after a day: slowly, in between, and fast."""

GROUP_DECAY = 0.98

OWN = ("times", "slow", "middling", "fast", "days", "since", "gap", "visits_since")
"""The columns of ``Profile.own_RC``: on how many lines, decayed three ways, on how many days; days since the last,
usual days between two, visits since the last."""

GROUP = ("lately", "slow", "since", "gap")
"""The columns of ``Group.figures_GC``."""

SESSION_SECONDS = 6 * 3_600
"""How long a session lasts: what lies further back in time says nothing of now."""

DISMISSED_SECONDS = 30 * DAY
"""How long a dismissal keeps what was dismissed back."""

_PRIOR_DAYS = 30.0
NEVER_DAYS = 400.0
"""Days since the last purchase of what was never bought."""

_NO_GROUP = (0.0, 0.0, NEVER_DAYS, 60.0)
"""The figures of a group never bought."""

_ALIKE_FROM = 60
_LOCATIONS_KEPT = 16
_GAP = FIGURES.index("gap")
_CART, _DISMISSAL = EVENT_CODES["add_to_cart"], EVENT_CODES["dismissal"]
_LOOKS = (EVENT_CODES["view"], EVENT_CODES["click"])
_ACTED = (*_LOOKS, _CART, _DISMISSAL)


class Group(NamedTuple):
    """Purchases by group of products.

    Attributes:
        codes_G: the groups' codes, ascending.
        figures_GC: float32, in the order of ``GROUP``; one row more for a group never bought.
    """

    codes_G: NDArray[np.int32]
    figures_GC: NDArray[np.float32]


class Local(NamedTuple):
    """What was bought at one location.

    Attributes:
        slow_R: float32, slowly decayed lines of each product there; one more, of zero, for one never bought.
        visits: slowly decayed visits there.
    """

    slow_R: NDArray[np.float32]
    visits: float


class Session(NamedTuple):
    """What happened since the last purchase and within ``SESSION_SECONDS``, by product row."""

    cart: NDArray[np.int64]
    looked: NDArray[np.int64]
    dismissed: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Profile:
    """What a history says, as of its newest purchase.

    Attributes:
        events_E: all events, oldest first.
        bought: the purchases among them.
        newest: moment of the newest purchase, 0 if there is none.
        rows_R: int64 products bought, ascending.
        own_RC: float32, in the order of ``OWN``; one row more for a product never bought.
        groups: purchases by each of ``statistics.RHYTHMS``.
        visits: slowly decayed visits.
        lines: purchases per visit.
        visit_gap: usual days between two visits.
        alike_rows, alike_scores: what customers who buy the same buy too.
        taste_D: the customer's factors, to be multiplied with the products'.
        acted: moment of the newest view, click, add to cart or dismissal of a product; 0 if there is none.
    """

    events_E: Events
    bought: Purchases
    newest: int
    rows_R: NDArray[np.int64]
    own_RC: NDArray[np.float32]
    groups: tuple[Group, ...]
    visits: float
    lines: float
    visit_gap: float
    alike_rows: NDArray[np.int64]
    alike_scores: NDArray[np.float32]
    taste_D: NDArray[np.float32]
    acted: int
    _local: dict[int, Local] = field(default_factory=dict)
    kept: dict[object, NDArray[np.int64]] = field(default_factory=dict)

    def at(self, location: int) -> Local:
        """What was bought at a location, given by its row; -1 for none."""
        found = self._local.get(location)
        if found is None:
            bought = self.bought
            is_here_E = (bought.locations_E == location) & (location >= 0)
            weights_E = DECAYS[0] ** ((self.newest - bought.at_E) / DAY) * is_here_E
            slow_R = np.bincount(bought.places_E, weights_E, len(self.rows_R) + 1).astype(np.float32)
            first_E = _first_of_visit(bought.at_E)
            found = Local(slow_R, float(weights_E[first_E].sum()))
            if len(self._local) < _LOCATIONS_KEPT:
                self._local[location] = found
        return found

    def session(self, moment: int) -> Session | None:
        """What happened lately, as of a moment; None if nothing did."""
        if self.acted < moment - DISMISSED_SECONDS:  # mostly: nothing but purchases
            return None
        recent_E = self.events_E
        recent_E = recent_E[(recent_E["at"] >= moment - DISMISSED_SECONDS) & (recent_E["product"] >= 0)]
        dismissed = recent_E["product"][recent_E["type"] == _DISMISSAL]
        begin = max(moment - SESSION_SECONDS, self.newest)
        now_E = recent_E[recent_E["at"] > begin]
        cart = np.unique(now_E["product"][now_E["type"] == _CART])
        looked = np.unique(now_E["product"][np.isin(now_E["type"], _LOOKS)])
        return Session(*(one.astype(np.int64) for one in (cart, looked, np.unique(dismissed))))


def profile_of(history: History, statistics: Statistics) -> Profile:
    """Work a history out."""
    bought = history.purchases
    rows_R, places_E, at_E = bought.rows_R, bought.places_E, bought.at_E
    count = len(rows_R)
    days_E = (bought.newest - at_E) / DAY
    own_RC = np.zeros((count + 1, len(OWN)), np.float32)
    own_RC[count, 5] = NEVER_DAYS
    visit_at_V = at_E[_first_of_visit(at_E)]
    visits = float((DECAYS[0] ** ((bought.newest - visit_at_V) / DAY)).sum())
    own = own_RC[:count]
    own[:, 0] = bought.times_R
    for column, decay in enumerate(DECAYS, start=1):
        own[:, column] = np.bincount(places_E, decay**days_E, count)
    last_R, span_R, distinct_R = _spans(places_E, at_E, count)
    own[:, 4] = distinct_R
    own[:, 5] = (bought.newest - last_R) / DAY
    own[:, 6] = (span_R + statistics.products_NP[rows_R, _GAP]) / np.maximum(distinct_R, 1)
    own[:, 7] = len(visit_at_V) - visit_at_V.searchsorted(last_R, side="right")
    most_R = np.argsort(-own[:, 2], kind="stable")[:_ALIKE_FROM]
    alike_rows, alike_scores = statistics.alike.around(rows_R[most_R], np.log1p(own[most_R, 2]))
    gaps_V = np.diff(visit_at_V) / DAY
    return Profile(
        events_E=history.events_E,
        bought=bought,
        newest=bought.newest,
        rows_R=rows_R,
        own_RC=own_RC,
        groups=tuple(
            _group(codes_N[rows_R][places_E], at_E, days_E, bought.newest) for codes_N in statistics.rhythms_NQ.T
        ),
        visits=visits,
        lines=len(at_E) / max(len(visit_at_V), 1),
        visit_gap=float(np.median(gaps_V)) if len(gaps_V) > 1 else 7.0,
        alike_rows=alike_rows,
        alike_scores=alike_scores,
        taste_D=statistics.tastes.of(rows_R, bought.times_R),
        acted=int(history.events_E["at"][np.isin(history.events_E["type"], _ACTED)].max(initial=0)),
    )


def _group(codes_E: NDArray[np.int32], at_E: NDArray[np.int64], days_E: NDArray[np.float64], newest: int) -> Group:
    codes_G, places_E = np.unique(codes_E, return_inverse=True)
    count = len(codes_G)
    figures_GC = np.zeros((count + 1, len(GROUP)), np.float32)
    figures_GC[count] = _NO_GROUP
    figures_GC[:count, 0] = np.bincount(places_E, GROUP_DECAY**days_E, count)
    figures_GC[:count, 1] = np.bincount(places_E, DECAYS[0] ** days_E, count)
    last_G, span_G, distinct_G = _spans(places_E, at_E, count)
    figures_GC[:count, 2] = (newest - last_G) / DAY
    figures_GC[:count, 3] = (span_G + _PRIOR_DAYS) / np.maximum(distinct_G, 1)
    figures_GC[:count][codes_G == 0] = _NO_GROUP  # products of an unknown group have no rhythm in common
    return Group(codes_G, figures_GC)


def _spans(
    places_E: NDArray[np.intp], at_E: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """By place: the last moment, days from the first to the last, and distinct days; of purchases oldest first."""
    first, last = np.zeros(count, np.int64), np.zeros(count, np.int64)
    first[places_E[::-1]] = at_E[::-1]
    last[places_E] = at_E
    if not count:
        return last, np.zeros(0), np.zeros(0, np.int64)
    days = at_E // DAY
    distinct = np.unique(places_E.astype(np.int64) * 1_000_000 + days) // 1_000_000
    return last, (last - first) / DAY, np.bincount(distinct, minlength=count)


def _first_of_visit(at_E: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each purchase, oldest first, is the first of its moment."""
    first_E = np.ones(len(at_E), np.bool_)
    first_E[1:] = at_E[1:] != at_E[:-1]
    return first_E
