"""Implicit's ALS, iteration by iteration: how long each takes, and how good the factors are after it.

Letters: C customers, N products, K products of a ranking.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from implicit.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from benchmarks.fit.outcome import Reached
from embeddings.customer.history import Histories
from embeddings.device import Device
from embeddings.errors import DeviceUnavailable
from embeddings.metrics import ndcg_at

FACTORS, ITERATIONS, REGULARISATION = 64, 10, 0.05

Measure = Callable[[Any], float]


def course(matrix_CN: csr_matrix, device: Device, threads: int, measure: Measure | None) -> list[Reached]:
    """Fit ALS and return the progress after each iteration; its times leave measuring out.

    Args:
        matrix_CN: what customers had to do with, as counts.
        device: where to fit.
        threads: how many the CPU may use.
        measure: the quality of the model; None leaves it open.

    Raises:
        DeviceUnavailable: cuda was asked for, and implicit cannot use it: it would go to the CPU with a mere warning.
    """
    if device == "cuda":
        import implicit.gpu  # noqa: PLC0415 - it looks for a GPU when it is imported

        if not implicit.gpu.HAS_CUDA:
            raise DeviceUnavailable("implicit finds no CUDA device")
    model: Any = AlternatingLeastSquares(
        factors=FACTORS,
        regularization=REGULARISATION,
        iterations=ITERATIONS,
        use_gpu=device == "cuda",
        num_threads=threads,
        random_state=1,
    )
    found: list[Reached] = []

    def note(iteration: int, seconds: float, _loss: float | None) -> None:
        before = found[-1].seconds if found else 0.0
        found.append(Reached(iteration + 1, before + seconds, None if measure is None else measure(model)))

    with threadpool_limits(1, "blas"):  # implicit brings threads of its own; BLAS' would only get in their way
        model.fit(matrix_CN, show_progress=False, callback=note)
    return found


def ndcg_of_held_out(matrix_CN: csr_matrix, held_out: dict[int, set[int]], k: int) -> Measure:
    """Return a function that measures a model's mean NDCG of the first ``k`` products for some customers.

    It ranks all products but those that a customer had to do with in ``matrix_CN``.

    Args:
        matrix_CN: what the model was fitted on.
        held_out: by the customer's row, the rows of what is to be predicted.
        k: how many count.
    """
    rows = np.array(sorted(held_out))

    def measure(model: Any) -> float:
        ranked_CK, _ = model.recommend(rows, matrix_CN[rows], N=k, filter_already_liked_items=True)
        pairs = zip(ranked_CK.tolist(), rows.tolist(), strict=True)
        return float(np.mean([ndcg_at(ranking, held_out[row], k) for ranking, row in pairs]))

    return measure


def purchases(histories: Histories, products: int, until: int) -> csr_matrix:
    """Count each customer's purchase lines of each product before a moment, in seconds since 1970 UTC, (C, N)."""
    past = histories.before(until)
    owners = np.repeat(np.arange(len(past.customers)), np.diff(past.offsets))
    bought, _ = past.bought()
    columns: NDArray[np.int32] = past.events["product"][bought]
    shape = (len(past.customers), products)
    matrix = csr_matrix((np.ones(len(columns), np.float32), (owners[bought], columns)), shape=shape)
    matrix.sum_duplicates()
    return matrix
