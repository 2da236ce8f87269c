"""Arrays on disk: plain ``.npy`` files, memory-mapped when read, never pickled."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Generic, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]
Number = TypeVar("Number", bound=np.generic)


def save_arrays(folder: Path, arrays: Arrays) -> None:
    """Write each array to ``folder/NAME.npy``, creating the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        save_array(folder / f"{name}.npy", array)


def save_array(path: Path, array: Array) -> None:
    """Write one array as a ``.npy`` file."""
    with path.open("wb") as file:
        # NumPy writes to a file that it knows by itself, and then does not say why the system refused.
        unknown: Any = SimpleNamespace(write=file.write)
        np.lib.format.write_array(unknown, np.ascontiguousarray(array), allow_pickle=False)


def load_arrays(folder: Path) -> dict[str, Array]:
    """Map every ``.npy`` file of a folder into memory, read-only, and return the arrays by file name."""
    return {path.stem: load_array(path) for path in sorted(folder.glob("*.npy"))}


def load_array(path: Path) -> Array:
    """Map one ``.npy`` file into memory, read-only."""
    # As a plain array over the same pages: NumPy's own class for maps makes every slice several times slower.
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def of_length_one(vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the same vectors (N, D), each divided by its length; a zero one stays zero."""
    lengths_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return vectors_ND / np.maximum(lengths_N1, 1e-12)


def among(ascending: NDArray[np.integer[Any]], wanted: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Return for each number wanted whether an ascending array holds it."""
    if not len(ascending):
        return np.zeros(len(wanted), np.bool_)
    return ascending[np.minimum(ascending.searchsorted(wanted), len(ascending) - 1)] == wanted


@dataclass(frozen=True, slots=True)
class Ragged:
    """A list of integer arrays of unequal length, end to end.

    Attributes:
        offsets: int64, one more than there are arrays; array ``i`` is ``values[offsets[i]:offsets[i + 1]]``.
        values: all arrays, concatenated.
    """

    offsets: NDArray[np.int64]
    values: NDArray[np.int32]

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of(cls, arrays: Iterable[Sequence[int] | NDArray[Any]]) -> Self:
        """Concatenate arrays into one ragged array."""
        parts = [np.asarray(array, dtype=np.int32) for array in arrays]
        lengths = np.array([len(part) for part in parts], dtype=np.int64)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        values = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        return cls(offsets, values)

    @classmethod
    def grouped(cls, groups: NDArray[np.integer[Any]], values: NDArray[Any], count: int) -> Self:
        """Collect values by group number, keeping their order within a group.

        Args:
            groups: the group of each value, 0 to count - 1, in any order.
            values: as many values.
            count: how many groups there are, empty ones included.
        """
        order = np.argsort(groups, kind="stable")
        sizes = np.bincount(groups, minlength=count)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
        return cls(offsets, np.asarray(values, dtype=np.int32)[order])

    def replaced(self, arrays: Mapping[int, NDArray[Any]]) -> "Ragged":
        """Return the same with some arrays of the same dtype at their numbers, which may lie behind the last."""
        if not arrays:
            return self
        parts: list[NDArray[Any]] = []
        begin = 0
        for row in sorted(arrays):
            parts += [self.values[self.offsets[min(begin, len(self))] : self.offsets[min(row, len(self))]], arrays[row]]
            begin = row + 1
        parts.append(self.values[self.offsets[min(begin, len(self))] :])
        lengths = np.zeros(max(len(self), begin), np.int64)
        lengths[: len(self)] = np.diff(self.offsets)
        for row, array in arrays.items():
            lengths[row] = len(array)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        return Ragged(offsets, np.concatenate(parts))


@dataclass(frozen=True, slots=True)
class Table(Generic[Number]):
    """Rows of a base, such as those that a release was published with, and after them those that came later.

    Row ``n`` is ``base_NC[n]``, and row ``N + m`` is ``tail_MC[m]``. So a table grows without a copy of the base, which
    may be mapped and shared. The kernel reads tables, and arrays as tables without a tail.

    Attributes:
        base: (N, C), contiguous.
        tail: (M, C), contiguous, of the same dtype.
    """

    base: NDArray[Number]
    tail: NDArray[Number]

    @classmethod
    def of(cls, base: NDArray[Number]) -> Self:
        """Return the table of a base without a tail."""
        return cls(base, base[:0])

    def __len__(self) -> int:
        return len(self.base) + len(self.tail)

    @property
    def columns(self) -> int:
        """Return C."""
        return self.base.shape[1]

    @property
    def whole(self) -> NDArray[Number]:
        """Return all rows as one array."""
        return np.concatenate([self.base, self.tail]) if len(self.tail) else self.base

    def with_tail(self, tail: NDArray[Number]) -> "Table[Number]":
        """Return the table of the same base with another tail."""
        return Table(self.base, np.ascontiguousarray(tail, self.base.dtype))

    def take(self, rows_K: NDArray[np.integer[Any]]) -> NDArray[Number]:
        """Return some rows (K, C); raise IndexError for one that the table does not hold."""
        if rows_K.min(initial=0) < 0:
            raise IndexError(f"expected rows from 0 to {len(self) - 1}, not {rows_K.min()}")
        if not len(self.tail):
            return self.base[rows_K]
        late_K = rows_K >= len(self.base)
        taken_KC = self.base[np.where(late_K, 0, rows_K)] if len(self.base) else self.tail[np.zeros_like(rows_K)]
        taken_KC[late_K] = self.tail[rows_K[late_K] - len(self.base)]
        return taken_KC
