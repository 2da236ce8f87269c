"""Ranking metrics with binary relevance, as the literature defines them."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray


def recall_at(recommended: Sequence[object], relevant: Collection[object], k: int) -> float:
    """Return the share of the relevant items that are among the first ``k``; ``relevant`` must not be empty."""
    return len(set(recommended[:k]) & set(relevant)) / len(set(relevant))


def ndcg_at(recommended: Sequence[object], relevant: Collection[object], k: int) -> float:
    """Return the normalised discounted cumulative gain of the first ``k`` (Järvelin and Kekäläinen, 2002).

    A relevant item has gain 1, discounted by ``1 / log2(1 + rank)``. The sum is divided by that of the best ranking.
    ``recommended`` names each item once, and ``relevant`` at least one.
    """
    wanted = set(relevant)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gained = sum(discounts[rank] for rank, item in enumerate(recommended[:k]) if item in wanted)
    return float(gained / discounts[: len(wanted)].sum())


def area_under_curve(
    scores: NDArray[np.floating], relevant: NDArray[np.floating], weights: NDArray[np.floating] | None = None
) -> float:
    """Return how often what is relevant has a larger score than what is not (Hanley and McNeil, 1982); a tie is a half.

    Args:
        scores: of all items.
        relevant: 1 for the relevant ones, else 0; there must be some of both.
        weights: how many each item stands for; one if not given.
    """
    weights = np.ones(len(scores)) if weights is None else weights.astype(np.float64)
    return area_of_ranks(np.unique(scores, return_inverse=True)[1], relevant, weights)


def area_of_ranks(ranks: NDArray[np.integer], relevant: NDArray[np.floating], weights: NDArray[np.floating]) -> float:
    """Return the area under the curve of items whose scores are in order already.

    Args:
        ranks: the place of each score among the distinct ones, the smallest first.
        relevant: 1 for the relevant items, else 0.
        weights: how many each item stands for; not a number comes out where all of one kind stand for none.
    """
    ours, others = (np.bincount(ranks, weights * part) for part in (relevant, 1 - relevant))
    below = np.cumsum(others) - others
    pairs = ours.sum() * others.sum()
    return float((ours @ (below + others / 2)) / pairs) if pairs else np.nan
