"""The compiled loops against slow NumPy and Python, and what they refuse."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings import kernel
from embeddings.history import EVENT

# Around 256 and its powers the digits that rows are sorted by carry over.
ROWS = st.one_of(st.integers(0, 40), st.integers(250, 260), st.integers(65_530, 65_540), st.integers(2**24, 2**24 + 9))
WEIGHTS = st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0])
SETS = st.lists(ROWS, unique=True, max_size=60).map(sorted)


@given(SETS, st.lists(ROWS, max_size=40))
def test_members_are_the_rows_of_the_set(members: list[int], asked: list[int]):
    asked_R = np.array([*asked, -1], np.int64)
    for rows_N in (np.array(members, np.int32), np.array(members, np.int64)):
        assert kernel.Members(rows_N).contains(asked_R).tolist() == [row in members for row in asked_R.tolist()]


@pytest.mark.parametrize("members", [list(range(70)), list(range(0, 700, 7)), [0, 10**6], [2**40]])
def test_members_are_found_however_they_are_kept(members: list[int]):
    asked = [row + step for row in members for step in (-1, 0, 1)]
    found = kernel.Members(np.array(members, np.int64)).contains(np.array(asked, np.int64))
    assert found.tolist() == [row in members for row in asked]


@given(st.lists(st.tuples(ROWS, WEIGHTS), unique_by=lambda one: one[0], max_size=40), SETS, st.integers(0, 10))
def test_the_largest_are_of_the_set_and_ties_go_by_row(scored: list[tuple[int, float]], members: list[int], most: int):
    rows, weights = ([one[place] for one in scored] for place in range(2))
    pairs = np.array(rows, np.int64), np.array(weights, np.float32)
    found = kernel.largest(pairs, kernel.Members(np.array(members, np.int64)), most)
    inside = sorted((-weight, row) for row, weight in scored if row in members)
    assert sorted(found.tolist()) == sorted(row for _, row in inside[:most])


@given(st.lists(st.lists(ROWS, max_size=20), max_size=5))
def test_what_is_merged_carries_the_number_of_the_first_list(lists: list[list[int]]):
    rows_K, lists_K = kernel.merged([np.array(one, np.int64) for one in lists])
    first: dict[int, int] = {}
    for number, one in enumerate(lists):
        for row in one:
            first.setdefault(row, number)
    assert dict(zip(rows_K.tolist(), lists_K.tolist(), strict=True)) == first
    assert rows_K.tolist() == sorted(first)


@given(st.lists(st.tuples(st.integers(0, 5), WEIGHTS), max_size=12), st.integers(0, 2**32 - 1))
def test_around_adds_up_weighted_cosines(weighted: list[tuple[int, float]], seed: int):
    random = np.random.default_rng(seed)
    near_NT = random.integers(-1, 70_000, (6, 4)).astype(np.int32)
    cosines_NT = random.random((6, 4)).astype(np.float32)
    rows, weights = ([one[place] for one in weighted] for place in range(2))
    found = kernel.around(np.array(rows, np.int64), np.array(weights, np.float32), near_NT, cosines_NT)
    expected: defaultdict[int, float] = defaultdict(float)
    for row, weight in weighted:
        for near, cosine in zip(near_NT[row].tolist(), cosines_NT[row].tolist(), strict=True):
            if near >= 0:
                expected[near] += weight * cosine
    assert found[0].tolist() == sorted(expected)
    assert found[1].tolist() == pytest.approx([expected[row] for row in sorted(expected)])


@given(st.integers(1, 70), st.integers(0, 9), st.integers(0, 2**32 - 1))
def test_the_best_are_those_of_a_stable_sort(dimensions: int, kept: int, seed: int):
    random = np.random.default_rng(seed)
    # Whole numbers: their products add up exactly in any order, and many scores are equal.
    vectors_ND = random.integers(-2, 3, (20, dimensions)).astype(np.float32)
    queries_BD = random.integers(-2, 3, (3, dimensions)).astype(np.float32)
    rows_BP = np.stack([random.permutation(20)[:9] for _ in range(3)])
    rows_BP[random.random((3, 9)) < 0.2] = -1
    rows_BK, scores_BK = kernel.best(queries_BD, vectors_ND, rows_BP, kept)
    for query_D, rows_P, rows_K, scores_K in zip(queries_BD, rows_BP, rows_BK, scores_BK, strict=True):
        scores_P = np.where(rows_P < 0, -np.inf, vectors_ND[rows_P] @ query_D)
        order = np.lexsort((rows_P, -scores_P))[:kept]
        assert rows_K.tolist() == rows_P[order].tolist()
        assert scores_K.tolist() == scores_P[order].tolist()


@given(st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_an_inner_product_is_within_rounding_of_that_in_double_precision(dimensions: int, seed: int):
    random = np.random.default_rng(seed)
    queries_BD = random.standard_normal((3, dimensions)).astype(np.float32)
    vectors_BKD = random.standard_normal((3, 4, dimensions)).astype(np.float32)
    exact_BK = np.einsum("bd,bkd->bk", queries_BD.astype(np.float64), vectors_BKD.astype(np.float64))
    np.testing.assert_allclose(kernel.inner_products(queries_BD, vectors_BKD), exact_BK, rtol=1e-5, atol=1e-5)


ROWS_2, WEIGHTS_2 = np.zeros(2, np.int64), np.zeros(2, np.float32)


def test_arrays_of_another_type_are_refused_and_not_converted():
    nobody = kernel.Members(ROWS_2[:0])
    with pytest.raises(TypeError):
        kernel.largest((ROWS_2.astype(np.int32), WEIGHTS_2), nobody, 1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        kernel.largest((ROWS_2, WEIGHTS_2.astype(np.float64)), nobody, 1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        kernel.largest((np.zeros(4, np.int64)[::2], WEIGHTS_2), nobody, 1)
    with pytest.raises(TypeError):
        kernel.told(np.zeros(3, EVENT)[::2], [True])


def test_sizes_that_do_not_fit_are_refused():
    vectors_ND = np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match="as many weights as rows"):
        kernel.largest((ROWS_2, WEIGHTS_2[:1]), kernel.Members(ROWS_2[:0]), 1)
    with pytest.raises(ValueError, match="at least none wanted"):
        kernel.largest((ROWS_2, WEIGHTS_2), kernel.Members(ROWS_2[:0]), -1)
    with pytest.raises(ValueError, match="rows of a catalogue"):
        kernel.merged([np.array([-1])])
    with pytest.raises(ValueError, match="rows of the catalogue"):
        kernel.around(np.array([3]), WEIGHTS_2[:1], np.zeros((3, 1), np.int32), np.zeros((3, 1), np.float32))
    with pytest.raises(ValueError, match="rows of the catalogue, or -1"):
        kernel.gather(vectors_ND, np.array([[3]]))
    with pytest.raises(ValueError, match="rows of the catalogue, or -1"):
        kernel.best(vectors_ND[:1], vectors_ND, np.array([[3]]), 1)
    with pytest.raises(ValueError, match="at least as many as are kept"):
        kernel.best(vectors_ND[:1], vectors_ND, np.array([[0]]), 2)
