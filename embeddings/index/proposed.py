"""FAISS proposes rows, and the best of them are settled exactly.

Its sums run in another order than the oracle's, and its copies of the vectors are of half precision. So the few rows it
returns are scored again by `score.best`, and proposals are widened until no row outside them could still belong among
the best k.

Shapes: B queries, G queries of one set, N rows of a set, D dimensions, K results per query, P rows proposed per query.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from embeddings import kernel
from embeddings.catalogue.eligible import EligibleSet, RowArray
from embeddings.index.base import F32, F64, I64, PAD_ROW
from embeddings.index.score import best

MARGIN = 8
"""Proposals beyond k. The rounding bound spans less than the gap between two neighbours in score, so a handful settles
nearly every query at once; ties and near-ties widen."""

Propose: TypeAlias = Callable[[F32, int, F64], tuple[F32, I64]]
"""Given queries (G, D), P, below what may be proposed, and rounding bounds (G,): FAISS' own scores, descending, and
catalogue rows, both (G, P)."""


class Group(NamedTuple):
    """Queries of one set that FAISS answers, with their places in the batch.

    Attributes:
        propose: proposes rows of the set, or of a larger one.
        eligible: the set; None for every row.
        size: how many rows may be proposed.
        dropped: how many of these are not of the set.
        places: of the queries.
    """

    propose: Propose
    eligible: EligibleSet | None
    size: int
    dropped: int
    places: list[int]


class Settler(NamedTuple):
    """Settles the exact best k among proposed rows.

    Attributes:
        vectors_ND: the catalogue's, by which proposals are scored again.
        most: how many rows can be proposed.
        allowed: given k and how many proposals are wanted, how many there may be; UnsupportedSearch if too few for k.
    """

    vectors_ND: F32
    most: int
    allowed: Callable[[int, int], int]

    def settle(self, queries_BD: F32, bounds_B: F64, groups: Sequence[Group], rows_BK: I64, scores_BK: F32) -> None:
        """Write the best K rows and scores for the groups' queries to their places; leave other places as they are.

        There must be a group, and each be larger than the number of rows proposed for it.
        """
        places = [place for group in groups for place in group.places]
        found = self._settled(queries_BD[places], bounds_B[places], rows_BK.shape[1], groups)
        rows_BK[places], scores_BK[places] = found

    def _settled(self, queries_BD: F32, bounds_B: F64, k: int, groups: Sequence[Group]) -> tuple[I64, F32]:
        """Return the best k rows and scores for queries in the order of their groups."""
        first = [self._first(group, k) for group in groups]
        rows_BP, left_out_B = np.full((len(queries_BD), max(first)), PAD_ROW), np.empty(len(queries_BD))
        group_B = [(group, proposals) for group, proposals in zip(groups, first, strict=True) for _ in group.places]
        start = 0
        for group, proposals in zip(groups, first, strict=True):
            these = slice(start, start := start + len(group.places))
            rows_BP[these, :proposals], left_out_B[these] = _proposed(
                group, queries_BD[these], proposals, bounds_B[these]
            )
        rows_BK, scores_BK = best(queries_BD, self.vectors_ND, rows_BP, k)
        # A row that was not proposed scored no more than the last proposal, in FAISS' arithmetic.
        for b in np.flatnonzero(scores_BK[:, -1] <= left_out_B + bounds_B).tolist():
            one = slice(b, b + 1)
            rows_BK[one], scores_BK[one] = self._widened(*group_B[b], queries_BD[one], bounds_B[one], k)
        return rows_BK, scores_BK

    def _first(self, group: Group, k: int) -> int:
        """Return how many rows to propose at first; any of them may be a row that is dropped."""
        least = self.allowed(k, k + MARGIN)
        return max(least, min(k + MARGIN + group.dropped, self.most)) if group.dropped else least

    def _widened(self, group: Group, proposals: int, query_1D: F32, bound_1: F64, k: int) -> tuple[I64, F32]:
        """Propose twice as many rows until the best k are settled, at the latest by brute force; return them."""
        while True:
            proposals = min(2 * proposals, group.size)
            if proposals == group.size or (group.dropped and proposals > self.most):
                rows_N = every_row(group.eligible, len(self.vectors_ND))
                return kernel.nearest(query_1D, None, self.vectors_ND, [(rows_N, None, [0], None)], k)
            proposals = self.allowed(k, proposals)
            rows_1P, left_out_1 = _proposed(group, query_1D, proposals, bound_1)
            rows_1K, scores_1K = best(query_1D, self.vectors_ND, rows_1P, k)
            if scores_1K[0, -1] > left_out_1[0] + bound_1[0]:
                return rows_1K, scores_1K


def too_few(size: int, k: int) -> bool:
    """Return whether a set is so small that proposals would leave out too few of its rows to be worth making."""
    return size <= max(2 * k, k + MARGIN)


def every_row(eligible: EligibleSet | None, catalogue_rows: int) -> RowArray:
    """Return the rows of a set, or of the catalogue where there is none."""
    return np.arange(catalogue_rows) if eligible is None else eligible.rows_N


def _proposed(group: Group, queries_GD: F32, proposals: int, bounds_G: F64) -> tuple[I64, F32]:
    """Return proposed catalogue rows (G, P), -1 for a row outside the set, and FAISS' score of the last one (G,)."""
    scores_GP, rows_GP = group.propose(queries_GD, proposals, bounds_G)
    if group.dropped and group.eligible is not None:
        rows_GP = np.where(group.eligible.contains(rows_GP.ravel()).reshape(rows_GP.shape), rows_GP, PAD_ROW)
    return rows_GP, scores_GP[:, -1]
