"""The bounded inverted file: what it leaves out can hold nothing wanted, whatever the vectors."""

import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.errors import CorruptBundle, InvalidInput
from embeddings.index.ivf import (
    FIRST_SHELLS,
    SHELLS,
    BoundedIvf,
    Selection,
    _copied,  # pyright: ignore[reportPrivateUsage]
    _shells,  # pyright: ignore[reportPrivateUsage]
    cells_of,
    radii_path,
    write_ivf,
)
from embeddings.index.score import LARGEST_SCORE, half_error, inner_products, max_norm, norms, rounding_bounds

F32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """Catalogues this small are cut into cells ten times faster by one thread than by several."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(before)


def clustered(rng: np.random.Generator, rows: int, dimensions: int, spread: float) -> F32:
    centres_CD = rng.standard_normal((40, dimensions))
    return (centres_CD[rng.integers(0, 40, rows)] + spread * rng.standard_normal((rows, dimensions))).astype(np.float32)


def written(folder: Path, vectors_ND: F32) -> BoundedIvf:
    write_ivf(vectors_ND, folder / "products.ivf.faiss")
    return BoundedIvf.open(folder / "products.ivf.faiss", vectors_ND.shape)


def assert_as_flat(ivf: BoundedIvf, vectors_ND: F32, queries_BD: F32, proposals: int, rows_N: Rows | None) -> None:
    """The same scores as a scan of the whole, of rows that have them."""
    eligible = EligibleSet.of(np.arange(len(vectors_ND)) if rows_N is None else rows_N, FOREVER)
    selected = None if rows_N is None else Selection(eligible, len(vectors_ND))
    largest = max_norm(vectors_ND)
    bounds_B = rounding_bounds(queries_BD, largest, half_error(largest, vectors_ND.shape[1]))
    scores_BP, rows_BP = ivf.propose(
        queries_BD, proposals, bounds_B, eligible_rows=len(eligible.rows_N), selected=selected
    )
    all_BN = inner_products(queries_BD, np.ascontiguousarray(vectors_ND[eligible.rows_N])[None])
    expected_BP = -np.sort(-all_BN, axis=1)[:, :proposals]
    np.testing.assert_allclose(scores_BP, expected_BP, rtol=0, atol=2 * bounds_B.max())
    for rows_P in rows_BP:
        assert len(set(rows_P.tolist())) == proposals
        assert eligible.contains(rows_P).all()


@pytest.mark.parametrize("size", [1e-6, 1.0, 300.0])
def test_half_precision_stays_within_the_bound(size: float):
    rng = np.random.default_rng(7)
    vectors_ND = (size * rng.standard_normal((500, 64))).astype(np.float32)
    queries_BD = rng.standard_normal((30, 64)).astype(np.float32)
    largest = max_norm(vectors_ND)
    copies_ND = _copied(vectors_ND, largest)
    exact_BN, halved_BN = (inner_products(queries_BD, one[None]).astype(np.float64) for one in (vectors_ND, copies_ND))
    strays_BN, error = np.abs(halved_BN - exact_BN), half_error(largest, 64)
    assert norms(copies_ND - vectors_ND).max() <= error < size
    assert (strays_BN <= rounding_bounds(queries_BD, largest, error)[:, None]).all()
    assert (strays_BN > rounding_bounds(queries_BD, largest)[:, None]).any()  # so the term is needed


@pytest.mark.parametrize(
    ("rows", "cells"),
    [(1, 1), (9, 9), (50, 16), (300, 16), (92_337, 256), (1_000_000, 1_024), (10**7, 4_096), (10**9, 4_096)],
)
def test_cells_grow_with_the_root_of_the_catalogue(rows: int, cells: int):
    assert cells_of(rows) == cells


@pytest.mark.parametrize("spread", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.02])
@pytest.mark.parametrize("queries", [1, 7])
def test_it_proposes_what_a_flat_scan_proposes(spread: float, share: float, queries: int, tmp_path: Path):
    rng = np.random.default_rng(1)
    vectors_ND = clustered(rng, 6_000, 12, spread)
    rows_N = None if share == 1 else np.sort(rng.choice(6_000, int(share * 6_000), replace=False))
    queries_BD = rng.standard_normal((queries, 12)).astype(np.float32)
    ivf = written(tmp_path, vectors_ND)
    for proposals in (1, 20, 100):
        assert_as_flat(ivf, vectors_ND, queries_BD, proposals, rows_N)


def test_where_there_are_clusters_most_shells_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(1)
    vectors_ND = clustered(rng, 20_000, 12, 0.02)
    ivf = written(tmp_path, vectors_ND)
    widths: list[int] = []
    scan = BoundedIvf._scan  # pyright: ignore[reportPrivateUsage]

    def watched(
        self: BoundedIvf, queries_BD: F32, proposals: int, shells_BW: Rows, selected: Selection | None
    ) -> object:
        widths.append(shells_BW.shape[1])
        return scan(self, queries_BD, proposals, shells_BW, selected)

    monkeypatch.setattr(BoundedIvf, "_scan", watched)
    assert_as_flat(ivf, vectors_ND, vectors_ND[:1], 50, None)
    assert widths[0] == FIRST_SHELLS
    assert widths[-1] < SHELLS * cells_of(20_000) / 4


@st.composite
def _catalogues(draw: st.DrawFn) -> F32:
    """Clustered and not; all equal; zeros; very long and very short; beyond half precision, and near float32's end."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, dimensions = draw(st.integers(30, 800)), draw(st.integers(1, 20))
    spread = draw(st.sampled_from([0.0, 1e-3, 0.3, 10.0]))
    vectors_ND = clustered(rng, rows, dimensions, spread)
    match draw(st.sampled_from(["as drawn", "equal", "some zeros", "zeros", "one long"])):
        case "equal":
            vectors_ND[:] = vectors_ND[0]
        case "some zeros":
            vectors_ND[rng.random(rows) < 0.5] = 0
        case "zeros":
            vectors_ND[:] = 0
        case "one long":
            vectors_ND[rows // 2] *= 1e4
        case _:
            pass
    return vectors_ND * np.float32(draw(st.sampled_from([1e-30, 1e-6, 1.0, 1e3, 1e5, 1e15, 1e30])))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    vectors_ND=_catalogues(),
    share=st.sampled_from([1.0, 0.7, 0.2]),
    size=st.sampled_from([0.0, 1e-20, 1.0, 1e3]),
    proposals=st.integers(1, 60),
    seed=st.integers(0, 1_000),
)
def test_it_is_exact_for_any_vectors(
    tmp_path: Path, vectors_ND: F32, share: float, size: float, proposals: int, seed: int
):
    rng = np.random.default_rng(seed)
    rows = len(vectors_ND)
    rows_N = np.sort(rng.choice(rows, max(2, int(share * rows)), replace=False)) if share < 1 else None
    proposals = min(proposals, (rows if rows_N is None else len(rows_N)) - 1)
    queries_BD = (size * rng.standard_normal((3, vectors_ND.shape[1]))).astype(np.float32)
    # Longer ones are refused: their inner products could leave float32.
    assume(float(norms(queries_BD).max()) * max_norm(vectors_ND) <= LARGEST_SCORE)
    assert_as_flat(written(tmp_path, vectors_ND), vectors_ND, queries_BD, proposals, rows_N)


def test_every_member_and_its_copy_lie_within_their_shell(tmp_path: Path):
    vectors_ND = clustered(np.random.default_rng(4), 3_000, 8, 0.3)
    write_ivf(vectors_ND, tmp_path / "products.ivf.faiss")
    index: Any = faiss.read_index(str(tmp_path / "products.ivf.faiss"))
    radii_H = np.load(tmp_path / "products.ivf.radii.npy")
    centroids_HD = index.quantizer.reconstruct_n(0, index.nlist).astype(np.float64)
    copies_ND = _copied(vectors_ND, max_norm(vectors_ND))
    met = 0
    for shell in range(index.nlist):
        members = faiss.rev_swig_ptr(index.invlists.get_ids(shell), index.invlists.list_size(shell))
        met += len(members)
        for points_ND in (vectors_ND, copies_ND):
            distances = np.linalg.norm(points_ND[members] - centroids_HD[shell], axis=1)
            assert (distances <= radii_H[shell]).all()
    assert met == 3_000


def test_shells_of_a_cell_are_alike_in_size_and_follow_each_other_outwards():
    rng = np.random.default_rng(5)
    cells_N = rng.integers(0, 7, 1_000).astype(np.int32)
    distances_N = rng.random(1_000)
    shells_N = _shells(cells_N, distances_N, 9)
    np.testing.assert_array_equal(shells_N // SHELLS, cells_N)
    for cell in range(7):
        parts = [distances_N[shells_N == SHELLS * cell + shell] for shell in range(SHELLS)]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert all(inner.max() <= outer.min() for inner, outer in pairwise(parts))


def test_the_same_vectors_give_the_same_files(tmp_path: Path):
    vectors_ND = clustered(np.random.default_rng(5), 2_000, 8, 0.3)
    for name in ("a", "b"):
        write_ivf(vectors_ND, tmp_path / f"{name}.faiss")
    for suffix in (".faiss", ".radii.npy"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_it_is_mapped_and_not_read(tmp_path: Path):
    ivf = written(tmp_path, clustered(np.random.default_rng(5), 2_000, 8, 0.3))
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("products.ivf.faiss")]
    assert any(line.split()[5].startswith(str(tmp_path)) and line.split()[1].startswith("r-") for line in mapped)
    del ivf


def test_there_is_none_of_nothing(tmp_path: Path):
    with pytest.raises(InvalidInput, match="at least 1"):
        write_ivf(np.zeros((0, 4), np.float32), tmp_path / "products.ivf.faiss")
    with pytest.raises(InvalidInput, match="row 1 "):
        write_ivf(np.array([[0.0], [np.inf]], np.float32), tmp_path / "products.ivf.faiss")


def test_files_that_do_not_fit_are_refused_by_name(tmp_path: Path):
    vectors_ND = clustered(np.random.default_rng(5), 2_000, 8, 0.3)
    written(tmp_path, vectors_ND)
    path, radii = tmp_path / "products.ivf.faiss", tmp_path / "products.ivf.radii.npy"
    assert radii == radii_path(path)
    shutil.copytree(tmp_path, tmp_path / "whole")

    def refused(match: str, shape: tuple[int, int] = vectors_ND.shape) -> None:
        with pytest.raises(CorruptBundle, match=match):
            BoundedIvf.open(path, shape)
        for name in (path.name, radii.name):
            shutil.copy(tmp_path / "whole" / name, tmp_path / name)

    refused(r"products\.ivf\.faiss: expected IndexIVFScalarQuantizer", (2_001, 8))
    path.write_bytes(path.read_bytes()[:5_000])
    refused(r"products\.ivf\.faiss: not a readable")
    path.unlink()
    refused(r"products\.ivf\.faiss: not a readable")
    radii.unlink()
    refused(r"radii\.npy: not a readable array")
    radii.write_bytes(radii.read_bytes()[:-3])
    refused(r"radii\.npy: not a readable array")
    np.save(radii, np.ones(7, np.float32))
    refused(r"radii\.npy: expected 128 float32 radii")
    np.save(radii, np.full(128, np.nan, np.float32))
    refused(r"radii\.npy: expected 128 float32 radii, none negative")
    BoundedIvf.open(path, vectors_ND.shape)
