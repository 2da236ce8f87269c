"""The vectors by which products are similar."""

import numpy as np

from embeddings.arrays import of_length_one
from training.similar import similar_vectors

D, N = 8, 60
KINDS = np.arange(N) % 3


def described(random: np.random.Generator, spread: float = 0.01) -> np.ndarray:
    """What the attributes of three kinds of products say, and little besides."""
    kinds_KD = random.standard_normal((3, D)) + 5
    return (kinds_KD[KINDS] + spread * random.standard_normal((N, D))).astype(np.float32)


def of_same_kind(units_ND: np.ndarray) -> float:
    """The share of products whose nearest other one is of their kind."""
    cosines_NN = units_ND @ units_ND.T
    np.fill_diagonal(cosines_NN, -np.inf)
    return float(np.mean(KINDS[cosines_NN.argmax(axis=1)] == KINDS))


def test_products_that_hardly_anybody_bought_are_like_what_their_attributes_are_like() -> None:
    random = np.random.default_rng(1)
    described_ND = described(random)
    vectors_ND = described_ND + 3 * random.standard_normal((N, D)).astype(np.float32)
    few, many = (similar_vectors(vectors_ND, described_ND, np.full(N, count, np.float32)) for count in (2, 100_000))
    assert of_same_kind(few.units_ND) == 1
    # Of what everybody buys, sales say it all.
    assert of_same_kind(many.units_ND) < 0.7
    np.testing.assert_allclose(many.units_ND, of_length_one(vectors_ND - many.origin_D), atol=2e-3)
    assert few.units_ND.dtype == few.origin_D.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(few.units_ND, axis=1), 1, rtol=1e-5)


def test_attributes_that_are_the_same_for_all_say_nothing() -> None:
    random = np.random.default_rng(2)
    described_ND = np.repeat(random.standard_normal((1, D)).astype(np.float32), N, axis=0)
    vectors_ND = described_ND + random.standard_normal((N, D)).astype(np.float32)
    buyers_N = np.where(np.arange(N) < 10, 0, 1).astype(np.float32)
    found = similar_vectors(vectors_ND, described_ND, buyers_N)
    assert not found.units_ND[:10].any()  # of these nothing is known at all
    np.testing.assert_allclose(found.units_ND[10:], of_length_one(vectors_ND - found.origin_D)[10:], atol=1e-5)


def test_without_any_sale_attributes_say_it_all() -> None:
    described_ND = described(np.random.default_rng(3))
    found = similar_vectors(np.full((N, D), 7, np.float32), described_ND, np.zeros(N, np.float32))
    assert of_same_kind(found.units_ND) == 1
