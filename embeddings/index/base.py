"""The contract of every index: what is asked, what comes back, what is refused.

Shapes: B queries, N rows (of the catalogue, or of the set searched), D dimensions, K results per query.
"""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from embeddings.eligible import EligibleSet
from embeddings.errors import InvalidInput

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

PAD_ROW = -1
PAD_SCORE = -np.inf


class Candidates(NamedTuple):
    """The best rows for each query, best first.

    Attributes:
        rows_BK: catalogue rows, int64, each once a query; -1 pads where the set holds fewer than K rows.
        scores_BK: inner products, float32, descending, equal scores by ascending row; -inf pads.
    """

    rows_BK: I64
    scores_BK: F32


class CandidateIndex(Protocol):
    """Finds the rows of an eligible set with the largest inner product, exactly.

    Exactly means: every implementation on every device gives the same rows and bitwise the same scores as
    `ExactIndex`, and a query gives the same answer alone as in any batch.
    """

    def search(self, queries_BD: F32, k: int, eligible: EligibleSet | None) -> Candidates:
        """The k best rows of the set for every query.

        Args:
            queries_BD: float32, finite. B may be 0.
            k: how many; at least 1. More than the set holds is padded.
            eligible: the rows to choose from; None means every row. Its ``valid_until`` is the caller's to
                watch.

        Raises:
            InvalidInput: wrong shape, dtype or k; NaN or infinity in the queries or in the vectors of the
                set; rows outside the catalogue; vectors so long that an inner product could leave float32.
            UnsupportedSearch: this index cannot answer this exactly.
        """
        ...


def checked_vectors(vectors_ND: F32) -> F32:
    """The catalogue's vectors as a plain read-only array, without reading them: a memory map stays on disk.

    Raises:
        InvalidInput: not a C-contiguous float32 array (N, D) with D >= 1. Whether the numbers are finite is
            checked when rows are gathered.
    """
    if vectors_ND.ndim != 2 or vectors_ND.dtype != np.float32 or vectors_ND.shape[1] < 1:
        raise InvalidInput("vectors", f"expected float32 (N, D) with D >= 1, not {vectors_ND.dtype} {vectors_ND.shape}")
    if not vectors_ND.flags.c_contiguous:
        raise InvalidInput("vectors", "expected a C-contiguous array")
    # np.memmap's own indexing costs several microseconds a call: keep its buffer, drop its class.
    plain_ND = vectors_ND.view(np.ndarray)
    plain_ND.flags.writeable = False
    return plain_ND


def checked_queries(queries_BD: F32, dimensions: int) -> F32:
    """The queries as a contiguous array.

    Raises:
        InvalidInput: not float32 (B, D) with D of the catalogue, or not finite.
    """
    if queries_BD.ndim != 2 or queries_BD.dtype != np.float32 or queries_BD.shape[1] != dimensions:
        raise InvalidInput("queries", f"expected float32 (B, {dimensions}), not {queries_BD.dtype} {queries_BD.shape}")
    if not bool(np.isfinite(queries_BD).all()):
        raise InvalidInput("queries", "expected finite numbers, not NaN or infinity")
    return np.ascontiguousarray(queries_BD)


def checked_k(k: int) -> int:
    """The k asked for.

    Raises:
        InvalidInput: k is below 1.
    """
    if k < 1:
        raise InvalidInput("k", f"expected at least 1, not {k}")
    return k


def checked_rows(eligible: EligibleSet, catalogue_rows: int) -> I64:
    """The set's rows as int64.

    Raises:
        InvalidInput: a row lies outside the catalogue, as when the set was made from another bundle.
    """
    rows_N = eligible.rows_N
    if rows_N.size and not 0 <= rows_N[0] <= rows_N[-1] < catalogue_rows:
        raise InvalidInput(
            "eligible.rows", f"expected rows from 0 to {catalogue_rows - 1}, not {rows_N[0]} to {rows_N[-1]}"
        )
    return rows_N.astype(np.int64)


def padded(queries: int, k: int) -> Candidates:
    """Candidates that are all pads, to be filled."""
    return Candidates(
        np.full((queries, k), PAD_ROW, dtype=np.int64), np.full((queries, k), PAD_SCORE, dtype=np.float32)
    )
