"""Popularity: shares of recent purchases, in a place or everywhere. Letters: R rows, N products."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.ranking.observed import Observed, SoldLists

_PRIOR = 100.0
"""How many purchases' worth the shares of all locations weigh in the popularity of one place."""


LONGEST = 1_100
"""How much of a ranking is kept: the most items a request may ask for and exclude, together."""


class Shares(NamedTuple):
    """Some catalogue rows and each one's share of recent purchases."""

    rows_R: NDArray[np.int64]
    shares_R: NDArray[np.float32]


def popular(observed: Observed, rows_R: NDArray[np.integer], lists: SoldLists) -> Shares:
    """Return the shares of some products, given by ascending rows, in recent purchases in a place.

    They are the decayed counts of the place's locations, smoothed towards the shares of all locations as if ``_PRIOR``
    more purchases had been seen there. Where nothing was sold in a place, they are the shares of all locations.

    Args:
        observed: the counts.
        rows_R: ascending.
        lists: of the locations of the place, from ``observed.lists_of``.
    """
    rows_R = rows_R.astype(np.int64)
    shares_N, total = observed.popularity_N / max(float(observed.popularity_N.sum()), 1e-30), 1.0
    if lists:
        shares_N, total = shares_N * _PRIOR, _PRIOR
        for number in lists:
            here = slice(int(observed.sold.offsets[number]), int(observed.sold.offsets[number + 1]))
            times = observed.popularity_L[here]
            shares_N[observed.sold.values[here]] += times  # a list holds each product once
            total += float(times.sum())
    shares_R = np.zeros(len(rows_R), np.float32)
    counted = int(rows_R.searchsorted(len(shares_N)))  # those after them came later
    shares_R[:counted] = shares_N[rows_R[:counted]] / total
    return Shares(rows_R, shares_R)


def most_popular(shares: Shares, most: int) -> Shares:
    """Return the ``most`` largest shares, the largest first; ties by row."""
    # The bits of a float that is not negative ascend with it, so share and row make one whole number: sorting those
    # is several times faster than sorting by two keys.
    ranks_R = (shares.shares_R.view(np.int32).astype(np.int64) << 32) - shares.rows_R
    kept = np.argpartition(ranks_R, -most)[-most:] if most < len(ranks_R) else np.arange(len(ranks_R))
    kept = kept[np.argsort(ranks_R[kept])[::-1]]
    return Shares(shares.rows_R[kept], shares.shares_R[kept])
