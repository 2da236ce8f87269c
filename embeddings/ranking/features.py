"""The ranker features of each candidate: plain values, gathered the same way in training and in service.

Nothing is scaled, aged or divided here. The ranker's first layer does that, so that there is one place for it and both
sides share it to the bit. Letters: K candidates of one request, F features, N products, D dimensions, S keys looked up.
"""

import math
from bisect import bisect_right
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from embeddings import kernel
from embeddings.arrays import Table
from embeddings.catalogue.columns import Promotions
from embeddings.customer.tower_input import WEEKDAYS, hour_of, weekday_of
from embeddings.ranking.profile import GROUP, OWN, Hour
from embeddings.ranking.sources import RETRIEVED, RankingQuery
from embeddings.ranking.statistics import GROUPINGS, HAZARD_DAYS, PRODUCT_STATISTICS, Statistics

_COUNTS = (
    *(f"own_{name}" for name in OWN),
    "own_here",
    "own_hour",
    *(f"{group}_{name}" for group in GROUPINGS for name in GROUP),
    *(f"product_{name}" for name in PRODUCT_STATISTICS),
    "popular_here",
    "month_here",
    "also_bought",
    "own_hazard",
    "type_hazard",
    # The same for every candidate of a request.
    "away",
    "visits",
    "basket_size",
    "visit_gap",
    "visits_here",
    "visits_hour",
    "basket_size_hour",
    "sold_here",
    "in_cart",
    "novel",
)
_OTHERS = (
    "retrieved",
    *(f"weekday_{number}" for number in range(WEEKDAYS)),
    "hour_sine",
    "hour_cosine",
    "placed",
    "ahead",
    # Of a candidate again.
    "inner",
    "als",
    "promoted",
    "bought_together",
    "goes_with",
    *(f"same_{group}" for group in GROUPINGS),
    "looked",
    "shown",
)
RANKER_FEATURES = _COUNTS + _OTHERS
"""The columns. Days and counts as in ``Profile`` and ``Statistics``; ``own_hour``, ``visits_hour`` and
``basket_size_hour`` as in ``profile.Hour``.

``own_hazard`` and ``type_hazard`` are ``Statistics.hazards_NH`` and ``hazards_GH`` at the days since the customer
bought the product, 0 for one never bought. ``inner`` is the inner product with the customer's vector, ``als`` that of
``AlsFactors``, ``retrieved`` the log of the sum of the exponentials of those that the towers retrieved, ``away`` days
since the newest purchase, as in `Profile.away`, ``promoted`` whether the location promotes the product now on some
channel, ``novel`` whether only products never bought before were asked for, ``placed`` and ``ahead`` as in `Situation`,
``shown`` the log of one more than how often the product was shown to the customer lately.
"""

COUNTED = len(_COUNTS)
"""How many of the columns, the first ones, are counts and days: not negative, and of any size."""

_BUYERS = RANKER_FEATURES.index("product_buyers")
_NONE, _NOTHING = np.zeros(0, np.int64), np.zeros(0, np.int32)
_PROMOTED_KEPT = 1_024
_WEEKDAYS = np.eye(WEEKDAYS).tolist()


def is_regular(query: RankingQuery, features_KF: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return for each candidate (K) whether the ranker of regular customers judges it, or that of newcomers.

    A regular customer has bought something and does not ask for what is novel. Of the products that a request names
    those that nobody has bought are left to the ranker of newcomers, which has learnt from new products too.
    """
    if query.novel or not len(query.profile.rows_R):
        return np.zeros(len(features_KF), np.bool_)
    return features_KF[:, _BUYERS] > 0 if query.rank_all else np.ones(len(features_KF), np.bool_)


class FeatureReader:
    """Gathers ranker features from a release; owned by one thread."""

    def __init__(self, promotions: Promotions, statistics: Statistics, vectors_ND: Table[np.float32]) -> None:
        """Take the data to read from; all three must be of one moment."""
        observed = statistics.observed
        self._bounds: list[int] = np.unique(np.concatenate([promotions.starts_G, promotions.ends_G])).tolist()
        # Not of a method of its own: that would hold the reader, which so would never be freed by its last user.
        self._promoted = lru_cache(_PROMOTED_KEPT)(partial(_promoted, promotions, self._bounds))
        ends = np.concatenate([np.zeros(1), np.cumsum(observed.popularity_L, dtype=np.float64)])
        self._sold: list[float] = (ends[observed.sold.offsets[1:]] - ends[observed.sold.offsets[:-1]]).tolist()
        self._lists: list[int] = observed.lists_M.tolist()
        self._kernel = kernel.FeatureReader(
            statistics.products_NP,
            statistics.groups_NQ,
            statistics.lifts_GG,
            vectors_ND,
            statistics.als.products_ND,
            observed.sold.offsets,
            observed.sold.values,
            observed.popularity_L,
            statistics.month_L,
            statistics.hazards_NH,
            statistics.hazards_GH,
            list(HAZARD_DAYS),
            PRODUCT_STATISTICS.index("gap"),
            PRODUCT_STATISTICS.index("price"),
            GROUPINGS.index("type"),
            GROUPINGS.index("category"),
        )

    def read(
        self,
        query: RankingQuery,
        rows_K: NDArray[np.int64],
        customer_D: NDArray[np.float32],
        retrieved_K: NDArray[np.float32],
        features_KF: NDArray[np.float32],
    ) -> None:
        """Write the ranker features of one request's candidates.

        Args:
            query: who asks, where and when.
            rows_K: candidates, catalogue rows.
            customer_D: the customer's vector.
            retrieved_K: inner products of what the towers retrieved, the largest first; -inf in pads.
            features_KF: where to write, in the order of ``RANKER_FEATURES``.
        """
        profile, location, moment = query.profile, query.situation.location, query.situation.moment
        hour = profile.at_hour(moment)
        span = bisect_right(self._bounds, moment)
        context = self._context(query, hour, retrieved_K)
        self._kernel.read(
            profile.customer,
            query.local.slow_R,
            hour.slow_R,
            rows_K,
            customer_D,
            self._list_of(location),
            _NOTHING if location < 0 else self._promoted(location, span),
            query.bought_together,
            query.meant,
            _NONE if query.session is None else query.session.looked,
            query.shown,
            context[0],  # away
            context,
            features_KF,
        )

    def _list_of(self, location: int) -> int:
        """Return the number of the list of what is sold at a location, given by its row; -1 if there is none."""
        return self._lists[location] if location >= 0 else -1

    def _context(self, query: RankingQuery, hour: Hour, retrieved_K: NDArray[np.float32]) -> list[float]:
        """Return the features that all candidates of a request share, from ``away`` to ``ahead``."""
        profile, situation = query.profile, query.situation
        moment = situation.moment
        turn = hour_of(moment) / 24 * 2 * math.pi
        return [
            profile.away(moment),
            profile.visits,
            profile.basket_size,
            profile.visit_gap,
            query.local.visits,
            hour.visits,
            hour.basket_size,
            self._sold[sold] if (sold := self._list_of(situation.location)) >= 0 else 0.0,
            0.0 if query.session is None else float(len(query.session.cart)),
            float(query.novel),
            kernel.log_sum_exp(retrieved_K[:RETRIEVED]),
            *_WEEKDAYS[weekday_of(moment)],
            math.sin(turn),
            math.cos(turn),
            float(situation.placed and situation.location >= 0),
            float(situation.ahead),
        ]


def _promoted(promotions: Promotions, bounds: list[int], location: int, span: int) -> NDArray[np.int32]:
    """Return the product rows, ascending, that a location promotes on any channel in one span of the plan."""
    if not 0 < span < len(bounds):
        return _NOTHING
    begin = bounds[span - 1]
    active_G = (promotions.locations_G == location) & (promotions.starts_G <= begin)
    active_G &= begin < promotions.ends_G
    parts = [promotions.products[group] for group in np.flatnonzero(active_G).tolist()]
    return np.unique(np.concatenate(parts)) if parts else _NOTHING
