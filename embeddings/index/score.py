"""The one arithmetic of scores, and how far another float32 arithmetic may stray from it.

Shapes: B queries, N rows, D dimensions, K rows scored per query.
"""

import numpy as np

from embeddings.errors import InvalidInput
from embeddings.index.base import F32, F64, I64

UNIT_ROUNDOFF = 2.0**-24
SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)
LARGEST_SCORE = float(np.finfo(np.float32).max) / 2


def inner_products(queries_BD: F32, vectors_BKD: F32) -> F32:
    """Scores (B, K): every query with its own K vectors, or all with the same where their first axis is 1.

    `np.vecdot` runs one dot product over the contiguous last axis for each pair, so a pair's score depends on
    that pair alone and not on how many others are scored with it. A matrix product promises no such thing:
    BLAS sums in another order for another shape. Both arrays must be C-contiguous.
    """
    return np.vecdot(vectors_BKD, queries_BD[:, None, :])


def norms(vectors_ND: F32) -> F64:
    """Euclidean length of each row, in float64, where the squares of float32 cannot overflow."""
    # Cast in einsum's small buffers: a float64 copy of a catalogue would double what building an index takes.
    return np.sqrt(np.einsum("nd,nd->n", vectors_ND, vectors_ND, dtype=np.float64))


def largest_norm(vectors_ND: F32, rows_N: I64) -> float:
    """Length of the longest vector of a set; 0 for an empty set.

    Raises:
        InvalidInput: a vector holds NaN or infinity; names the first such catalogue row.
    """
    norms_N = norms(vectors_ND)
    finite_N = np.isfinite(norms_N)
    if not bool(finite_N.all()):
        raise InvalidInput("vectors", f"expected finite numbers; row {rows_N[np.argmin(finite_N)]} is not")
    return float(norms_N.max(initial=0.0))


def rounding_bounds(queries_BD: F32, longest: float, astray: float = 0.0) -> F64:
    """How far two float32 arithmetics may differ, for each query and any vector no longer than ``longest``.

    Summing D products in float32, in any order, with or without fused multiply-add, errs by at most
    ``g * sum |q_i v_i| <= g * |q| * |v|`` with ``g = D u / (1 - D u)`` and ``u = 2**-24`` (Higham, Accuracy
    and Stability of Numerical Algorithms, section 3.1, and Cauchy-Schwarz); two such sums differ by at most
    twice that. It holds for FAISS on the CPU (its own loops and BLAS) and on a GPU, where FAISS keeps cuBLAS
    from reducing precision. The last term covers hardware that flushes subnormal inputs, products or sums
    to zero. A thousandth is added for the rounding of the bound itself. Where one arithmetic works on copies at most
    ``astray`` away from the vectors, ``|q| * astray`` comes on top (Cauchy-Schwarz again).

    Raises:
        InvalidInput: an inner product could leave float32.
    """
    dimensions = queries_BD.shape[1]
    norms_B = norms(queries_BD)
    if norms_B.max(initial=0.0) * longest > LARGEST_SCORE:
        raise InvalidInput("queries", "expected inner products that fit float32; query or vectors are too long")
    relative = dimensions * UNIT_ROUNDOFF / (1.0 - dimensions * UNIT_ROUNDOFF)
    flushed = 4.0 * dimensions * SMALLEST_NORMAL
    # 2 relative |q| longest + astray |q| + flushed (1 + |q| + longest), gathered by |q|: two array operations.
    a_query = 2.0 * relative * (longest + astray) + astray + flushed
    return norms_B * (1.001 * a_query) + 1.001 * flushed * (1.0 + longest)
