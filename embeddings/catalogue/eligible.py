"""The eligible set: which catalogue rows a context allows, and until when.

Shapes: N rows of the set, R rows asked about.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from hashlib import blake2b
from typing import Self

import numpy as np
import numpy.typing as npt

from embeddings import kernel
from embeddings.errors import InvalidInput

RowArray = npt.NDArray[np.int32] | npt.NDArray[np.int64]

FOREVER = datetime.max.replace(tzinfo=UTC)
"""The ``valid_until`` of a set that no moment changes."""

_ROW_DTYPES = (np.dtype(np.int32).str, np.dtype(np.int64).str)
_FINGERPRINT_BYTES = 16
_INT32_MOST = 2**31 - 1
_A_SET = 1_000
"""Bytes that a set takes besides its rows and what tells its members."""


@dataclass(frozen=True, eq=False)
class EligibleSet:
    """The catalogue rows allowed in a context. Make one with `of`; compare two by their fingerprints.

    Attributes:
        size: N.
        past: one past the last row at least, 0 where there is none.
        valid_until: the next moment at which the set may change, with its time zone.
        parent: the set that this is a part of, which one request wants for itself; None for a set that others may ask
            for too. What is made for such a set is worth keeping, and serves its parts; nothing is kept for a part.
    """

    size: int
    past: int
    valid_until: datetime
    parent: "EligibleSet | None"
    _rows: Callable[[], RowArray]
    _members: Callable[[], kernel.Members]

    @classmethod
    def of(cls, rows_N: RowArray, valid_until: datetime) -> Self:
        """The set of these rows.

        The rows are not copied: a read-only view is kept, so the caller must not write to them afterwards.

        Args:
            rows_N: 1-D, int32 or int64, non-negative, strictly ascending. Whether they lie inside the
                catalogue is checked by the index that is asked to search them.
            valid_until: with its time zone; `FOREVER` where no moment changes the set.

        Raises:
            InvalidInput: the rows are of another dtype or shape, negative, unsorted or repeated, or the time
                has no time zone.
        """
        if rows_N.ndim != 1 or rows_N.dtype.str not in _ROW_DTYPES:
            raise InvalidInput("eligible.rows", f"expected 1-D int32 or int64, not {rows_N.ndim}-D {rows_N.dtype}")
        if rows_N.size and rows_N[0] < 0:
            raise InvalidInput("eligible.rows", f"expected non-negative rows, not {rows_N[0]}")
        if not bool(np.all(rows_N[1:] > rows_N[:-1])):
            raise InvalidInput("eligible.rows", "expected strictly ascending rows, each once")
        if valid_until.tzinfo is None:
            raise InvalidInput("eligible.valid_until", "expected a time with its time zone")
        view_N = _read_only(rows_N)
        past = int(view_N[-1]) + 1 if view_N.size else 0
        return cls(len(view_N), past, valid_until, None, lambda: view_N, lambda: kernel.Members(view_N))

    @classmethod
    def derived(cls, parent: "EligibleSet", removed_R: RowArray) -> "EligibleSet":
        """Return what is left of a set without some rows: a part of it, or the set itself where it holds none of them.

        Args:
            parent: a set, or a part of one, whose part this becomes then.
            removed_R: in any order; rows that the set does not hold are of no effect.
        """
        members = parent.members.without(_wide(removed_R))
        if members.size == parent.size:
            return parent

        def rows() -> RowArray:
            return _read_only(parent.rows_N[members.contains(_wide(parent.rows_N))])

        return cls(members.size, parent.past, parent.valid_until, parent.shared, rows, lambda: members)

    def among(self, rows_R: RowArray) -> "EligibleSet":
        """Return the part of the set that some rows, in any order, make up; the set itself where that is all of it."""
        rows: npt.NDArray[np.int64] = np.unique(rows_R).astype(np.int64)
        part = self.of(rows[self.contains(rows)], self.valid_until)
        return self if part.size == self.size else replace(part, parent=self.shared)

    @property
    def shared(self) -> "EligibleSet":
        """The set that others may ask for too: the parent, or the set itself where it has none."""
        return self if self.parent is None else self.parent

    @property
    def nbytes(self) -> int:
        """How much memory it takes at most, once its rows and members have been asked for."""
        return 3 * 4 * self.size + _A_SET

    @cached_property
    def rows_N(self) -> RowArray:
        """Catalogue rows, int32 or int64, ascending, unique, read-only."""
        return self._rows()

    @cached_property
    def fingerprint(self) -> bytes:
        """16 bytes; equal rows give equal fingerprints, whatever their dtype or ``valid_until``."""
        return _fingerprint(self.rows_N)

    @cached_property
    def members(self) -> kernel.Members:
        """The rows, to be asked whether one is among them."""
        return self._members()

    def contains(self, rows_R: RowArray) -> npt.NDArray[np.bool_]:
        """Which of some rows belong to the set; (R,)."""
        return self.members.contains(_wide(rows_R))


def _read_only(rows_N: RowArray) -> RowArray:
    view_N = rows_N.view()
    view_N.flags.writeable = False
    return view_N


def _wide(rows_R: RowArray) -> npt.NDArray[np.int64]:
    """Return rows as the kernel reads them."""
    return np.ascontiguousarray(rows_R, np.int64)


def _fingerprint(rows_N: RowArray) -> bytes:
    """Hash of the rows in one canonical form: little-endian int32, and int64 where one is too large for it."""
    canonical_N = np.ascontiguousarray(rows_N, dtype="<i8" if rows_N[-1:].max(initial=0) > _INT32_MOST else "<i4")
    return blake2b(canonical_N.data, digest_size=_FINGERPRINT_BYTES, person=canonical_N.dtype.str.encode()).digest()
