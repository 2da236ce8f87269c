"""One suite for every index on every device.

Equal to a plain loop where the arithmetic is exact, and bitwise to the oracle everywhere.

Shapes: B queries, N rows, D dimensions, K results per query.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embeddings import kernel
from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.errors import InvalidInput
from embeddings.index.base import CandidateIndex, Candidates
from embeddings.index.exact import ExactIndex
from embeddings.index.ivf import write_ivf
from embeddings.index.plan import MEASURED
from embeddings.index.planned import PlannedIndex
from embeddings.index.segmented import SegmentedIndex

F32 = npt.NDArray[np.float32]
MakeIndex = Callable[[F32], CandidateIndex]

TINY_CACHE = 4_000
SCORED_NEVER = replace(MEASURED, score_ns=1e18)
SCORED_ALWAYS = replace(MEASURED, score_ns=0.0)
GATHERED_ALWAYS = replace(SCORED_NEVER, gather_ns=-1.0, sifted_ns=-1.0, taken_ns=0.0)
GATHERED_NEVER = replace(SCORED_NEVER, gather_ns=1e18, sifted_ns=1e18)
HOW: dict[str, dict[str, Any]] = {
    "planned": {},
    "planned-scored": {"costs": SCORED_ALWAYS},
    "planned-gathered": {"costs": GATHERED_ALWAYS},
    "planned-whole": {"costs": GATHERED_NEVER},
    "planned-tiny-cache": {"costs": GATHERED_ALWAYS, "cache_bytes": TINY_CACHE},
    "planned-cuda": {},
}


def rows_of(rows: npt.ArrayLike) -> EligibleSet:
    return EligibleSet.of(np.asarray(rows, dtype=np.int32), FOREVER)


def integers(rng: np.random.Generator, count: int, dimensions: int, largest: int) -> F32:
    """Small whole numbers: every float32 sum of their products is exact, in any order."""
    return rng.integers(-largest, largest + 1, (count, dimensions)).astype(np.float32)


def search(index: CandidateIndex, queries_BD: F32, k: int, eligible: EligibleSet | None) -> Candidates:
    """Every query in the same set."""
    return index.search(queries_BD, k, [eligible] * len(queries_BD))


def by_hand(vectors_ND: F32, queries_BD: F32, k: int, rows: list[int]) -> Candidates:
    """The definition, in plain Python: independent of everything under test."""
    rows_BK = np.full((len(queries_BD), k), -1, dtype=np.int64)
    scores_BK = np.full((len(queries_BD), k), -np.inf, dtype=np.float32)
    for b, query in enumerate(queries_BD.tolist()):
        scored = [(-sum(q * v for q, v in zip(query, vectors_ND[row].tolist(), strict=True)), row) for row in rows]
        for place, (negative, row) in enumerate(sorted(scored)[:k]):
            rows_BK[b, place] = row
            scores_BK[b, place] = -negative
    return Candidates(rows_BK, scores_BK, ("exact",) * len(queries_BD))


def assert_same(found: Candidates, expected: Candidates) -> None:
    assert found.rows_BK.dtype == np.int64
    assert found.scores_BK.dtype == np.float32
    np.testing.assert_array_equal(found.rows_BK, expected.rows_BK)
    np.testing.assert_array_equal(found.scores_BK, expected.scores_BK)


def assert_bitwise(found: Candidates, expected: Candidates) -> None:
    assert_same(found, expected)
    assert found.scores_BK.tobytes() == expected.scores_BK.tobytes()


def batch_of_one(found: Candidates, b: int) -> Candidates:
    return Candidates(found.rows_BK[b : b + 1], found.scores_BK[b : b + 1], found.plans_B[b : b + 1])


class PlainIndex(PlannedIndex):
    """Scans copies as a processor does that knows no better instructions."""

    def search(self, queries_BD: F32, k: int, eligible_B: Sequence[EligibleSet | None]) -> Candidates:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernel, "nearest", partial(kernel.nearest, isa="plain"))
            return super().search(queries_BD, k, eligible_B)


def _with_ivf(folder: Path, vectors_ND: F32) -> PlannedIndex:
    """Nothing is kept, so that every set that has to be searched is searched through the bounded IVF."""
    path = folder / "products.ivf.faiss"
    if len(vectors_ND) and vectors_ND.ndim == 2:
        write_ivf(vectors_ND, path)
    return PlannedIndex(vectors_ND, "cpu", cache_bytes=0, ivf=path if len(vectors_ND) else None, costs=SCORED_NEVER)


def _segmented(base: float, vectors_ND: F32) -> CandidateIndex:
    """A base of some of the rows, searched by plans, and a tail of the others."""
    rows = int(base * len(vectors_ND)) if vectors_ND.ndim == 2 else 0
    index = PlannedIndex(vectors_ND[:rows], "cpu", costs=GATHERED_ALWAYS)
    return SegmentedIndex(index, rows, vectors_ND[rows:])


@pytest.fixture(
    params=[
        "exact",
        "planned",
        "planned-scored",
        "planned-plain",
        "planned-gathered",
        "planned-whole",
        "planned-ivf",
        "planned-tiny-cache",
        "segmented",
        "segmented-short",
        pytest.param("planned-cuda", marks=pytest.mark.gpu),
    ],
    scope="session",
)
def make_index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MakeIndex:
    if request.param == "exact":
        return ExactIndex
    if request.param.startswith("segmented"):
        return partial(_segmented, 0.7 if request.param == "segmented" else 0.001)
    if request.param == "planned-ivf":
        return partial(_with_ivf, tmp_path_factory.mktemp("ivf"))
    if request.param == "planned-plain":
        return partial(PlainIndex, device="cpu", costs=GATHERED_ALWAYS)
    if request.param == "planned-cuda" and faiss.get_num_gpus() == 0:
        pytest.skip("FAISS sees no CUDA device: the GPU index is NOT checked on this machine")
    return partial(PlannedIndex, device="cuda" if request.param == "planned-cuda" else "cpu", **HOW[request.param])


@pytest.fixture(scope="session", name="vectors_ND")
def _vectors() -> F32:
    return np.random.default_rng(7).standard_normal((5_000, 24)).astype(np.float32)


@pytest.fixture(scope="session", name="queries_BD")
def _queries() -> F32:
    return np.random.default_rng(8).standard_normal((9, 24)).astype(np.float32)


SHARES = [0.001, 0.01, 0.1, 0.5, 0.999, 1.0]


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("k", [1, 10, 200])
def test_any_share_of_the_catalogue_equals_the_oracle(
    make_index: MakeIndex, vectors_ND: F32, queries_BD: F32, share: float, k: int
):
    chosen = np.random.default_rng(int(share * 1000)).permutation(len(vectors_ND))
    eligible = rows_of(np.sort(chosen[: int(share * len(vectors_ND))]))
    found = search(make_index(vectors_ND), queries_BD, k, eligible)
    assert_bitwise(found, search(ExactIndex(vectors_ND), queries_BD, k, eligible))
    assert set(found.rows_BK.ravel().tolist()) <= {*eligible.rows_N.tolist(), -1}


def test_no_set_means_every_row(make_index: MakeIndex, vectors_ND: F32, queries_BD: F32):
    index = make_index(vectors_ND)
    found = search(index, queries_BD, 50, None)
    assert_bitwise(found, search(ExactIndex(vectors_ND), queries_BD, 50, None))
    assert_bitwise(found, search(index, queries_BD, 50, rows_of(np.arange(len(vectors_ND)))))


@pytest.mark.parametrize("rows", [[], [0], [4_999], [17], [3, 4, 4_000]])
def test_a_set_smaller_than_k_is_padded(make_index: MakeIndex, vectors_ND: F32, queries_BD: F32, rows: list[int]):
    found = search(make_index(vectors_ND), queries_BD, 5, rows_of(rows))
    assert found.rows_BK.shape == found.scores_BK.shape == (9, 5)
    assert (np.sort(found.rows_BK[:, : len(rows)], axis=1) == rows).all()
    assert (found.rows_BK[:, len(rows) :] == -1).all()
    assert (found.scores_BK[:, len(rows) :] == -np.inf).all()
    assert_bitwise(found, search(ExactIndex(vectors_ND), queries_BD, 5, rows_of(rows)))


def test_k_larger_than_the_catalogue(make_index: MakeIndex, queries_BD: F32):
    vectors_ND = np.random.default_rng(1).standard_normal((40, 24)).astype(np.float32)
    found = search(make_index(vectors_ND), queries_BD, 100, None)
    assert (found.rows_BK[:, 40:] == -1).all()
    assert (np.sort(found.rows_BK[:, :40], axis=1) == np.arange(40)).all()


def test_an_empty_catalogue_and_an_empty_batch(make_index: MakeIndex, vectors_ND: F32, queries_BD: F32):
    assert (search(make_index(vectors_ND[:0]), queries_BD, 3, None).rows_BK == -1).all()
    assert (search(make_index(vectors_ND[:0]), queries_BD, 3, rows_of([])).rows_BK == -1).all()
    assert search(make_index(vectors_ND), queries_BD[:0], 3, None).rows_BK.shape == (0, 3)


@pytest.mark.parametrize("largest", [1, 3, 50])
@pytest.mark.parametrize("dimensions", [1, 2, 8, 17])
@pytest.mark.parametrize("k", [1, 7, 60])
def test_ties_go_to_the_smaller_row(make_index: MakeIndex, largest: int, dimensions: int, k: int):
    rng = np.random.default_rng(largest * 100 + dimensions)
    vectors_ND, queries_BD = integers(rng, 400, dimensions, largest), integers(rng, 6, dimensions, largest)
    rows = sorted(rng.choice(400, 300, replace=False).tolist())
    found = search(make_index(vectors_ND), queries_BD, k, rows_of(rows))
    assert_same(found, by_hand(vectors_ND, queries_BD, k, rows))


@pytest.mark.parametrize("k", [1, 10, 299, 300, 301])
def test_ties_far_beyond_k(make_index: MakeIndex, k: int):
    """1,500 copies of one vector straddle k: whichever ones FAISS meets first, the smallest rows win."""
    rng = np.random.default_rng(3)
    vectors_ND = integers(rng, 2_000, 8, 4)
    vectors_ND[rng.choice(2_000, 1_500, replace=False)] = vectors_ND[0]
    queries_BD = np.vstack([vectors_ND[:1], -vectors_ND[:1], np.zeros((1, 8), np.float32)])
    found = search(make_index(vectors_ND), queries_BD, k, None)
    assert_same(found, by_hand(vectors_ND, queries_BD, k, list(range(2_000))))


def test_near_ties_are_told_apart_to_the_last_bit(make_index: MakeIndex):
    """Vectors that differ in their last bits only: FAISS' order of summation would shuffle them."""
    rng = np.random.default_rng(11)
    base_D = rng.standard_normal(64).astype(np.float32)
    noise_ND = rng.integers(-2, 3, (1_500, 64)).astype(np.float32) * np.float32(2.0**-24)
    vectors_ND = (base_D * (1 + noise_ND)).astype(np.float32)
    queries_BD = np.vstack([base_D, rng.standard_normal((3, 64)).astype(np.float32)]).astype(np.float32)
    for eligible in (None, rows_of(np.arange(0, 1_500, 2))):
        found = search(make_index(vectors_ND), queries_BD, 30, eligible)
        assert_bitwise(found, search(ExactIndex(vectors_ND), queries_BD, 30, eligible))


def test_scores_are_the_inner_products(make_index: MakeIndex, vectors_ND: F32, queries_BD: F32):
    found = search(make_index(vectors_ND), queries_BD, 20, None)
    wide_BN = queries_BD.astype(np.float64) @ vectors_ND.astype(np.float64).T
    expected_BK = np.take_along_axis(wide_BN, found.rows_BK, axis=1)
    np.testing.assert_allclose(found.scores_BK, expected_BK, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.scores_BK, -np.sort(-wide_BN, axis=1)[:, :20], rtol=0, atol=1e-5)


@pytest.mark.parametrize("k", [1, 60, 400])
def test_a_batch_answers_as_its_queries_alone(make_index: MakeIndex, vectors_ND: F32, k: int):
    index = make_index(vectors_ND)
    queries_BD = np.random.default_rng(5).standard_normal((33, 24)).astype(np.float32)
    for eligible in (None, rows_of(np.arange(0, 5_000, 3))):
        batch = search(index, queries_BD, k, eligible)
        for b in range(len(queries_BD)):
            alone = search(index, queries_BD[b : b + 1], k, eligible)
            assert_bitwise(alone, batch_of_one(batch, b))


def test_answers_do_not_depend_on_what_is_cached(make_index: MakeIndex, vectors_ND: F32, queries_BD: F32):
    index = make_index(vectors_ND)
    sets = [rows_of(np.arange(start, 5_000, 150)) for start in range(6)]
    first = [search(index, queries_BD, 10, eligible) for eligible in sets]
    for eligible, before in [
        *zip(reversed(sets), reversed(first), strict=True),
        *zip(sets, first, strict=True),
    ]:
        assert_bitwise(search(index, queries_BD, 10, eligible), before)


def test_rows_of_either_width_are_one_set(make_index: MakeIndex, vectors_ND: F32, queries_BD: F32):
    index = make_index(vectors_ND)
    wide = EligibleSet.of(np.arange(0, 5_000, 9, dtype=np.int64), FOREVER)
    assert_bitwise(search(index, queries_BD, 10, wide), search(index, queries_BD, 10, rows_of(wide.rows_N)))


def test_vectors_may_be_memory_mapped(
    make_index: MakeIndex, vectors_ND: F32, queries_BD: F32, tmp_path_factory: pytest.TempPathFactory
):
    path = tmp_path_factory.mktemp("vectors") / "products.npy"
    np.save(path, vectors_ND)
    index = make_index(np.load(path, mmap_mode="r"))
    for eligible in (None, rows_of(np.arange(0, 5_000, 4))):
        found = search(index, queries_BD, 10, eligible)
        assert_bitwise(found, search(ExactIndex(vectors_ND), queries_BD, 10, eligible))
        assert type(found.rows_BK) is type(found.scores_BK) is np.ndarray


def test_neither_input_is_written_to(make_index: MakeIndex, vectors_ND: F32, queries_BD: F32):
    vectors, queries = vectors_ND.copy(), queries_BD.copy()
    search(make_index(vectors), queries, 10, rows_of([1, 2, 3, 500]))
    assert vectors.flags.writeable
    np.testing.assert_array_equal(vectors, vectors_ND)
    np.testing.assert_array_equal(queries, queries_BD)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_queries_that_are_not_finite_are_refused(
    make_index: MakeIndex, vectors_ND: F32, queries_BD: F32, poison: float
):
    queries_BD = queries_BD.copy()
    queries_BD[4, 7] = poison
    for eligible in (None, rows_of([1, 2]), rows_of([])):
        with pytest.raises(InvalidInput, match=r"queries.*finite"):
            search(make_index(vectors_ND), queries_BD, 3, eligible)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused_when_taken_or_when_searched(
    make_index: MakeIndex, vectors_ND: F32, queries_BD: F32, poison: float
):
    poisoned_ND = vectors_ND.copy()
    poisoned_ND[321, 3] = poison
    for eligible in (None, rows_of([5, 321, 400])):
        with pytest.raises(InvalidInput, match=r"vectors.*row 321"):
            search(make_index(poisoned_ND), queries_BD, 3, eligible)


def test_inner_products_that_overflow_are_refused(make_index: MakeIndex):
    vectors_ND = np.full((30, 4), 1e30, dtype=np.float32)
    vectors_ND[:15] = 1e-3
    index = make_index(vectors_ND)
    queries_BD = np.full((2, 4), 1e10, dtype=np.float32)
    with pytest.raises(InvalidInput, match="fit float32"):
        search(index, queries_BD, 3, None)
    assert (search(index, 1e-5 * queries_BD, 3, None).rows_BK == [15, 16, 17]).all()
    assert (search(index, -1e-5 * queries_BD, 3, rows_of(range(15))).rows_BK == [0, 1, 2]).all()


@pytest.mark.parametrize("k", [1, 10, 60])
def test_every_query_of_a_batch_is_answered_from_its_own_set(make_index: MakeIndex, vectors_ND: F32, k: int):
    """Sets of every size, the same one in several places, none at all: as each query alone, and as the oracle."""
    rng = np.random.default_rng(k)
    index = make_index(vectors_ND)
    sizes = [0, 1, 5, 30, 70, 300, 2_600, 4_999, 5_000]
    sets = [None, *(rows_of(np.sort(rng.choice(5_000, size, replace=False))) for size in sizes)]
    for _ in range(4):
        eligible_B = [sets[place] for place in rng.integers(0, len(sets), 24)]
        queries_BD = rng.standard_normal((24, 24)).astype(np.float32)
        found = index.search(queries_BD, k, eligible_B)
        assert_bitwise(found, ExactIndex(vectors_ND).search(queries_BD, k, eligible_B))
        for b, eligible in enumerate(eligible_B):
            assert_bitwise(search(index, queries_BD[b : b + 1], k, eligible), batch_of_one(found, b))


def test_every_query_is_told_its_plan(request: pytest.FixtureRequest, make_index: MakeIndex, vectors_ND: F32):
    few, some, many = rows_of(range(9)), rows_of(range(0, 5_000, 9)), rows_of(range(4_000))
    queries_BD = np.ones((6, 24), np.float32)
    index = make_index(vectors_ND)
    eligible_B = [None, few, some, many, some, rows_of(range(5_000))]
    for _ in range(5):  # until every set that is to be gathered is
        index.search(queries_BD, 3, eligible_B)
    whole, part, most = {
        "exact": ("exact", "exact", "exact"),
        "planned": ("whole", "own", "own"),
        "planned-scored": ("whole", "brute_force", "brute_force"),
        "planned-plain": ("whole", "own", "own"),
        "planned-gathered": ("whole", "own", "own"),
        "planned-whole": ("whole", "whole", "whole"),
        "planned-ivf": ("ivf", "ivf", "ivf"),
        "planned-tiny-cache": ("whole", "whole", "whole"),
        "segmented": ("whole", "own", "whole"),
        "segmented-short": ("brute_force", "brute_force", "brute_force"),
        "planned-cuda": ("flat", "own", "own"),
    }[request.node.callspec.params["make_index"]]
    every_row = "exact" if whole == "exact" else "brute_force"
    plans_B = (whole, every_row, part, most, part, whole)
    assert index.search(queries_BD, 3, eligible_B).plans_B == plans_B


# Parts of sets, which one request wants for itself


def remaining(parent: EligibleSet | None, removed: npt.ArrayLike, count: int) -> EligibleSet:
    """The rest of a set without some rows, as a set of its own: what the oracle is asked."""
    rows_N = np.arange(count) if parent is None else parent.rows_N
    return rows_of(np.setdiff1d(rows_N, np.asarray(removed, np.int64)))


REMOVED = (
    "nothing",
    "what is not in the set",
    "one row",
    "some rows, one of them twice",
    "the best",
    "nine in ten",
    "all but seven",
    "everything",
)


def removed_of(parent: EligibleSet, removed: str, vectors_ND: F32, queries_BD: F32) -> npt.NDArray[np.int64]:
    rows_N = parent.rows_N.astype(np.int64)
    return {
        "nothing": rows_N[:0],
        "what is not in the set": np.setdiff1d(np.arange(-9, 6_000), rows_N),
        "one row": rows_N[:1],
        "some rows, one of them twice": np.concatenate([rows_N[::7], rows_N[:1]]),
        "the best": rows_N[np.argsort(-(vectors_ND[rows_N] @ queries_BD.T), axis=0)[:30].ravel()],
        "nine in ten": rows_N[rows_N % 10 > 0],
        "all but seven": rows_N[7:],
        "everything": rows_N,
    }[removed]


@pytest.mark.parametrize("removed", REMOVED)
@pytest.mark.parametrize("step", [1, 2, 40])
def test_what_is_left_of_a_set_equals_the_oracle(
    make_index: MakeIndex, vectors_ND: F32, queries_BD: F32, step: int, removed: str
):
    """Of a set that nobody has asked for, and of one that has been asked for often."""
    index, oracle, parent = make_index(vectors_ND), ExactIndex(vectors_ND), rows_of(range(0, 5_000, step))
    gone_R = removed_of(parent, removed, vectors_ND, queries_BD)
    part, alone = EligibleSet.derived(parent, gone_R), remaining(parent, gone_R, 5_000)
    for _ in range(2):
        for k in (1, 10, 300):
            assert_bitwise(search(index, queries_BD, k, part), search(oracle, queries_BD, k, alone))
            assert_bitwise(search(index, queries_BD, k, parent), search(oracle, queries_BD, k, parent))


@pytest.mark.parametrize("removed", ["nothing", "some rows, one of them twice", "the best", "everything"])
@pytest.mark.parametrize("added", [[4_999], range(4_500, 5_000), range(0, 5_000, 3)])
@pytest.mark.parametrize("step", [2, 40])
def test_a_set_without_some_rows_and_with_others_equals_the_oracle(
    make_index: MakeIndex, vectors_ND: F32, queries_BD: F32, step: int, added: Sequence[int], removed: str
):
    """Of a set that nobody has asked for, and of one that has been asked for often; and of parts of the result."""
    index, oracle, parent = make_index(vectors_ND), ExactIndex(vectors_ND), rows_of(range(0, 5_000, step))
    gone_R = removed_of(parent, removed, vectors_ND, queries_BD)
    changed = EligibleSet.derived(parent, gone_R, np.array(added), own=False)
    rows = np.union1d(np.setdiff1d(parent.rows_N, gone_R), added)
    part, left = EligibleSet.derived(changed, np.arange(0, 5_000, 7)), rows[rows % 7 > 0]
    for _ in range(3):
        for k in (1, 10, 300):
            assert_bitwise(search(index, queries_BD, k, changed), search(oracle, queries_BD, k, rows_of(rows)))
            assert_bitwise(search(index, queries_BD, k, part), search(oracle, queries_BD, k, rows_of(left)))
            search(index, queries_BD, k, parent)


@pytest.mark.parametrize("some", [0, 5, 300, 2_000, 5_000])
@pytest.mark.parametrize("step", [1, 3])
def test_the_rows_named_of_a_set_equal_the_oracle(
    make_index: MakeIndex, vectors_ND: F32, queries_BD: F32, step: int, some: int
):
    index, parent = make_index(vectors_ND), rows_of(range(0, 5_000, step))
    named = np.random.default_rng(some).permutation(6_000)[:some]
    for part, rows in (
        (parent.among(named), np.intersect1d(named, parent.rows_N)),
        (
            EligibleSet.derived(parent.among(named), np.arange(900)),
            np.intersect1d(named, parent.rows_N[parent.rows_N >= 900]),
        ),
    ):
        expected = search(ExactIndex(vectors_ND), queries_BD, 20, rows_of(rows))
        assert_bitwise(search(index, queries_BD, 20, part), expected)


def test_a_part_of_a_set_that_was_driven_out_of_the_cache_equals_the_oracle(
    make_index: MakeIndex, vectors_ND: F32, queries_BD: F32
):
    index, random = make_index(vectors_ND), np.random.default_rng(0)
    for turn in range(12):
        parent = rows_of(np.arange(turn % 3, 5_000, 80))
        gone_R = random.choice(parent.rows_N, 9)
        found = search(index, queries_BD, 5, EligibleSet.derived(parent, gone_R))
        expected = search(ExactIndex(vectors_ND), queries_BD, 5, remaining(parent, gone_R, 5_000))
        assert_bitwise(found, expected)


@pytest.mark.parametrize("k", [1, 10, 60])
def test_ties_of_a_part_go_to_the_smaller_row(make_index: MakeIndex, k: int):
    """Of 1,500 copies of one vector every other is gone: the smallest rows of the rest win."""
    rng = np.random.default_rng(3)
    vectors_ND = integers(rng, 2_000, 8, 4)
    same_R = rng.choice(2_000, 1_500, replace=False)
    vectors_ND[same_R] = vectors_ND[same_R[0]]
    queries_BD = np.vstack([vectors_ND[same_R[:1]], -vectors_ND[same_R[:1]], np.zeros((1, 8), np.float32)])
    for parent in (rows_of(range(2_000)), rows_of(range(0, 2_000, 3))):
        gone_R = np.sort(same_R)[::2]
        found = search(make_index(vectors_ND), queries_BD, k, EligibleSet.derived(parent, gone_R))
        rows = remaining(parent, gone_R, 2_000).rows_N.tolist()
        assert_same(found, by_hand(vectors_ND, queries_BD, k, rows))


def test_sets_and_parts_of_them_in_one_batch(make_index: MakeIndex, vectors_ND: F32):
    rng = np.random.default_rng(1)
    index = make_index(vectors_ND)
    whole, half = rows_of(range(5_000)), rows_of(range(0, 5_000, 2))
    for _ in range(4):
        sets: list[tuple[EligibleSet | None, EligibleSet | None]] = [(None, None), (half, half)]
        for parent in (whole, half, half):
            gone_R = rng.choice(5_000, rng.integers(0, 400))
            sets.append((EligibleSet.derived(parent, gone_R), remaining(parent, gone_R, 5_000)))
            sets.append((parent.among(gone_R), rows_of(np.intersect1d(gone_R, parent.rows_N))))
        pairs = [sets[place] for place in rng.integers(0, len(sets), 20)]
        queries_BD = rng.standard_normal((20, 24)).astype(np.float32)
        found = index.search(queries_BD, 10, [part for part, _ in pairs])
        assert_bitwise(found, ExactIndex(vectors_ND).search(queries_BD, 10, [alone for _, alone in pairs]))


@pytest.mark.parametrize("rows", [[4_999, 5_000], list(range(1, 5_001))])
def test_a_part_of_a_set_of_another_catalogue_is_refused(
    make_index: MakeIndex, vectors_ND: F32, queries_BD: F32, rows: list[int]
):
    with pytest.raises(InvalidInput, match=r"eligible.rows"):
        search(make_index(vectors_ND), queries_BD, 3, EligibleSet.derived(rows_of(rows), np.array([4_999])))


@pytest.mark.parametrize("sets", [0, 8, 10])
def test_not_as_many_sets_as_queries_are_refused(make_index: MakeIndex, vectors_ND: F32, queries_BD: F32, sets: int):
    with pytest.raises(InvalidInput, match="each of 9 queries"):
        make_index(vectors_ND).search(queries_BD, 3, [None] * sets)


def test_queries_of_another_shape_or_dtype_are_refused(make_index: MakeIndex, vectors_ND: F32, queries_BD: F32):
    index = make_index(vectors_ND)
    for wrong in (queries_BD[:, :23], queries_BD[0], queries_BD[None], queries_BD.astype(np.float64)):
        with pytest.raises(InvalidInput, match="queries"):
            search(index, wrong, 3, None)  # pyright: ignore[reportArgumentType]


def test_queries_need_not_be_contiguous(make_index: MakeIndex, vectors_ND: F32, queries_BD: F32):
    index = make_index(vectors_ND)
    assert_bitwise(search(index, np.asfortranarray(queries_BD), 10, None), search(index, queries_BD, 10, None))


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(make_index: MakeIndex, vectors_ND: F32, queries_BD: F32, k: int):
    with pytest.raises(InvalidInput, match="k: "):
        search(make_index(vectors_ND), queries_BD, k, None)


@pytest.mark.parametrize("rows", [[4_999, 5_000], [5_000], list(range(1, 5_001))])
def test_rows_of_another_catalogue_are_refused(
    make_index: MakeIndex, vectors_ND: F32, queries_BD: F32, rows: list[int]
):
    with pytest.raises(InvalidInput, match=r"eligible.rows"):
        search(make_index(vectors_ND), queries_BD, 3, rows_of(rows))


def test_vectors_of_another_shape_or_dtype_are_refused(make_index: MakeIndex, vectors_ND: F32):
    for wrong in (
        vectors_ND[0],
        vectors_ND.astype(np.float64),
        vectors_ND[:, :0],
        np.asfortranarray(vectors_ND),
    ):
        with pytest.raises(InvalidInput, match="vectors"):
            make_index(wrong)  # pyright: ignore[reportArgumentType]


@st.composite
def _searches(draw: st.DrawFn) -> tuple[F32, F32, int, list[int], bool]:
    """Whole numbers for exact arithmetic, or any float32 of moderate size; often with repeated vectors."""
    whole = draw(st.booleans())
    numbers = st.integers(-3, 3).map(float) if whole else st.floats(-1e3, 1e3, width=32, allow_subnormal=True)
    count, dimensions, batch = draw(st.integers(1, 60)), draw(st.integers(1, 9)), draw(st.integers(1, 4))
    distinct_ND = draw(arrays(np.float32, (count, dimensions), elements=numbers))
    copies = draw(st.lists(st.integers(0, count - 1), max_size=60))
    vectors_ND = np.ascontiguousarray(np.vstack([distinct_ND, distinct_ND[copies]]))
    queries_BD = draw(arrays(np.float32, (batch, dimensions), elements=numbers))
    rows = sorted(draw(st.sets(st.integers(0, len(vectors_ND) - 1))))
    return vectors_ND, queries_BD, draw(st.integers(1, 40)), rows, whole


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=_searches())
def test_any_search_is_exact(make_index: MakeIndex, case: tuple[F32, F32, int, list[int], bool]):
    vectors_ND, queries_BD, k, rows, whole = case
    eligible = rows_of(rows)
    found = search(make_index(vectors_ND), queries_BD, k, eligible)
    assert_bitwise(found, search(ExactIndex(vectors_ND), queries_BD, k, eligible))
    if whole:
        assert_same(found, by_hand(vectors_ND, queries_BD, k, rows))
    for b in range(len(queries_BD)):
        returned = [row for row in found.rows_BK[b].tolist() if row != -1]
        assert len(returned) == len(set(returned)) == min(k, len(rows))
        assert set(returned) <= set(rows)
        assert (np.diff(found.scores_BK[b, : len(returned)]) <= 0).all()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=_searches(), data=st.data())
def test_any_search_of_a_part_is_exact(
    make_index: MakeIndex, case: tuple[F32, F32, int, list[int], bool], data: st.DataObject
):
    vectors_ND, queries_BD, k, rows, _ = case
    count = len(vectors_ND)
    named = data.draw(st.none() | st.lists(st.integers(-3, count + 3), max_size=count))
    gone = data.draw(st.lists(st.integers(-3, count + 3), max_size=count))
    parent = rows_of(rows)
    part = EligibleSet.derived(
        parent if named is None else parent.among(np.array(named, np.int64)), np.array(gone, np.int64)
    )
    alone = rows_of(sorted({row for row in rows if (named is None or row in named) and row not in gone}))
    index = make_index(vectors_ND)
    if data.draw(st.booleans()):
        search(index, queries_BD, k, parent)
    assert_bitwise(search(index, queries_BD, k, part), search(ExactIndex(vectors_ND), queries_BD, k, alone))
