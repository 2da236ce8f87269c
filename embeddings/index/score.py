"""The one arithmetic of scores, and how far another float32 arithmetic may stray from it.

Shapes: B queries, N rows, D dimensions, K rows scored per query, P rows proposed per query.
"""

import math
from collections.abc import Callable

import numpy as np

from embeddings import kernel
from embeddings.catalogue.eligible import RowArray
from embeddings.errors import InvalidInput
from embeddings.index.base import F32, F64, I64

UNIT_ROUNDOFF = 2.0**-24
HALF_ROUNDOFF = 2.0**-11
SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)
LARGEST_HALF = 65_504.0
"""Beyond this a number has no half-precision neighbour."""
LARGEST_SCORE = float(np.finfo(np.float32).max) / 2
ROWS_A_LOOK = 65_536
"""How many rows a pass over the catalogue takes at a time, so that it needs no copy of it."""


def inner_products(queries_BD: F32, vectors_BKD: F32) -> F32:
    """Return scores (B, K): each query with its own K vectors, or all with the same where their first axis is 1.

    One sum in one fixed order for each pair, so a pair's score depends on that pair alone and not on how many others
    are scored with it. A matrix product promises no such thing: BLAS sums in another order for another shape. Both
    arrays must be C-contiguous.
    """
    return kernel.inner_products(queries_BD, vectors_BKD)


def best(queries_BD: F32, vectors_ND: F32, rows_BP: I64, kept: int) -> tuple[I64, F32]:
    """Return the best of the rows given for each query, and their scores, both (B, kept); descending, ties by row.

    Args:
        queries_BD: contiguous.
        vectors_ND: the catalogue's, N >= 1.
        rows_BP: in any order; -1 pads, which come out last.
        kept: at most P.
    """
    return kernel.best(queries_BD, vectors_ND, rows_BP, kept)


def norms(vectors_ND: F32 | F64) -> F64:
    """Return the Euclidean length of each row, in float64, where the squares of float32 cannot overflow."""
    # Cast in einsum's small buffers: a float64 copy of a catalogue would double what building an index takes.
    return np.sqrt(np.einsum("nd,nd->n", vectors_ND, vectors_ND, dtype=np.float64))


def max_norm(vectors_ND: F32, rows_N: RowArray | None = None) -> float:
    """Return the length of the longest vector; 0 if there is none.

    Args:
        vectors_ND: all vectors, or those of a set.
        rows_N: which catalogue rows they are; None for all, in their order.

    Raises:
        InvalidInput: a vector holds NaN or infinity; names the first such catalogue row.
    """
    largest = 0.0
    for start in range(0, len(vectors_ND), ROWS_A_LOOK):
        norms_M = norms(vectors_ND[start : start + ROWS_A_LOOK])
        finite_M = np.isfinite(norms_M)
        if not bool(finite_M.all()):
            place = start + int(np.argmin(finite_M))
            raise InvalidInput(
                "vectors", f"expected finite numbers; row {place if rows_N is None else rows_N[place]} is not"
            )
        largest = max(largest, float(norms_M.max()))
    return largest


def max_quantisation_error(vectors_ND: F32, copied: Callable[[int, F32], F32]) -> float:
    """Return the largest distance between a vector and its copy; 0 if there is no vector.

    Args:
        vectors_ND: looked at some rows at a time.
        copied: the copies of some of them, given the first one's row and the vectors themselves.
    """
    found = 0.0
    for start in range(0, len(vectors_ND), ROWS_A_LOOK):
        some_MD = vectors_ND[start : start + ROWS_A_LOOK]
        found = max(found, float(norms(copied(start, some_MD) - some_MD).max()))
    return found


def half_error(largest: float, dimensions: int) -> float:
    """Return the most that a vector up to this length differs from its copy in half precision, however that rounds.

    A number moves by less than 2**-10 of itself, or by the spacing of subnormals, 2**-24; none does where a number has
    no half-precision neighbour, as copies have full precision then.
    """
    return 0.0 if largest > LARGEST_HALF else 2.0**-10 * largest + math.sqrt(dimensions) * 2.0**-24


def refuse_overflow(query_norm: float, largest: float) -> None:
    """Refuse queries and vectors so long that an inner product could leave float32.

    Raises:
        InvalidInput: they are.
    """
    if query_norm * largest > LARGEST_SCORE:
        raise InvalidInput("queries", "expected inner products that fit float32; query or vectors are too long")


def rounding_bounds(queries_BD: F32, largest: float, error: float = 0.0, *, halved: bool = False) -> F64:
    """Return a bound (B,) on the difference of two float32 arithmetics, for any vector no longer than ``largest``.

    Summing D products in float32, in any order, with or without fused multiply-add, errs by at most
    ``g * sum |q_i v_i| <= g * |q| * |v|`` with ``g = D u / (1 - D u)`` and ``u = 2**-24`` (Higham, Accuracy
    and Stability of Numerical Algorithms, section 3.1, and Cauchy-Schwarz); two such sums differ by at most
    twice that. It holds for FAISS on the CPU (its own loops and BLAS) and on a GPU, where FAISS keeps cuBLAS
    from reducing precision. The last term covers hardware that flushes subnormal inputs, products or sums
    to zero. A thousandth is added for the rounding of the bound itself. Where one arithmetic works on copies at most
    ``error`` away from the vectors, ``|q| * error`` comes on top (Cauchy-Schwarz again).

    Args:
        queries_BD: float32, finite, not refused by `refuse_overflow`.
        largest: length of the longest vector.
        error: how far a copy lies from its vector, at most.
        halved: one arithmetic also rounds the query, scaled to a length between a half and one, to half precision. That
            moves a number by 2**-11 of itself, or by half the spacing of subnormals, 2**-25, which is at most
            2**-24 of the query: the query by (2**-11 + sqrt(D) 2**-24) |q|.
    """
    dimensions = queries_BD.shape[1]
    norms_B = norms(queries_BD)
    relative = dimensions * UNIT_ROUNDOFF / (1.0 - dimensions * UNIT_ROUNDOFF)
    moved = HALF_ROUNDOFF + math.sqrt(dimensions) * UNIT_ROUNDOFF if halved else 0.0
    flushed = 4.0 * dimensions * SMALLEST_NORMAL
    # (2 relative + moved) |q| largest + error |q| + flushed (1 + |q| + largest), by |q|: two array operations.
    a_query = (2.0 * relative + moved) * (largest + error) + error + flushed
    return norms_B * (1.001 * a_query) + 1.001 * flushed * (1.0 + largest)
