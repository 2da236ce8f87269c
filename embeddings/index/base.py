"""The contract of every index: what is asked, what comes back, what is refused.

Shapes: B queries, N rows (of the catalogue, or of the set searched), D dimensions, K results per query.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from embeddings import kernel
from embeddings.catalogue.eligible import EligibleSet
from embeddings.errors import InvalidInput

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

PAD_ROW = -1
PAD_SCORE = -np.inf

Plan: TypeAlias = Literal["exact", "brute_force", "own", "masked", "whole", "ivf", "flat"]
"""How a query was answered.

``exact``: by the oracle. ``brute_force``: every row of the set was scored. ``own``: a scan of the set's own copy.
``masked``: a scan of the copy of the set that this one is a part of, which passes over the other rows. ``whole``: a
scan of the copy of the whole catalogue, which passes over rows that are not of the set. ``ivf``: a scan of the cells of
the inverted file that may hold one of the best. ``flat``: a scan of the whole catalogue on a GPU.
"""


class Candidates(NamedTuple):
    """The best rows for each query, best first.

    Attributes:
        rows_BK: catalogue rows, int64, each once a query; -1 pads where the set holds fewer than K rows.
        scores_BK: inner products, float32, descending, equal scores by ascending row; -inf pads.
        plans_B: how each query was answered; never changes the answer.
    """

    rows_BK: I64
    scores_BK: F32
    plans_B: tuple[Plan, ...]


class CandidateIndex(Protocol):
    """Finds the rows of an eligible set with the largest inner product, exactly.

    Exactly means: every implementation on every device gives the same rows and bitwise the same scores as
    `ExactIndex`, and a query gives the same answer alone as in any batch.
    """

    def search(self, queries_BD: F32, k: int, eligible_B: Sequence[EligibleSet | None]) -> Candidates:
        """Return the k best rows for every query, each from its own eligible set.

        Args:
            queries_BD: float32, finite. B may be 0.
            k: how many; at least 1. More than the set holds is padded.
            eligible_B: for each query the rows to choose from; None means every row. Their ``valid_until`` is
                the caller's to watch.

        Raises:
            InvalidInput: wrong shape, dtype or k; not as many sets as queries; NaN or infinity in the queries, or in
                the vectors where they were not refused at construction; rows outside the catalogue; vectors so
                long that an inner product could leave float32, be it of the sets asked for or of the catalogue.
            UnsupportedSearch: this index cannot answer this exactly.
        """
        ...


def checked_vectors(vectors_ND: F32, fewest: int = 0) -> F32:
    """Return the catalogue's vectors as a plain read-only array, without reading them: a memory map stays on disk.

    Raises:
        InvalidInput: not a C-contiguous float32 array (N, D) with D >= 1 and N >= ``fewest``. Whether the numbers are
            finite is not checked here.
    """
    if vectors_ND.ndim != 2 or vectors_ND.dtype != np.float32 or vectors_ND.shape[1] < 1:
        raise InvalidInput("vectors", f"expected float32 (N, D) with D >= 1, not {vectors_ND.dtype} {vectors_ND.shape}")
    if len(vectors_ND) < fewest:
        raise InvalidInput("vectors", f"expected at least {fewest} rows, not {len(vectors_ND)}")
    if not vectors_ND.flags.c_contiguous:
        raise InvalidInput("vectors", "expected a C-contiguous array")
    # np.memmap's own indexing costs several microseconds a call: keep its buffer, drop its class.
    plain_ND = vectors_ND.view(np.ndarray)
    plain_ND.flags.writeable = False
    return plain_ND


def checked_queries(queries_BD: F32, dimensions: int, sets: int) -> tuple[F32, float]:
    """Return the queries as a contiguous array, and the Euclidean length of the longest.

    Raises:
        InvalidInput: not float32 (B, D) with D of the catalogue, not finite, or not as many as sets.
    """
    if queries_BD.ndim != 2 or queries_BD.dtype != np.float32 or queries_BD.shape[1] != dimensions:
        raise InvalidInput("queries", f"expected float32 (B, {dimensions}), not {queries_BD.dtype} {queries_BD.shape}")
    queries_BD = np.ascontiguousarray(queries_BD)
    norm = kernel.max_norm(queries_BD)
    if math.isinf(norm):
        raise InvalidInput("queries", "expected finite numbers, not NaN or infinity")
    if len(queries_BD) != sets:
        raise InvalidInput("eligible", f"expected a set, or None, for each of {len(queries_BD)} queries, not {sets}")
    return queries_BD, norm


def checked_k(k: int) -> int:
    """Return k if it is valid.

    Raises:
        InvalidInput: k is below 1.
    """
    if k < 1:
        raise InvalidInput("k", f"expected at least 1, not {k}")
    return k


def check_rows(eligible: EligibleSet, catalogue_rows: int) -> None:
    """Refuse an eligible set of another catalogue.

    Raises:
        InvalidInput: a row lies outside the catalogue, as when the set was made from another bundle.
    """
    if eligible.past > catalogue_rows:
        raise InvalidInput(
            "eligible.rows", f"expected rows from 0 to {catalogue_rows - 1}, not up to {eligible.past - 1}"
        )


def grouped(eligible_B: Sequence[EligibleSet | None]) -> list[tuple[EligibleSet | None, list[int]]]:
    """Return each distinct set with the places of its queries, in the order of each set's first query."""
    if len(eligible_B) == 1:  # at once, as many queries come alone
        return [(eligible_B[0], [0])]
    groups: dict[bytes | int | None, tuple[EligibleSet | None, list[int]]] = {}
    for place, eligible in enumerate(eligible_B):
        key = None if eligible is None else id(eligible) if eligible.own else eligible.fingerprint
        group = groups.get(key)
        if group is None:
            groups[key] = (eligible, [place])
        else:
            group[1].append(place)
    return list(groups.values())


def padded(queries: int, k: int) -> tuple[I64, F32]:
    """Return rows and scores (B, K) that hold only pads, for the caller to fill."""
    return np.full((queries, k), PAD_ROW, dtype=np.int64), np.full((queries, k), PAD_SCORE, dtype=np.float32)


def joined(found: Candidates, rows_BK: I64, scores_BK: F32, k: int) -> tuple[I64, F32]:
    """Return the best k among candidates and other rows: the largest scores, ties by row."""
    all_BJ = np.concatenate([found.rows_BK, rows_BK], axis=1)
    scores_BJ = np.concatenate([found.scores_BK, scores_BK], axis=1)
    # Pads come last: their scores are the least there are.
    best_BK = np.lexsort((all_BJ, -scores_BJ), axis=1)[:, :k]
    return np.take_along_axis(all_BJ, best_BK, axis=1), np.take_along_axis(scores_BJ, best_BK, axis=1)
