from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.errors import InvalidInput

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@given(st.sets(st.integers(0, 2**31 - 1)), st.sets(st.integers(0, 2**31 - 1)))
def test_fingerprints_are_equal_exactly_where_the_rows_are(one: set[int], other: set[int]):
    first = EligibleSet.of(np.array(sorted(one), dtype=np.int32), NOON)
    wide = EligibleSet.of(np.array(sorted(one), dtype=np.int64), FOREVER)
    second = EligibleSet.of(np.array(sorted(other), dtype=np.int32), NOON)
    assert first.fingerprint == wide.fingerprint
    assert len(first.fingerprint) == 16
    assert (first.fingerprint == second.fingerprint) == (one == other)


def test_rows_that_are_too_large_for_32_bits_are_told_from_small_ones_of_the_same_bytes():
    large = EligibleSet.of(np.array([(2 << 32) + 1]), NOON)
    assert large.fingerprint != EligibleSet.of(np.array([1, 2]), NOON).fingerprint
    assert large.fingerprint == EligibleSet.of(np.array([(2 << 32) + 1]), FOREVER).fingerprint


def test_a_strided_view_has_the_fingerprint_of_its_rows():
    strided = EligibleSet.of(np.arange(20)[::2], NOON)
    assert strided.fingerprint == EligibleSet.of(np.arange(0, 20, 2), NOON).fingerprint


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (np.array([2, 1]), "ascending"),
        (np.array([1, 1]), "ascending"),
        (np.array([-1, 1]), "non-negative"),
        (np.array([[1, 2]]), "1-D"),
        (np.array([1.0, 2.0]), "int32 or int64"),
        (np.array([1, 2], dtype=np.uint32), "int32 or int64"),
        (np.array([1, 2], dtype=">i4"), "int32 or int64"),
    ],
)
def test_rows_that_break_the_contract_are_refused(rows: np.ndarray, expected: str):
    with pytest.raises(InvalidInput, match=expected):
        EligibleSet.of(rows, NOON)


def test_a_time_without_zone_is_refused():
    with pytest.raises(InvalidInput, match="time zone"):
        EligibleSet.of(np.array([1]), datetime(2026, 3, 1))  # noqa: DTZ001


def test_the_rows_kept_are_read_only_and_the_given_ones_stay_as_they_were():
    given_N = np.array([1, 5])
    kept = EligibleSet.of(given_N, NOON)
    assert given_N.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        kept.rows_N[0] = 3


def test_an_empty_set_is_a_set():
    assert len(EligibleSet.of(np.array([], dtype=np.int32), NOON).rows_N) == 0


KINDS = st.sampled_from([np.int32, np.int64])


@given(st.sets(st.integers(0, 40)), st.lists(st.integers(-2, 45)), KINDS)
def test_a_set_can_be_narrowed_to_some_rows_and_to_all_but_some(rows: set[int], some: list[int], kind: type):
    whole = EligibleSet.of(np.array(sorted(rows), np.int32), NOON)
    some_R = np.array(some, kind)
    for part, expected in (
        (whole.among(some_R), rows & set(some)),
        (EligibleSet.derived(whole, some_R), rows - set(some)),
        (EligibleSet.derived(whole.among(some_R), np.arange(20)), {row for row in rows & set(some) if row >= 20}),
        (EligibleSet.derived(whole, some_R).among(np.arange(20)), {row for row in rows - set(some) if row < 20}),
    ):
        assert part.rows_N.tolist() == sorted(expected)
        assert part.size == len(expected)
        assert part.fingerprint == EligibleSet.of(np.array(sorted(expected), kind), NOON).fingerprint
        asked_N = np.arange(-1, 46)
        assert part.contains(asked_N).tolist() == [row in expected for row in asked_N.tolist()]
        assert part.valid_until == NOON
        # All of a set is the set itself; whatever a part is made of, its parent is the set that others ask for.
        assert part.shared is whole
        assert part.parent is (None if expected == rows else whole)
        assert (part is whole) == (expected == rows)


@given(
    st.sets(st.integers(0, 300)), st.lists(st.integers(-2, 320)), st.lists(st.integers(0, 400)), st.booleans(), KINDS
)
def test_a_set_can_be_derived_from_one_that_was_derived(
    rows: set[int], removed: list[int], added: list[int], own: bool, kind: type
):
    whole = EligibleSet.of(np.array(sorted(rows), np.int32), NOON)
    gone, more = np.array(removed, kind), np.array(added, kind)
    once = EligibleSet.derived(whole, gone, more, own=False)
    expected = (rows - set(removed)) | set(added)
    twice = EligibleSet.derived(once, more[::2], gone[gone >= 0], own=own)
    again = (expected - set(added[::2])) | {row for row in removed if row >= 0}
    for one, wanted in ((once, expected), (twice, again), (twice.among(more), again & set(added))):
        assert one.rows_N.tolist() == sorted(wanted)
        assert (one.size, one.past >= max(wanted, default=-1) + 1) == (len(wanted), True)
        assert one.copied is whole
        assert one.added.tolist() == sorted(wanted - rows)
        asked_N = np.arange(-1, 410)
        assert one.contains(asked_N).tolist() == [row in wanted for row in asked_N.tolist()]
    assert once.shared is once
    if own and twice is not once:
        assert twice.shared is once


def test_rows_asked_about_need_not_be_contiguous():
    whole = EligibleSet.of(np.arange(10), NOON)
    assert whole.contains(np.arange(8, 12)[::2]).tolist() == [True, False]
    assert EligibleSet.derived(whole, np.arange(20)[::2]).rows_N.tolist() == [1, 3, 5, 7, 9]


ROWS = st.sets(st.integers(0, 60))


@given(ROWS, ROWS, ROWS, ROWS, st.integers(0, 61))
def test_a_set_is_split_at_a_row_and_parts_of_one_set_share_a_parent(
    rows: set[int], removed: set[int], added: set[int], more: set[int], row: int
):
    whole = EligibleSet.of(np.array(sorted(rows), np.int64), NOON)
    once = EligibleSet.derived(whole, np.array(sorted(removed), np.int64), np.array(sorted(added), np.int64))
    twice = EligibleSet.derived(once, np.array(sorted(more), np.int64))
    for part in (whole, once, twice):
        before, behind = part.split(row)
        expected = part.rows_N.tolist()
        assert before.rows_N.tolist() == [one for one in expected if one < row]
        assert behind.tolist() == [one for one in expected if one >= row]
        assert before.copied is whole.split(row)[0] or before is part
        assert before.past <= max(row, 0) or not before.size


@given(st.sets(st.integers(0, 200)), st.lists(st.integers(0, 200)), st.lists(st.integers(0, 200)))
def test_a_derived_set_has_the_fingerprint_of_its_rows(rows: set[int], removed: list[int], added: list[int]):
    derived = EligibleSet.derived(
        EligibleSet.of(np.array(sorted(rows), np.int32), NOON), np.array(removed, np.int64), np.array(added, np.int64)
    )
    expected = sorted((rows - set(removed)) | set(added))
    assert derived.fingerprint == EligibleSet.of(np.array(expected, np.int64), NOON).fingerprint


@pytest.mark.parametrize("size", [1, 63, 64, 65, 70, 130])
def test_nothing_behind_the_first_rows_of_a_catalogue_is_among_them_once_one_is_gone(size: int):
    derived = EligibleSet.derived(EligibleSet.of(np.arange(size), NOON), np.array([0]))
    assert not derived.contains(np.arange(size, size + 200)).any()
    assert derived.fingerprint == EligibleSet.of(np.arange(1, size), NOON).fingerprint
