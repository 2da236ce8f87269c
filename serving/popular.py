"""Popular products in a context, ranked once and remembered: the answer for customers without a history."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.catalogue.eligible import EligibleSet
from embeddings.ranking.observed import Observed, SoldLists
from embeddings.ranking.popularity import LONGEST, Shares, most_popular, popular
from embeddings.remembered import Remembered

REMEMBERED_BYTES = 64 * 2**20
"""How much memory remembered rankings and the keys to them may take."""


class PopularRanking(NamedTuple):
    """Eligible products, the most popular first; ties by row.

    Attributes:
        rows_K: catalogue rows, at most ``LONGEST``.
        shares_K: each one's share of recent purchases.
    """

    rows_K: NDArray[np.int64]
    shares_K: NDArray[np.float32]


class PopularRankings:
    """Rankings by eligible set and place. Not safe for several threads: it belongs to the event loop."""

    def __init__(self) -> None:
        self._remembered: Remembered[PopularRanking] = Remembered(REMEMBERED_BYTES)

    def of(self, observed: Observed, eligible: EligibleSet, lists: SoldLists, least: int = 0) -> PopularRanking:
        """Return the ranking of an eligible set in a place.

        The ranking of a set that was derived from another one is taken from the ranking of that. If that holds fewer
        than ``least`` of it, as with rows that hardly anybody buys, the set is ranked by itself. No ranking of a set of
        one request is remembered.

        Args:
            observed: how much is bought, and where.
            eligible: the set.
            lists: of the locations of the place, from ``observed.lists_of``.
            least: how many are wanted at least.
        """
        ranking = self._of_shared(observed, eligible.shared, lists)
        if eligible.own:
            inside_K = eligible.contains(ranking.rows_K)
            ranking = PopularRanking(ranking.rows_K[inside_K], ranking.shares_K[inside_K])
        if len(ranking.rows_K) < min(least, eligible.size):
            return _ranked(popular(observed, eligible.rows_N, lists))
        return ranking

    def _of_shared(self, observed: Observed, eligible: EligibleSet, lists: SoldLists) -> PopularRanking:
        key = (eligible.fingerprint, lists)
        found = self._remembered.find(key)
        if found is None:
            found = self._remembered.keep(key, self._find(observed, eligible, lists))
        return found

    def _find(self, observed: Observed, eligible: EligibleSet, lists: SoldLists) -> PopularRanking:
        if eligible.parent is None:
            return _ranked(popular(observed, eligible.rows_N, lists))
        whole = self._of_shared(observed, eligible.parent, lists)
        inside_K = eligible.contains(whole.rows_K)
        if np.count_nonzero(inside_K) < min(LONGEST // 2, eligible.size - len(eligible.added)):
            return _ranked(popular(observed, eligible.rows_N, lists))  # too little is left of it for every request
        more = popular(observed, eligible.added, lists)
        above_R = np.ones(len(more.rows_R), np.bool_)
        if len(whole.rows_K) < eligible.parent.size:  # what it leaves out may come before some of the others
            last, row = whole.shares_K[-1], whole.rows_K[-1]
            above_R = (more.shares_R > last) | ((more.shares_R == last) & (more.rows_R < row))
        rows_R = np.concatenate([whole.rows_K[inside_K], more.rows_R[above_R]])
        return _ranked(Shares(rows_R, np.concatenate([whole.shares_K[inside_K], more.shares_R[above_R]])))


def _ranked(shares: Shares) -> PopularRanking:
    best = most_popular(shares, LONGEST)
    return PopularRanking(best.rows_R, best.shares_R)
