"""The oracle: every row of the set scored and sorted, in NumPy.

Shapes: B queries, N rows of the set, D dimensions, K results per query.
"""

import numpy as np

from embeddings.eligible import EligibleSet
from embeddings.index.base import (
    F32,
    CandidateIndex,
    Candidates,
    checked_k,
    checked_queries,
    checked_rows,
    checked_vectors,
    padded,
)
from embeddings.index.score import inner_products, largest_norm, rounding_bounds


class ExactIndex(CandidateIndex):
    """Defines the right answer; slow, and nothing but NumPy. Keeps no state, so any thread may search."""

    def __init__(self, vectors_ND: F32) -> None:
        """Search these vectors, float32 (N, D), possibly memory-mapped."""
        self._vectors_ND = checked_vectors(vectors_ND)

    def search(self, queries_BD: F32, k: int, eligible: EligibleSet | None) -> Candidates:
        """See `CandidateIndex.search`."""
        queries_BD = checked_queries(queries_BD, self._vectors_ND.shape[1])
        found = padded(len(queries_BD), checked_k(k))
        rows_N = np.arange(len(self._vectors_ND)) if eligible is None else checked_rows(eligible, len(self._vectors_ND))
        vectors_ND = self._vectors_ND[rows_N]
        rounding_bounds(queries_BD, largest_norm(vectors_ND, rows_N))  # refuses what would overflow
        kept = min(k, len(rows_N))
        for b, query_D in enumerate(queries_BD):
            scores_N = inner_products(query_D[None], vectors_ND[None])[0]
            best_K = np.lexsort((rows_N, -scores_N))[:kept]
            found.rows_BK[b, :kept] = rows_N[best_K]
            found.scores_BK[b, :kept] = scores_N[best_K]
        return found
