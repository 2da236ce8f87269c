"""The search suite: its summary's arithmetic, its generated catalogues, its sets, its oracle, its fits."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from msgspec import structs
from numpy.typing import NDArray

from benchmarks.peers.flat_bitmap_peer import selecting
from benchmarks.peers.stack import Past
from benchmarks.search import clusters
from benchmarks.search.cells import (
    Catalogue,
    Repetitions,
    flat_index,
    fresh_sets,
    growth,
    interleaved,
    measure,
    oracle,
    panorama_index,
    random_set,
    recall,
    shifted,
)
from benchmarks.search.costs import line
from benchmarks.search.cuda import run as run_cuda
from benchmarks.search.graphs import measure_graphs
from benchmarks.search.outcome import Cell, Growth, summary
from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.device import faiss_sees_gpu
from embeddings.errors import DeviceUnavailable, InvalidInput
from embeddings.index.base import F32
from embeddings.index.exact import ExactIndex
from embeddings.index.planned import PlannedIndex

CELL = Cell(
    catalogue="2,000,000 generated",
    rows=2_000_000,
    selectivity=0.1,
    eligible=200_000,
    batch=1,
    recall=1.0,
    plan="own",
    cold_plan="brute_force",
    repetitions=5,
    hot=100.0,
    cold=900.0,
    eligible_scan=200.0,
    panorama=80.0,
    bitmap=1_000.0,
    bitmap_cold=1_200.0,
)
GROWTH = Growth(20_000, 8, {"small": 100.0, "middle": 500.0, "large": 120.0})
ONCE = Repetitions(0, 1, 1)


def real(rows: int = 3_000, dimensions: int = 8) -> F32:
    """Correlated vectors, with a mean."""
    random = np.random.default_rng(5)
    mixed_DD = random.standard_normal((dimensions, dimensions))
    return (random.standard_normal((rows, dimensions)) @ mixed_DD + 1.5).astype(np.float32)


def test_the_summary_takes_the_worst_cell_of_each_ratio() -> None:
    slow = structs.replace(CELL, hot=300.0, cold=2_000.0, batch=8, recall=0.75)
    whole = structs.replace(CELL, selectivity=1.0, cold=None, cold_plan=None, bitmap=50.0)
    figures = summary([CELL, slow, whole], GROWTH)
    assert figures == {
        "recall_min": 0.75,
        "hot_vs_eligible_scan_max": 1.5,
        "hot_vs_eligible_scan_max_from_1000_rows": 1.5,
        "hot_vs_panorama_max_from_1000_rows": 3.75,
        "speedup_vs_bitmap_at_10pct": 3.333,
        "cold_vs_bitmap_max": 1.667,
        "cold_vs_bitmap_max_from_1000_rows": 1.667,
        "growth_68k_to_10m": 1.2,
    }


def test_small_sets_count_everywhere_but_in_the_figures_of_a_thousand_rows() -> None:
    tiny = structs.replace(CELL, eligible=9, selectivity=0.0001, hot=800.0, cold=6_000.0)
    figures = summary([CELL, tiny], GROWTH)
    assert (figures["hot_vs_eligible_scan_max"], figures["hot_vs_eligible_scan_max_from_1000_rows"]) == (4.0, 0.5)
    assert (figures["cold_vs_bitmap_max"], figures["cold_vs_bitmap_max_from_1000_rows"]) == (5.0, 0.75)
    assert figures["speedup_vs_bitmap_at_10pct"] == 1.25


def test_the_summary_says_nothing_where_nothing_was_measured() -> None:
    whole = structs.replace(CELL, selectivity=1.0, cold=None, cold_plan=None)
    figures = summary([whole], Growth(20_000, 8, {"small": 100.0}))
    assert figures["cold_vs_bitmap_max"] is None
    assert figures["speedup_vs_bitmap_at_10pct"] is None
    assert figures["growth_68k_to_10m"] is None
    assert set(summary([], GROWTH)) == set(figures)


def test_every_cell_is_reported_with_its_own_ratios() -> None:
    reported = CELL.with_ratios()
    assert (reported["hot_vs_eligible_scan"], reported["speedup_vs_bitmap"]) == (0.5, 10.0)
    assert reported["hot_vs_panorama"] == 1.25
    assert reported["cold_vs_bitmap"] == 0.75
    assert structs.replace(CELL, cold=None).with_ratios()["cold_vs_bitmap"] is None


def test_a_generated_catalogue_is_made_once_and_again_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "_CHUNK", 700)
    like_ND = real()
    file = clusters.catalogue(tmp_path / "a", like_ND, 2_000)
    first_ND, made = np.load(file), file.stat().st_mtime_ns
    assert (first_ND.shape, first_ND.dtype) == ((2_000, 8), np.float32)
    assert clusters.catalogue(tmp_path / "a", like_ND, 2_000) == file
    assert file.stat().st_mtime_ns == made
    np.testing.assert_array_equal(np.load(clusters.catalogue(tmp_path / "b", like_ND, 2_000)), first_ND)
    other = clusters.catalogue(tmp_path / "a", like_ND, 2_000, seed=1)
    assert list((tmp_path / "a").iterdir()) == [other], "the outdated one is gone, and nothing half-written stays"
    assert not np.array_equal(np.load(other), first_ND)


def test_a_generated_catalogue_resembles_the_real_vectors_and_is_clustered() -> None:
    like_ND, random = real(), np.random.default_rng(0)
    drawn_ND = clusters.Mixture.like(like_ND, 2_000, seed=0).draw(random, 20_000)
    assert drawn_ND.mean(axis=0) == pytest.approx(like_ND.mean(axis=0), abs=0.25 * float(like_ND.std(axis=0).min()))
    assert np.cov(drawn_ND.T) == pytest.approx(np.cov(like_ND.T), abs=0.15 * float(like_ND.var(axis=0).max()))
    few = clusters.Mixture.like(like_ND, 20, seed=0)
    blob_ND = random.multivariate_normal(like_ND.mean(axis=0), np.cov(like_ND.T), 1_000)
    assert nearest(few.draw(random, 1_000)) < 0.8 * nearest(blob_ND), "closer together than in one cluster"
    assert few.shares_C[-1] == pytest.approx(1.0)
    sizes_C = np.diff(few.shares_C, prepend=0)
    assert sizes_C[0] / sizes_C[9] == pytest.approx(10**0.7), "sizes follow a power law"


def nearest(vectors_ND: NDArray[np.floating]) -> float:
    """The median squared distance to the nearest other vector."""
    squared_NN = ((vectors_ND[:, None] - vectors_ND) ** 2).sum(axis=2)
    np.fill_diagonal(squared_NN, np.inf)
    return float(np.median(squared_NN.min(axis=1)))


def test_queries_are_other_vectors_of_the_same_clusters(tmp_path: Path) -> None:
    like_ND = real()
    asked_QD = clusters.queries(like_ND, 2_000, 64)
    assert (asked_QD.shape, asked_QD.dtype) == ((64, 8), np.float32)
    np.testing.assert_array_equal(asked_QD, clusters.queries(like_ND, 2_000, 64))
    vectors_ND = np.load(clusters.catalogue(tmp_path, like_ND, 2_000))
    assert not (asked_QD[:, None] == vectors_ND).all(axis=2).any()


def test_a_full_disk_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 2**20

    def usage(_folder: Path) -> Usage:
        return Usage()

    monkeypatch.setattr("shutil.disk_usage", usage)
    with pytest.raises(InvalidInput, match="GiB free"):
        clusters.catalogue(tmp_path, real(), 2_000)
    assert list(tmp_path.iterdir()) == []


def test_sets_have_the_exact_size_and_fresh_ones_are_all_different() -> None:
    random = np.random.default_rng(0)
    chosen = random_set(1_000, 137, random)
    some = [chosen, *fresh_sets(chosen, 1_000, 50, random)]
    assert {len(one.rows_N) for one in some} == {137}
    assert len({one.fingerprint for one in some}) == 51
    assert all(one.rows_N[0] >= 0 and one.rows_N[-1] < 1_000 for one in some)
    moved = shifted(EligibleSet.of(np.array([0, 4, 9]), FOREVER), 3, 10)
    assert moved.rows_N.tolist() == [2, 3, 7]


@pytest.mark.parametrize("size", [None, 3, 500])
def test_the_oracle_in_chunks_is_the_oracle(size: int | None) -> None:
    vectors_ND = np.round(real()).astype(np.float32)  # whole numbers: many equal scores, within chunks and across
    queries_BD = np.round(real(5))
    eligible = None if size is None else random_set(len(vectors_ND), size, np.random.default_rng(1))
    expected = ExactIndex(vectors_ND).search(queries_BD, 64, [eligible] * 5)
    np.testing.assert_array_equal(oracle(vectors_ND, queries_BD, 64, eligible, chunk=171), expected.rows_BK)


def test_recall_counts_the_true_rows_that_were_found() -> None:
    true_BK = np.array([[4, 2, 9], [1, -1, -1]])
    assert recall(true_BK, true_BK) == 1.0
    assert recall(true_BK, np.array([[9, 4, 3], [-1, -1, -1]])) == 0.5
    assert recall(np.full((2, 3), -1), np.full((2, 3), -1)) == 1.0


def test_contenders_take_turns_and_only_the_ready_call_is_timed() -> None:
    calls: list[tuple[str, int]] = []

    def contender(name: str):
        def make(place: int):
            calls.append((f"make {name}", place))
            return lambda: calls.append((name, place))

        return make

    effort = Repetitions(1, 3, 3)
    taken = interleaved({"a": contender("a"), "b": contender("b")}, effort, np.random.default_rng(0))
    assert {name: len(some) for name, some in taken.items()} == {"a": 3, "b": 3}
    assert effort.calls == 8
    for place in range(8):  # two calls a turn, and first a turn that does not count
        assert sorted(name for name, at in calls if at == place) == ["a", "b", "make a", "make b"]


def test_baselines_find_what_our_index_finds() -> None:
    vectors_ND, queries_BD = real(), real(4)
    chosen = random_set(len(vectors_ND), 700, np.random.default_rng(3))
    expected_BK = ExactIndex(vectors_ND).search(queries_BD, 10, [chosen] * 4).rows_BK
    _, copied_BK = flat_index(vectors_ND, chosen).search(queries_BD, 10)
    _, selected_BK = flat_index(vectors_ND).search(queries_BD, 10, params=selecting(chosen, len(vectors_ND)))
    _, turned_BK = panorama_index(vectors_ND, chosen).search(queries_BD, 10)
    np.testing.assert_array_equal(chosen.rows_N[copied_BK], expected_BK)
    np.testing.assert_array_equal(chosen.rows_N[turned_BK], expected_BK)
    np.testing.assert_array_equal(selected_BK, expected_BK)


@pytest.fixture
def catalogue() -> Catalogue:
    vectors_ND = real()
    return Catalogue("3,000 made up", vectors_ND, real(64), PlannedIndex(vectors_ND, "cpu"))


@pytest.mark.parametrize("selectivity", [1.0, 0.3, 0.001])
def test_cells_are_measured_hot_and_cold(catalogue: Catalogue, selectivity: float) -> None:
    cells = list(measure(catalogue, flat_index(catalogue.vectors_ND), selectivity, (1, 8), 8, ONCE))
    assert [cell.batch for cell in cells] == [1, 8]
    for cell in cells:
        assert (cell.rows, cell.eligible, cell.recall) == (3_000, round(3_000 * selectivity), 1.0)
        assert (cell.cold is None) == (selectivity == 1)
        assert min(cell.hot, cell.eligible_scan, cell.panorama, cell.bitmap) > 0


def test_new_sets_do_not_run_out(catalogue: Catalogue) -> None:
    often = Repetitions(60, 40, 40)
    cells = list(measure(catalogue, flat_index(catalogue.vectors_ND), 0.01, (1, 8), 8, often))
    assert [cell.repetitions for cell in cells] == [40, 40]


def test_long_calls_are_not_repeated_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.search.cells._LONG_NS", 0)

    def contender(place: int):
        return lambda: place

    taken = interleaved({"a": contender}, Repetitions(0, 100, 200), np.random.default_rng(0))
    assert len(taken["a"]) == 1


def test_graphs_are_measured_with_what_they_find(catalogue: Catalogue) -> None:
    past = cast("Past", SimpleNamespace(vectors_ND=catalogue.vectors_ND, customers_CD=real(40)))
    cells = list(measure_graphs(past, catalogue, (1.0, 0.1, 0.01), 16, ONCE))
    # 30 rows are fewer than are asked for: no graph can find them.
    assert [(cell.graph, cell.selectivity) for cell in cells] == [
        (graph, selectivity) for selectivity in (1.0, 0.1) for graph in ("hnsw", "hnswlib")
    ]
    for cell in cells:
        assert 0.5 < cell.recall <= 1  # chance alone finds 0.21 at most
        assert min(cell.us, cell.hot) > 0


def test_growth_is_measured_by_catalogue(catalogue: Catalogue) -> None:
    found = growth([catalogue, replace(catalogue, name="again")], 100, 3, ONCE)
    assert list(found.hot) == ["3,000 made up", "again"]


def test_a_line_has_fixed_costs_and_costs_a_row() -> None:
    assert line([1_000, 10_000, 100_000], [12.0, 30.0, 210.0]) == pytest.approx((10.0, 2.0))
    fixed_us, row_ns = line([1_000, 10_000], [1.0, 30.0])
    assert fixed_us == 0.0
    assert row_ns > 0


@pytest.mark.skipif(faiss_sees_gpu(), reason="there is a GPU")
def test_without_a_gpu_cuda_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailable, match=r"GPU|torch"):
        run_cuda(tmp_path / "search.json", quick=True)
    assert list(tmp_path.iterdir()) == []
