"""Popular products in a context, ranked once and remembered: the answer for customers without a history."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.catalogue.columns import Catalogue
from embeddings.catalogue.eligibility import Place
from embeddings.catalogue.eligible import EligibleSet
from embeddings.ranking.popularity import LONGEST, most_popular, popular
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

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._remembered: Remembered[PopularRanking] = Remembered(REMEMBERED_BYTES)

    def of(self, eligible: EligibleSet, place: Place, least: int = 0) -> PopularRanking:
        """Return the ranking of an eligible set in a place.

        The ranking of a part of a set is taken from the ranking of the whole set. If that holds fewer than ``least`` of
        the part, as with rows that hardly anybody buys, the part is ranked by itself. No ranking of a part is
        remembered.
        """
        whole = self._of_shared(eligible.shared, place)
        if not eligible.own:
            return whole
        inside_K = eligible.contains(whole.rows_K)
        if np.count_nonzero(inside_K) < min(least, eligible.size):
            return self._ranked(eligible, place)
        return PopularRanking(whole.rows_K[inside_K], whole.shares_K[inside_K])

    def _of_shared(self, eligible: EligibleSet, place: Place) -> PopularRanking:
        key = (eligible.fingerprint, place)
        found = self._remembered.find(key)
        if found is None:
            found = self._remembered.keep(key, self._ranked(eligible, place))
        return found

    def _ranked(self, eligible: EligibleSet, place: Place) -> PopularRanking:
        best = most_popular(popular(self._catalogue, eligible.rows_N, place), LONGEST)
        return PopularRanking(best.rows_R, best.shares_R)
