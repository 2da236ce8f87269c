"""Arrays on disk: plain ``.npy`` files, memory-mapped when read, never pickled."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]


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
