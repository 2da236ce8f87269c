"""Flat copies of the catalogue's vectors on the CPU: made, written, and mapped into memory.

Copies are of half precision: half the memory, and a third less time, as a scan waits for memory. Where half precision
cannot hold the numbers they are of full precision. A set's own copy is `kernel.Copy`.

Shapes: B queries, N rows, D dimensions, P rows proposed per query.
"""

import sys
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from embeddings import kernel
from embeddings.catalogue.eligible import RowArray
from embeddings.errors import CorruptBundle
from embeddings.index.base import F32, I64, checked_vectors
from embeddings.index.score import farthest, largest_norm

# Beyond this a number has no half-precision neighbour.
LARGEST_HALF = 65_504.0
_ROWS_FOR_AXES = 65_536
_KINDS = (faiss.IndexScalarQuantizer.__name__, faiss.IndexFlatIP.__name__)
_faiss: Any = faiss  # its type hints know the C++ constructors only


class HostCopies:
    """One flat FAISS index over copies of all vectors, and what sets' own copies are made from.

    Attributes:
        whole: the index over all rows.
        longest: length of the longest vector.
        astray: how far a copy lies from its vector, at most.
        axes_DD: what sets' own copies are turned by.
    """

    halved = False
    """Queries are not rounded."""

    most = sys.maxsize
    """Any number of rows can be proposed."""

    def __init__(self, vectors_ND: F32, stored: Path | None) -> None:
        """Copy these vectors, or map the copies that `write_flat_index` wrote of them.

        Raises:
            InvalidInput: NaN or infinity in a vector.
            CorruptBundle: what is stored cannot be read, or does not fit the vectors.
        """
        self._vectors_ND = vectors_ND
        self.longest = largest_norm(vectors_ND)
        self.axes_DD = principal_axes(vectors_ND, self.longest)
        self.whole = (
            flat_index(vectors_ND, self.longest) if stored is None else read_mapped(stored, _KINDS, vectors_ND.shape)
        )
        self.astray = farthest(vectors_ND, lambda start, some_MD: self.whole.reconstruct_n(start, len(some_MD)))

    def gathered(self, rows_N: RowArray) -> kernel.Copy:
        """A set's own copy."""
        return kernel.Copy(self._vectors_ND.take(rows_N, axis=0) @ self.axes_DD, rows_N, len(self._vectors_ND))

    def bytes_of(self, rows_N: RowArray) -> int:
        """What that copy would take."""
        return kernel.Copy.bytes_of(len(rows_N), self._vectors_ND.shape[1])

    def propose(self, index: Any, queries_BD: F32, proposals: int, parameters: Any = None) -> tuple[F32, I64]:
        """FAISS' own scores, descending, and positions, both (B, P); P is at most what can be found."""
        queries = len(queries_BD)
        scores_BP, places_BP = np.empty((queries, proposals), np.float32), np.empty((queries, proposals), np.int64)
        # What FAISS' own wrapper does after its checks, which cost a third of a small search.
        index.search_c(
            queries,
            faiss.swig_ptr(queries_BD),
            proposals,
            faiss.swig_ptr(scores_BP),
            faiss.swig_ptr(places_BP),
            parameters,
        )
        return scores_BP, places_BP

    def most_proposals(self, kept: int, wanted: int) -> int:
        """How many rows to propose where this many are wanted: on the CPU as many."""
        del kept
        return wanted


def principal_axes(vectors_ND: F32, longest: float) -> F32:
    """Orthonormal axes (D, D), one a column, of the moments of vectors about zero: the first ones hold most of them.

    Whatever they are, turned by them inner products remain what they are; how soon a scan can tell that a row is too
    far is all that depends on them. So some of the rows will do, and vectors so long that turning them might overflow
    are left as they are.
    """
    dimensions = vectors_ND.shape[1]
    if longest > np.finfo(np.float32).max / dimensions:
        return np.eye(dimensions, dtype=np.float32)
    some_MD = vectors_ND[:: max(1, len(vectors_ND) // _ROWS_FOR_AXES)].astype(np.float64)
    _, ascending_DD = np.linalg.eigh(some_MD.T @ some_MD)
    return np.ascontiguousarray(ascending_DD[:, ::-1], np.float32)


def flat_index(vectors_ND: F32, longest: float) -> Any:
    """A flat inner-product index over a copy of these vectors in half precision, or in full where half cannot.

    No number in a vector is larger than the vector is long, so the longest one's length tells.
    """
    index = _empty(vectors_ND.shape[1], longest > LARGEST_HALF)
    index.add(vectors_ND)
    return index


def write_flat_index(vectors_ND: F32, path: Path) -> None:
    """Write the index over all these vectors for `HostCopies` to map.

    Raises:
        InvalidInput: wrong shape or dtype, NaN or infinity.
    """
    vectors_ND = checked_vectors(vectors_ND)
    write_index(flat_index(vectors_ND, largest_norm(vectors_ND)), path)


def write_index(index: Any, path: Path) -> None:
    """Write an index for `read_mapped`.

    FAISS hands the bytes to Python: where its own writer cannot write the last of them, it raises nothing.
    """
    with path.open("wb") as file:
        _faiss.write_index(index, _faiss.PyCallbackIOWriter(file.write))


def read_mapped(path: Path, kinds: tuple[str, ...], shape: tuple[int, ...]) -> Any:
    """The index stored there; its copies are mapped, so that processes share them.

    Raises:
        CorruptBundle: it cannot be read, or is not an inner-product index of one of these kinds and of this shape.
    """
    try:
        index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise CorruptBundle(path, "not a readable FAISS index", str(error)) from error
    kind, found = type(index).__name__, (index.ntotal, index.d)
    if kind not in kinds or index.metric_type != faiss.METRIC_INNER_PRODUCT or found != shape:
        raise CorruptBundle(path, f"expected {' or '.join(kinds)} of {shape}, found {kind} of {found}")
    return index


def _empty(dimensions: int, full: bool) -> Any:
    if full:
        return _faiss.IndexFlatIP(dimensions)
    return _faiss.IndexScalarQuantizer(dimensions, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
