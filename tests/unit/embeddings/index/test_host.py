"""Search on the CPU: numbers of every size, and the rotation of its copies."""

import numpy as np
import pytest

from embeddings.index.exact import ExactIndex
from embeddings.index.host import principal_rotation
from embeddings.index.planned import PlannedIndex
from embeddings.index.score import max_norm


def test_vectors_that_eight_bits_cannot_tell_apart_are_told_apart():
    rng = np.random.default_rng(5)
    vectors_ND = np.tile(rng.standard_normal(16).astype(np.float32), (900, 1))
    vectors_ND *= 1 + np.arange(900, dtype=np.float32)[:, None] * 1e-7
    queries_BD = rng.standard_normal((3, 16)).astype(np.float32)
    found = PlannedIndex(vectors_ND, "cpu").search(queries_BD, 20, [None] * 3)
    expected = ExactIndex(vectors_ND).search(queries_BD, 20, [None] * 3)
    np.testing.assert_array_equal(found.rows_BK, expected.rows_BK)
    assert found.scores_BK.tobytes() == expected.scores_BK.tobytes()


@pytest.mark.parametrize("size", [1e-9, 1e-4, 1.0, 300.0, 7e4, 1e9])
def test_every_size_of_numbers_is_searched_exactly(size: float):
    rng = np.random.default_rng(6)
    vectors_ND = (size * rng.standard_normal((700, 16))).astype(np.float32)
    queries_BD = rng.standard_normal((4, 16)).astype(np.float32)
    found = PlannedIndex(vectors_ND, "cpu").search(queries_BD, 20, [None] * 4)
    expected = ExactIndex(vectors_ND).search(queries_BD, 20, [None] * 4)
    np.testing.assert_array_equal(found.rows_BK, expected.rows_BK)


@pytest.mark.parametrize("rows", [0, 1, 5, 200_000])
def test_a_rotation_is_orthonormal_and_its_first_axes_hold_the_most(rows: int):
    random = np.random.default_rng(rows)
    spread_D = np.array([1, 5, 0.5, 3, 0.1, 2], np.float32)
    vectors_ND = random.standard_normal((rows, 6)).astype(np.float32) * spread_D
    rotation_DD = principal_rotation(vectors_ND, max_norm(vectors_ND))
    np.testing.assert_allclose(rotation_DD.T @ rotation_DD, np.eye(6), atol=1e-6)
    if rows > 5:
        held_D = ((vectors_ND @ rotation_DD) ** 2).mean(axis=0)
        np.testing.assert_allclose(held_D, np.sort(spread_D**2)[::-1], rtol=0.05)


def test_vectors_that_rotating_might_overflow_are_left_as_they_are():
    vectors_ND = np.full((3, 4), 1e38, np.float32)
    np.testing.assert_array_equal(principal_rotation(vectors_ND, max_norm(vectors_ND)), np.eye(4))
