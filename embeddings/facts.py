"""What the ranker reads of each candidate: plain facts, gathered the same way in training and in service.

Nothing is scaled, aged or divided here. That is done by the ranker itself, so that there is one place for it and both
sides share it to the bit. Letters: K candidates of one request, F facts, N products, D dimensions, S keys looked up.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from embeddings.catalog import Catalog
from embeddings.eligible import FOREVER, EligibleSet
from embeddings.features import WEEKDAYS, hour_of, weekday_of
from embeddings.profile import DAY, GROUP, OWN, Group
from embeddings.sources import RETRIEVED, Asked
from embeddings.statistics import FIGURES, RHYTHMS, Statistics

_COUNTS = (
    *(f"own_{name}" for name in OWN),
    "own_here",
    *(f"{group}_{name}" for group in RHYTHMS for name in GROUP),
    *(f"product_{name}" for name in FIGURES),
    "popular_here",
    "month_here",
    "alike",
    # The same for every candidate of a request.
    "away",
    "visits",
    "lines",
    "visit_gap",
    "visits_here",
    "sold_here",
    "in_cart",
    "novel",
)
_OTHERS = (
    "retrieved",
    *(f"weekday_{number}" for number in range(WEEKDAYS)),
    "hour_sine",
    "hour_cosine",
    # Of a candidate again.
    "inner",
    "taste",
    "promoted",
    "together",
    "goes_with",
    *(f"same_{group}" for group in RHYTHMS),
    "looked",
)
FACTS = _COUNTS + _OTHERS
"""The columns. Days and counts as in ``Profile`` and ``Statistics``.

``inner`` is the inner product with the customer's vector, ``taste`` that of ``Tastes``, ``retrieved`` the log of the
sum of the exponentials of those that the towers retrieved, ``away`` days since the newest purchase, ``promoted``
whether the location promotes the product now on some channel, ``novel`` whether only products never bought before were
asked for.
"""

COUNTED = len(_COUNTS)
"""How many of the columns, the first ones, are counts and days: not negative, and of any size."""

_AT = {name: place for place, name in enumerate(FACTS)}
_OWN = slice(0, len(OWN))
_PRODUCT = slice(_AT["product_share"], _AT["product_share"] + len(FIGURES))
_CONTEXT = slice(_AT["away"], _AT["hour_cosine"] + 1)
_OWN_GAP, _PRODUCT_GAP = _AT["own_gap"], _AT["product_gap"]
_HERE = [_AT[name] for name in ("popular_here", "month_here", "promoted")]
_SESSION = slice(_AT["together"], _AT["looked"] + 1)
_WIDE = RHYTHMS.index("category")
_PROMOTED_KEPT = 1_024


class FactsReader:
    """Gathers facts from a release; owned by one thread."""

    def __init__(self, catalog: Catalog, statistics: Statistics, vectors_ND: NDArray[np.float32]) -> None:
        """Read from these; all three of one moment."""
        self._catalog = catalog
        self._statistics = statistics
        self._vectors_ND = vectors_ND
        promotions = catalog.promotions
        self._bounds = np.unique(np.concatenate([promotions.starts_G, promotions.ends_G]))
        self._promoted = lru_cache(_PROMOTED_KEPT)(self._find_promoted)
        assortment = catalog.locations.assortment
        ends = np.concatenate([np.zeros(1), np.cumsum(catalog.locations.popularity, dtype=np.float64)])
        self._sold_M = (ends[assortment.offsets[1:]] - ends[assortment.offsets[:-1]]).astype(np.float32)

    def read(
        self,
        asked: Asked,
        rows_K: NDArray[np.int64],
        customer_D: NDArray[np.float32],
        retrieved_K: NDArray[np.float32],
        facts_KF: NDArray[np.float32],
    ) -> None:
        """Write the facts of one request's candidates.

        Args:
            asked: who asks, where and when.
            rows_K: candidates, catalogue rows.
            customer_D: the customer's vector.
            retrieved_K: inner products of what the towers retrieved, the largest first; -inf in pads.
            facts_KF: where to write, in the order of ``FACTS``.
        """
        profile, local, statistics = asked.profile, asked.local, self._statistics
        places_K = _places(profile.rows_R, rows_K)
        facts_KF[:, _OWN] = profile.own_RC.take(places_K, axis=0)
        facts_KF[:, _AT["own_here"]] = local.slow_R.take(places_K)
        codes_KQ = statistics.rhythms_NQ.take(rows_K, axis=0)
        begin = _AT["own_here"] + 1
        for group, codes_K in zip(profile.groups, codes_KQ.T, strict=True):
            facts_KF[:, begin : begin + len(GROUP)] = _of_group(group, codes_K)
            begin += len(GROUP)
        facts_KF[:, _PRODUCT] = statistics.products_NP.take(rows_K, axis=0)
        # What was never bought is taken to have everybody's gap.
        facts_KF[:, _OWN_GAP] += facts_KF[:, _PRODUCT_GAP] * (places_K == len(profile.rows_R))
        self._read_place(asked, rows_K, facts_KF)
        facts_KF[:, _AT["inner"]] = self._vectors_ND.take(rows_K, axis=0) @ customer_D
        facts_KF[:, _AT["taste"]] = statistics.tastes.products_ND.take(rows_K, axis=0) @ profile.taste_D
        facts_KF[:, _AT["alike"]] = _found(profile.alike_rows, profile.alike_scores, rows_K)
        self._read_session(asked, rows_K, codes_KQ, facts_KF)
        facts_KF[:, _CONTEXT] = self._context(asked, retrieved_K)

    def _read_place(self, asked: Asked, rows_K: NDArray[np.int64], facts_KF: NDArray[np.float32]) -> None:
        facts_KF[:, _HERE] = 0
        if asked.location < 0:
            return
        locations = self._catalog.locations
        begin, end = locations.assortment.offsets[asked.location : asked.location + 2].tolist()
        carried = locations.assortment.values[begin:end]
        if end > begin:
            wanted_K = rows_K.astype(np.int32)
            places_K = np.minimum(carried.searchsorted(wanted_K), end - begin - 1)
            is_carried_K = carried[places_K] == wanted_K
            facts_KF[:, _AT["popular_here"]] = locations.popularity[begin:end][places_K] * is_carried_K
            facts_KF[:, _AT["month_here"]] = self._statistics.local_L[begin:end][places_K] * is_carried_K
        span = int(self._bounds.searchsorted(asked.moment, side="right"))
        facts_KF[:, _AT["promoted"]] = self._promoted(asked.location, span).contains(rows_K)

    def _read_session(
        self,
        asked: Asked,
        rows_K: NDArray[np.int64],
        codes_KQ: NDArray[np.int32],
        facts_KF: NDArray[np.float32],
    ) -> None:
        facts_KF[:, _SESSION] = 0
        session = asked.session
        if session is None:
            return
        meant = np.concatenate([session.cart, session.looked])
        rows, scores = self._statistics.together.around(meant, np.ones(len(meant), np.float32))
        facts_KF[:, _AT["together"]] = _found(rows, scores, rows_K)
        codes_SQ = self._statistics.rhythms_NQ[meant]
        lifts_SK = self._statistics.lifts_GG[codes_SQ[:, _WIDE, None], codes_KQ[None, :, _WIDE]]
        if len(meant):
            facts_KF[:, _AT["goes_with"]] = lifts_SK.mean(axis=0)
        for number, group in enumerate(RHYTHMS):
            facts_KF[:, _AT[f"same_{group}"]] = np.isin(codes_KQ[:, number], codes_SQ[:, number]) & (
                codes_KQ[:, number] > 0
            )
        facts_KF[:, _AT["looked"]] = np.isin(rows_K, session.looked)

    def _context(self, asked: Asked, retrieved_K: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is the same for every candidate, from ``away`` on."""
        profile = asked.profile
        found_K = retrieved_K[:RETRIEVED]
        found_K = found_K[np.isfinite(found_K)]
        most = float(found_K[0]) if len(found_K) else 0.0
        weekdays = [0.0] * WEEKDAYS
        weekdays[weekday_of(asked.moment)] = 1.0
        turn = hour_of(asked.moment) / 24 * 2 * math.pi
        context = [
            max(asked.moment - profile.newest, 0) / DAY if profile.newest else 0.0,
            profile.visits,
            profile.lines,
            profile.visit_gap,
            asked.local.visits,
            float(self._sold_M[asked.location]) if asked.location >= 0 else 0.0,
            0.0 if asked.session is None else float(len(asked.session.cart)),
            float(asked.novel),
            most + math.log(float(np.exp(found_K - most).sum())) if len(found_K) else 0.0,
            *weekdays,
            math.sin(turn),
            math.cos(turn),
        ]
        return np.array(context, np.float32)

    def _find_promoted(self, location: int, span: int) -> EligibleSet:
        """What a location promotes on any channel within one of the spans between the plan's bounds."""
        promotions = self._catalog.promotions
        rows = np.zeros(0, np.int32)
        if 0 < span < len(self._bounds):
            begin = self._bounds[span - 1]
            active_G = (promotions.locations_G == location) & (promotions.starts_G <= begin)
            active_G &= begin < promotions.ends_G
            parts = [promotions.products[group] for group in np.flatnonzero(active_G).tolist()]
            rows = np.unique(np.concatenate(parts)) if parts else rows
        return EligibleSet.of(rows, FOREVER)


def _places(keys_S: NDArray[np.integer], wanted_K: NDArray[np.integer]) -> NDArray[np.intp]:
    """The place of each wanted key among ascending ones; one past the last for a key that is not there."""
    if not len(keys_S):
        return np.zeros(len(wanted_K), np.intp)
    places_K = keys_S.searchsorted(wanted_K)
    places_K[keys_S.take(places_K, mode="clip") != wanted_K] = len(keys_S)
    return places_K


def _of_group(group: Group, codes_K: NDArray[np.int32]) -> NDArray[np.float32]:
    return group.figures_GC.take(_places(group.codes_G, codes_K), axis=0)


def _found(
    rows_S: NDArray[np.int64], values_S: NDArray[np.float32], wanted_K: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The value at each wanted row, 0 where there is none."""
    if not len(rows_S):
        return np.zeros(len(wanted_K), np.float32)
    places_K = rows_S.searchsorted(wanted_K)
    return values_S.take(places_K, mode="clip") * (rows_S.take(places_K, mode="clip") == wanted_K)
