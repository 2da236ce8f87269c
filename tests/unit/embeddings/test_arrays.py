from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from embeddings import kernel
from embeddings.arrays import Ragged, Table, among, load_arrays, save_arrays

NUMBERS = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5)


def lists(ragged: Ragged) -> list[list[int]]:
    return [ragged[row].tolist() for row in range(len(ragged))]


@given(st.lists(NUMBERS, max_size=8))
def test_arrays_put_together_are_the_lists_they_were(given_lists: list[list[int]]):
    assert lists(Ragged.of(given_lists)) == given_lists
    assert lists(Ragged.of(np.array(one, np.int64) for one in given_lists)) == given_lists


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 99)), max_size=30))
def test_grouped_values_keep_their_order_within_a_group(pairs: list[tuple[int, int]]):
    groups = np.array([group for group, _ in pairs], np.int64)
    grouped = Ragged.grouped(groups, np.array([value for _, value in pairs], np.int64), 7)
    assert lists(grouped) == [[value for group, value in pairs if group == wanted] for wanted in range(7)]


def test_nothing_at_all_is_a_ragged_array_too():
    assert len(Ragged.of([])) == 0
    assert len(Ragged.grouped(np.zeros(0, np.int32), np.zeros(0, np.int32), 0)) == 0
    assert lists(Ragged.of([[], [], []])) == [[], [], []]


def test_the_dtypes_are_those_promised():
    for ragged in (Ragged.of([]), Ragged.of([[1], []]), Ragged.grouped(np.array([0]), np.array([1]), 2)):
        assert (ragged.offsets.dtype, ragged.values.dtype) == (np.int64, np.int32)


def test_a_row_past_the_end_is_refused():
    with pytest.raises(IndexError):
        Ragged.of([[1], [2]])[2]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int32).reshape(2, 3).T,
        np.arange(10, dtype=np.float64)[::3],
        np.zeros((0, 4), np.float32),
        np.array([(1, 2.5)], np.dtype([("a", "<i8"), ("b", "<f4")], align=True)),
        np.array([True, False]),
    ],
    ids=["transposed", "strided", "empty", "records", "flags"],
)
def test_an_array_comes_back_as_it_was_mapped_and_read_only(array: NDArray[Any], tmp_path: Path):
    save_arrays(tmp_path / "new" / "folder", {"some-name": array})
    (again,) = load_arrays(tmp_path / "new" / "folder").values()
    assert type(again) is np.ndarray  # NumPy's own class for maps is slow to slice
    assert isinstance(again.base, np.memmap)
    assert again.dtype == array.dtype
    assert again.tolist() == array.tolist()
    assert not again.flags.writeable


def test_names_come_back_and_other_files_are_passed_over(tmp_path: Path):
    save_arrays(tmp_path, {"b": np.zeros(1), "a": np.zeros(2)})
    (tmp_path / "words.json").write_text("{}")
    assert list(load_arrays(tmp_path)) == ["a", "b"]


def test_objects_are_neither_written_nor_read(tmp_path: Path):
    objects = np.array([{"any": "thing"}], dtype=object)
    with pytest.raises(ValueError, match="pickle"):
        save_arrays(tmp_path / "written", {"objects": objects})
    np.save(tmp_path / "objects.npy", objects, allow_pickle=True)
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        load_arrays(tmp_path)


@given(st.lists(NUMBERS, max_size=6), st.dictionaries(st.integers(0, 9), NUMBERS, max_size=4))
def test_arrays_are_replaced_at_their_numbers_and_the_gap_behind_the_last_is_empty(
    given_lists: list[list[int]], other: dict[int, list[int]]
):
    found = Ragged.of(given_lists).replaced({row: np.array(one, np.int32) for row, one in other.items()})
    size = max(len(given_lists), *(row + 1 for row in other), 0) if other else len(given_lists)
    expected = [other.get(row, given_lists[row] if row < len(given_lists) else []) for row in range(size)]
    assert lists(found) == expected
    assert (found.offsets.dtype, found.values.dtype) == (np.int64, np.int32)


@pytest.mark.parametrize("base", [0, 3])
@pytest.mark.parametrize("tail", [0, 2])
def test_a_table_is_its_base_and_its_tail_for_numpy_and_for_the_kernel(base: int, tail: int):
    whole = np.arange(2 * (base + tail), dtype=np.float32).reshape(-1, 2)
    table = Table.of(whole[:base]).with_tail(whole[base:])
    assert (len(table), table.columns) == (base + tail, 2)
    rows = np.arange(base + tail)[::-1].copy()
    assert table.take(rows).tolist() == whole[::-1].tolist()
    assert kernel.gather(table, rows[None])[0].tolist() == whole[::-1].tolist()
    with pytest.raises(IndexError):
        table.take(np.array([base + tail]))
    with pytest.raises(ValueError, match="rows of the catalogue"):
        kernel.gather(table, np.array([[base + tail]]))


def test_the_kernel_takes_no_table_of_another_dtype_width_or_order():
    floats = np.ones((3, 2), np.float32)
    row = np.zeros((1, 1), np.int64)
    wrong: list[Any] = [
        Table(floats, np.ones((1, 2))),
        Table(np.ones((3, 2)), floats),
        Table(floats.T, floats.T[:0]),
        np.ones((3, 2)),
    ]
    for table in wrong:
        with pytest.raises(TypeError):
            kernel.gather(table, row)
    for table in (Table(floats, np.ones((1, 3), np.float32)), np.ones(3, np.float32)):
        with pytest.raises(ValueError, match=r"expected (a table|tables) \(N, columns\)"):
            kernel.gather(table, row)


@given(st.sets(st.integers(-9, 9)), st.lists(st.integers(-9, 9)))
def test_numbers_are_found_in_an_ascending_array(held: set[int], wanted: list[int]):
    found = among(np.array(sorted(held), np.int32), np.array(wanted, np.int64))
    assert found.tolist() == [one in held for one in wanted]
