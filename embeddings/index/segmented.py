"""Exact search over the base of a release and its tail, the rows that were added after it.

Shapes: B queries, N rows of the base, M of the tail, D dimensions, K results per query.
"""

from collections.abc import Sequence
from typing import NamedTuple

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
)
from embeddings.index.score import max_norm, refuse_overflow
from embeddings.remembered import Remembered

REMEMBERED_BYTES = 32 * 2**20
"""How much memory the parts of sets may take."""

_NO_ROWS = np.zeros(0, np.int64)


class _Split(NamedTuple):
    """A set in two: the part of it in the base, None for all of that, and its rows in the tail."""

    base: EligibleSet | None
    rows_M: I64


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
        self._splits: Remembered[_Split] = Remembered(REMEMBERED_BYTES)

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
            base, rows_M = self._split_of(eligible)
            for place in places:
                base_B[place] = base
            if len(rows_M):
                sets.append((rows_M, None, places, None))
        found = self._base.search(queries_BD, k, base_B)
        if not sets:
            return found
        tail_BK, scores_BK = kernel.nearest(queries_BD, None, self._tail_MD, sets, k)
        tail_BK = np.where(tail_BK == PAD_ROW, PAD_ROW, tail_BK + self._rows)
        return Candidates(*_joined(found, tail_BK, scores_BK, k), found.plans_B)

    def _split_of(self, eligible: EligibleSet | None) -> "_Split":
        """Return the parts of a set; remember those of one that several requests may ask for."""
        if eligible is None:
            return _Split(None, np.arange(len(self._tail_MD)))
        if eligible.past <= self._rows:
            return _Split(eligible, _NO_ROWS)
        if eligible.own:
            return self._cut(eligible)
        found = self._splits.find(eligible.fingerprint)
        return found or self._splits.keep(eligible.fingerprint, self._cut(eligible))

    def _cut(self, eligible: EligibleSet) -> "_Split":
        if eligible.copied.past <= self._rows:  # what lies behind the base was added to a set of it
            behind_R = eligible.added[eligible.added >= self._rows]
            return _Split(EligibleSet.derived(eligible, behind_R), behind_R - self._rows)
        rows_N, cut = eligible.rows_N, int(eligible.rows_N.searchsorted(self._rows))
        return _Split(EligibleSet.of(rows_N[:cut], eligible.valid_until), rows_N[cut:].astype(np.int64) - self._rows)


def _joined(found: Candidates, rows_BK: I64, scores_BK: F32, k: int) -> tuple[I64, F32]:
    """Return the best k among the candidates found and other rows: the largest scores, ties by row."""
    all_BJ = np.concatenate([found.rows_BK, rows_BK], axis=1)
    scores_BJ = np.concatenate([found.scores_BK, scores_BK], axis=1)
    # Pads come last: their scores are the least there are.
    best_BK = np.lexsort((all_BJ, -scores_BJ), axis=1)[:, :k]
    return np.take_along_axis(all_BJ, best_BK, axis=1), np.take_along_axis(scores_BJ, best_BK, axis=1)
