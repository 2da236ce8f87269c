"""Exact search inside eligible sets, on CPU and GPU, each set by the plan that is cheapest for it.

On the CPU the sets asked for often have copies of their own in eight bits a number, and one compiled call answers
all queries of a batch that are about such sets, or small ones: `kernel.nearest`, exact by construction. All else goes
through FAISS, which only proposes: see `proposed`.

Shapes: B queries, N rows of a set, D dimensions, K results per query.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from embeddings import kernel
from embeddings.catalogue.eligible import EligibleSet, RowArray
from embeddings.device import Device
from embeddings.index.base import (
    F32,
    CandidateIndex,
    Candidates,
    Plan,
    check_rows,
    checked_k,
    checked_queries,
    checked_vectors,
    grouped,
)
from embeddings.index.bitmap import Bitmap
from embeddings.index.cache import SetCache
from embeddings.index.cuda import DeviceCopies, Gathered
from embeddings.index.flat import HostCopies
from embeddings.index.ivf import BoundedIvf
from embeddings.index.plan import MEASURED, Costs, Regrets, plan, plan_whole
from embeddings.index.proposed import MARGIN, Group, Proposer
from embeddings.index.score import refuse_overflow

_log = logging.getLogger("opportune.search")

DEFAULT_CACHE_BYTES = 512 * 2**20

_WHOLE = b""
"""Stands for the fingerprint of all rows, so that it need not be worked out."""

_Held: TypeAlias = kernel.Copy | Gathered | Bitmap
_Scanned: TypeAlias = tuple[kernel.Copy | RowArray, kernel.Members | None, list[int]]
"""What the kernel answers: a copy or rows, which of the copy's rows are meant, None for all, and places of queries."""
_Places: TypeAlias = tuple[EligibleSet | None, list[int]]
"""A set with the places of its queries in the batch."""


class PlannedIndex(CandidateIndex):
    """Exact search, owned by one thread: its cache is not locked, and a GPU allows no second reader.

    On ``cuda`` FAISS proposes on the GPU, and at most 2,048 rows a query; a search that would need more is refused with
    `UnsupportedSearch`: k above 2,047 on a set more than twice as large, or thousands of equal scores at the border of
    k. Proposals are scored again on the CPU. When the device fails, the index answers from the CPU from then on.

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
            cache_bytes: bound on what is held of sets, that of all rows among them: copies, row numbers, bits.
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
        self.cache: SetCache[_Held] = SetCache(cache_bytes)
        self.searches: Counter[Plan] = Counter()
        self.degraded: str | None = None
        self._regrets = Regrets()
        self._ivf: BoundedIvf | None = None
        if device == "cuda":
            self._copies: HostCopies | DeviceCopies = DeviceCopies(self._vectors_ND)
            self._whole_fits = False
        else:
            self._open_on_host()

    def search(self, queries_BD: F32, k: int, eligible_B: Sequence[EligibleSet | None]) -> Candidates:
        """See `CandidateIndex.search`."""
        queries_BD, longest = checked_queries(queries_BD, self._vectors_ND.shape[1], len(eligible_B))
        checked_k(k)
        refuse_overflow(longest, self._copies.longest)
        sets = grouped(eligible_B)
        try:
            found = self._search(queries_BD, k, sets)
        except RuntimeError as error:
            self._degrade(error)
            found = self._search(queries_BD, k, sets)
        for _, places in sets:
            self.searches[found.plans_B[places[0]]] += len(places)
        return found

    def warm(self, eligible: EligibleSet) -> None:
        """Make a set's own copy now, in place of its first searches; does nothing for one too large to be kept.

        Raises:
            InvalidInput: rows outside the catalogue.
        """
        check_rows(eligible, len(self._vectors_ND))
        held = self.cache.find(eligible.fingerprint)
        gathered = held is not None and not isinstance(held, Bitmap)
        if not gathered and eligible.size < len(self._vectors_ND) and self._fits(eligible.rows_N):
            try:
                self._gathered(eligible)
            except RuntimeError as error:
                self._degrade(error)
                self._gathered(eligible)

    def _open_on_host(self) -> None:
        self._copies = HostCopies(self._vectors_ND, self._stored)
        self._whole_fits = self._fits(self._every_row(None))
        if self._ivf_file is not None:
            self._ivf = BoundedIvf.open(self._ivf_file, self._vectors_ND.shape)

    def _degrade(self, error: RuntimeError) -> None:
        """Go on from the CPU for good; what FAISS raises there is not the device's fault and goes on up."""
        if isinstance(self._copies, HostCopies):
            raise error
        self.cache.clear()  # of copies in the memory of the device
        self._open_on_host()
        self.degraded = str(error)
        _log.error("the device failed, the CPU searches from now on: %s", error)

    def _search(self, queries_BD: F32, k: int, sets: Sequence[_Places]) -> Candidates:
        catalogue = len(self._vectors_ND)
        plans: list[Plan] = ["all"] * len(queries_BD)
        scanned: list[_Scanned] = []
        proposed: list[Group] = []
        for eligible, places in sets:
            if eligible is not None:
                check_rows(eligible, catalogue)
            size = catalogue if eligible is None else eligible.size
            # A scan would leave out too few.
            if size <= max(2 * k, k + MARGIN) or (eligible is not None and self._few(eligible)):
                scanned.append((self._every_row(eligible), None, places))
                continue
            shared = None if eligible is None else eligible.shared
            whole = catalogue if shared is None else shared.size
            plan, held = self._planned(shared, whole, len(places))
            if size < whole and plan == "gathered":
                plan = "filtered" if whole == catalogue else "masked"
            for place in places:
                plans[place] = plan
            if isinstance(held, kernel.Copy):
                selected = eligible.members if eligible is not None and plan in {"filtered", "masked"} else None
                scanned.append((held, selected, places))
            else:
                proposed.append(Group(plan, eligible, whole, whole - size, held, places))
        rows_BK, scores_BK = kernel.nearest(queries_BD, self._copies.axes_DD, self._vectors_ND, scanned, k)
        if proposed:
            places = [place for group in proposed for place in group.places]
            rows_BK[places], scores_BK[places] = Proposer(self._vectors_ND, self._copies, self._ivf).settle(
                queries_BD[places], k, proposed
            )
        return Candidates(rows_BK, scores_BK, tuple(plans))

    def _planned(self, eligible: EligibleSet | None, size: int, queries: int) -> tuple[Plan, _Held | None]:
        """How so many queries of a set, or of its parts, are answered, and from what; adds to regrets."""
        catalogue, filtered, bitmaps = len(self._vectors_ND), self._whole_fits, isinstance(self._copies, HostCopies)
        if eligible is None or size == catalogue:
            chosen = plan_whole(fits=filtered, bitmaps=bitmaps, ivf=self._ivf is not None)
            return chosen, self._whole() if chosen == "gathered" else None
        held = self.cache.find(eligible.fingerprint)
        if held is not None and not isinstance(held, Bitmap):
            return "gathered", held
        renting, a_query_us = self._costs.rent(size, catalogue, filtered=filtered)
        coming_us = queries * a_query_us
        chosen = plan(
            fits=self._fits(eligible.rows_N),
            renting=renting,
            regret_us=self._regrets.of(eligible.fingerprint) + coming_us,
            price_us=self._cheapest(size)[1],
            bitmaps=bitmaps,
            ivf=self._ivf is not None,
        )
        if chosen == "gathered":
            return chosen, self._gathered(eligible)
        if chosen == renting:
            self._regrets.add(eligible.fingerprint, coming_us)
        if chosen == "filtered":
            return chosen, self._whole()
        if held is None:
            held = Bitmap(eligible, catalogue)
            self.cache.keep(eligible.fingerprint, held)
        return chosen, held

    def _few(self, part: EligibleSet) -> bool:
        """Whether every row of a part is scored sooner than a copy of the set that it belongs to is scanned for it."""
        return part.parent is not None and self._costs.scoring_us(part.size) < self._costs.masked_us(
            part.size, part.parent.size
        )

    def _whole(self) -> _Held:
        """The copy of all rows."""
        held = self.cache.find(_WHOLE)
        if held is None:
            held = self._copies.gathered(self._every_row(None))
            self.cache.keep(_WHOLE, held)
        return held

    def _gathered(self, eligible: EligibleSet) -> kernel.Copy | Gathered:
        """Make a set's own copy."""
        whole, _ = self._cheapest(eligible.size)
        copy = self._copies.gathered(eligible.rows_N) if whole is None else whole.among(eligible.members)
        self.cache.keep(eligible.fingerprint, copy)
        self._regrets.forget(eligible.fingerprint)
        return copy

    def _cheapest(self, size: int) -> tuple[kernel.Copy | None, float]:
        """What a set's own copy is best made of, and the microseconds that takes.

        The copy of all rows, where it is held and the set is no small part of it: turning and sorting are done there.
        None for the vectors.
        """
        whole = self.cache.peek(_WHOLE)
        taking_us = self._costs.taking_us(size, len(self._vectors_ND))
        gathering_us = self._costs.gathering_us(size)
        if isinstance(whole, kernel.Copy) and taking_us < gathering_us:
            return whole, taking_us
        return None, gathering_us

    def _fits(self, rows_N: RowArray) -> bool:
        return self._copies.bytes_of(rows_N) <= self.cache.limit_bytes

    def _every_row(self, eligible: EligibleSet | None) -> RowArray:
        return np.arange(len(self._vectors_ND)) if eligible is None else eligible.rows_N
