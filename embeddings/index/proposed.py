"""FAISS proposes rows, and the best of them are settled exactly.

Its sums run in another order than the oracle's, and its copies of the vectors are of half precision. So the few rows it
returns are scored again by `score.best`, and proposals are widened until no row outside them could still belong among
the best k.

Shapes: B queries, G queries of one set, N rows of a set, D dimensions, K results per query, P rows proposed per query.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from embeddings import kernel
from embeddings.catalogue.eligible import EligibleSet
from embeddings.index.base import F32, F64, I64, PAD_ROW, Plan
from embeddings.index.bitmap import Bitmap
from embeddings.index.cuda import DeviceCopies, Gathered
from embeddings.index.flat import HostCopies
from embeddings.index.ivf import BoundedIvf
from embeddings.index.score import best, rounding_bounds

# Proposals beyond k. The rounding bound spans less than the gap between two neighbours in score, so a handful
# settles nearly every query at once; ties and near-ties widen.
MARGIN = 8


class Group(NamedTuple):
    """Queries of one set that FAISS answers: how, from what, and which of the batch they are.

    Attributes:
        size: how many rows may be proposed: those of the set, or of the one that it is a part of.
        dropped: how many of these are not of the set.
    """

    plan: Plan
    eligible: EligibleSet | None
    size: int
    dropped: int
    held: Gathered | Bitmap | None
    places: list[int]


class Proposer(NamedTuple):
    """What proposes the rows of a catalogue.

    Attributes:
        vectors_ND: the catalogue's, by which proposals are scored again.
        copies: what FAISS searches.
        ivf: the bounded IVF over the catalogue, if there is one.
    """

    vectors_ND: F32
    copies: HostCopies | DeviceCopies
    ivf: BoundedIvf | None

    def settle(self, queries_BD: F32, k: int, groups: Sequence[Group]) -> tuple[I64, F32]:
        """Return the best k, and their scores, for queries in the order of their groups, each larger than proposed."""
        copies = self.copies
        bounds_B = rounding_bounds(queries_BD, copies.longest, copies.astray, halved=copies.halved)
        first = [self._first(group, k) for group in groups]
        rows_BP, left_out_B = np.full((len(queries_BD), max(first)), PAD_ROW), np.empty(len(queries_BD))
        group_B = [(group, proposals) for group, proposals in zip(groups, first, strict=True) for _ in group.places]
        start = 0
        for group, proposals in zip(groups, first, strict=True):
            these = slice(start, start := start + len(group.places))
            rows_BP[these, :proposals], left_out_B[these] = self._propose(
                group, queries_BD[these], bounds_B[these], proposals
            )
        rows_BK, scores_BK = best(queries_BD, self.vectors_ND, rows_BP, k)
        # A row that was not proposed scored no more than the last proposal, in FAISS' arithmetic.
        for b in np.flatnonzero(scores_BK[:, -1] <= left_out_B + bounds_B).tolist():
            one = slice(b, b + 1)
            rows_BK[one], scores_BK[one] = self._widened(*group_B[b], queries_BD[one], bounds_B[one], k)
        return rows_BK, scores_BK

    def _first(self, group: Group, k: int) -> int:
        """How many rows are proposed at first; of what is dropped any may be among them."""
        least = self.copies.most_proposals(k, k + MARGIN)
        return max(least, min(k + MARGIN + group.dropped, self.copies.most)) if group.dropped else least

    def _propose(
        self, group: Group, queries_GD: F32, bounds_G: F64, proposals: int
    ) -> tuple[I64, npt.NDArray[np.float32]]:
        """Catalogue rows (G, P), -1 for what is not of the set, and FAISS' own score of the last one (G,).

        P is below what may be proposed.
        """
        copies, held, eligible = self.copies, group.held, group.eligible
        if isinstance(held, Gathered):
            scores_GP, places_GP = copies.propose(held.index, queries_GD, proposals)
            rows_GP = held.rows_N[places_GP].astype(np.int64, copy=False)
        elif group.plan == "ivf" and self.ivf is not None:
            scores_GP, rows_GP = self.ivf.propose(queries_GD, proposals, bounds_G, group.size, held)
        else:
            parameters = None if held is None else held.flat()
            scores_GP, rows_GP = copies.propose(copies.whole, queries_GD, proposals, parameters)
        if group.dropped and eligible is not None:
            rows_GP = np.where(eligible.contains(rows_GP.ravel()).reshape(rows_GP.shape), rows_GP, PAD_ROW)
        return rows_GP, scores_GP[:, -1]

    def _widened(self, group: Group, proposals: int, query_1D: F32, bound_1: F64, k: int) -> tuple[I64, F32]:
        """Twice as many proposals, again and again, until the best are settled; all rows settle them."""
        while True:
            proposals = min(2 * proposals, group.size)
            if proposals == group.size or (group.dropped and proposals > self.copies.most):
                rows_N = np.arange(len(self.vectors_ND)) if group.eligible is None else group.eligible.rows_N
                return kernel.nearest(query_1D, None, self.vectors_ND, [(rows_N, None, [0])], k)
            proposals = self.copies.most_proposals(k, proposals)
            rows_1P, left_out_1 = self._propose(group, query_1D, bound_1, proposals)
            rows_1K, scores_1K = best(query_1D, self.vectors_ND, rows_1P, k)
            if scores_1K[0, -1] > left_out_1[0] + bound_1[0]:
                return rows_1K, scores_1K
