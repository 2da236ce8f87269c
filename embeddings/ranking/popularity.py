"""Popularity: shares of recent purchases, in a place or everywhere. Letters: R rows, N products."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.catalogue.columns import Catalogue
from embeddings.catalogue.eligibility import Place

_PRIOR = 100.0
"""How many purchases' worth the shares of all locations weigh in the popularity of one place."""


LONGEST = 1_100
"""How much of a ranking is kept: the most items a request may ask for and exclude, together."""


class Shares(NamedTuple):
    """Some catalogue rows and each one's share of recent purchases."""

    rows_R: NDArray[np.int64]
    shares_R: NDArray[np.float32]


def popular(catalogue: Catalogue, rows_R: NDArray[np.integer], place: Place) -> Shares:
    """Return the shares of some products, given by ascending rows, in recent purchases in a place.

    They are the decayed counts of the place's locations, smoothed towards the shares of all locations as if ``_PRIOR``
    more purchases had been seen there. Without a place, they are the shares of all locations.
    """
    rows_R = rows_R.astype(np.int64)
    everywhere_N = catalogue.products.popularity_N
    counts_R = everywhere_N[rows_R] / max(float(everywhere_N.sum()), 1e-30)
    total = 1.0
    if place.rows:
        counts_R, total = counts_R * _PRIOR, _PRIOR
        assortment = catalogue.locations.assortment
        for row in place.rows:
            here = slice(int(assortment.offsets[row]), int(assortment.offsets[row + 1]))
            places = np.minimum(rows_R.searchsorted(assortment.values[here]), max(len(rows_R) - 1, 0))
            found = rows_R[places] == assortment.values[here] if len(rows_R) else np.zeros(len(places), np.bool_)
            counts_R[places[found]] += catalogue.locations.popularity[here][found]
            total += float(catalogue.locations.popularity[here].sum())
    return Shares(rows_R, (counts_R / total).astype(np.float32))


def most_popular(shares: Shares, most: int) -> Shares:
    """Return the ``most`` largest shares, the largest first; ties by row."""
    # The bits of a float that is not negative ascend with it, so share and row make one whole number: sorting those
    # is several times faster than sorting by two keys.
    ranks_R = (shares.shares_R.view(np.int32).astype(np.int64) << 32) - shares.rows_R
    kept = np.argpartition(ranks_R, -most)[-most:] if most < len(ranks_R) else np.arange(len(ranks_R))
    kept = kept[np.argsort(ranks_R[kept])[::-1]]
    return Shares(shares.rows_R[kept], shares.shares_R[kept])
