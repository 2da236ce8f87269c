"""What is popular in a context, ranked once and remembered: the answer for those without a history."""

from collections import OrderedDict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.catalog import Catalog
from embeddings.eligibility import Place
from embeddings.eligible import EligibleSet
from embeddings.popularity import LONGEST, most_popular, popular

_KEPT = 4_096


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

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._remembered: OrderedDict[tuple[bytes, Place], PopularRanking] = OrderedDict()

    def of(self, eligible: EligibleSet, place: Place) -> PopularRanking:
        """The ranking of an eligible set in a place."""
        key = (eligible.fingerprint, place)
        found = self._remembered.get(key)
        if found is None:
            best = most_popular(popular(self._catalog, eligible.rows_N, place), LONGEST)
            found = PopularRanking(best.rows_R, best.shares_R)
            self._remembered[key] = found
            if len(self._remembered) > _KEPT:
                self._remembered.popitem(last=False)
        else:
            self._remembered.move_to_end(key)
        return found
