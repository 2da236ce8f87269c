from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from embeddings.arrays import Ragged, load_arrays, save_arrays

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
