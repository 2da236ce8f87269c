"""Flat copies on the CPU: their precision, and what is stored of them."""

from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from embeddings.errors import CorruptBundle, InvalidInput
from embeddings.index.exact import ExactIndex
from embeddings.index.flat import HostCopies, principal_axes, write_flat_index
from embeddings.index.planned import PlannedIndex
from embeddings.index.score import inner_products, largest_norm, rounding_bounds

VECTORS_ND = np.random.default_rng(2).standard_normal((6_000, 16)).astype(np.float32)
QUERIES_BD = np.random.default_rng(3).standard_normal((4, 16)).astype(np.float32)


def stored(folder: Path, vectors_ND: npt.NDArray[np.float32] = VECTORS_ND) -> Path:
    write_flat_index(vectors_ND, folder / "products.faiss")
    return folder / "products.faiss"


@pytest.mark.parametrize("size", [1.0, 1e5])
@pytest.mark.parametrize("on_disk", [True, False])
def test_precision_is_halved_where_that_can_hold_the_numbers(on_disk: bool, size: float, tmp_path: Path):
    vectors_ND = (size * VECTORS_ND).astype(np.float32)
    copies = HostCopies(vectors_ND, stored(tmp_path, vectors_ND) if on_disk else None)
    assert copies.whole.code_size == (32 if size == 1 else 64)
    assert (copies.astray > 0) == (size == 1)


def test_a_stored_index_is_mapped_and_not_read(tmp_path: Path):
    path = stored(tmp_path)
    copies = HostCopies(VECTORS_ND, path)
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    assert len(mapped) == 1
    assert mapped[0].split()[1].startswith("r-")
    path.unlink()  # as when the release is pruned while it still answers
    scores_BP, rows_BP = copies.propose(copies.whole, QUERIES_BD, 10)
    np.testing.assert_array_equal(rows_BP, HostCopies(VECTORS_ND, None).whole.search(QUERIES_BD, 10)[1])
    assert (np.diff(scores_BP) <= 0).all()


def test_a_stored_index_that_does_not_fit_is_refused_by_name(tmp_path: Path):
    path = stored(tmp_path, VECTORS_ND[:-1])
    with pytest.raises(CorruptBundle, match=r"products\.faiss.*expected IndexScalarQuantizer or IndexFlatIP"):
        PlannedIndex(VECTORS_ND, "cpu", stored=path)
    whole = stored(tmp_path).read_bytes()
    for length in (0, 10, 1_000, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptBundle, match=r"products\.faiss.*not a readable"):
            PlannedIndex(VECTORS_ND, "cpu", stored=path)
    with pytest.raises(CorruptBundle, match="not a readable"):
        PlannedIndex(VECTORS_ND, "cpu", stored=tmp_path / "absent")
    other = faiss.IndexFlatL2(16)
    other.add(VECTORS_ND)
    faiss.write_index(other, str(path))
    with pytest.raises(CorruptBundle, match="IndexFlatL2"):
        PlannedIndex(VECTORS_ND, "cpu", stored=path)


def test_vectors_that_are_not_finite_are_not_stored(tmp_path: Path):
    with pytest.raises(InvalidInput, match="row 1"):
        write_flat_index(np.array([[1.0], [np.nan]], dtype=np.float32), tmp_path / "products.faiss")


def test_vectors_that_half_precision_cannot_tell_apart_are_told_apart():
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
    """Too small for half precision, in its range, and beyond it."""
    rng = np.random.default_rng(6)
    vectors_ND = (size * rng.standard_normal((700, 16))).astype(np.float32)
    queries_BD = rng.standard_normal((4, 16)).astype(np.float32)
    found = PlannedIndex(vectors_ND, "cpu").search(queries_BD, 20, [None] * 4)
    expected = ExactIndex(vectors_ND).search(queries_BD, 20, [None] * 4)
    np.testing.assert_array_equal(found.rows_BK, expected.rows_BK)


@pytest.mark.parametrize("size", [1e-6, 1.0, 300.0])
def test_half_precision_stays_within_the_bound(size: float):
    rng = np.random.default_rng(7)
    vectors_ND = (size * rng.standard_normal((500, 64))).astype(np.float32)
    queries_BD = rng.standard_normal((30, 64)).astype(np.float32)
    copies = HostCopies(vectors_ND, None)
    scores_BN, rows_BN = copies.propose(copies.whole, queries_BD, 500)
    ours_BN = np.take_along_axis(inner_products(queries_BD, vectors_ND[None]), rows_BN, axis=1)
    assert 0 < copies.astray < size
    strays_BN = np.abs(scores_BN.astype(np.float64) - ours_BN)
    assert (strays_BN <= rounding_bounds(queries_BD, copies.longest, copies.astray)[:, None]).all()
    assert (strays_BN > rounding_bounds(queries_BD, copies.longest)[:, None]).any()  # so the term is needed


@pytest.mark.parametrize("rows", [0, 1, 5, 200_000])
def test_axes_are_orthonormal_and_the_first_ones_hold_the_most(rows: int):
    random = np.random.default_rng(rows)
    spread_D = np.array([1, 5, 0.5, 3, 0.1, 2], np.float32)
    vectors_ND = random.standard_normal((rows, 6)).astype(np.float32) * spread_D
    axes_DD = principal_axes(vectors_ND, largest_norm(vectors_ND))
    np.testing.assert_allclose(axes_DD.T @ axes_DD, np.eye(6), atol=1e-6)
    if rows > 5:
        held_D = ((vectors_ND @ axes_DD) ** 2).mean(axis=0)
        np.testing.assert_allclose(held_D, np.sort(spread_D**2)[::-1], rtol=0.05)


def test_vectors_that_turning_might_overflow_are_left_as_they_are():
    vectors_ND = np.full((3, 4), 1e38, np.float32)
    np.testing.assert_array_equal(principal_axes(vectors_ND, largest_norm(vectors_ND)), np.eye(4))
