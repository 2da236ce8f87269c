"""Features of a visit that predict whether the customer redeems any of the eligible offers in it.

The model is the upper level of a nested logit (McFadden, 1978); the ranker of offers is the lower one. Letters: O
eligible offers, F features, V visits of a customer, S moments between which some offer ran.
"""

import math

import numpy as np
from numpy.typing import NDArray

from embeddings.catalogue.columns import Offers
from embeddings.customer.history import INTERACTION_TYPES, VISIT_SECONDS, Events, History
from embeddings.ranking.offer_features import OFFER_FEATURES
from embeddings.ranking.profile import DAY, NEVER_DAYS
from embeddings.ranking.sources import RankingQuery

VISIT_FEATURES = (
    "known",
    "odds",
    "offers",
    "covering",
    "likeliest",
    "slow_per_root",
    "begun",
    "left",
    "redeemed_a_day",
    "visits",
    "redeeming",
    "rate",
    "since",
    "basket_size",
    "away",
)
"""The columns, none of whose values is negative; all are 0 of somebody without a history.

Whether the customer has a history; the sum of the odds of the eligible offers, whose logarithm is the inclusive value;
how many there are and how many cover something bought; of all of them the largest ``likeliest`` and ``slow_per_root``,
the smallest ``begun`` and ``left``; how often a day everybody has redeemed them since they began; the customer's
decayed visits while some offer ran for them, and those in which one was redeemed; the smoothed share of these in
percent; days since the last of them; purchases per visit; days since the newest purchase.
"""

_DAILY_DECAY = 0.99
_PRIOR_VISITS, _PRIOR_REDEEMING = 10.0, 0.2
_LARGEST_LOG = 50.0
_PERCENT = 100.0
_KEPT = 4_096
_IS_INTERACTION = np.array(INTERACTION_TYPES)
_COVERING, _LIKELIEST, _SLOW_PER_ROOT, _BEGUN, _LEFT, _REDEEMED = (
    OFFER_FEATURES.index(name)
    for name in ("products", "likeliest", "slow_per_root", "begun", "left", "redeemed_by_others")
)


def begins_visit(at_E: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return for each of a customer's events, oldest first, whether it begins a visit."""
    begins_E = np.ones(len(at_E), np.bool_)
    begins_E[1:] = np.diff(at_E) > VISIT_SECONDS
    return begins_E


def is_of_visit(events_E: Events) -> NDArray[np.bool_]:
    """Return for each event whether it counts for visits: all interactions do, the types that the tower reads."""
    return _IS_INTERACTION[events_E["type"]]


def sum_of_odds(logits_O: NDArray[np.float32]) -> float:
    """Return the sum of the odds of some offers, at least one, given their log-odds."""
    highest = float(logits_O.max())
    return math.exp(min(highest + math.log(float(np.exp(logits_O - highest).sum())), _LARGEST_LOG))


class VisitFeatureReader:
    """Gathers features of visits from a catalogue of offers; owned by one thread."""

    def __init__(self, offers: Offers) -> None:
        self._offers = offers
        self._bounds: dict[tuple[int, ...], NDArray[np.int64]] = {}

    def offered(self, audiences: tuple[int, ...], at_V: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return for each moment whether an offer ran for everybody or for one of these audiences; (V,)."""
        bounds_S = self._bounds.get(audiences)
        if bounds_S is None:
            while len(self._bounds) >= _KEPT:
                del self._bounds[next(iter(self._bounds))]
            bounds_S = self._bounds[audiences] = self._find_bounds(audiences)
        return bounds_S.searchsorted(at_V, side="right") % 2 == 1

    def read(self, query: RankingQuery, features_OF: NDArray[np.float32], odds: float) -> NDArray[np.float32]:
        """Return the features (F) of a visit.

        Args:
            query: who asks, where and when; the customer must have a history.
            features_OF: features of the eligible offers, at least one, in the order of ``OFFER_FEATURES``.
            odds: from ``sum_of_odds``.
        """
        profile, moment = query.profile, query.situation.moment
        visits, redeeming, since = self._habit(query.history, moment)
        return np.array(
            [
                1.0,
                odds,
                len(features_OF),
                np.count_nonzero(features_OF[:, _COVERING]),
                features_OF[:, _LIKELIEST].max(),
                features_OF[:, _SLOW_PER_ROOT].max(),
                features_OF[:, _BEGUN].min(),
                features_OF[:, _LEFT].min(),
                (features_OF[:, _REDEEMED] / (features_OF[:, _BEGUN] + 1)).sum(),
                visits,
                redeeming,
                _PERCENT * (redeeming + _PRIOR_REDEEMING) / (visits + _PRIOR_VISITS),
                since,
                profile.basket_size,
                profile.away(moment) if profile.newest else NEVER_DAYS,
            ],
            np.float32,
        )

    def _habit(self, history: History, moment: int) -> tuple[float, float, float]:
        """Return decayed visits while an offer ran, those in which one was redeemed, and days since the last of these.

        Redemptions of offers that this catalogue no longer knows do not count.
        """
        at_E = history.events_E["at"][is_of_visit(history.events_E)]
        starts_V = at_E[begins_visit(at_E)]
        visits = _decayed(starts_V[self.offered(history.audiences, starts_V)], moment)
        redeemed_E = history.redemptions["at"]
        if not len(redeemed_E):
            return visits, 0.0, NEVER_DAYS
        redeeming = _decayed(redeemed_E[begins_visit(redeemed_E)], moment)
        return visits, redeeming, min(max(moment - int(redeemed_E[-1]), 0) / DAY, NEVER_DAYS)

    def _find_bounds(self, audiences: tuple[int, ...]) -> NDArray[np.int64]:
        """Return the moments (S), ascending, at which by turns a first offer starts to run and the last one ends."""
        offers = self._offers
        theirs_O = (offers.audiences_O < 0) | np.isin(offers.audiences_O, audiences)
        theirs_O &= offers.starts_O < offers.ends_O
        at_S = np.concatenate([offers.starts_O[theirs_O], offers.ends_O[theirs_O]])
        steps_S = np.repeat([1, -1], np.count_nonzero(theirs_O))
        moments_S, inverse_S = np.unique(at_S, return_inverse=True)
        running_S = np.cumsum(np.bincount(inverse_S, steps_S, len(moments_S))) > 0
        changes_S = np.diff(running_S, prepend=False)
        return moments_S[changes_S]


def _decayed(at_V: NDArray[np.int64], moment: int) -> float:
    return float((_DAILY_DECAY ** (np.maximum(moment - at_V, 0) / DAY)).sum())
