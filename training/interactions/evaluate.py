"""Full ranking of all products, exact, through FAISS, without those that a customer had to do with.

Letters: B customers, N products, V dimensions of the vectors, K products of a ranking.
"""

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import Ragged
from embeddings.metrics import ndcg_at, recall_at
from training.interactions.files import Split
from training.interactions.fit import Metrics
from training.interactions.model import Vectors

_AT_ONCE = 1024


def rank(
    customers_BV: NDArray[np.float32], products_NV: NDArray[np.float32], seen: Ragged, k: int
) -> NDArray[np.int64]:
    """Return the ``k`` products with the largest inner product that a customer has not seen (B, K).

    The best come first; -1 pads.

    Args:
        customers_BV: whom to rank for.
        products_NV: all products.
        seen: by customer, products that are left out.
        k: how many.
    """
    index: Any = faiss.IndexFlatIP(products_NV.shape[1])
    index.add(np.ascontiguousarray(products_NV))
    sizes_B = np.diff(seen.offsets)
    ranked_BK = np.full((len(customers_BV), k), -1, np.int64)
    # Together go customers who have seen about as many, as that many more have to be found.
    order = np.argsort(sizes_B, kind="stable")
    for start in range(0, len(order), _AT_ONCE):
        some = order[start : start + _AT_ONCE]
        found = index.search(customers_BV[some], min(len(products_NV), k + int(sizes_B[some].max())))[1]
        for row, found_P in zip(some.tolist(), found, strict=True):
            new = found_P[np.isin(found_P, seen[row], invert=True)][:k]
            ranked_BK[row, : len(new)] = new
    return ranked_BK


def measure(ranked_BK: NDArray[np.int64], relevant: Sequence[NDArray[np.int32]]) -> Metrics:
    """Return mean Recall@K and NDCG@K; with one relevant product each, recall is the hit rate.

    Args:
        ranked_BK: from ``rank``.
        relevant: each customer's products to be predicted, at least one.
    """
    k = ranked_BK.shape[1]
    answered = [(row.tolist(), set(wanted.tolist())) for row, wanted in zip(ranked_BK, relevant, strict=True)]
    return {
        f"recall@{k}": float(np.mean([recall_at(row, wanted, k) for row, wanted in answered])),
        f"ndcg@{k}": float(np.mean([ndcg_at(row, wanted, k) for row, wanted in answered])),
    }


def validate(found: Vectors, parts: Split, k: int) -> Metrics:
    """Measure how well full ranking predicts the held-out products.

    Products that a customer had to do with before are left out of the ranking.
    """
    asked = np.flatnonzero(np.diff(parts.held_out.rows.offsets)).tolist()
    seen = Ragged.of(parts.fit.rows[row] for row in asked)
    ranked_BK = rank(found.customers_CV[asked], found.products_NV, seen, k)
    return measure(ranked_BK, [parts.held_out.rows[row] for row in asked])


def popular(parts: Split) -> Vectors:
    """Return vectors of one dimension that rank by how often products occur: a baseline."""
    customers_C1 = np.ones((len(parts.fit.customers), 1), np.float32)
    return Vectors(customers_C1, parts.fit.product_counts().astype(np.float32)[:, None])
