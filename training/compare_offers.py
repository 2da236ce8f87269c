"""Compares the ranker of offers with a simple rival, on visits that it has not learnt from.

Where it is known what was shown, the rival is a table of the offers' rates of acceptance; where it is not, how often
everybody has redeemed each offer until the visit. Letters: V visits, O offers, M offers of all visits, C customers.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from embeddings.metrics import area_of_ranks
from embeddings.ranking.offer_features import OFFER_FEATURES
from training.comparison import F64, FEWEST_CUSTOMERS, Comparison, compare
from training.offer_ranker import FEWEST_VISITS, OfferRanker, is_enough_to_fit
from training.visits import VisitExample

_K = 10
_REDEEMED, _ACCEPTED = (OFFER_FEATURES.index(name) for name in ("redeemed_by_others", "accepted"))


def compare_redeemed(visits: Sequence[VisitExample], ranker: OfferRanker) -> Comparison | None:
    """Compare the order of the eligible offers in visits with redemptions; None if there are too few of these.

    Args:
        visits: in the validation window.
        ranker: fitted on what came before it.
    """
    asked = [one for one in visits if 0 < one.taken_O.sum() < len(one.taken_O)]
    customers, customers_V = np.unique([one.visit.customer for one in asked], return_inverse=True)
    if len(asked) < FEWEST_VISITS or len(customers) < FEWEST_CUSTOMERS:
        return None
    served_V, rival_V = (
        np.array([expected_ndcg(scores_O, one.taken_O, _K) for scores_O, one in zip(scored, asked, strict=True)])
        for scored in (
            np.split(_logits(asked, ranker), np.cumsum([len(one.taken_O) for one in asked])[:-1]),
            [one.features_OF[:, _REDEEMED] for one in asked],
        )
    )

    def measure(times_C: F64) -> tuple[float, float]:
        times_V = times_C[customers_V]
        return float(times_V @ served_V / times_V.sum()), float(times_V @ rival_V / times_V.sum())

    return compare("offers", f"ndcg@{_K}", "what everybody redeems", len(customers), measure)


def compare_accepted(visits: Sequence[VisitExample], ranker: OfferRanker) -> Comparison | None:
    """Compare how offers accepted are told from those refused; None if too few were either.

    Args:
        visits: in the validation window, in which offers were shown.
        ranker: fitted on what came before it.
    """
    accepting = {one.visit.customer for one in visits if one.taken_O.any()}
    if len(accepting) < FEWEST_CUSTOMERS or not is_enough_to_fit(visits):
        return None
    customers, customers_V = np.unique([one.visit.customer for one in visits], return_inverse=True)
    sizes_V = [len(one.taken_O) for one in visits]
    customers_M = np.repeat(customers_V, sizes_V)
    weights_M = np.repeat(np.array([one.visit.weight for one in visits]), sizes_V)
    taken_M = np.concatenate([one.taken_O for one in visits]).astype(np.float64)
    rates_M = np.concatenate([one.features_OF[:, _ACCEPTED] for one in visits])
    ours_M, theirs_M = (np.unique(scores, return_inverse=True)[1] for scores in (_logits(visits, ranker), rates_M))

    def measure(times_C: F64) -> tuple[float, float]:
        times_M = weights_M * times_C[customers_M]
        return area_of_ranks(ours_M, taken_M, times_M), area_of_ranks(theirs_M, taken_M, times_M)

    return compare("offers", "auc", "their rates of acceptance", len(customers), measure)


def expected_ndcg(scores_O: NDArray[np.floating], taken_O: NDArray[np.floating], k: int) -> float:
    """Return the mean NDCG of the first ``k`` over all orders of offers that score alike.

    Args:
        scores_O: the larger, the earlier.
        taken_O: 1 for what was redeemed, else 0; there must be some.
        k: how many count.
    """
    discounts_O = np.zeros(len(scores_O))
    first = min(k, len(scores_O))
    discounts_O[:first] = 1 / np.log2(np.arange(2, first + 2))
    _, groups_O, sizes = np.unique(-scores_O, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    summed = np.concatenate([np.zeros(1), np.cumsum(discounts_O)])
    means = (summed[ends] - summed[ends - sizes]) / sizes
    return float(taken_O @ means[groups_O] / discounts_O[: int(taken_O.sum())].sum())


def _logits(visits: Sequence[VisitExample], ranker: OfferRanker) -> NDArray[np.float32]:
    """Return the log-odds (M) of the offers of all visits."""
    with torch.inference_mode():
        return ranker(torch.from_numpy(np.concatenate([one.features_OF for one in visits]))).numpy()
