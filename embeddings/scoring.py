"""The documented score: what a customer buys again, mixed with what the towers propose.

    score(row) = (1 - w) · again(row) + w · near(row)

``again`` is the row's share of the customer's decayed purchases, ``near`` its share under a softmax of inner
products with the customer's vector, taken over the rows that the towers retrieved. Both are shares of one, so
``w`` (chosen on the validation window, kept in the manifest) says how much of the score the towers decide.

Letters: E events, R rows bought before, K candidates, D dimensions.
"""

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

SECONDS_A_DAY = 86_400

RETRIEVED = 64
"""How many candidates the towers retrieve, in validation and in service alike: ``near`` is a share of these."""

REPEATED = 100
"""How many of the products that a customer bought most are candidates: enough to fill the longest answer."""

_PLACES_KEPT = 16
"""For how many locations a history keeps its shares; hardly anybody shops at more."""

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
    """Some catalogue rows, ascending, and each one's share."""

    rows_R: NDArray[np.int64]
    shares_R: NDArray[np.float32]

    @cached_property
    def most(self) -> NDArray[np.int64]:
        """The rows of the ``REPEATED`` largest shares, in no order."""
        if len(self.rows_R) <= REPEATED:
            return self.rows_R
        return self.rows_R[np.argpartition(-self.shares_R, REPEATED)[:REPEATED]]

    def at(self, rows_K: NDArray[np.int64]) -> NDArray[np.float32]:
        """The shares of given rows, 0 for those not among these."""
        if not len(self.rows_R):
            return np.zeros(len(rows_K), np.float32)
        places_K = np.minimum(self.rows_R.searchsorted(rows_K), len(self.rows_R) - 1)
        return np.where(self.rows_R[places_K] == rows_K, self.shares_R[places_K], np.float32(0))


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
    inner_K = products_KD @ customer_D
    return _softmax_shares(inner_K, inner_K)


def _softmax_shares(inner_K: NDArray[np.float32], summed_S: NDArray[np.float32]) -> NDArray[np.float32]:
    """Exponentials of inner products over the sum of some of them; zeros if there are none."""
    if not len(summed_S):
        return np.zeros(len(inner_K), np.float32)
    highest = inner_K.max()
    return np.exp(inner_K - highest) / max(float(np.exp(summed_S - highest).sum()), 1e-30)


class Scored(NamedTuple):
    """Candidates with their score, the best first; ties by ascending row.

    Attributes:
        rows_K: int64 catalogue rows.
        scores_K: float32, the documented score.
        again_K, near_K: float32, its two terms before mixing.
    """

    rows_K: NDArray[np.int64]
    scores_K: NDArray[np.float32]
    again_K: NDArray[np.float32]
    near_K: NDArray[np.float32]


def mix(
    again: Shares,
    retrieved_K: NDArray[np.int64],
    eligible: EligibleSet,
    customer_D: NDArray[np.float32],
    vectors_ND: NDArray[np.float32],
    towers: float,
) -> Scored:
    """Score what the towers retrieved together with what the customer bought before.

    Args:
        again: from ``bought_again``.
        retrieved_K: distinct rows the towers retrieved from the eligible set, the nearest first; -1 pads are
            passed over.
        eligible: what may be shown; what was bought before and lies outside it is left out.
        customer_D: the customer's vector.
        vectors_ND: the product vectors.
        towers: ``w``.
    """
    near_rows = retrieved_K[retrieved_K >= 0]
    own_rows = again.most
    own_rows = own_rows[eligible.contains(own_rows)]
    rows_K = np.unique(np.concatenate([near_rows, own_rows]))
    inner_K = vectors_ND[rows_K] @ customer_D
    sum_rows = near_rows[:RETRIEVED]
    near_K = _softmax_shares(inner_K, inner_K[rows_K.searchsorted(sum_rows)])
    return weigh(rows_K, again.at(rows_K), near_K, towers)


def weigh(
    rows_K: NDArray[np.int64], again_K: NDArray[np.float32], near_K: NDArray[np.float32], towers: float
) -> Scored:
    """Candidates, given by ascending rows, by the documented score of their two terms."""
    scores_K = ((1 - towers) * again_K + towers * near_K).astype(np.float32)
    order = np.argsort(-scores_K, kind="stable")
    return Scored(rows_K[order], scores_K[order], again_K[order], near_K[order])


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
