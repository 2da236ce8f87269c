"""Statistics of one customer's purchases for sources and ranker, computed once until the next purchase.

All values are as of the newest purchase; the ranker's first layer ages those that change only with time.
Letters: E purchases, R products bought, G groups of products bought, Q kinds of groups, C columns.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings import kernel
from embeddings.customer.history import SLOW_DECAY, Purchases
from embeddings.ranking.statistics import PRODUCT_STATISTICS, Scored, Statistics

DAY = 86_400

DECAYS = (SLOW_DECAY, 0.97, 0.9)
"""What remains of a purchase's weight after a day: slowly, in between, and fast."""

GROUP_DECAY = 0.98

OWN = (
    "times",
    "slow",
    "middling",
    "fast",
    "days",
    "since",
    "gap",
    "visits_since",
    "basket_size",
    "price",
)
"""The columns of ``Profile.own_RC``: how many purchases, decayed three ways, on how many days; days since the last,
usual days between two, visits since the last; purchases per visit, of the visits that it was bought in; and what a
piece has cost on average."""

GROUP = ("lately", "slow", "since", "gap")
"""The columns of ``Group.statistics_GC``."""

_PRIOR_DAYS = 30.0
NEVER_DAYS = 400.0
"""Days since the last purchase of what was never bought."""

_NO_GROUP = (0.0, 0.0, NEVER_DAYS, 60.0)
"""The figures of a group never bought."""

_ALSO_BOUGHT_FROM = 60
_USUAL_VISIT_GAP = 7.0
"""Days between the visits of somebody with fewer than three."""

_HOURS = 6
"""So many hours from a time of the day or more, a purchase says nothing of it."""

_OTHER_DAYS = 0.3
"""How much it says if it was not on that day of the week."""

_PRIOR_VISITS = 2.0
_MIDDLING = OWN.index("middling")
_GAP, _PRICE = (PRODUCT_STATISTICS.index(name) for name in ("gap", "price"))


class Group(NamedTuple):
    """Purchases by group of products.

    Attributes:
        codes_G: the groups' codes, ascending.
        statistics_GC: float32, in the order of ``GROUP``; one row more for a group never bought.
    """

    codes_G: NDArray[np.int32]
    statistics_GC: NDArray[np.float32]


class Local(NamedTuple):
    """A customer's purchases at one location.

    Attributes:
        slow_R: float32, slowly decayed purchases of each product there; one more, of zero, for one never bought.
        visits: slowly decayed visits there.
    """

    slow_R: NDArray[np.float32]
    visits: float


class Hour(NamedTuple):
    """A customer's purchases at about one time of the week.

    Attributes:
        slow_R: as in `Local`; a purchase counts the more, the nearer it is to that time.
        visits: the same of visits.
        basket_size: purchases per visit then, smoothed towards the usual number.
    """

    slow_R: NDArray[np.float32]
    visits: float
    basket_size: float


@dataclass(frozen=True, eq=False)
class Profile:
    """Statistics of one customer's purchases, as of the newest.

    Attributes:
        newest: moment of the newest purchase, 0 if there is none.
        rows_R: int64 products bought, ascending.
        own_RC: float32, in the order of ``OWN``; one row more for a product never bought.
        groups: purchases by each of ``statistics.GROUPINGS``.
        visits: slowly decayed visits.
        basket_size: purchases per visit.
        visit_gap: usual days between two visits.
        also_bought: products that customers who buy the same buy too: rows, ascending, and the score of each.
        als_D: the customer's ALS factors, to be multiplied with the products'.
        customer: the arrays, as the compiled loops read them.
        longest_absence: as in ``Statistics``.
        by_visit: the purchases, visit after visit. The profile does not hold `Purchases` itself, so that
            whoever keeps a profile as long as its `Purchases` lives does not keep that alive.
    """

    newest: int
    rows_R: NDArray[np.int64]
    own_RC: NDArray[np.float32]
    groups: tuple[Group, ...]
    visits: float
    basket_size: float
    visit_gap: float
    also_bought: Scored
    als_D: NDArray[np.float32]
    customer: kernel.Customer
    longest_absence: float
    by_visit: kernel.ByVisit
    _local: dict[int, Local] = field(default_factory=dict)

    def away(self, moment: int) -> float:
        """Return the days since the newest purchase, at most the longest absence that training saw; 0 without any."""
        return min(max(moment - self.newest, 0) / DAY, self.longest_absence) if self.newest else 0.0

    def at(self, location: int) -> Local:
        """Return the purchases at a location, given by its row, -1 for none; only the last answer is kept."""
        found = self._local.get(location)
        if found is None:
            found = Local(*self.by_visit.at(location))
            self._local.clear()
            self._local[location] = found
        return found

    def at_hour(self, moment: int) -> Hour:
        """Return the purchases at about the same time of the week as a moment."""
        slow_R, visits, purchases = self.by_visit.at_hour(moment, _HOURS * 3_600, _OTHER_DAYS)
        return Hour(slow_R, visits, (purchases + _PRIOR_VISITS * self.basket_size) / (visits + _PRIOR_VISITS))


def profile_of(bought: Purchases, statistics: Statistics) -> Profile:
    """Compute the profile of a customer's purchases."""
    rows_R = bought.rows_R
    own_RC, groups, visits, basket_size, visit_gap = bought.by_visit.statistics(
        rows_R,
        statistics.products_NP,
        _GAP,
        _PRICE,
        statistics.groups_NQ,
        DECAYS[1:],
        GROUP_DECAY,
        NEVER_DAYS,
        _PRIOR_DAYS,
        _NO_GROUP,
        _USUAL_VISIT_GAP,
    )
    middling_R = np.ascontiguousarray(own_RC[:-1, _MIDDLING])
    most_R = kernel.foremost(middling_R, _ALSO_BOUGHT_FROM)
    also_bought = statistics.also_bought.around(rows_R[most_R], np.log1p(middling_R[most_R]))
    als_D = statistics.als.of(rows_R, bought.times_R)
    return Profile(
        newest=bought.newest,
        rows_R=rows_R,
        own_RC=own_RC,
        groups=tuple(Group(*one) for one in groups),
        visits=visits,
        basket_size=basket_size,
        visit_gap=visit_gap,
        also_bought=also_bought,
        als_D=als_D,
        longest_absence=statistics.longest_absence,
        customer=kernel.Customer(rows_R, own_RC, groups, also_bought, als_D),
        by_visit=bought.by_visit,
    )
