"""The documented score: what a customer buys again, mixed with what the towers propose.

    score(row) = (1 - w) · again(row) + w · near(row)

``again`` is the row's share of the customer's decayed purchases, ``near`` its share under a softmax of inner
products with the customer's vector, taken over the rows that the towers retrieved. Both are shares of one, so
``w`` (chosen on the validation window, kept in the manifest) says how much of the score the towers decide.

Letters: B requests, E events, R rows bought before, O of these a request's most, K candidates, W all of
them, N products, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from embeddings.catalog import Catalog
from embeddings.eligibility import Place
from embeddings.eligible import EligibleSet
from embeddings.history import History
from embeddings.index.base import Candidates

SECONDS_A_DAY = 86_400

RETRIEVED = 64
"""How many candidates the towers retrieve, in validation and in service alike: ``near`` is a share of these."""

REPEATED = 100
"""How many of the products that a customer bought most are candidates: enough to fill the longest answer."""

_SETS_KEPT = 8
"""For how many sets shares keep what lies inside them: the few channels of one location."""

_PLACES_KEPT = 16
"""For how many locations a history keeps its shares; hardly anybody shops at more."""

_LOWEST, _TINY = np.finfo(np.float32).min, np.finfo(np.float32).tiny

_PRIOR = 100.0
"""How many purchases' worth the shares of all locations weigh in the popularity of one place."""


class ScoreParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the score depends on; part of the recipe and of the manifest.

    Attributes:
        daily_decay: what remains of a purchase's weight after a day.
        same_location: how much more a purchase counts at the very location asked about: 1 + this.
        towers: ``w``, the towers' part of the score, 0 to 1.
    """

    daily_decay: Annotated[float, Meta(ge=0, le=1)] = 0.995
    same_location: Annotated[float, Meta(ge=0)] = 2.0
    towers: Annotated[float, Meta(ge=0, le=1)] = 0.05


@dataclass(frozen=True, eq=False)
class Shares:
    """Some catalogue rows, ascending where nothing else is said, and each one's share."""

    rows_R: NDArray[np.int64]
    shares_R: NDArray[np.float32]

    @cached_property
    def most(self) -> "Shares":
        """The ``REPEATED`` largest shares, in no order; padded to as many with row -1 and share 0."""
        kept = np.arange(len(self.rows_R))
        if len(kept) > REPEATED:
            kept = np.argpartition(-self.shares_R, REPEATED)[:REPEATED]
        rows_O, shares_O = np.full(REPEATED, -1), np.zeros(REPEATED, np.float32)
        rows_O[: len(kept)], shares_O[: len(kept)] = self.rows_R[kept], self.shares_R[kept]
        return Shares(rows_O, shares_O)

    @cached_property
    def _within(self) -> dict[bytes, NDArray[np.int64]]:
        return {}

    def most_within(self, eligible: EligibleSet) -> NDArray[np.int64]:
        """The rows of ``most``, -1 in place of those outside a set; kept, as a customer mostly meets the same few."""
        found = self._within.get(eligible.fingerprint)
        if found is None:
            rows_O = self.most.rows_R
            found = np.where(eligible.contains(rows_O), rows_O, -1)
            if len(self._within) < _SETS_KEPT:
                self._within[eligible.fingerprint] = found
        return found


def bought_again(history: History, location: int, moment: int, parameters: ScoreParameters) -> Shares:
    """The share of each product in a customer's decayed purchases.

    A purchase ``t`` days ago weighs ``daily_decay ** t``, times ``1 + same_location`` if it was made at the
    location asked about: a plain decayed count, after "how often does this customer buy it at this store".

    Args:
        history: the customer's.
        location: the location's row, -1 for none.
        moment: seconds since 1970 UTC; a later purchase weighs as if made now.
        parameters: the decay and the weight of the location.
    """
    bought = history.purchases
    if not len(bought.at_E):
        return Shares(bought.rows_R, np.zeros(0, np.float32))
    # Time passes alike for every purchase, so shares hold from the newest one on: until the history grows.
    lasting = moment >= bought.newest
    if lasting and (kept := history.shares.get((location, parameters))) is not None:
        return kept
    seconds_E = np.maximum(moment - bought.at_E, 0)
    # Relative to the latest purchase, so that a customer away for years keeps weights above underflow.
    weights_E = parameters.daily_decay ** ((seconds_E - seconds_E.min()) / SECONDS_A_DAY)
    if location >= 0:
        weights_E *= 1 + parameters.same_location * (bought.locations_E == location)
    sums_R = np.bincount(bought.places_E, weights_E, len(bought.rows_R))
    found = Shares(bought.rows_R, (sums_R / max(sums_R.sum(), 1e-30)).astype(np.float32))
    if lasting and len(history.shares) < _PLACES_KEPT:
        history.shares[location, parameters] = found
    return found


def nearness(products_KD: NDArray[np.float32], customer_D: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each candidate's share under a softmax of inner products.

    Args:
        products_KD: the candidates' vectors; all of them make up the softmax's sum.
        customer_D: the customer's vector.
    """
    if not len(products_KD):
        return np.zeros(0, np.float32)
    inner_K = products_KD @ customer_D
    exponentials_K = np.exp(inner_K - inner_K.max())
    return exponentials_K / exponentials_K.sum()


class Scored(NamedTuple):
    """Candidates of each request with their score, the best first; ties by ascending row.

    Attributes:
        rows_BK: int64 catalogue rows, -1 where there are no more.
        scores_BK: float32, the documented score; 0 in a pad, as its terms.
        again_BK, near_BK: float32, its two terms before mixing.
    """

    rows_BK: NDArray[np.int64]
    scores_BK: NDArray[np.float32]
    again_BK: NDArray[np.float32]
    near_BK: NDArray[np.float32]


class Mixer:
    """Mixes what the towers retrieved with what customers bought before. Owned by one thread: it reuses its memory."""

    def __init__(self, vectors_ND: NDArray[np.float32]) -> None:
        """Mix products with these vectors."""
        self._vectors_ND = vectors_ND
        # By row, and one place more for the row -1 of pads; both are zero again after every request.
        self._shares_N = np.zeros(len(vectors_ND) + 1, np.float32)
        self._retrieved_N = np.zeros(len(vectors_ND) + 1, np.bool_)

    def mix(
        self,
        again: Sequence[Shares],
        retrieved: Candidates,
        eligible: Sequence[EligibleSet],
        customers_BD: NDArray[np.float32],
        towers: float,
        most: int,
    ) -> Scored:
        """Score what the towers retrieved together with what the customers bought before, for a whole batch.

        An answer does not depend on its batch: every request's sums run over as many numbers, pads included.

        Args:
            again: from ``bought_again``, one for each request.
            retrieved: what the towers found in the eligible sets.
            eligible: what may be shown; what was bought before and lies outside it is left out.
            customers_BD: the customers' vectors.
            towers: ``w``.
            most: how many candidates of each request to give back, at most.
        """
        requests, found = retrieved.rows_BK.shape
        own_BO = np.array([shares.most_within(one) for shares, one in zip(again, eligible, strict=True)])
        again_BW = np.empty((requests, found + REPEATED), np.float32)
        for request, shares in enumerate(again):
            self._look_up(shares, retrieved.rows_BK[request], own_BO[request], again_BW[request])
        own_BOD = self._vectors_ND.take(own_BO, axis=0, mode="clip")
        near_BW = np.concatenate([retrieved.scores_BK, (own_BOD @ customers_BD[:, :, None])[:, :, 0]], axis=1)
        # The first retrieved is the nearest of the whole set, so no exponential can overflow.
        near_BW -= np.maximum(retrieved.scores_BK[:, :1], _LOWEST)
        np.exp(np.minimum(near_BW, 0, out=near_BW), out=near_BW)
        # Without anything retrieved there is nothing to be near to; the exponentials of pads are 0.
        nearest_B1 = retrieved.rows_BK[:, :1] >= 0
        near_BW *= nearest_B1 / np.maximum(near_BW[:, : min(found, RETRIEVED)].sum(axis=1, keepdims=True), _TINY)
        return weigh(np.concatenate([retrieved.rows_BK, own_BO], axis=1), again_BW, near_BW, towers, most)

    def _look_up(
        self,
        shares: Shares,
        retrieved_K: NDArray[np.int64],
        own_O: NDArray[np.int64],
        again_W: NDArray[np.float32],
    ) -> None:
        """Write the shares of what was retrieved and of a request's own; strike from these what was retrieved too."""
        self._shares_N[shares.rows_R] = shares.shares_R
        self._shares_N.take(retrieved_K, out=again_W[: len(retrieved_K)], mode="wrap")
        self._shares_N[shares.rows_R] = 0
        again_W[len(retrieved_K) :] = shares.most.shares_R
        self._retrieved_N[retrieved_K] = True
        own_O[self._retrieved_N.take(own_O, mode="wrap")] = -1
        self._retrieved_N[retrieved_K] = False


def weigh(
    rows_BK: NDArray[np.int64],
    again_BK: NDArray[np.float32],
    near_BK: NDArray[np.float32],
    towers: float,
    most: int,
) -> Scored:
    """The best ``most`` candidates by the score of their two terms, both at least 0; a row of -1 is a pad."""
    scores_BK = ((1 - towers) * again_BK + towers * near_BK).astype(np.float32, copy=False)
    ranks_BK = _ranks(scores_BK, rows_BK)
    ranks_BK[rows_BK < 0] = np.iinfo(np.int64).min
    starts_B1 = rows_BK.shape[1] * np.arange(len(rows_BK))[:, None]
    places_BK = np.argsort(ranks_BK, axis=1)[:, : -most - 1 : -1] + starts_B1
    scored = Scored(*(column_BK.take(places_BK) for column_BK in (rows_BK, scores_BK, again_BK, near_BK)))
    pads_BK = scored.rows_BK < 0
    if pads_BK.any():
        for column_BK in (scored.scores_BK, scored.again_BK, scored.near_BK):
            column_BK[pads_BK] = 0
    return scored


def most_popular(shares: Shares, most: int) -> Shares:
    """The ``most`` largest shares, the largest first; ties by row."""
    ranks_R = _ranks(shares.shares_R, shares.rows_R)
    kept = np.argpartition(ranks_R, -most)[-most:] if most < len(ranks_R) else np.arange(len(ranks_R))
    kept = kept[np.argsort(ranks_R[kept])[::-1]]
    return Shares(shares.rows_R[kept], shares.shares_R[kept])


def _ranks(scores: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers that ascend with the score, and among equal scores descend with the row.

    The bits of a float that is not negative ascend with it, so score and row make one whole number: sorting those is
    several times faster than sorting by two keys.
    """
    return (scores.view(np.int32).astype(np.int64) << 32) - rows


def popular(catalog: Catalog, rows_R: NDArray[np.integer], place: Place) -> Shares:
    """The share of some products, given by ascending rows, in recent purchases in a place.

    The decayed counts of the place's locations, smoothed towards the shares of all locations as if
    ``_PRIOR`` more purchases had been seen there; without a place, the shares of all locations.
    """
    rows_R = rows_R.astype(np.int64)
    everywhere_N = catalog.products.popularity_N
    counts_R = everywhere_N[rows_R] / max(float(everywhere_N.sum()), 1e-30)
    total = 1.0
    if place.rows:
        counts_R, total = counts_R * _PRIOR, _PRIOR
        assortment = catalog.locations.assortment
        for row in place.rows:
            here = slice(int(assortment.offsets[row]), int(assortment.offsets[row + 1]))
            places = np.minimum(rows_R.searchsorted(assortment.values[here]), max(len(rows_R) - 1, 0))
            found = rows_R[places] == assortment.values[here] if len(rows_R) else np.zeros(len(places), np.bool_)
            counts_R[places[found]] += catalog.locations.popularity[here][found]
            total += float(catalog.locations.popularity[here].sum())
    return Shares(rows_R, (counts_R / total).astype(np.float32))
