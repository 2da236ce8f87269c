"""FAISS flat search inside an eligible set, on CPU and GPU from the same code, equal to the oracle.

The rows of a set are gathered once into a contiguous flat index, so a search costs what the set holds and
needs no filter: FAISS on a GPU accepts an ID selector and ignores it. FAISS only proposes. Its sums run in
another order than the oracle's, and on the CPU its copies are of half precision: half the memory, and a third less
time, as a scan waits for memory. So the few rows it returns are scored again by `score.inner_products`, and proposals
are widened until no row outside them could still belong among the best k.

Shapes: B queries, N rows of the set, D dimensions, K results per query, P rows proposed per query.
"""

from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np

from embeddings.device import Device, faiss_sees_gpu
from embeddings.eligible import EligibleSet
from embeddings.errors import CorruptBundle, DeviceUnavailable, UnsupportedSearch
from embeddings.index.base import (
    F32,
    F64,
    I64,
    CandidateIndex,
    Candidates,
    checked_k,
    checked_queries,
    checked_rows,
    checked_vectors,
    padded,
)
from embeddings.index.cache import SetCache
from embeddings.index.score import inner_products, largest_norm, norms, rounding_bounds

DEFAULT_CACHE_BYTES = 512 * 2**20
# Proposals beyond k. The rounding bound spans less than the gap between two neighbours in score, so a handful
# settles nearly every query at once; ties and near-ties widen.
MARGIN = 8
# What the proposals of one pass may take when their vectors are gathered for scoring.
PASS_BYTES = 32 * 2**20
# The largest k that classic FAISS GPU search selects.
CUDA_MAX_K = 2_048
# Beyond this a number has no half-precision neighbour.
LARGEST_HALF = 65_504.0
_KINDS = (faiss.IndexScalarQuantizer.__name__, faiss.IndexFlatIP.__name__)
_ROWS_A_LOOK = 65_536
# FAISS reserves up to 1.5 GiB of scratch by default; one tile of scores needs far less.
CUDA_SCRATCH_BYTES = 256 * 2**20


class _Subset(NamedTuple):
    """A set made searchable.

    Attributes:
        rows_N: its catalogue rows, ascending.
        index: the FAISS index over their vectors, by position in rows_N.
        longest: length of its longest vector.
        astray: how far the index's copy of a vector lies from it, at most.
        nbytes: of its vectors and row numbers.
    """

    rows_N: I64
    index: Any
    longest: float
    astray: float
    nbytes: int


class _Pass(NamedTuple):
    """The best k among the rows proposed, and for each query whether no other row can belong among them."""

    best: Candidates
    settled_B: np.ndarray[Any, np.dtype[np.bool_]]


class FlatIndex(CandidateIndex):
    """Exact search through FAISS, owned by one thread.

    The cache is not locked, and a GPU index allows no second reader.

    On ``cuda`` FAISS proposes on the GPU, and at most 2,048 rows a query; a search that would need more is
    refused with `UnsupportedSearch`, never moved to the CPU: k above 2,047 on a set larger than 2,048, or
    thousands of equal scores at the border of k. Scoring the proposals again is NumPy's on either device.

    Attributes:
        cache: the sub-indexes by fingerprint, with their counters. The index over all rows is made on its
            first use, kept for good, and not in the cache.
    """

    def __init__(
        self,
        vectors_ND: F32,
        device: Device,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        stored: Path | None = None,
    ) -> None:
        """Search these vectors; they must not change afterwards.

        Args:
            vectors_ND: the catalogue's vectors, float32 (N, D), C-contiguous, possibly memory-mapped.
            device: where FAISS searches; on ``cuda`` the vectors of every set held lie in GPU memory.
            cache_bytes: bound on the vectors and row numbers of the sets held.
            stored: what `write_flat_index` wrote for these very vectors; on ``cpu`` read, not rebuilt, on first use.

        Raises:
            InvalidInput: wrong shape or dtype, or a negative bound.
            DeviceUnavailable: ``cuda`` without a GPU that FAISS sees.
        """
        self._vectors_ND = checked_vectors(vectors_ND)
        self._resources = _cuda_resources() if device == "cuda" else None
        self._stored = stored
        self._everything: _Subset | None = None
        self.cache: SetCache[_Subset] = SetCache(cache_bytes)

    def search(self, queries_BD: F32, k: int, eligible: EligibleSet | None) -> Candidates:
        """See `CandidateIndex.search`.

        Raises:
            CorruptBundle: the stored index is needed for the first time and does not fit the vectors.
        """
        queries_BD = checked_queries(queries_BD, self._vectors_ND.shape[1])
        found = padded(len(queries_BD), checked_k(k))
        subset = self._subset(eligible)
        bounds_B = rounding_bounds(queries_BD, subset.longest, subset.astray)
        kept = min(k, len(subset.rows_N))
        if kept == 0:
            return found
        wanted = self._proposals(subset, kept, kept + MARGIN)
        step = max(1, PASS_BYTES // (wanted * queries_BD.shape[1] * queries_BD.itemsize))
        for start in range(0, len(queries_BD), step):
            these = slice(start, start + step)
            one = self._pass(subset, queries_BD[these], bounds_B[these], kept, wanted)
            found.rows_BK[these, :kept], found.scores_BK[these, :kept] = one.best
            for b in start + np.flatnonzero(~one.settled_B):
                widened = self._widened(subset, queries_BD[b : b + 1], bounds_B[b : b + 1], kept, wanted)
                found.rows_BK[b, :kept], found.scores_BK[b, :kept] = widened.rows_BK[0], widened.scores_BK[0]
        return found

    def _subset(self, eligible: EligibleSet | None) -> _Subset:
        if eligible is None or self._holds_every_row(eligible):
            if self._everything is None:
                every_row_N = np.arange(len(self._vectors_ND))
                self._everything = self._gathered(every_row_N, self._vectors_ND, self._stored)
            return self._everything
        return self.cache.get(eligible.fingerprint, lambda: self._gathered_rows(eligible))

    def _holds_every_row(self, eligible: EligibleSet) -> bool:
        """Whether the set is the whole catalogue, which shares the one index that is kept for good."""
        last = len(self._vectors_ND) - 1
        return len(eligible.rows_N) == last + 1 and (last < 0 or int(eligible.rows_N[last]) == last)

    def _gathered_rows(self, eligible: EligibleSet) -> _Subset:
        rows_N = checked_rows(eligible, len(self._vectors_ND))
        return self._gathered(rows_N, self._vectors_ND[rows_N])

    def _gathered(self, rows_N: I64, vectors_ND: F32, stored: Path | None = None) -> _Subset:
        longest = largest_norm(vectors_ND, rows_N)
        if self._resources is not None:
            index = _gpu_index(vectors_ND, self._resources)
            return _Subset(rows_N, index, longest, 0.0, vectors_ND.nbytes + rows_N.nbytes)
        index = _host_index(vectors_ND, longest) if stored is None else _read(stored, vectors_ND.shape)
        astray = _astray(index, vectors_ND)
        return _Subset(rows_N, index, longest, astray, index.code_size * len(rows_N) + rows_N.nbytes)

    def _proposals(self, subset: _Subset, kept: int, wanted: int) -> int:
        """How many rows to propose when this many are wanted: what the set holds and the device can.

        Raises:
            UnsupportedSearch: the device cannot propose enough to settle the best ``kept``.
        """
        size = len(subset.rows_N)
        if self._resources is None or min(wanted, size) <= CUDA_MAX_K:
            return min(wanted, size)
        if kept < CUDA_MAX_K and wanted < 2 * CUDA_MAX_K:
            return CUDA_MAX_K
        raise UnsupportedSearch(
            f"on cuda at most {CUDA_MAX_K} rows can be proposed, too few to settle the best {kept} of "
            f"{size}: ask for fewer, or search on the cpu"
        )

    def _pass(self, subset: _Subset, queries_BD: F32, bounds_B: F64, kept: int, wanted: int) -> _Pass:
        if wanted == len(subset.rows_N):
            # Every row is proposed: there is nothing to search for, and all queries share the vectors.
            rows_BP = subset.rows_N[None]
            settled_B = np.ones(len(queries_BD), dtype=np.bool_)
            return _Pass(self._best(queries_BD, rows_BP, kept), settled_B)
        proposed_BP, positions_BP = _propose(subset.index, queries_BD, wanted)
        positions_BP.sort(axis=1)
        best = self._best(queries_BD, subset.rows_N.take(positions_BP), kept)
        # A row that was not proposed scored no more than the last proposal, in FAISS' arithmetic.
        return _Pass(best, best.scores_BK[:, -1] > proposed_BP[:, -1] + bounds_B)

    def _best(self, queries_BD: F32, rows_BP: I64, kept: int) -> Candidates:
        """The best of the rows given, which ascend along P, so that a stable sort leaves ties by row."""
        scores_BP = inner_products(queries_BD, self._vectors_ND.take(rows_BP, axis=0))
        order_BK = np.argsort(-scores_BP, axis=1, kind="stable")[:, :kept]
        # np.take_along_axis does the same and costs more than the scoring itself for one query.
        return Candidates(
            rows_BP[np.arange(len(rows_BP))[:, None], order_BK],
            scores_BP[np.arange(len(scores_BP))[:, None], order_BK],
        )

    def _widened(self, subset: _Subset, query_1D: F32, bound_1: F64, kept: int, wanted: int) -> Candidates:
        """Twice as many proposals, again and again, until the best are settled; all rows settle them."""
        while True:
            wanted = self._proposals(subset, kept, 2 * wanted)
            one = self._pass(subset, query_1D, bound_1, kept, wanted)
            if one.settled_B[0]:
                return one.best


def _cuda_resources() -> Any:
    """What every GPU index of one owner shares: streams, cuBLAS handle and scratch memory.

    Raises:
        DeviceUnavailable: FAISS sees no GPU.
    """
    if not faiss_sees_gpu():
        raise DeviceUnavailable("FAISS sees no GPU (faiss.get_num_gpus() is 0); install opportune[gpu]")
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(CUDA_SCRATCH_BYTES)
    return resources


def _host_index(vectors_ND: F32, longest: float) -> Any:
    """A flat inner-product index over a copy of these vectors in half precision, or in full where half cannot.

    No number in a vector is larger than the vector is long, so the longest one's length tells.
    """
    if longest > LARGEST_HALF:
        index: Any = faiss.IndexFlatIP(vectors_ND.shape[1])
    else:
        index = faiss.IndexScalarQuantizer(
            vectors_ND.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
        )
    index.add(vectors_ND)
    return index


def _astray(index: Any, vectors_ND: F32) -> float:
    """The largest distance between a vector and the index's copy of it."""
    farthest = 0.0
    for start in range(0, len(vectors_ND), _ROWS_A_LOOK):
        some_ND = vectors_ND[start : start + _ROWS_A_LOOK]
        farthest = max(farthest, float(norms(index.reconstruct_n(start, len(some_ND)) - some_ND).max()))
    return farthest


def _gpu_index(vectors_ND: F32, resources: Any) -> Any:
    """A flat inner-product index in GPU memory over a copy of these vectors."""
    host = faiss.IndexFlatIP(vectors_ND.shape[1])
    host.add(np.ascontiguousarray(vectors_ND))
    config = faiss.GpuIndexFlatConfig()
    config.device = 0
    # A cuVS build would pick another kernel, whose arithmetic the rounding bound was not derived for.
    config.use_cuvs = False
    return faiss.GpuIndexFlatIP(resources, host, config)


def write_flat_index(vectors_ND: F32, path: Path) -> None:
    """Write the index over all these vectors for `FlatIndex` to read.

    Raises:
        InvalidInput: wrong shape or dtype, NaN or infinity.
    """
    vectors_ND = checked_vectors(vectors_ND)
    longest = largest_norm(vectors_ND, np.arange(len(vectors_ND)))
    faiss.write_index(_host_index(vectors_ND, longest), str(path))


def _read(path: Path, shape: tuple[int, ...]) -> Any:
    """The index stored there.

    Raises:
        CorruptBundle: it cannot be read, or is not such an index as `write_flat_index` writes, of this shape.
    """
    try:
        index: Any = faiss.read_index(str(path))
    except RuntimeError as error:
        raise CorruptBundle(path, f"not a readable FAISS index: {error}") from error
    kind, found = type(index).__name__, (index.ntotal, index.d)
    if kind not in _KINDS or index.metric_type != faiss.METRIC_INNER_PRODUCT or found != shape:
        raise CorruptBundle(path, f"expected {' or '.join(_KINDS)} of {shape}, found {kind} of {found}")
    return index


def _propose(index: Any, queries_BD: F32, wanted: int) -> tuple[F32, I64]:
    """FAISS' own scores, descending, and positions, both (B, P); wanted is below what the index holds."""
    return index.search(queries_BD, wanted)
