"""The compiled loops against slow NumPy and Python, and what they refuse."""

import itertools
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embeddings import kernel
from embeddings.customer.history import EVENT, PURCHASE
from embeddings.index.host import principal_rotation
from embeddings.ranking.profile import GROUP, OWN

_F32, _I32, _I64 = NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]

# Around 256 and its powers the digits that rows are sorted by carry over.
ROWS = st.one_of(st.integers(0, 40), st.integers(250, 260), st.integers(65_530, 65_540), st.integers(2**24, 2**24 + 9))
WEIGHTS = st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0])
SETS = st.lists(ROWS, unique=True, max_size=60).map(sorted)


@given(SETS, st.lists(ROWS, max_size=40))
def test_members_are_the_rows_of_the_set(members: list[int], asked: list[int]):
    asked_R = np.array([*asked, -1], np.int64)
    for rows_N in (np.array(members, np.int32), np.array(members, np.int64)):
        assert kernel.Members(rows_N).contains(asked_R).tolist() == [row in members for row in asked_R.tolist()]


@given(SETS, st.lists(ROWS, max_size=40), st.lists(ROWS, max_size=40))
def test_members_can_be_taken_out_in_any_order(members: list[int], gone: list[int], more: list[int]):
    left = kernel.Members(np.array(members, np.int64))
    for some in (gone, more):
        left = left.without(np.array([*some, *some, -1, 2**40], np.int64))
        members = [row for row in members if row not in some]
        assert left.size == len(members)
        asked_R = np.array([*members, *gone, *more, -1], np.int64)
        assert left.contains(asked_R).tolist() == [row in members for row in asked_R.tolist()]


@pytest.mark.parametrize("rows", [[-1], [-1, 3], [3, 2], [2, 2], [9, 1, 2], [2**62, 1]])
def test_members_that_are_not_ascending_rows_are_refused(rows: list[int]):
    with pytest.raises(ValueError, match="ascending and not negative"):
        kernel.Members(np.array(rows, np.int64))


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


@given(st.lists(st.tuples(WEIGHTS, st.booleans()), max_size=30), st.integers(0, 12), st.booleans())
def test_what_leads_is_what_a_stable_sort_puts_first(scored: list[tuple[float, bool]], most: int, held_back: bool):
    scores_K = np.array([score for score, _ in scored], np.float32)
    back_K = np.array([back for _, back in scored], np.bool_)
    rows_K, sources_K = np.arange(len(scored)) + 100, np.arange(len(scored)) % 3
    found = kernel.leading(scores_K, rows_K, sources_K, back_K if held_back else None, most)
    order = np.lexsort((-scores_K, back_K & held_back))[:most].tolist()
    assert found == [(place, 100 + place, float(scores_K[place]), place % 3) for place in order]


@given(st.lists(WEIGHTS, max_size=30), st.integers(0, 12))
def test_the_foremost_are_those_of_a_stable_sort(weights: list[float], most: int):
    weights_R = np.array(weights, np.float32)
    assert kernel.foremost(weights_R, most).tolist() == np.argsort(-weights_R, kind="stable")[:most].tolist()


@given(SETS, st.lists(ROWS, max_size=20))
def test_what_was_never_bought_was_bought_no_times(bought: list[int], asked: list[int]):
    times = kernel.times_bought(np.array(bought, np.int64), np.arange(1, len(bought) + 1), asked)
    assert times == [bought.index(row) + 1 if row in bought else 0 for row in asked]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 99)), max_size=20), st.lists(st.booleans(), max_size=6))
def test_the_newest_event_is_one_of_the_types_asked_for(events: list[tuple[int, int]], types: list[bool]):
    events_E = np.zeros(len(events), EVENT)
    for place, (kind, at) in enumerate(events):
        events_E[place]["type"], events_E[place]["at"] = kind, at
    of_types = [at for kind, at in events if kind < len(types) and types[kind]]
    assert kernel.newest_of(events_E, types) == max(of_types, default=0)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 1)), max_size=5), st.lists(st.booleans(), max_size=6))
def test_events_tell_if_one_of_a_product_is_of_the_types_asked_for(events: list[tuple[int, int]], types: list[bool]):
    events_E = np.zeros(len(events), EVENT)
    for place, (kind, product) in enumerate(events):
        events_E[place]["type"], events_E[place]["product"] = kind, product
    expected = any(kind < len(types) and types[kind] and product >= 0 for kind, product in events)
    assert kernel.any_interaction(events_E, types) is expected


_MOMENTS = st.lists(st.integers(0, 9), max_size=20)


@given(_MOMENTS, _MOMENTS)
def test_inserted_events_come_after_older_ones_of_their_second(moments: list[int], added: list[int]):
    events_E, added_E = np.zeros(len(moments), EVENT), np.zeros(len(added), EVENT)
    events_E["at"], added_E["at"] = sorted(moments), added
    events_E["product"], added_E["product"] = np.arange(len(moments)), 100 + np.arange(len(added))
    both_E = np.concatenate([events_E, added_E])
    found = kernel.inserted(events_E, added_E)
    assert found.tobytes() == both_E[np.argsort(both_E["at"], kind="stable")].tobytes()


SIZES = st.sampled_from([0.0, 1e-44, 1e-40, 1e-20, 1e-3, 1.0, 1e9, 1e18])


@st.composite
def _searches(draw: st.DrawFn) -> tuple[_F32, _F32, _I64, int]:
    """Queries, vectors, rows and how many are wanted: ties and duplicates, zeros, numbers of any size."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, dimensions, queries = draw(st.integers(1, 400)), draw(st.integers(1, 70)), draw(st.integers(1, 3))
    vectors_ND = random.standard_normal((count, dimensions))
    match draw(st.sampled_from(["as drawn", "whole numbers", "duplicates", "one number each", "of any size"])):
        case "whole numbers":
            vectors_ND = np.rint(vectors_ND)
        case "duplicates":
            vectors_ND = vectors_ND[random.integers(0, max(1, count // 20), count)]
        case "one number each":
            vectors_ND *= np.eye(dimensions)[random.integers(0, dimensions, count)]
        case "of any size":
            vectors_ND *= 10 ** random.uniform(-45, 0, (count, 1))
        case _:
            pass
    queries_BD = random.standard_normal((queries, dimensions)) * draw(SIZES)
    rows_N = np.flatnonzero(random.random(count) < draw(st.sampled_from([0.1, 0.5, 1.0])))
    wanted = draw(st.sampled_from([1, 2, 10, 64, 500]))
    return queries_BD.astype(np.float32), (vectors_ND * draw(SIZES)).astype(np.float32), rows_N, wanted


def _copy(vectors_ND: _F32, rows_N: _I32 | _I64) -> tuple[kernel.QuantisedSet, _F32]:
    """A copy of some rows, and the axes that queries of it are turned by."""
    rotation_DD = principal_rotation(vectors_ND, kernel.max_norm(vectors_ND))
    return kernel.QuantisedSet(vectors_ND[rows_N] @ rotation_DD, rows_N, len(vectors_ND)), rotation_DD


@settings(max_examples=300, deadline=None)
@given(_searches())
def test_the_nearest_are_those_of_a_stable_sort(case: tuple[_F32, _F32, _I64, int]):
    queries_BD, vectors_ND, rows_N, wanted = case
    places = list(range(len(queries_BD)))
    scores_BN = kernel.inner_products(queries_BD, vectors_ND[rows_N][None])
    for narrow_N in (rows_N, rows_N.astype(np.int32)):
        copy, rotation_DD = _copy(vectors_ND, narrow_N)
        larger, _ = _copy(vectors_ND, np.arange(len(vectors_ND)))
        members = kernel.Members(narrow_N)
        sets = ((narrow_N, None), (copy, None), (larger, members), (larger.among(members), None))
        for (held, some), isa in itertools.product(sets, kernel.isas()):
            rows_BK, scores_BK = kernel.nearest(
                queries_BD, rotation_DD, vectors_ND, [(held, some, places, None)], wanted, isa
            )
            for scores_N, rows_K, scores_K in zip(scores_BN, rows_BK, scores_BK, strict=True):
                order = np.lexsort((rows_N, -scores_N))[:wanted]
                assert rows_K[: len(order)].tolist() == rows_N[order].tolist()
                assert scores_K[: len(order)].tobytes() == scores_N[order].tobytes()
                assert (rows_K[len(order) :] == -1).all()
                assert (scores_K[len(order) :] == -np.inf).all()


@pytest.mark.parametrize("dimensions", [1, 7, 64, 600])
@pytest.mark.parametrize("equal", [0, 30, 5_000])
def test_the_nearest_of_many_with_and_without_ties(equal: int, dimensions: int):
    random = np.random.default_rng(equal)
    vectors_ND = random.standard_normal((9_000, dimensions)).astype(np.float32)
    queries_BD = random.standard_normal((2, dimensions)).astype(np.float32)
    # The best of all, many times over.
    vectors_ND[random.choice(9_000, equal, replace=False)] = 3 * queries_BD[0]
    copy, rotation_DD = _copy(vectors_ND, np.arange(9_000))
    scores_BN = kernel.inner_products(queries_BD, vectors_ND[None])
    order_BN = np.argsort(-scores_BN, axis=1, kind="stable")[:, :50]
    for isa in kernel.isas():
        rows_BK, scores_BK = kernel.nearest(queries_BD, rotation_DD, vectors_ND, [(copy, None, [0, 1], None)], 50, isa)
        assert rows_BK.tolist() == order_BN.tolist()
        assert scores_BK.tobytes() == np.take_along_axis(scores_BN, order_BN, axis=1).tobytes()


def test_every_processor_knows_the_plain_scan_and_others_are_refused():
    """The instructions can be chosen, so that a machine with better ones tests the plain ones too."""
    vectors_ND, rows_N = np.ones((3, 2), np.float32), np.arange(3)
    copy, rotation_DD = _copy(vectors_ND, rows_N)
    assert kernel.isas()[-1] == "plain"
    with pytest.raises(ValueError, match="instruction sets of this processor"):
        kernel.nearest(vectors_ND, rotation_DD, vectors_ND, [(copy, None, [0], None)], 1, "abacus")


def test_rows_beside_a_copy_are_scored_with_those_of_it():
    vectors_ND = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)
    copy, rotation_DD = _copy(vectors_ND, np.arange(0, 500, 2))
    beside_R, left = np.array([1, 77, 499, 3]), np.arange(100, 500, 2)
    found = kernel.nearest(
        vectors_ND[:2], rotation_DD, vectors_ND, [(copy, kernel.Members(left), [0, 1], beside_R)], 30
    )
    rows_N = np.sort(np.concatenate([left, beside_R]))
    expected = kernel.nearest(vectors_ND[:2], None, vectors_ND, [(rows_N, None, [0, 1], None)], 30)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_every_query_is_answered_from_its_own_set():
    vectors_ND = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)
    sets = [np.arange(3), np.arange(0, 500, 2), np.arange(400), np.arange(0)]
    (even, rotation_DD), (most, _) = _copy(vectors_ND, sets[1]), _copy(vectors_ND, sets[2])
    asked = [
        (even, None, [6, 0], None),
        (sets[0], None, [2], None),
        (most, None, [1, 3], None),
        (sets[3], None, [4], None),
    ]
    together = kernel.nearest(vectors_ND[:7], rotation_DD, vectors_ND, asked, 9)
    for place, at in ((0, 1), (1, 2), (2, 0), (3, 2), (4, 3), (6, 1)):
        query_1D = vectors_ND[place : place + 1]
        alone = kernel.nearest(query_1D, None, vectors_ND, [(sets[at], None, [0], None)], 9)
        assert together[0][place].tolist() == alone[0][0].tolist()
        assert together[1][place].tolist() == alone[1][0].tolist()
    assert together[0][5].tolist() == [-1] * 9  # nobody's


@pytest.mark.parametrize("rows", [0, 1, 32, 33, 400])
@pytest.mark.parametrize("dimensions", [1, 16, 17])
def test_what_a_copy_takes_is_known_before(rows: int, dimensions: int):
    copy = kernel.QuantisedSet(np.zeros((rows, dimensions), np.float32), np.arange(rows), 400)
    assert copy.nbytes == kernel.QuantisedSet.bytes_of(rows, dimensions)
    assert copy.among(kernel.Members(np.arange(rows))).nbytes == copy.nbytes
    blocks = -(-rows // 32)
    assert copy.nbytes == blocks * (32 * (dimensions + dimensions % 2 + 12) + 4) + 4 * rows


def test_the_longest_is_the_longest():
    assert kernel.max_norm(np.zeros((0, 3), np.float32)) == 0
    assert kernel.max_norm(np.array([[3, 4], [0, 1]], np.float32)) == 5
    assert kernel.max_norm(np.array([[3e38, 3e38]], np.float32)) == pytest.approx(3e38 * 2**0.5)
    for odd in (np.nan, np.inf, -np.inf):
        assert kernel.max_norm(np.array([[0, odd], [1, 1]], np.float32)) == np.inf


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
        kernel.any_interaction(np.zeros(3, EVENT)[::2], [True])


def test_copies_and_searches_that_do_not_fit_are_refused():
    vectors_ND, rows_N = np.ones((3, 2), np.float32), np.arange(3)
    copy, rotation_DD = _copy(vectors_ND, rows_N)
    with pytest.raises(ValueError, match=r"their vectors \(N, D\)"):
        kernel.QuantisedSet(vectors_ND[:2], rows_N, 3)
    with pytest.raises(ValueError, match=r"axes \(D, D\)"):
        kernel.nearest(vectors_ND, vectors_ND, vectors_ND, [(rows_N, None, [0], None)], 1)
    with pytest.raises(ValueError, match="copy of which some rows are members"):
        kernel.nearest(vectors_ND, None, vectors_ND, [(rows_N, kernel.Members(rows_N), [0], None)], 1)
    with pytest.raises(ValueError, match="copy that rows lie beside"):
        kernel.nearest(vectors_ND, None, vectors_ND, [(rows_N, None, [0], rows_N)], 1)
    with pytest.raises(ValueError, match="rows of the catalogue"):
        kernel.nearest(vectors_ND, rotation_DD, vectors_ND, [(copy, None, [0], np.array([3]))], 1)
    with pytest.raises(ValueError, match="rotation of the copies"):
        kernel.nearest(vectors_ND, None, vectors_ND, [(copy, None, [0], None)], 1)
    with pytest.raises(ValueError, match="rows of the catalogue"):
        copy.among(kernel.Members(np.array([3])))
    for outside in ([3], [-1]):
        with pytest.raises(ValueError, match="rows of the catalogue"):
            kernel.QuantisedSet(vectors_ND[:1], np.array(outside), 3)
        with pytest.raises(ValueError, match="rows of the catalogue"):
            kernel.nearest(vectors_ND, None, vectors_ND, [(np.array(outside), None, [0], None)], 1)
    for odd in (np.nan, np.inf):
        odd_ND = vectors_ND.copy()
        odd_ND[1, 1] = odd
        with pytest.raises(ValueError, match="finite vectors"):
            kernel.QuantisedSet(odd_ND, rows_N, 3)
        with pytest.raises(ValueError, match="finite queries"):
            kernel.nearest(odd_ND, rotation_DD, vectors_ND, [(copy, None, [1], None)], 1)
    with pytest.raises(ValueError, match="finite queries and vectors"):
        kernel.nearest(vectors_ND, None, vectors_ND * np.float32(np.nan), [(rows_N, None, [0], None)], 1)
    with pytest.raises(ValueError, match="copies of these vectors"):
        kernel.nearest(vectors_ND, rotation_DD, vectors_ND[:2], [(copy, None, [0], None)], 1)
    for place in (-1, 3):
        with pytest.raises(ValueError, match="places of queries"):
            kernel.nearest(vectors_ND, None, vectors_ND, [(rows_N, None, [place], None)], 1)
    with pytest.raises(ValueError, match="at least one row wanted"):
        kernel.nearest(vectors_ND, None, vectors_ND, [(rows_N, None, [0], None)], 0)
    with pytest.raises(ValueError, match=r"queries \(B, D\)"):
        kernel.nearest(vectors_ND[:, :1].copy(), None, vectors_ND, [(rows_N, None, [0], None)], 1)
    with pytest.raises(TypeError, match="copies, or contiguous rows"):
        kernel.nearest(vectors_ND, None, vectors_ND, [(np.arange(6)[::2], None, [0], None)], 1)


def test_what_has_no_order_is_refused():
    """Sorting by a comparison that contradicts itself reads anywhere."""
    odd_2, vectors_ND = np.full(2, np.nan, np.float32), np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match="weights that are numbers"):
        kernel.largest((ROWS_2, odd_2), kernel.Members(ROWS_2[:0]), 1)
    with pytest.raises(ValueError, match="weights that are numbers"):
        kernel.foremost(odd_2, 1)
    with pytest.raises(ValueError, match="scores that are numbers"):
        kernel.leading(odd_2, ROWS_2, ROWS_2, None, 1)
    with pytest.raises(ValueError, match="finite queries and vectors"):
        kernel.best(odd_2[None], vectors_ND, np.array([[0]]), 1)


def test_moments_whose_differences_do_not_fit_are_refused():
    events_2 = np.zeros(2, EVENT)
    events_2["type"], events_2["at"] = PURCHASE, (-(2**63), 2**63 - 1)
    with pytest.raises(ValueError, match="moments in seconds"):
        kernel.purchases(events_2, 0.9, 0)
    with pytest.raises(ValueError, match="moments in seconds"):
        kernel.latest([events_2], [True] * (PURCHASE + 1), [0], 1)
    events_2["at"] = 1
    with pytest.raises(ValueError, match="moments in seconds"):
        kernel.purchases(events_2, 0.9, 0)[2].at_hour(2**62, 1.0, 1.0)


def test_tables_that_do_not_fit_are_refused():
    def made(offsets: list[int], gap: int = 0, wide: int = 0, price: int = 0, narrow: int = 0) -> kernel.FeatureReader:
        numbers_23, codes_21 = np.zeros((2, 3), np.float32), np.zeros((2, 1), np.int32)
        lifts_11, carried, figures = np.zeros((1, 1), np.float32), np.zeros(4, np.int32), np.zeros(4, np.float32)
        offsets_L = np.array(offsets, np.int64)
        tables = numbers_23, codes_21, lifts_11, numbers_23, numbers_23
        hazards = numbers_23[:, :2].copy(), numbers_23[:, :2].copy(), [3.0]
        return kernel.FeatureReader(*tables, offsets_L, carried, figures, figures, *hazards, gap, price, narrow, wide)

    made([0, 3, 4])
    for offsets in ([], [0, 3], [0, 5, 4], [-1, 4]):
        with pytest.raises(ValueError, match="offsets that ascend"):
            made(offsets)
    for gap, wide in ((-1, 0), (3, 0), (0, -1), (0, 1)):
        with pytest.raises(ValueError, match="columns of the tables"):
            made([0, 4], gap, wide)
    for price, narrow in ((-1, 0), (3, 0), (0, -1), (0, 1)):
        with pytest.raises(ValueError, match="columns of the tables"):
            made([0, 4], price=price, narrow=narrow)
    events_1 = np.zeros(1, EVENT)
    events_1["type"] = PURCHASE
    rows_R, _, by_visit, _ = kernel.purchases(events_1, 0.9, 0)
    never = 0.0, 0.0, 0.0, 0.0
    for code in (-1, 2**24, 2**31 - 1):
        codes_11, gaps_11 = np.full((1, 1), code, np.int32), np.zeros((1, 1), np.float32)
        with pytest.raises(ValueError, match="codes of groups"):
            by_visit.statistics(rows_R, gaps_11, 0, 0, codes_11, (0.9, 0.9), 0.9, 1.0, 1.0, never, 7.0)


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
    events_2 = np.zeros(2, EVENT)
    events_2["type"], events_2["at"] = PURCHASE, (1, 0)
    with pytest.raises(ValueError, match="oldest first"):
        kernel.purchases(events_2, 0.9, 0)
    for offsets in ([], [1, 2], [0, 1], [0, 3, 2]):
        with pytest.raises(ValueError, match="offsets that ascend"):
            kernel.bought(events_2, np.array(offsets, np.int64), 0)
    for refused in (
        lambda: kernel.bought(events_2[:0], np.zeros(1, np.int64), -1),
        lambda: kernel.purchases(events_2[:0], 0.9, -1),
    ):
        with pytest.raises(ValueError, match="longest pause in a visit"):
            refused()
    with pytest.raises(ValueError, match="a length of time"):
        kernel.purchases(events_2[:1], 0.9, 0)[2].at_hour(0, 0, 1.0)
    with pytest.raises(ValueError, match="a moment for each customer"):
        kernel.latest([events_2], [True], [], 1)
    with pytest.raises(ValueError, match="at least one event"):
        kernel.latest([events_2], [True], [0], 0)
    with pytest.raises(ValueError, match="for each candidate"):
        kernel.leading(WEIGHTS_2, ROWS_2[:1], ROWS_2, None, 1)
    with pytest.raises(ValueError, match="for each candidate"):
        kernel.leading(WEIGHTS_2, ROWS_2, ROWS_2, np.zeros(1, np.bool_), 1)
    with pytest.raises(ValueError, match="at least none wanted"):
        kernel.foremost(WEIGHTS_2, -1)
    with pytest.raises(ValueError, match="a number for each row"):
        kernel.times_bought(ROWS_2, ROWS_2[:1], [])


def test_a_customer_whose_figures_do_not_fit_is_refused():
    own_RC, nothing = np.zeros((3, len(OWN)), np.float32), (ROWS_2[:0], WEIGHTS_2[:0])
    group = np.zeros(1, np.int32), np.zeros((2, len(GROUP)), np.float32)
    customer = kernel.Customer(ROWS_2, own_RC, [group], nothing, WEIGHTS_2)
    everything = kernel.Members(ROWS_2[:1])
    with pytest.raises(ValueError, match="each product bought, and one row more"):
        kernel.Customer(ROWS_2, own_RC[:2], [group], nothing, WEIGHTS_2)
    with pytest.raises(ValueError, match="each group, and one row more"):
        kernel.Customer(ROWS_2, own_RC, [(group[0], group[1][:1])], nothing, WEIGHTS_2)
    with pytest.raises(ValueError, match="a score for each row"):
        kernel.Customer(ROWS_2, own_RC, [group], (ROWS_2, WEIGHTS_2[:1]), WEIGHTS_2)
    with pytest.raises(ValueError, match="each product bought, and one more"):
        kernel.again(customer, WEIGHTS_2, 1.0, everything, 1)
    with pytest.raises(ValueError, match="at least none wanted"):
        kernel.due(customer, 1.0, everything, -1)
