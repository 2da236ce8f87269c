"""What is FlatIndex' own: its counters, the stored index, and the limits of a GPU, checked without one."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from embeddings.eligible import FOREVER, EligibleSet
from embeddings.errors import CorruptBundle, DeviceUnavailable, InvalidInput, UnsupportedSearch
from embeddings.index import flat
from embeddings.index.exact import ExactIndex
from embeddings.index.flat import FlatIndex, write_flat_index
from embeddings.index.score import inner_products, rounding_bounds

VECTORS_ND = np.random.default_rng(2).standard_normal((6_000, 16)).astype(np.float32)
QUERIES_BD = np.random.default_rng(3).standard_normal((4, 16)).astype(np.float32)


def every(step: int, start: int = 0) -> EligibleSet:
    return EligibleSet.of(np.arange(start, len(VECTORS_ND), step), FOREVER)


def assert_exact(index: FlatIndex, k: int, eligible: EligibleSet | None = None) -> None:
    found = index.search(QUERIES_BD, k, eligible)
    expected = ExactIndex(VECTORS_ND).search(QUERIES_BD, k, eligible)
    np.testing.assert_array_equal(found.rows_BK, expected.rows_BK)
    assert found.scores_BK.tobytes() == expected.scores_BK.tobytes()


def test_sets_are_cached_by_fingerprint_within_the_bound():
    bytes_a_set = 600 * (16 * 2 + 8)  # vectors in half precision, row numbers
    index = FlatIndex(VECTORS_ND, "cpu", cache_bytes=2 * bytes_a_set)
    for start in (0, 1, 0, 2, 1):
        index.search(QUERIES_BD, 5, every(10, start))
    cache = index.cache
    assert (cache.hits, cache.misses, cache.evicted, cache.bytes) == (1, 4, 2, 2 * bytes_a_set)


def test_the_whole_catalogue_is_not_in_the_cache():
    index = FlatIndex(VECTORS_ND, "cpu")
    index.search(QUERIES_BD, 5, None)
    index.search(QUERIES_BD, 5, every(1))
    assert (index.cache.hits, index.cache.misses, index.cache.bytes) == (0, 0, 0)


def test_a_large_batch_is_answered_in_passes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flat, "PASS_BYTES", 3 * 18 * 16 * 4)
    assert_exact(FlatIndex(VECTORS_ND, "cpu"), 10)
    monkeypatch.setattr(flat, "PASS_BYTES", 1)
    assert_exact(FlatIndex(VECTORS_ND, "cpu"), 10)


def test_a_stored_index_is_read_and_answers_the_same(tmp_path: Path):
    write_flat_index(VECTORS_ND, tmp_path / "products.faiss")
    index = FlatIndex(VECTORS_ND, "cpu", stored=tmp_path / "products.faiss")
    assert_exact(index, 20)
    assert_exact(index, 20, every(7))


def test_a_stored_index_that_does_not_fit_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "products.faiss"
    write_flat_index(VECTORS_ND[:-1], path)
    with pytest.raises(CorruptBundle, match=r"products\.faiss.*expected IndexScalarQuantizer or IndexFlatIP"):
        FlatIndex(VECTORS_ND, "cpu", stored=path).search(QUERIES_BD, 3, None)
    path.write_bytes(path.read_bytes()[:1_000])
    with pytest.raises(CorruptBundle, match=r"products\.faiss.*not a readable"):
        FlatIndex(VECTORS_ND, "cpu", stored=path).search(QUERIES_BD, 3, None)
    with pytest.raises(CorruptBundle, match="not a readable"):
        FlatIndex(VECTORS_ND, "cpu", stored=tmp_path / "absent").search(QUERIES_BD, 3, None)
    other = faiss.IndexFlatL2(16)
    other.add(VECTORS_ND)
    faiss.write_index(other, str(path))
    with pytest.raises(CorruptBundle, match="IndexFlatL2"):
        FlatIndex(VECTORS_ND, "cpu", stored=path).search(QUERIES_BD, 3, None)


def test_vectors_that_are_not_finite_are_not_stored(tmp_path: Path):
    with pytest.raises(InvalidInput, match="row 1"):
        write_flat_index(np.array([[1.0], [np.nan]], dtype=np.float32), tmp_path / "products.faiss")


def test_cuda_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("faiss.get_num_gpus", lambda: 0)
    with pytest.raises(DeviceUnavailable, match=r"opportune\[gpu\]"):
        FlatIndex(VECTORS_ND, "cuda")


@pytest.fixture
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules of the GPU, with FAISS' CPU index standing in for the GPU's."""

    def on_the_cpu(vectors_ND: npt.NDArray[np.float32], resources: object) -> Any:
        assert resources is not None
        index = faiss.IndexFlatIP(vectors_ND.shape[1])
        index.add(vectors_ND)
        return index

    monkeypatch.setattr(flat, "_cuda_resources", object)
    monkeypatch.setattr(flat, "_gpu_index", on_the_cpu)


@pytest.mark.usefixtures("as_on_cuda")
def test_cuda_answers_up_to_what_it_can_settle():
    index = FlatIndex(VECTORS_ND, "cuda")
    for k in (1, 1_000, 2_040, 2_045):
        assert_exact(index, k)
    assert_exact(index, 9_000, every(3))


@pytest.mark.usefixtures("as_on_cuda")
@pytest.mark.parametrize("k", [2_048, 2_049, 6_000, 9_000])
def test_cuda_refuses_a_k_it_cannot_settle(k: int):
    with pytest.raises(UnsupportedSearch, match="2048"):
        FlatIndex(VECTORS_ND, "cuda").search(QUERIES_BD, k, None)


@pytest.mark.usefixtures("as_on_cuda")
@pytest.mark.parametrize("copies", [1_900, 2_100])
def test_cuda_widens_ties_up_to_its_limit(copies: int):
    vectors_ND = VECTORS_ND.copy()
    vectors_ND[:copies] = 10 * QUERIES_BD[0]
    index = FlatIndex(vectors_ND, "cuda")
    if copies < 2_048:
        assert (index.search(QUERIES_BD[:1], 10, None).rows_BK == np.arange(10)).all()
    else:
        with pytest.raises(UnsupportedSearch):
            index.search(QUERIES_BD[:1], 10, None)


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


def test_vectors_that_half_precision_cannot_tell_apart_are_told_apart():
    rng = np.random.default_rng(5)
    vectors_ND = np.tile(rng.standard_normal(16).astype(np.float32), (900, 1))
    vectors_ND *= 1 + np.arange(900, dtype=np.float32)[:, None] * 1e-7
    queries_BD = rng.standard_normal((3, 16)).astype(np.float32)
    found = FlatIndex(vectors_ND, "cpu").search(queries_BD, 20, None)
    expected = ExactIndex(vectors_ND).search(queries_BD, 20, None)
    np.testing.assert_array_equal(found.rows_BK, expected.rows_BK)
    assert found.scores_BK.tobytes() == expected.scores_BK.tobytes()


@pytest.mark.parametrize("size", [1e-9, 1e-4, 1.0, 300.0, 7e4, 1e9])
def test_every_size_of_numbers_is_searched_exactly(size: float):
    """Too small for half precision, in its range, and beyond it."""
    rng = np.random.default_rng(6)
    vectors_ND = (size * rng.standard_normal((700, 16))).astype(np.float32)
    queries_BD = rng.standard_normal((4, 16)).astype(np.float32)
    found = FlatIndex(vectors_ND, "cpu").search(queries_BD, 20, None)
    expected = ExactIndex(vectors_ND).search(queries_BD, 20, None)
    np.testing.assert_array_equal(found.rows_BK, expected.rows_BK)


@pytest.mark.parametrize("size", [1e-6, 1.0, 300.0])
def test_half_precision_stays_within_the_bound(size: float):
    rng = np.random.default_rng(7)
    vectors_ND = (size * rng.standard_normal((500, 64))).astype(np.float32)
    queries_BD = rng.standard_normal((30, 64)).astype(np.float32)
    longest = float(np.linalg.norm(vectors_ND.astype(np.float64), axis=1).max())
    index = flat._host_index(vectors_ND, longest)  # pyright: ignore[reportPrivateUsage]
    scores_BN, rows_BN = index.search(queries_BD, 500)
    ours_BN = np.take_along_axis(inner_products(queries_BD, vectors_ND[None]), rows_BN, axis=1)
    astray = flat._astray(index, vectors_ND)  # pyright: ignore[reportPrivateUsage]
    assert 0 < astray < size
    strays_BN = np.abs(scores_BN.astype(np.float64) - ours_BN)
    assert (strays_BN <= rounding_bounds(queries_BD, longest, astray)[:, None]).all()
    assert (strays_BN > rounding_bounds(queries_BD, longest)[:, None]).any()  # so the term is needed
