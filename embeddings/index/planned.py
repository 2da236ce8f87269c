"""Exact search inside eligible sets, on CPU and GPU, whatever the plan: see ``host`` and ``cuda``.

Shapes: B queries, N rows of the catalogue, D dimensions, K results per query.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embeddings.catalogue.eligible import EligibleSet
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
from embeddings.index.cache import SetCache
from embeddings.index.cuda import DeviceSearch
from embeddings.index.host import HostSearch
from embeddings.index.plan import MEASURED, Costs
from embeddings.index.score import max_norm, refuse_overflow

_log = logging.getLogger("opportune.search")

DEFAULT_CACHE_BYTES = 512 * 2**20


class PlannedIndex(CandidateIndex):
    """Exact search, owned by one thread: its cache is not locked, and a GPU allows no second reader.

    On ``cuda`` FAISS proposes on the GPU, and at most 2,048 rows a query; a search that would need more is refused with
    `UnsupportedSearch`: k above 2,047 on a set more than twice as large, or thousands of equal scores at the border of
    k. Proposals are scored again on the CPU. When the device fails, the index answers from the CPU from then on.

    Attributes:
        cache: what is kept of sets by fingerprint, with its counters.
        searches: queries answered, by plan.
        degraded: why the CPU answers in place of the device that was asked for; None while it need not.
    """

    def __init__(
        self,
        vectors_ND: F32,
        device: Device,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        ivf: Path | None = None,
        costs: Costs = MEASURED,
    ) -> None:
        """Take the vectors to search; they must not change afterwards.

        Args:
            vectors_ND: the catalogue's vectors, float32 (N, D), C-contiguous, possibly memory-mapped.
            device: where FAISS searches; on ``cuda`` the copies of every set held lie in GPU memory.
            cache_bytes: bound on what is held of sets, the copy of all rows among them. Without an inverted file that
                copy is held whatever the bound.
            ivf: what `write_ivf` wrote for these vectors; used on ``cpu`` where the copy of all rows does not fit.
            costs: what plans are estimated by.

        Raises:
            InvalidInput: wrong shape or dtype, NaN or infinity in a vector, or a negative bound.
            CorruptBundle: the inverted file cannot be read, or does not fit the vectors.
            DeviceUnavailable: ``cuda`` without a GPU that FAISS sees.
        """
        self._vectors_ND = checked_vectors(vectors_ND)
        self._ivf, self._costs = ivf, costs
        self._max_norm = max_norm(self._vectors_ND)
        self.cache: SetCache[Any] = SetCache(cache_bytes)
        self.searches: Counter[Plan] = Counter()
        self.degraded: str | None = None
        self._search: HostSearch | DeviceSearch = (
            DeviceSearch(self._vectors_ND, self._max_norm, self.cache, costs) if device == "cuda" else self._on_host()
        )

    def search(self, queries_BD: F32, k: int, eligible_B: Sequence[EligibleSet | None]) -> Candidates:
        """See `CandidateIndex.search`."""
        queries_BD, norm = checked_queries(queries_BD, self._vectors_ND.shape[1], len(eligible_B))
        checked_k(k)
        refuse_overflow(norm, self._max_norm)
        sets = grouped(eligible_B)
        for eligible, _ in sets:
            if eligible is not None:
                check_rows(eligible, len(self._vectors_ND))
        try:
            found = self._search.search(queries_BD, k, sets)
        except RuntimeError as error:
            self._degrade(error)
            found = self._search.search(queries_BD, k, sets)
        for _, places in sets:
            self.searches[found.plans_B[places[0]]] += len(places)
        return found

    def warm(self, eligible: EligibleSet) -> None:
        """Make a set's own copy now instead of during its first searches, unless it is too large to be kept.

        Raises:
            InvalidInput: rows outside the catalogue.
        """
        check_rows(eligible, len(self._vectors_ND))
        try:
            self._search.warm(eligible)
        except RuntimeError as error:
            self._degrade(error)
            self._search.warm(eligible)

    def _on_host(self) -> HostSearch:
        return HostSearch(self._vectors_ND, self._max_norm, self.cache, self._ivf, self._costs)

    def _degrade(self, error: RuntimeError) -> None:
        """Switch to the CPU for good; if the CPU searches already, raise the error, as no device caused it."""
        if isinstance(self._search, HostSearch):
            raise error
        self.cache.clear()  # of copies in the memory of the device
        self._search = self._on_host()
        self.degraded = str(error)
        _log.error("the device failed, the CPU searches from now on: %s", error)
