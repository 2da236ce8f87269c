"""The one arithmetic of scores, and the bounds on how far another may stray."""

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from embeddings.errors import InvalidInput
from embeddings.index.score import best, inner_products, max_norm, rounding_bounds


@pytest.mark.parametrize("dimensions", [1, 2, 3, 7, 8, 16, 31, 64, 65, 100, 128, 129, 300])
def test_a_score_depends_on_its_own_pair_alone(dimensions: int):
    rng = np.random.default_rng(dimensions)
    vectors_ND = rng.standard_normal((301, dimensions)).astype(np.float32)
    queries_BD = rng.standard_normal((5, dimensions)).astype(np.float32)
    together_BN = inner_products(queries_BD, vectors_ND[None])
    np.testing.assert_array_equal(together_BN, inner_products(queries_BD, np.repeat(vectors_ND[None], 5, 0)))
    for n in range(301):
        alone_B1 = inner_products(queries_BD, vectors_ND[None, n : n + 1].copy())
        np.testing.assert_array_equal(alone_B1[:, 0], together_BN[:, n])


@pytest.mark.parametrize("dimensions", [1, 8, 64, 300])
@pytest.mark.parametrize("size", [1e-22, 1e-3, 1.0, 1e15])
def test_faiss_stays_within_the_rounding_bound(dimensions: int, size: float):
    rng = np.random.default_rng(dimensions)

    def draw(count: int) -> npt.NDArray[np.float32]:
        return (size * rng.standard_normal((count, dimensions))).astype(np.float32)

    vectors_ND, queries_BD = draw(500), draw(30)
    index = faiss.IndexFlatIP(dimensions)
    index.add(vectors_ND)
    scores_BN, rows_BN = index.search(queries_BD, 500)
    ours_BN = np.take_along_axis(inner_products(queries_BD, vectors_ND[None]), rows_BN, axis=1)
    longest = float(np.linalg.norm(vectors_ND.astype(np.float64), axis=1).max())
    bounds_B = rounding_bounds(queries_BD, longest)
    assert (np.abs(scores_BN.astype(np.float64) - ours_BN) <= bounds_B[:, None]).all()


@pytest.mark.parametrize("dimensions", [1, 8, 64, 300])
@pytest.mark.parametrize("size", [1e-12, 1e-3, 1.0, 1e6])
def test_rounding_the_query_to_half_precision_stays_within_the_bound(dimensions: int, size: float):
    """As FAISS does on a GPU, with queries scaled as `DeviceCopies` scales them."""
    rng = np.random.default_rng(dimensions)
    vectors_ND = rng.standard_normal((300, dimensions)).astype(np.float32)
    queries_BD = (size * rng.standard_normal((30, dimensions)) * 10 ** rng.uniform(-9, 0, dimensions)).astype(
        np.float32
    )
    lengths_B1 = np.linalg.norm(queries_BD.astype(np.float64), axis=1, keepdims=True)
    _, exponents_B1 = np.frexp(lengths_B1)
    rounded_BD = np.ldexp(queries_BD, -exponents_B1).astype(np.float16).astype(np.float64)
    copies_ND = vectors_ND.astype(np.float16).astype(np.float64)
    scores_BN = np.ldexp(rounded_BD @ copies_ND.T, exponents_B1)
    error = float(np.linalg.norm(copies_ND - vectors_ND, axis=1).max())
    longest = max_norm(vectors_ND)
    strays_BN = np.abs(scores_BN - inner_products(queries_BD, vectors_ND[None]))
    assert (strays_BN <= rounding_bounds(queries_BD, longest, error, halved=True)[:, None]).all()
    if dimensions == 1:  # where the bound is tight, the term is needed
        assert (strays_BN > rounding_bounds(queries_BD, longest)[:, None]).any()


def test_pads_come_out_last():
    vectors_ND = np.array([[1.0], [-5.0], [3.0]], np.float32)
    rows_BP = np.array([[-1, -1, 1], [-1, 0, 2], [0, 1, 2]])
    rows_BK, scores_BK = best(np.ones((3, 1), np.float32), vectors_ND, rows_BP, 2)
    np.testing.assert_array_equal(rows_BK, [[1, -1], [2, 0], [2, 0]])
    np.testing.assert_array_equal(scores_BK, [[-5, -np.inf], [3, 1], [3, 1]])


def test_the_first_vector_that_is_not_finite_is_named_wherever_it_stands():
    vectors_ND = np.zeros((70_000, 1), np.float32)
    assert max_norm(vectors_ND) == max_norm(vectors_ND[:0]) == 0
    vectors_ND[[66_000, 69_000]] = np.nan
    with pytest.raises(InvalidInput, match="row 66000 "):
        max_norm(vectors_ND)
