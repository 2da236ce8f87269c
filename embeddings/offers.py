"""What the ranker of offers reads of each eligible offer: what it covers, through the products that the customer buys.

Letters: O offers of a set, F facts, K covered products that the customer bought, P pairs of these and offers.
"""

import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import Ragged
from embeddings.catalog import Catalog
from embeddings.facts import FACTS, FactsReader
from embeddings.history import REDEMPTION
from embeddings.profile import DAY, DECAYS, NEVER_DAYS, OWN
from embeddings.sources import Asked
from embeddings.statistics import Statistics

OFFER_FACTS = (
    "products",
    "slow",
    "middling",
    "fast",
    "here",
    "since",
    "likely",
    "likeliest",
    "size",
    "likely_per_root",
    "slow_per_root",
    "here_per_root",
    "begun",
    "left",
    "redeemed",
    "redeemed_by_others",
    "share",
    "share_per_root",
)
"""The columns, none of whose values is negative.

How many covered products the customer bought, their decayed counts and the days since the last as in ``Profile``; the
ranker's probabilities of buying them now, summed and the largest; how many products the offer covers; three of these
over the square root of that; days since the offer began and until it ends; whether the customer redeemed it before, how
often everybody did; its products' share of all purchases.
"""

_SHARE_SCALE = 1e5
"""What brings shares of all purchases among the sizes of counts."""

_PERCENT = 100.0
_SLOW, _MIDDLING, _FAST, _SINCE = (OWN.index(name) for name in ("slow", "middling", "fast", "since"))


class OffersReader:
    """Gathers facts of offers from a release; owned by one thread."""

    def __init__(self, catalog: Catalog, statistics: Statistics) -> None:
        """Read from these; both of one moment."""
        offers = catalog.offers
        sizes_O = np.diff(offers.products.offsets)
        owners = np.repeat(np.arange(len(sizes_O)), sizes_O)
        self._catalog = catalog
        self._covering = Ragged.grouped(offers.products.values, owners, len(catalog.products.ids))
        self._covers = np.diff(self._covering.offsets)
        self._sizes_O = np.maximum(sizes_O, 1).astype(np.float32)
        shares = statistics.products_NP[offers.products.values, 0]
        self._shares_O = (np.bincount(owners, shares, len(sizes_O)) * _SHARE_SCALE).astype(np.float32)
        self._redeemed_O = statistics.redeemed_O

    def covered(
        self, asked: Asked, reader: FactsReader, vectors_ND: NDArray[np.float32], customer_D: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The products that the customer bought and that any offer covers, ascending, and the facts (K, F) of each.

        The nearest of them stand for what the towers would retrieve.
        """
        bought_R = asked.profile.rows_R
        covered_K = bought_R[self._covers[bought_R] > 0]
        facts_KF = np.empty((len(covered_K), len(FACTS)), np.float32)
        inner_K = vectors_ND.take(covered_K, axis=0) @ customer_D
        reader.read(asked, covered_K, customer_D, np.sort(inner_K)[::-1], facts_KF)
        return covered_K, facts_KF

    def read(
        self,
        asked: Asked,
        offers_O: NDArray[np.integer],
        covered_K: NDArray[np.int64],
        probabilities_K: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """The facts (O, F) of some offers.

        Args:
            asked: who asks, where and when.
            offers_O: catalogue rows of offers.
            covered_K: from ``covered``.
            probabilities_K: the ranker's, for these products.
        """
        profile, offers = asked.profile, self._catalog.offers
        places_K = profile.rows_R.searchsorted(covered_K)
        own_KC = profile.own_RC[places_K]
        away = max(asked.moment - profile.newest, 0) / DAY if profile.newest else 0.0
        count = len(self._sizes_O)
        parts = [self._covering[row] for row in covered_K.tolist()]
        offers_P = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        of_P = np.repeat(np.arange(len(covered_K)), self._covers[covered_K])

        def summed(values_K: NDArray[np.floating]) -> NDArray[np.float64]:
            return np.bincount(offers_P, values_K[of_P], count).astype(np.float64)[offers_O]

        since, likeliest = np.full(count, NEVER_DAYS), np.zeros(count)
        np.minimum.at(since, offers_P, own_KC[of_P, _SINCE] + away)
        np.maximum.at(likeliest, offers_P, probabilities_K[of_P])
        slow_O, middling_O, fast_O = (
            summed(own_KC[:, column]) * decay**away
            for column, decay in zip((_SLOW, _MIDDLING, _FAST), DECAYS, strict=True)
        )
        here_O = summed(asked.local.slow_R[places_K]) * DECAYS[0] ** away
        likely_O = summed(probabilities_K) * _PERCENT
        sizes_O = self._sizes_O[offers_O]
        root_O = np.sqrt(sizes_O)
        events_E = profile.events_E
        redeemed = events_E["offer"][events_E["type"] == REDEMPTION]
        return np.stack(
            [
                summed(np.ones(len(covered_K))),
                slow_O,
                middling_O,
                fast_O,
                here_O,
                since[offers_O],
                likely_O,
                likeliest[offers_O] * _PERCENT,
                sizes_O,
                likely_O / root_O,
                slow_O / root_O,
                here_O / root_O,
                np.maximum(asked.moment - offers.starts_O[offers_O], 0) / DAY,
                np.maximum(offers.ends_O[offers_O] - asked.moment, 0) / DAY,
                np.isin(offers_O, redeemed),
                self._redeemed_O[offers_O],
                self._shares_O[offers_O],
                self._shares_O[offers_O] / root_O,
            ],
            axis=1,
        ).astype(np.float32)
