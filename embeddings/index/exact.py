"""The oracle: every row of the set scored and sorted, in NumPy.

Shapes: B queries, N rows of the set, D dimensions, K results per query.
"""

from collections.abc import Sequence

import numpy as np

from embeddings.catalogue.eligible import EligibleSet
from embeddings.index.base import (
    F32,
    CandidateIndex,
    Candidates,
    check_rows,
    checked_k,
    checked_queries,
    checked_vectors,
    grouped,
    padded,
)
from embeddings.index.score import inner_products, max_norm, norms, refuse_overflow


class ExactIndex(CandidateIndex):
    """Defines the right answer; slow, and nothing but NumPy. Keeps no state, so any thread may search.

    Vectors that are not finite, or too long, are refused where they are searched.
    """

    def __init__(self, vectors_ND: F32) -> None:
        """Take the vectors to search, float32 (N, D), possibly memory-mapped."""
        self._vectors_ND = checked_vectors(vectors_ND)

    def search(self, queries_BD: F32, k: int, eligible_B: Sequence[EligibleSet | None]) -> Candidates:
        """See `CandidateIndex.search`."""
        queries_BD, _ = checked_queries(queries_BD, self._vectors_ND.shape[1], len(eligible_B))
        rows_BK, scores_BK = padded(len(queries_BD), checked_k(k))
        for eligible, places in grouped(eligible_B):
            size = len(self._vectors_ND)
            if eligible is not None:
                check_rows(eligible, size)
            rows_N = np.arange(size) if eligible is None else eligible.rows_N
            vectors_ND = self._vectors_ND[rows_N]
            refuse_overflow(norms(queries_BD[places]).max(), max_norm(vectors_ND, rows_N))
            kept = min(k, len(rows_N))
            for b in places:
                scores_N = inner_products(queries_BD[b : b + 1], vectors_ND[None])[0]
                best_K = np.lexsort((rows_N, -scores_N))[:kept]
                rows_BK[b, :kept] = rows_N[best_K]
                scores_BK[b, :kept] = scores_N[best_K]
        return Candidates(rows_BK, scores_BK, ("exact",) * len(queries_BD))
