"""Exact search through FAISS inside eligible sets, on CPU and GPU, each set by the plan that is cheapest for it.

FAISS only proposes. Its sums run in another order than the oracle's, and its copies of the vectors are of half
precision. So the few rows it returns are scored again by `score.best`, and proposals are widened until no row outside
them could still belong among the best k.

Shapes: B queries, G queries of one set, N rows of a set, D dimensions, K results per query, P rows proposed per query.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from embeddings.device import Device
from embeddings.eligible import EligibleSet, RowArray
from embeddings.index.base import (
    F32,
    F64,
    I64,
    PAD_ROW,
    CandidateIndex,
    Candidates,
    Plan,
    checked_k,
    checked_queries,
    checked_rows,
    checked_vectors,
    grouped,
    padded,
)
from embeddings.index.bitmap import Bitmap
from embeddings.index.cache import SetCache
from embeddings.index.cuda import DeviceCopies
from embeddings.index.flat import HostCopies
from embeddings.index.ivf import BoundedIvf
from embeddings.index.plan import MEASURED, Costs, Regrets, plan
from embeddings.index.score import best, rounding_bounds

DEFAULT_CACHE_BYTES = 512 * 2**20
# Proposals beyond k. The rounding bound spans less than the gap between two neighbours in score, so a handful
# settles nearly every query at once; ties and near-ties widen.
MARGIN = 8
# What the proposals of one pass may take when their vectors are gathered for scoring.
PASS_BYTES = 32 * 2**20


_Places: TypeAlias = tuple[EligibleSet | None, list[int]]
"""A set with the places of its queries in the batch."""


class Gathered(NamedTuple):
    """A set's own copy.

    Attributes:
        rows_N: its catalogue rows, ascending.
        index: the FAISS index over their copies, by position in rows_N.
        nbytes: of copies and row numbers, which the set itself may hold too.
    """

    rows_N: RowArray
    index: Any
    nbytes: int


class _Group(NamedTuple):
    """Queries of one set: how it is answered, from what, and which of the batch, as it is ordered, they are."""

    plan: Plan
    eligible: EligibleSet | None
    size: int
    held: Gathered | Bitmap | None
    these: slice


class PlannedIndex(CandidateIndex):
    """Exact search through FAISS, owned by one thread: its cache is not locked, and a GPU allows no second reader.

    On ``cuda`` FAISS proposes on the GPU, and at most 2,048 rows a query; a search that would need more is refused with
    `UnsupportedSearch`: k above 2,047 on a larger set, or thousands of equal scores at the border of k. Scoring the
    proposals again is NumPy's on either device. When the device fails, the index answers from the CPU from then on.

    Attributes:
        cache: copies and bitmaps of sets by fingerprint, with their counters.
        searches: queries answered, by plan.
        degraded: why the CPU answers in place of the device that was asked for; None while it need not.
    """

    def __init__(
        self,
        vectors_ND: F32,
        device: Device,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        stored: Path | None = None,
        ivf: Path | None = None,
        costs: Costs = MEASURED,
    ) -> None:
        """Search these vectors; they must not change afterwards.

        Args:
            vectors_ND: the catalogue's vectors, float32 (N, D), C-contiguous, possibly memory-mapped.
            device: where FAISS searches; on ``cuda`` the copies of every set held lie in GPU memory.
            cache_bytes: bound on what is held of sets: copies, row numbers, bits. The whole catalogue is not among it.
            stored: what `write_flat_index` wrote for these very vectors; on ``cpu`` mapped, not rebuilt.
            ivf: what `write_ivf` wrote for them; used on ``cpu``.
            costs: what plans are estimated by.

        Raises:
            InvalidInput: wrong shape or dtype, NaN or infinity in a vector, or a negative bound.
            CorruptBundle: a stored file cannot be read, or does not fit the vectors.
            DeviceUnavailable: ``cuda`` without a GPU that FAISS sees.
        """
        self._vectors_ND = checked_vectors(vectors_ND)
        self._stored, self._ivf_file, self._costs = stored, ivf, costs
        self.cache: SetCache[Gathered | Bitmap] = SetCache(cache_bytes)
        self.searches: Counter[Plan] = Counter()
        self.degraded: str | None = None
        self._regrets = Regrets()
        self._ivf: BoundedIvf | None = None
        if device == "cuda":
            self._copies: HostCopies | DeviceCopies = DeviceCopies(self._vectors_ND)
        else:
            self._open_on_host()

    def search(self, queries_BD: F32, k: int, eligible_B: Sequence[EligibleSet | None]) -> Candidates:
        """See `CandidateIndex.search`."""
        queries_BD = checked_queries(queries_BD, self._vectors_ND.shape[1], len(eligible_B))
        checked_k(k)
        sets = grouped(eligible_B)
        order = [place for _, places in sets for place in places]
        if order == sorted(order):
            found = self._answered(queries_BD, k, sets)
        else:
            # FAISS wants the queries of a set side by side; mostly they are, each being alone.
            apart = self._answered(queries_BD[order], k, sets)
            back = np.argsort(order)
            plans_B = tuple(apart.plans_B[place] for place in back.tolist())
            found = Candidates(apart.rows_BK[back], apart.scores_BK[back], plans_B)
        self.searches.update(found.plans_B)
        return found

    def warm(self, eligible: EligibleSet) -> None:
        """Make a set's own copy now, in place of its first searches; does nothing for one too large to be kept.

        Raises:
            InvalidInput: rows outside the catalogue.
        """
        size = len(checked_rows(eligible, len(self._vectors_ND)))
        held = self.cache.find(eligible.fingerprint)
        if not isinstance(held, Gathered) and size < len(self._vectors_ND) and self._fits(eligible):
            try:
                self._gathered(eligible)
            except RuntimeError as error:
                self._degrade(error)
                self._gathered(eligible)

    def _open_on_host(self) -> None:
        self._copies = HostCopies(self._vectors_ND, self._stored)
        if self._ivf_file is not None:
            self._ivf = BoundedIvf.open(self._ivf_file, self._vectors_ND.shape)

    def _degrade(self, error: RuntimeError) -> None:
        """Go on from the CPU for good; what FAISS raises there is not the device's fault and goes on up."""
        if isinstance(self._copies, HostCopies):
            raise error
        self.cache.clear()  # of copies in the memory of the device
        self._open_on_host()
        self.degraded = str(error)

    def _answered(self, queries_BD: F32, k: int, sets: Sequence[_Places]) -> Candidates:
        try:
            return self._search(queries_BD, k, sets)
        except RuntimeError as error:
            self._degrade(error)
            return self._search(queries_BD, k, sets)

    def _search(self, queries_BD: F32, k: int, sets: Sequence[_Places]) -> Candidates:
        """Answer queries that stand in the order of their sets: propose set by set, score all together."""
        copies, catalogue = self._copies, len(self._vectors_ND)
        bounds_B = rounding_bounds(queries_BD, copies.longest, copies.astray, halved=copies.halved)
        sizes = [catalogue if eligible is None else len(checked_rows(eligible, catalogue)) for eligible, _ in sets]
        proposals = min(k + MARGIN, max(sizes, default=0))
        kept = min(k, proposals)
        groups: list[_Group] = []
        rows_BP = np.empty((len(queries_BD), proposals), np.int64)
        # Nothing is left out where all rows are scored: no comparison with NaN holds, so nothing is to be settled.
        left_out_B = np.full(len(queries_BD), np.nan)
        start = 0
        for (eligible, places), size in zip(sets, sizes, strict=True):
            these = slice(start, start := start + len(places))
            group = self._planned(eligible, size, these, proposals)
            groups.append(group)
            if group.plan == "all":
                rows_BP[these, :size] = self._every_row(group)
                rows_BP[these, size:] = PAD_ROW
            else:
                most = copies.most_proposals(kept, proposals)
                scores_GP, found_GP = self._propose(group, queries_BD[these], bounds_B[these], most)
                rows_BP[these, :most] = found_GP
                rows_BP[these, most:] = PAD_ROW
                left_out_B[these] = scores_GP[:, -1]
        rows_BK, scores_BK = self._scored(queries_BD, rows_BP, k)
        if kept:
            # A row that was not proposed scored no more than the last proposal, in FAISS' arithmetic.
            for b in np.flatnonzero(scores_BK[:, kept - 1] <= left_out_B + bounds_B).tolist():
                group = next(group for group in groups if b < group.these.stop)
                one = slice(b, b + 1)
                widened_1K = self._widened(group, queries_BD[one], bounds_B[one], kept, proposals)
                rows_BK[one, :kept], scores_BK[one, :kept] = widened_1K
        plans_B: tuple[Plan, ...] = tuple(
            group.plan for group in groups for _ in range(group.these.stop - group.these.start)
        )
        return Candidates(rows_BK, scores_BK, plans_B)

    def _planned(self, eligible: EligibleSet | None, size: int, these: slice, proposals: int) -> _Group:
        """How the queries of a set are answered, with what that takes at hand, and what it adds to regrets."""
        catalogue = len(self._vectors_ND)
        if eligible is None or not proposals < size < catalogue:  # what needs nothing of the set does not look for it
            return _Group(self._plan(size, proposals), eligible, size, None, these)
        held = self.cache.find(eligible.fingerprint)
        if isinstance(held, Gathered):
            return _Group(self._plan(size, proposals, gathered=True), eligible, size, held, these)
        coming_us = (these.stop - these.start) * self._costs.regret_us(size, catalogue)
        regret_us = self._regrets.of(eligible.fingerprint) + coming_us
        chosen = self._plan(size, proposals, fits=self._fits(eligible), regret_us=regret_us)
        if chosen == "gathered":
            return _Group(chosen, eligible, size, self._gathered(eligible), these)
        if held is None:
            held = Bitmap(eligible, catalogue)
            self.cache.keep(eligible.fingerprint, held)
        if chosen == "bitmap":
            self._regrets.add(eligible.fingerprint, coming_us)
        return _Group(chosen, eligible, size, held, these)

    def _plan(
        self, size: int, proposals: int, *, gathered: bool = False, fits: bool = True, regret_us: float = 0.0
    ) -> Plan:
        return plan(
            size,
            len(self._vectors_ND),
            proposals=proposals,
            gathered=gathered,
            fits=fits,
            regret_us=regret_us,
            bitmaps=isinstance(self._copies, HostCopies),
            ivf=self._ivf is not None,
            costs=self._costs,
        )

    def _gathered(self, eligible: EligibleSet) -> Gathered:
        copy = Gathered(eligible.rows_N, self._copies.gathered(eligible.rows_N), self._bytes_of(eligible))
        self.cache.keep(eligible.fingerprint, copy)
        self._regrets.forget(eligible.fingerprint)
        return copy

    def _bytes_of(self, eligible: EligibleSet) -> int:
        return len(eligible.rows_N) * self._copies.row_bytes + eligible.rows_N.nbytes

    def _fits(self, eligible: EligibleSet) -> bool:
        return self._bytes_of(eligible) <= self.cache.limit_bytes

    def _every_row(self, group: _Group) -> RowArray:
        return np.arange(group.size) if group.eligible is None else group.eligible.rows_N

    def _propose(self, group: _Group, queries_GD: F32, bounds_G: F64, proposals: int) -> tuple[F32, RowArray]:
        """FAISS' own scores, descending, and catalogue rows, both (G, P); P is below what the set holds."""
        copies, held = self._copies, group.held
        if isinstance(held, Gathered):
            scores_GP, places_GP = copies.propose(held.index, queries_GD, proposals)
            return scores_GP, held.rows_N[places_GP]
        if group.plan == "ivf" and self._ivf is not None:
            return self._ivf.propose(queries_GD, proposals, bounds_G, group.size, held)
        return copies.propose(copies.whole, queries_GD, proposals, None if held is None else held.flat())

    def _scored(self, queries_BD: F32, rows_BP: I64, k: int) -> tuple[I64, F32]:
        """The best k of what was proposed and their scores, padded; so many queries at a time as memory allows."""
        proposals = rows_BP.shape[1]
        kept, step = min(k, proposals), max(1, PASS_BYTES // max(1, proposals * queries_BD[:1].nbytes))
        if k <= proposals and len(queries_BD) <= step:
            return best(queries_BD, self._vectors_ND, rows_BP, k)
        rows_BK, scores_BK = padded(len(queries_BD), k)
        for start in range(0, len(queries_BD) if kept else 0, step):
            these = slice(start, start + step)
            rows_BK[these, :kept], scores_BK[these, :kept] = best(
                queries_BD[these], self._vectors_ND, rows_BP[these], kept
            )
        return rows_BK, scores_BK

    def _widened(self, group: _Group, query_1D: F32, bound_1: F64, kept: int, proposals: int) -> tuple[I64, F32]:
        """Twice as many proposals, again and again, until the best are settled; all rows settle them."""
        while True:
            proposals = min(2 * proposals, group.size)
            if proposals == group.size:
                return best(query_1D, self._vectors_ND, self._every_row(group)[None].astype(np.int64), kept)
            proposals = self._copies.most_proposals(kept, proposals)
            scores_1P, rows_1P = self._propose(group, query_1D, bound_1, proposals)
            rows_1K, scores_1K = best(query_1D, self._vectors_ND, rows_1P.astype(np.int64, copy=False), kept)
            if scores_1K[0, -1] > scores_1P[0, -1] + bound_1[0]:
                return rows_1K, scores_1K
