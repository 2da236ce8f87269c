"""External ids and the rows they stand for, looked up in memory-mapped arrays.

Nothing is copied into a dictionary: a vocabulary of millions costs no memory and no start-up time, and worker
processes share its pages.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import Array, Arrays


def _digest(encoded: bytes) -> bytes:
    return hashlib.blake2b(encoded, digest_size=8).digest()


def _hash(encoded: bytes) -> int:
    return int.from_bytes(_digest(encoded), "little")


class Vocabulary:
    """An immutable list of distinct ids; an id's place in the list is its row.

    It may be extended: ids keep their rows, and those that are new come behind them.

    Rows are found by binary search over sorted 64-bit hashes; the id itself is compared, so a collision of
    hashes cannot confuse two ids.

    Attributes:
        base: the arrays that hold the first ids.
        tail: those that follow.
    """

    def __init__(self, arrays: Arrays, tail: Sequence[str] = ()) -> None:
        """Wrap the arrays that ``arrays()`` returned, from memory or from a memory map; further ids follow them."""
        self.base, self.tail = arrays, tuple(tail)
        self._late = {one: row for row, one in enumerate(tail, len(arrays["offsets"]) - 1)}
        self._text: NDArray[np.uint8] = arrays["text"]
        self._offsets: NDArray[np.int64] = arrays["offsets"]
        self._hashes: NDArray[np.uint64] = arrays["hashes"]
        self._rows: NDArray[np.int32] = arrays["rows"]
        # Single numbers and slices come out of a memoryview several times faster than out of an array.
        self._starts, self._bytes = self._offsets.data, self._text.data
        self._first = len(self._offsets) - 1
        self._count = self._first + len(tail)

    @classmethod
    def of(cls, ids: Sequence[str]) -> Self:
        """Build a vocabulary from distinct ids in the order of their rows; raise ValueError if one occurs twice."""
        if len(set(ids)) != len(ids):
            raise ValueError("a vocabulary needs distinct ids")
        encoded = [one.encode() for one in ids]
        lengths = np.array([len(one) for one in encoded], dtype=np.int64)
        hashes = np.array([_hash(one) for one in encoded], dtype=np.uint64)
        order = np.argsort(hashes, kind="stable")
        return cls(
            {
                "text": np.frombuffer(b"".join(encoded), dtype=np.uint8),
                "offsets": np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)]),
                "hashes": hashes[order],
                "rows": order.astype(np.int32),
            }
        )

    def arrays(self) -> dict[str, Array]:
        """Return the arrays from which this vocabulary can be built again."""
        if self.tail:
            return Vocabulary.of(self.ids()).arrays()
        return {"text": self._text, "offsets": self._offsets, "hashes": self._hashes, "rows": self._rows}

    def extended(self, ids: Sequence[str]) -> "Vocabulary":
        """Return a vocabulary with those of some ids that it does not hold, once each, behind its own."""
        late = [one for one, row in zip(ids, self.rows(ids).tolist(), strict=True) if row < 0]
        return Vocabulary(self.base, (*self.tail, *dict.fromkeys(late))) if late else self

    def extends(self, other: "Vocabulary") -> bool:
        """Return whether this vocabulary is another one, or came of it by `extended`."""
        return self.base is other.base and self.tail[: len(other.tail)] == other.tail

    def __len__(self) -> int:
        return self._count

    def __contains__(self, one: str) -> bool:
        return self.row(one) is not None

    def row(self, one: str) -> int | None:
        """Return the row of an id, or None if the vocabulary does not hold it."""
        encoded = one.encode()
        wanted = np.uint64(_hash(encoded))
        place = int(self._hashes.searchsorted(wanted))
        while place < len(self._hashes) and self._hashes[place] == wanted:
            row = int(self._rows[place])
            if self.id(row) == one:
                return row
            place += 1
        return self._late.get(one)

    def rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the rows of some ids, -1 for an id that the vocabulary does not hold; much faster than one by one."""
        encoded = [one.encode() for one in ids]
        wanted_I = np.frombuffer(b"".join([_digest(one) for one in encoded]), "<u8").astype(np.uint64, copy=False)
        places_I = self._hashes.searchsorted(wanted_I)
        rows_I = np.full(len(ids), -1, np.int64)
        seen_I = np.flatnonzero(self._hashes.take(places_I, mode="clip") == wanted_I) if self._first else rows_I[:0]
        rows_I[seen_I] = self._rows[places_I[seen_I]]
        for place, row in zip(seen_I.tolist(), rows_I[seen_I].tolist(), strict=True):
            if bytes(self._bytes[self._starts[row] : self._starts[row + 1]]) != encoded[place]:
                found = self.row(ids[place])  # another id of the same hash lies before it
                rows_I[place] = -1 if found is None else found
        if self._late:
            for place in np.flatnonzero(rows_I < 0).tolist():
                rows_I[place] = self._late.get(ids[place], -1)
        return rows_I

    def id(self, row: int) -> str:
        """Return the id at a row from 0 to ``len(self) - 1``; raise IndexError for any other row."""
        if not 0 <= row < self._count:
            raise IndexError(f"row {row} of a vocabulary of {self._count}")
        if row >= self._first:
            return self.tail[row - self._first]
        return str(self._bytes[self._starts[row] : self._starts[row + 1]], "utf-8")

    def ids(self, rows: Iterable[int] | None = None) -> list[str]:
        """Return the ids at some rows, or all ids in order."""
        return [self.id(row) for row in (range(len(self)) if rows is None else rows)]
