"""Rankings by popularity, for customers without a history and where no ranker runs.

Letters: O offers, N products.
"""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from embeddings.catalogue.eligibility import Place
from embeddings.catalogue.eligible import EligibleSet
from embeddings.customer.session import Session
from embeddings.ranking.popularity import Shares, popular
from serving.ranked import Ranked, best
from serving.retrieve import demoted_products
from serving.view import View

_NONE = np.zeros(0, np.int64)


def rank_popular(
    view: View,
    place: Place,
    products: EligibleSet | None,
    offers: EligibleSet | None,
    limit: int,
    excluded: Collection[tuple[str, int]],
    session: Session | None,
) -> list[Ranked]:
    """Return the most popular products in a place, and the offers that cover the most popular products.

    Items that the customer has lately dismissed or put into the basket come last.
    """
    ranked: list[Ranked] = []
    if products is not None:
        demoted = frozenset[int]() if session is None else frozenset(demoted_products(session).tolist())
        most = limit + len(excluded) + len(demoted)
        observed = view.release.newest.statistics.observed
        ranking = view.release.popular.of(observed, products, observed.lists_of(place.rows), most)
        ranked += [
            Ranked("product", row, share, "popular", row in demoted)
            for row, share in zip(ranking.rows_K[:most].tolist(), ranking.shares_K[:most].tolist(), strict=True)
        ]
    if offers is not None:
        ranked += popular_offers(view, place, offers, session)
    return best(ranked, limit, excluded)


def popular_offers(view: View, place: Place, offers: EligibleSet, session: Session | None) -> list[Ranked]:
    """Return offers, those on popular products in a place first, each with its share of the base rate."""
    dismissed = frozenset[int]() if session is None else frozenset(session.dismissed_offers.tolist())
    catalogue, observed = view.catalogue, view.release.newest.statistics.observed
    covered = np.unique(np.concatenate([_NONE, *(catalogue.offers.products[row] for row in offers.rows_N.tolist())]))
    shares_O = _through_products(popular(observed, covered, observed.lists_of(place.rows)), offers.rows_N, view)
    order_O = np.argsort(-shares_O, kind="stable")
    redemption = view.release.bundle.redemption
    rate = 0.0 if redemption is None else redemption.base_rate
    return [
        Ranked("offer", row, share * rate, "popular", row in dismissed)
        for row, share in zip(offers.rows_N[order_O].tolist(), shares_O[order_O].tolist(), strict=True)
    ]


def _through_products(shares: Shares, offers_O: NDArray[np.integer], view: View) -> NDArray[np.float32]:
    """Return offers' shares by the shares of the products they cover; the shares of all these offers sum to one.

    The share is the sum over the products, divided by the square root of their number, so that an offer on a whole
    department does not win by its size alone.
    """
    catalogue = view.catalogue
    shares_N = np.zeros(len(catalogue.products.ids), np.float32)
    shares_N[shares.rows_R] = shares.shares_R
    covered = catalogue.offers.products
    sums_O = np.array(
        [shares_N[covered[row]].sum() / max(len(covered[row]), 1) ** 0.5 for row in offers_O.tolist()],
        np.float32,
    )
    return sums_O / max(float(sums_O.sum()), 1e-30)
