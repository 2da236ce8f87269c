"""The eligible set: the catalogue rows that a context allows, and until when.

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
_NO_ROWS = np.zeros(0, np.int64)
_A_SET = 1_000
"""Bytes that a set takes besides its rows and what tells its members."""


@dataclass(frozen=True, eq=False)
class EligibleSet:
    """The catalogue rows allowed in a context. Make one with `of`; compare two by their fingerprints.

    Attributes:
        size: N.
        past: one past the last row at least, 0 where there is none.
        valid_until: the next moment at which the set may change, with its time zone.
        parent: the first set in the chain of derivations that led to this one; its copy serves this set, too. None for
            a set that was not derived.
        added: rows that the parent does not hold, ascending.
        own: whether the set serves one request alone, so that nothing is kept for it.
    """

    size: int
    past: int
    valid_until: datetime
    parent: "EligibleSet | None"
    added: npt.NDArray[np.int64]
    own: bool
    _shared: "EligibleSet | None"
    _rows: Callable[[], RowArray]
    _members: Callable[[], kernel.Members]

    @classmethod
    def of(cls, rows_N: RowArray, valid_until: datetime) -> Self:
        """Return the set of these rows.

        The set keeps a read-only view of the rows, not a copy, so the caller must not write to them afterwards.

        Args:
            rows_N: 1-D, int32 or int64, non-negative, strictly ascending. The index that searches
                them checks whether they lie inside the catalogue.
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
        return cls(
            len(view_N),
            past,
            valid_until,
            parent=None,
            added=_NO_ROWS,
            own=False,
            _shared=None,
            _rows=lambda: view_N,
            _members=lambda: kernel.Members(view_N if view_N.flags.c_contiguous else view_N.copy()),
        )

    @classmethod
    def derived(
        cls, origin: "EligibleSet", removed_R: RowArray, added_R: RowArray | None = None, *, own: bool = True
    ) -> "EligibleSet":
        """Return a set without some rows and with some others; the set itself if that changes nothing.

        Args:
            origin: a set, derived or not.
            removed_R: in any order; rows that the set does not hold have no effect.
            added_R: in any order, none if not given; rows that it holds already have no effect.
            own: whether the result serves one request alone, so that nothing is to be kept for it.
        """
        left = origin.members.without(_wide(removed_R))
        members = left if added_R is None else left.with_rows(_wide(added_R))
        if members.size == left.size == origin.size:
            return origin
        parent = origin.copied
        others = origin.added if added_R is None else np.union1d(origin.added, _wide(added_R))
        if len(others):
            others = others[members.contains(others) & ~parent.contains(others)]

        def rows() -> RowArray:
            all_N = origin.rows_N if added_R is None else np.union1d(origin.rows_N, _wide(added_R))
            return _read_only(all_N[members.contains(_wide(all_N))])

        return cls(
            members.size,
            max(parent.past, int(others[-1]) + 1 if len(others) else 0),
            origin.valid_until,
            parent=parent,
            added=others,
            own=own,
            _shared=origin.shared if own else None,
            _rows=rows,
            _members=lambda: members,
        )

    def among(self, rows_R: RowArray) -> "EligibleSet":
        """Return the rows of the set that are among some rows, given in any order; the set itself if all are."""
        rows: npt.NDArray[np.int64] = np.unique(rows_R).astype(np.int64)
        part = self.of(rows[self.contains(rows)], self.valid_until)
        if part.size == self.size:
            return self
        others = self.added if not len(self.added) else self.added[part.contains(self.added)]
        return replace(part, parent=self.copied, added=others, own=True, _shared=self.shared)

    def split(self, row: int) -> "tuple[EligibleSet, npt.NDArray[np.int64]]":
        """Return the part of the set before a row, and its rows from there on.

        The parts of sets with one parent have one parent, too: the part of that, which is found once.
        """
        if self.past <= row:
            return self, _NO_ROWS
        if self.parent is None:
            return self._split_root(row)
        parent, behind_R = self.parent.split(row)
        cut = int(self.added.searchsorted(row))
        behind_R = np.concatenate([behind_R, self.added[cut:]])
        members = self.members.without(behind_R)
        others = self.added[:cut]
        part = replace(
            self,
            size=members.size,
            past=max(parent.past, int(others[-1]) + 1 if len(others) else 0),
            parent=parent,
            added=others,
            own=True,
            _shared=None,
            _rows=lambda: self.rows_N[: self.rows_N.searchsorted(row)],
            _members=lambda: members,
        )
        return part, np.sort(behind_R[self.contains(behind_R)])

    def _split_root(self, row: int) -> "tuple[EligibleSet, npt.NDArray[np.int64]]":
        found = self.__dict__.get("_parts")
        if found is None or found[0] != row:
            cut = int(self.rows_N.searchsorted(row))
            found = row, self.of(self.rows_N[:cut], self.valid_until), _wide(self.rows_N[cut:])
            self.__dict__["_parts"] = found
        return found[1:]

    @property
    def shared(self) -> "EligibleSet":
        """Return the set that other requests may share: this one, or what it was derived from for one request."""
        return self if self._shared is None else self._shared

    @property
    def copied(self) -> "EligibleSet":
        """Return the set whose copy serves this one: the parent, or the set itself where it has none."""
        return self if self.parent is None else self.parent

    @property
    def nbytes(self) -> int:
        """Return the most bytes that the set takes, once its rows and members have been asked for."""
        return 3 * 4 * self.size + _A_SET

    @cached_property
    def rows_N(self) -> RowArray:
        """Return the catalogue rows, int32 or int64, ascending, unique, read-only."""
        return self._rows()

    @cached_property
    def fingerprint(self) -> bytes:
        """Return a hash of 16 bytes; equal rows give equal fingerprints, whatever their dtype or ``valid_until``."""
        return blake2b(self.members.bytes(), digest_size=_FINGERPRINT_BYTES).digest()

    @cached_property
    def members(self) -> kernel.Members:
        """Return the membership structure of the rows, which answers whether a row is among them."""
        return self._members()

    def contains(self, rows_R: RowArray) -> npt.NDArray[np.bool_]:
        """Return for each of some rows whether it belongs to the set; (R,)."""
        return self.members.contains(_wide(rows_R))


def _read_only(rows_N: RowArray) -> RowArray:
    view_N = rows_N.view()
    view_N.flags.writeable = False
    return view_N


def _wide(rows_R: RowArray) -> npt.NDArray[np.int64]:
    """Return rows as the kernel reads them: contiguous int64."""
    return np.ascontiguousarray(rows_R, np.int64)
