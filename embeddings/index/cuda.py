"""Flat copies of the catalogue's vectors in GPU memory, with the interface of `HostCopies`.

FAISS on a GPU accepts an ID selector and ignores it, so what it scans is the whole catalogue or a set's own copy.

Shapes: B queries, N rows, D dimensions, P rows proposed per query.
"""

from typing import Any, NamedTuple

import faiss
import numpy as np

from embeddings.catalogue.eligible import RowArray
from embeddings.device import faiss_sees_gpu
from embeddings.errors import DeviceUnavailable, UnsupportedSearch
from embeddings.index.base import F32, I64
from embeddings.index.flat import LARGEST_HALF
from embeddings.index.score import farthest, largest_norm, norms

# The largest k that classic FAISS GPU search selects.
CUDA_MAX_K = 2_048
# FAISS reserves up to 1.5 GiB of scratch by default; one tile of scores needs far less.
CUDA_SCRATCH_BYTES = 256 * 2**20


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


class DeviceCopies:
    """Flat indexes in GPU memory, in half precision where that can hold the numbers.

    With half-precision copies FAISS rounds the query to half precision too. So that no number of it overflows there,
    and none that matters is lost, queries are scaled by a power of two to a length between a half and one, and scores
    back: both are exact, but for numbers so small that the rounding bound covers them.

    Attributes:
        whole: the index over all rows.
        longest: length of the longest vector.
        astray: how far a copy lies from its vector, at most.
        halved: whether queries are rounded to half precision.
    """

    axes_DD = None
    """Sets' own copies are not turned."""

    most = CUDA_MAX_K
    """How many rows can be proposed."""

    def __init__(self, vectors_ND: F32) -> None:
        """Copy these vectors to the GPU.

        Raises:
            DeviceUnavailable: FAISS sees no GPU.
            InvalidInput: NaN or infinity in a vector.
        """
        self._resources = cuda_resources()
        self._vectors_ND = vectors_ND
        self.longest = largest_norm(vectors_ND)
        self.halved = self.longest <= LARGEST_HALF
        self.astray = farthest(vectors_ND, _rounded) if self.halved else 0.0
        self.whole = gpu_index(vectors_ND, self._resources, self.halved)

    def gathered(self, rows_N: RowArray) -> Gathered:
        """A set's own copy."""
        index = gpu_index(self._vectors_ND.take(rows_N, axis=0), self._resources, self.halved)
        return Gathered(rows_N, index, self.bytes_of(rows_N))

    def bytes_of(self, rows_N: RowArray) -> int:
        """What that copy would take."""
        return rows_N.size * self._vectors_ND.shape[1] * (2 if self.halved else 4) + rows_N.nbytes

    def propose(self, index: Any, queries_BD: F32, proposals: int, parameters: Any = None) -> tuple[F32, I64]:
        """FAISS' own scores, descending, and positions, both (B, P); P is at most what can be found.

        Raises:
            UnsupportedSearch: parameters, which FAISS would ignore here.
        """
        if parameters is not None:
            raise UnsupportedSearch("FAISS ignores a selection of rows on cuda")
        if not self.halved:
            return index.search(queries_BD, proposals)
        _, exponents_B = np.frexp(norms(queries_BD))
        scores_BP, places_BP = index.search(np.ldexp(queries_BD, -exponents_B[:, None]), proposals)
        return np.ldexp(scores_BP, exponents_B[:, None]), places_BP

    def most_proposals(self, kept: int, wanted: int) -> int:
        """How many rows to propose where this many are wanted: as many, or as many as FAISS selects on a GPU.

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
    """What every GPU index of one owner shares: streams, cuBLAS handle and scratch memory.

    Raises:
        DeviceUnavailable: FAISS sees no GPU.
    """
    if not faiss_sees_gpu():
        raise DeviceUnavailable("FAISS sees no GPU (faiss.get_num_gpus() is 0); install opportune[gpu]")
    resources = faiss.StandardGpuResources()
    resources.setTempMemory(CUDA_SCRATCH_BYTES)
    return resources


def gpu_index(vectors_ND: F32, resources: Any, halved: bool) -> Any:
    """A flat inner-product index in GPU memory over a copy of these vectors."""
    config = faiss.GpuIndexFlatConfig()
    config.device = 0
    config.useFloat16 = halved
    # A cuVS build would pick another kernel, whose arithmetic the rounding bound was not derived for.
    config.use_cuvs = False
    index = faiss.GpuIndexFlatIP(resources, vectors_ND.shape[1], config)
    index.add(vectors_ND)
    return index


def _rounded(_: int, vectors_ND: F32) -> F32:
    """The nearest half-precision numbers, which FAISS copies."""
    return vectors_ND.astype(np.float16).astype(np.float32)
