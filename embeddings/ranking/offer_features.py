"""The offer ranker's features of each eligible offer: what the customer and everybody buy of the products it covers.

Letters: O offers, F features, N products, K some products, P pairs of these and the offers that cover them, G groups of
products, T pairs of an offer and a group of what it covers.
"""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import Ragged, Table
from embeddings.catalogue.columns import Catalogue
from embeddings.ranking.acceptance import LATELY, find_exposures, odds, situation_codes
from embeddings.ranking.features import RANKER_FEATURES, FeatureReader
from embeddings.ranking.profile import DAY, DECAYS, GROUP, NEVER_DAYS, OWN, Group
from embeddings.ranking.sources import RankingQuery
from embeddings.ranking.statistics import GROUPINGS, PRODUCT_STATISTICS, Statistics

OFFER_FEATURES = (
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
    "types",
    "type_mean",
    "maker_mean",
    "also_bought_per_root",
    "buyers",
    "accepted",
    "accepted_by_like",
    "accepted_now",
    "accepted_by_own",
    "shown",
    "shown_since",
)
"""The columns, none of whose values is negative.

How many covered products the customer bought, their decayed counts and the days since the last as in ``Profile``; the
ranker's probabilities of buying them now, summed and the largest; how many products the offer covers; three of these
over the square root of that; days since the offer began and until it ends; whether the customer redeemed it before, how
often everybody did until now; its products' share of all purchases, and that over the root; the slowly decayed
purchases of the types that it covers, summed, and their mean over its products; the same mean for makers; how much
customers who buy the same buy its products, over the root; how many buyers its products have, summed.

Where exposures have taught something, else 0: a hundred times the odds that the offer is accepted when it is shown, at
all, by such customers, in such a situation, and by this customer; how often it was shown to the customer in the last 30
days, and days since then.
"""

_SHARE_SCALE = 1e5
"""What brings shares of all purchases among the sizes of counts."""

_PERCENT = 100.0
_PRIOR_SHOWN = 2.0
"""As if an offer had been shown so many times more to each customer, and accepted as often as by such customers."""

_OF_ACCEPTANCE = len(OFFER_FEATURES) - OFFER_FEATURES.index("accepted")
_SLOW, _MIDDLING, _FAST, _SINCE = (OWN.index(name) for name in ("slow", "middling", "fast", "since"))
_SHARE, _BUYERS = (PRODUCT_STATISTICS.index(name) for name in ("share", "buyers"))
_TYPE, _MAKER = (GROUPINGS.index(name) for name in ("type", "maker"))


class _Groups(NamedTuple):
    """The groups of products that each offer covers, and how many products of each."""

    offers_T: NDArray[np.int64]
    codes_T: NDArray[np.int64]
    products_T: NDArray[np.int64]

    @classmethod
    def of(cls, owners: NDArray[np.integer], codes: NDArray[np.integer]) -> Self:
        """Count covered products by offer and group, given the offer and the group code of each."""
        count = int(codes.max(initial=0)) + 1
        pairs_T, products_T = np.unique(owners.astype(np.int64) * count + codes, return_counts=True)
        return cls(pairs_T // count, pairs_T % count, products_T)

    def bought(self, group: Group) -> NDArray[np.float64]:
        """Return a customer's slowly decayed purchases of the group of each pair (T)."""
        slow_G = np.zeros(max(int(self.codes_T.max(initial=0)), int(group.codes_G.max(initial=0))) + 1)
        slow_G[group.codes_G] = group.statistics_GC[:-1, GROUP.index("slow")]
        return slow_G[self.codes_T]


class OfferFeatureReader:
    """Gathers features of offers from a release; owned by one thread."""

    def __init__(self, catalogue: Catalogue, statistics: Statistics) -> None:
        """Take the data to read from; both must be of one moment."""
        offers = catalogue.offers
        sizes_O = np.diff(offers.products.offsets)
        owners = np.repeat(np.arange(len(sizes_O)), sizes_O)
        self._offers = offers
        self._acceptance = statistics.acceptance
        self._covering = Ragged.grouped(offers.products.values, owners, len(catalogue.products.ids))
        self._covers = np.diff(self._covering.offsets)
        self._sizes_O = np.maximum(sizes_O, 1).astype(np.float32)
        shares, buyers = statistics.products_NP.take(offers.products.values)[:, (_SHARE, _BUYERS)].T
        self._shares_O = (np.bincount(owners, shares, len(sizes_O)) * _SHARE_SCALE).astype(np.float32)
        self._buyers_O = np.bincount(owners, buyers, len(sizes_O)).astype(np.float32)
        codes = statistics.groups_NQ.take(offers.products.values).T
        self._types, self._makers = (_Groups.of(owners, codes[number]) for number in (_TYPE, _MAKER))

    def covered(
        self,
        query: RankingQuery,
        reader: FeatureReader,
        vectors_ND: Table[np.float32],
        customer_D: NDArray[np.float32],
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the bought products that any offer covers, ascending, and the ranker features (K, F) of each.

        The nearest of them stand for what the towers would retrieve.
        """
        rows_R = query.profile.rows_R
        bought_R = rows_R[: rows_R.searchsorted(len(self._covers))]  # no offer known here covers what came later
        covered_K = bought_R[self._covers[bought_R] > 0]
        features_KF = np.empty((len(covered_K), len(RANKER_FEATURES)), np.float32)
        inner_K = vectors_ND.take(covered_K) @ customer_D
        reader.read(query, covered_K, customer_D, -np.sort(-inner_K), features_KF)
        return covered_K, features_KF

    def read(
        self,
        query: RankingQuery,
        offers_O: NDArray[np.integer],
        covered_K: NDArray[np.int64],
        probabilities_K: NDArray[np.float32],
        redeemed_O: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Return the features (O, F) of some offers.

        Args:
            query: who asks, where and when.
            offers_O: catalogue rows of offers.
            covered_K: products, as ``covered`` returns them.
            probabilities_K: the ranker's, for these products.
            redeemed_O: how often everybody has redeemed each offer of the catalogue until the moment asked about.
        """
        profile, offers, moment = query.profile, self._offers, query.situation.moment
        places_K = profile.rows_R.searchsorted(covered_K)
        own_KC = profile.own_RC[places_K]
        away = profile.away(moment)
        count = len(self._sizes_O)
        offers_P, of_P = self._pairs(covered_K)

        def summed(values_K: NDArray[np.floating]) -> NDArray[np.float64]:
            return np.bincount(offers_P, values_K[of_P], count).astype(np.float64)[offers_O]

        since, likeliest = np.full(count, NEVER_DAYS), np.zeros(count)
        np.minimum.at(since, offers_P, own_KC[of_P, _SINCE] + away)
        np.maximum.at(likeliest, offers_P, probabilities_K[of_P])
        slower = DECAYS[0] ** away
        slow_O, middling_O, fast_O = (
            summed(own_KC[:, column]) * decay**away
            for column, decay in zip((_SLOW, _MIDDLING, _FAST), DECAYS, strict=True)
        )
        here_O = summed(query.local.slow_R[places_K]) * slower
        likely_O = summed(probabilities_K) * _PERCENT
        types_T, makers_T = self._types.bought(profile.groups[_TYPE]), self._makers.bought(profile.groups[_MAKER])
        per_type_O, per_maker_O = (
            np.bincount(groups.offers_T, bought_T * groups.products_T, count)[offers_O] * slower
            for groups, bought_T in ((self._types, types_T), (self._makers, makers_T))
        )
        also_bought_rows, also_bought_scores = profile.also_bought
        also_bought_P, also_bought_of_P = self._pairs(also_bought_rows)
        also_bought_O = np.bincount(also_bought_P, also_bought_scores[also_bought_of_P], count)[offers_O]
        sizes_O = self._sizes_O[offers_O]
        root_O = np.sqrt(sizes_O)
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
                np.maximum(moment - offers.starts_O[offers_O], 0) / DAY,
                np.maximum(offers.ends_O[offers_O] - moment, 0) / DAY,
                np.isin(offers_O, query.history.redeemed_R),
                redeemed_O[offers_O],
                self._shares_O[offers_O],
                self._shares_O[offers_O] / root_O,
                np.bincount(self._types.offers_T, types_T, count)[offers_O] * slower,
                per_type_O / sizes_O,
                per_maker_O / sizes_O,
                also_bought_O / root_O,
                self._buyers_O[offers_O],
                *self._accepted(query, offers_O),
            ],
            axis=1,
        ).astype(np.float32)

    def _accepted(self, query: RankingQuery, offers_O: NDArray[np.integer]) -> list[NDArray[np.floating]]:
        """Return the columns from ``accepted`` on."""
        acceptance, history, moment = self._acceptance, query.history, query.situation.moment
        if not acceptance.known:
            return [np.zeros(len(offers_O))] * _OF_ACCEPTANCE
        situation = query.situation
        codes_1F = situation_codes(
            np.array([situation.channel]), np.array([moment]), np.array([situation.attributes], np.int64)
        )
        codes_F = np.concatenate([history.attributes_A.astype(np.int64), codes_1F[0]])
        offer_O, customer_O, situation_O = acceptance.log_odds(offers_O, codes_F)
        # What was shown since then was not counted for anybody: impressions count with the next release.
        begin, end = history.events_E["at"].searchsorted([moment - LATELY + 1, acceptance.until[0]])
        lately_E = history.events_E[begin:end]
        own = find_exposures(lately_E, np.zeros(len(lately_E), np.int64))
        count, since = len(self._sizes_O), np.full(len(self._sizes_O), NEVER_DAYS)
        known_X = own.rows_X < count
        shown_X = own.rows_X[known_X]
        np.minimum.at(since, shown_X, np.clip((moment - own.at_X[known_X]) / DAY, 0, NEVER_DAYS))
        shown_O = np.bincount(shown_X, minlength=count)[offers_O]
        accepted_O = np.bincount(shown_X, own.accepted_X[known_X], count)[offers_O]
        like_O = odds(customer_O)
        chance_O = (accepted_O + _PRIOR_SHOWN * like_O / (1 + like_O)) / (shown_O + _PRIOR_SHOWN)
        return [
            _PERCENT * odds(offer_O),
            _PERCENT * like_O,
            _PERCENT * odds(situation_O),
            _PERCENT * chance_O / (1 - chance_O),
            shown_O.astype(np.float64),
            since[offers_O],
        ]

    def _pairs(self, rows_K: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the pairs of offers and products that they cover: offers (P), and the place (P) of each product."""
        counts_K = self._covers[rows_K]
        ends_K = np.cumsum(counts_K)
        of_P = np.repeat(np.arange(len(rows_K)), counts_K)
        begins_K = self._covering.offsets[rows_K] - ends_K + counts_K  # less the place of each product's first pair
        return self._covering.values[begins_K[of_P] + np.arange(len(of_P))], of_P
