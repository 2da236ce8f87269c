"""Exact search over the base of a release and its tail, the rows that were added after it.

Shapes: B queries, N rows of the base, M of the tail, D dimensions, K results per query.
"""

from collections.abc import Sequence

import numpy as np

from embeddings import kernel
from embeddings.catalogue.eligible import EligibleSet
from embeddings.index.base import (
    F32,
    I64,
    PAD_ROW,
    CandidateIndex,
    Candidates,
    check_rows,
    checked_k,
    checked_queries,
    checked_vectors,
    grouped,
    joined,
)
from embeddings.index.score import max_norm, refuse_overflow


class SegmentedIndex(CandidateIndex):
    """Searches a base with the index that it has, the rows after it one by one, and joins what both find.

    Row ``N + m`` of the catalogue is row ``m`` of the tail. Some thousands of rows cost less than a call does; a longer
    tail is worth an index of its own.
    """

    def __init__(self, base: CandidateIndex, rows: int, tail_MD: F32) -> None:
        """Take the index of the base, the number of its rows, and the vectors of the tail.

        Raises:
            InvalidInput: the tail is of the wrong shape or dtype, or holds NaN or infinity.
        """
        self._base, self._rows = base, rows
        self._tail_MD = checked_vectors(tail_MD)
        self._max_norm = max_norm(self._tail_MD, np.arange(rows, rows + len(tail_MD)))

    def search(self, queries_BD: F32, k: int, eligible_B: Sequence[EligibleSet | None]) -> Candidates:
        """See `CandidateIndex.search`."""
        queries_BD, norm = checked_queries(queries_BD, self._tail_MD.shape[1], len(eligible_B))
        checked_k(k)
        refuse_overflow(norm, self._max_norm)
        base_B: list[EligibleSet | None] = [None] * len(eligible_B)
        sets: list[tuple[I64, None, list[int], None]] = []
        for eligible, places in grouped(eligible_B):
            if eligible is not None:
                check_rows(eligible, self._rows + len(self._tail_MD))
            base, rows_M = self._split(eligible)
            for place in places:
                base_B[place] = base
            if len(rows_M):
                sets.append((rows_M, None, places, None))
        found = self._base.search(queries_BD, k, base_B)
        if not sets:
            return found
        tail_BK, scores_BK = kernel.nearest(queries_BD, None, self._tail_MD, sets, k)
        tail_BK = np.where(tail_BK == PAD_ROW, PAD_ROW, tail_BK + self._rows)
        return Candidates(*joined(found, tail_BK, scores_BK, k), found.plans_B)

    def _split(self, eligible: EligibleSet | None) -> tuple[EligibleSet | None, I64]:
        """Return the part of a set that lies in the base, and its rows in the tail."""
        if eligible is None:
            return None, np.arange(len(self._tail_MD))
        base, behind_R = eligible.split(self._rows)
        return base, behind_R - self._rows
