"""Ranking metrics with binary relevance, as the literature defines them."""

from collections.abc import Collection, Sequence

import numpy as np


def recall_at(recommended: Sequence[object], relevant: Collection[object], k: int) -> float:
    """The share of the relevant items that the first ``k`` recommendations hold; ``relevant`` is not empty."""
    return len(set(recommended[:k]) & set(relevant)) / len(set(relevant))


def ndcg_at(recommended: Sequence[object], relevant: Collection[object], k: int) -> float:
    """Normalised discounted cumulative gain of the first ``k`` (Järvelin and Kekäläinen, 2002).

    Gain 1 for a relevant item, discount ``1 / log2(1 + rank)``, over the best ranking's gain.
    """
    wanted = set(relevant)
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gained = sum(discounts[rank] for rank, item in enumerate(recommended[:k]) if item in wanted)
    return float(gained / discounts[: len(wanted)].sum())
