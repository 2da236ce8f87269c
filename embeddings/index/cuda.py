"""Exact search with FAISS on a GPU, over flat copies of the catalogue's vectors in GPU memory.

FAISS on a GPU accepts an ID selector and ignores it. So it scans the whole catalogue or a set's own copy, and where
only a part of a set is wanted, proposed rows outside that part are dropped.

Shapes: B queries, N rows, D dimensions, P rows proposed per query.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import faiss
import numpy as np

from embeddings import kernel
from embeddings.catalogue.eligible import EligibleSet, RowArray
from embeddings.device import faiss_sees_gpu
from embeddings.errors import DeviceUnavailable, UnsupportedSearch
from embeddings.index.base import F32, F64, I64, Candidates, Plan, joined
from embeddings.index.cache import SetCache
from embeddings.index.plan import Costs
from embeddings.index.proposed import Group, Settler, every_row, too_few
from embeddings.index.score import LARGEST_HALF, max_quantisation_error, norms, rounding_bounds

CUDA_MAX_K = 2_048
"""The largest k that classic FAISS GPU search selects."""
CUDA_SCRATCH_BYTES = 256 * 2**20
"""FAISS reserves up to 1.5 GiB of scratch by default; one tile of scores needs far less."""


class OwnCopy(NamedTuple):
    """A set's own copy.

    Attributes:
        rows_N: its catalogue rows, ascending.
        index: the FAISS index over their copies, by position in rows_N.
        nbytes: of copies and row numbers, which the set itself may hold too.
    """

    rows_N: RowArray
    index: Any
    nbytes: int


class DeviceSearch:
    """Searches flat indexes in GPU memory, in half precision where that can hold the numbers.

    With half-precision copies FAISS rounds the query to half precision too. So that no number of it overflows there,
    and none that matters is lost, queries are scaled by a power of two to a length between a half and one, and scores
    back: both are exact, but for numbers so small that the rounding bound covers them.

    Attributes:
        cache: copies of sets, by fingerprint.
    """

    def __init__(self, vectors_ND: F32, max_norm: float, cache: SetCache[OwnCopy], costs: Costs) -> None:
        """Copy the vectors to the GPU.

        Raises:
            DeviceUnavailable: FAISS sees no GPU.
        """
        self.cache = cache
        self._resources = cuda_resources()
        self._vectors_ND, self._max_norm, self._costs = vectors_ND, max_norm, costs
        self._halved = max_norm <= LARGEST_HALF
        self._error = max_quantisation_error(vectors_ND, _rounded) if self._halved else 0.0
        self._whole = gpu_index(vectors_ND, self._resources, self._halved)

    def search(self, queries_BD: F32, k: int, sets: Sequence[tuple[EligibleSet | None, list[int]]]) -> Candidates:
        """Return the best rows for each query; each distinct set comes with the places of its queries.

        Raises:
            UnsupportedSearch: too few rows can be proposed to settle the best k.
        """
        catalogue = len(self._vectors_ND)
        plans: list[Plan] = ["brute_force"] * len(queries_BD)
        scored: list[tuple[RowArray, None, list[int], None]] = []
        beside: list[tuple[RowArray, None, list[int], None]] = []
        proposed: list[Group] = []
        for asked, places in sets:
            eligible = asked
            if asked is not None and len(asked.added):  # which no copy proposes
                eligible = EligibleSet.derived(asked, asked.added)
                beside.append((asked.added, None, places, None))
            size = catalogue if eligible is None else eligible.size
            if too_few(size, k) or (eligible is not None and self._few(eligible)):
                scored.append((every_row(eligible, catalogue), None, places, None))
                continue
            whole = catalogue if eligible is None else eligible.copied.size
            plan: Plan = "flat" if whole == catalogue else "own" if size == whole else "masked"
            for place in places:
                plans[place] = plan
            copy = None if eligible is None or plan == "flat" else self._own(eligible.copied)
            proposed.append(Group(partial(self._propose, copy), eligible, whole, whole - size, places))
        rows_BK, scores_BK = kernel.nearest(queries_BD, None, self._vectors_ND, scored, k)
        if proposed:
            bounds_B = rounding_bounds(queries_BD, self._max_norm, self._error, halved=self._halved)
            settler = Settler(self._vectors_ND, CUDA_MAX_K, _allowed)
            settler.settle(queries_BD, bounds_B, proposed, rows_BK, scores_BK)
        found = Candidates(rows_BK, scores_BK, tuple(plans))
        if not beside:
            return found
        others = kernel.nearest(queries_BD, None, self._vectors_ND, beside, k)
        return Candidates(*joined(found, *others, k), found.plans_B)

    def warm(self, eligible: EligibleSet) -> None:
        """Make a set's own copy now instead of during its first searches, unless it is too large to be kept."""
        if eligible.size < len(self._vectors_ND) and self._bytes_of(eligible.rows_N) <= self.cache.limit_bytes:
            self._own(eligible)

    def _few(self, part: EligibleSet) -> bool:
        """Return whether brute force over a part is faster than a scan of the copy of the set that it belongs to."""
        copied, costs = part.copied, self._costs
        return part.size < copied.size and costs.brute_force_us(part.size) < costs.masked_us(part.size, copied.size)

    def _own(self, eligible: EligibleSet) -> OwnCopy:
        copy = self.cache.find(eligible.fingerprint)
        if copy is None:
            rows_N = eligible.rows_N
            index = gpu_index(self._vectors_ND.take(rows_N, axis=0), self._resources, self._halved)
            copy = OwnCopy(rows_N, index, self._bytes_of(rows_N))
            self.cache.keep(eligible.fingerprint, copy)
        return copy

    def _bytes_of(self, rows_N: RowArray) -> int:
        return rows_N.size * self._vectors_ND.shape[1] * (2 if self._halved else 4) + rows_N.nbytes

    def _propose(self, copy: OwnCopy | None, queries_BD: F32, proposals: int, _bounds_B: F64) -> tuple[F32, I64]:
        """Return scores and rows that FAISS proposes from a copy, or from the whole catalogue; both (B, P)."""
        index = self._whole if copy is None else copy.index
        if self._halved:
            _, exponents_B = np.frexp(norms(queries_BD))
            scores_BP, places_BP = index.search(np.ldexp(queries_BD, -exponents_B[:, None]), proposals)
            scores_BP = np.ldexp(scores_BP, exponents_B[:, None])
        else:
            scores_BP, places_BP = index.search(queries_BD, proposals)
        return scores_BP, places_BP if copy is None else copy.rows_N[places_BP].astype(np.int64, copy=False)


def _allowed(kept: int, wanted: int) -> int:
    """Return how many rows to propose: as many as wanted, or as many as FAISS can select on a GPU.

    Raises:
        UnsupportedSearch: that is too few to settle the best ``kept``.
    """
    if wanted <= CUDA_MAX_K:
        return wanted
    if kept < CUDA_MAX_K and wanted < 2 * CUDA_MAX_K:
        return CUDA_MAX_K
    raise UnsupportedSearch(
        f"on cuda at most {CUDA_MAX_K} rows can be proposed, too few to settle the best {kept}: "
        "ask for fewer, or search on the cpu"
    )


def cuda_resources() -> Any:
    """Return the resources that all GPU indexes of one owner share: streams, cuBLAS handle and scratch memory.

    Raises:
        DeviceUnavailable: FAISS sees no GPU.
    """
    if not faiss_sees_gpu():
        raise DeviceUnavailable("FAISS sees no GPU (faiss.get_num_gpus() is 0); install opportune[gpu]")
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(CUDA_SCRATCH_BYTES)
    return resources


def gpu_index(vectors_ND: F32, resources: Any, halved: bool) -> Any:
    """Return a flat inner-product index in GPU memory over a copy of these vectors."""
    config = faiss.GpuIndexFlatConfig()
    config.device = 0
    config.useFloat16 = halved
    # A cuVS build would pick another kernel, whose arithmetic the rounding bound was not derived for.
    config.use_cuvs = False
    index = faiss.GpuIndexFlatIP(resources, vectors_ND.shape[1], config)
    index.add(vectors_ND)
    return index


def _rounded(_: int, vectors_ND: F32) -> F32:
    """Return vectors rounded to half precision, as in FAISS' copies of them."""
    return vectors_ND.astype(np.float16).astype(np.float32)
