"""Exact search on the CPU, with the plan that is cheapest for each set.

Sets that are asked for often, and the catalogue as a whole, have quantised copies. One compiled call answers all
queries of a batch: `kernel.nearest`, exact by construction. Where the copy of all rows does not fit, the inverted file
proposes.

Shapes: B queries, N rows, D dimensions, K results per query.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from embeddings import kernel
from embeddings.catalogue.eligible import EligibleSet, RowArray
from embeddings.index.base import F32, I64, Candidates, Plan
from embeddings.index.cache import SetCache
from embeddings.index.ivf import BoundedIvf, Selection
from embeddings.index.plan import Costs, ExtraCosts
from embeddings.index.proposed import Group, Settler, every_row, too_few
from embeddings.index.score import half_error, rounding_bounds

_ROWS_FOR_ROTATION = 65_536

Held: TypeAlias = kernel.QuantisedSet | Selection
_Scanned: TypeAlias = tuple[kernel.QuantisedSet | RowArray, kernel.Members | None, list[int], I64 | None]
"""What the kernel answers: a copy or rows, which of the copy's rows are meant, None for all, places of queries, and
rows beside the copy."""


class _Chosen(NamedTuple):
    """The plan for the queries of a set, and what it reads: a quantised copy, or a selection for the inverted file."""

    plan: Plan
    held: Held | None


class HostSearch:
    """Searches quantised copies, and an inverted file beside them if there is one.

    Attributes:
        cache: what is kept of sets, by fingerprint.
    """

    def __init__(self, vectors_ND: F32, max_norm: float, cache: SetCache[Held], ivf: Path | None, costs: Costs) -> None:
        """Take the vectors to search, find their rotation and open the inverted file if there is one.

        Raises:
            CorruptBundle: the inverted file cannot be read, or does not fit the vectors.
        """
        self.cache = cache
        self._vectors_ND, self._max_norm, self._costs = vectors_ND, max_norm, costs
        self._rotation_DD = principal_rotation(vectors_ND, max_norm)
        self._ivf = None if ivf is None else BoundedIvf.open(ivf, vectors_ND.shape)
        self._holds_whole = self._ivf is None or self._bytes_of(len(vectors_ND)) <= cache.limit_bytes
        self._whole: kernel.QuantisedSet | None = None
        self._extra = ExtraCosts()

    def search(self, queries_BD: F32, k: int, sets: Sequence[tuple[EligibleSet | None, list[int]]]) -> Candidates:
        """Return the best rows for each query; each distinct set comes with the places of its queries."""
        catalogue = len(self._vectors_ND)
        plans: list[Plan] = ["brute_force"] * len(queries_BD)
        scanned: list[_Scanned] = []
        proposed: list[Group] = []
        for eligible, places in sets:
            size = catalogue if eligible is None else eligible.size
            chosen = _Chosen("brute_force", None) if too_few(size, k) else self._choose(eligible, size, len(places))
            for place in places:
                plans[place] = chosen.plan
            if isinstance(chosen.held, kernel.QuantisedSet):
                mask = None if eligible is None or chosen.plan == "own" or size == catalogue else eligible.members
                beside = (
                    eligible.added if eligible is not None and chosen.plan == "masked" and len(eligible.added) else None
                )
                scanned.append((chosen.held, mask, places, beside))
            elif chosen.plan == "ivf" and self._ivf is not None:
                whole = size if eligible is None or len(eligible.added) else eligible.copied.size
                propose = partial(self._ivf.propose, eligible_rows=whole, selected=chosen.held)
                proposed.append(Group(propose, eligible, whole, whole - size, places))
            else:
                scanned.append((every_row(eligible, catalogue), None, places, None))
        rows_BK, scores_BK = kernel.nearest(queries_BD, self._rotation_DD, self._vectors_ND, scanned, k)
        if proposed:
            bounds_B = rounding_bounds(queries_BD, self._max_norm, half_error(self._max_norm, queries_BD.shape[1]))
            settler = Settler(self._vectors_ND, sys.maxsize, _any_number)
            settler.settle(queries_BD, bounds_B, proposed, rows_BK, scores_BK)
        return Candidates(rows_BK, scores_BK, tuple(plans))

    def warm(self, eligible: EligibleSet) -> None:
        """Make a set's own copy now instead of during its first searches, unless it is too large to be kept."""
        held = self.cache.find(eligible.fingerprint)
        if not isinstance(held, kernel.QuantisedSet) and eligible.size < len(self._vectors_ND) and self._fits(eligible):
            self._gather(eligible)

    def _choose(self, eligible: EligibleSet | None, size: int, queries: int) -> _Chosen:
        """Return the cheapest plan for so many queries of a set; make the set's own copy once that pays."""
        catalogue = len(self._vectors_ND)
        if eligible is None or size == catalogue:
            return _Chosen("whole", self._copy_of_all()) if self._holds_whole else _Chosen("ivf", None)
        copied, alone = eligible.copied, eligible.parent is None
        held = self.cache.find(copied.fingerprint) if copied.size < catalogue else None
        if isinstance(held, kernel.QuantisedSet) and alone:
            return _Chosen("own", held)
        brute_force_us = self._costs.brute_force_us(size)
        own_us = self._costs.own_us(size) if alone else self._costs.masked_us(size, copied.size)
        if not isinstance(held, kernel.QuantisedSet):
            without_us = self._costs.masked_us(size, catalogue)
            extra_us = queries * (min(without_us, brute_force_us) - min(own_us, brute_force_us))
            if not self._pays(copied, extra_us):
                brute_force = brute_force_us <= without_us
                return _Chosen("brute_force", None) if brute_force else self._without_copy(eligible, held)
            held = self._gather(copied)
        if alone:
            return _Chosen("own", held)
        return _Chosen("masked", held) if own_us < brute_force_us else _Chosen("brute_force", None)

    def _pays(self, copied: EligibleSet, extra_us: float) -> bool:
        """Return whether making a copy of a set pays by now; ``extra_us`` is what the next searches cost without it."""
        if copied.size == len(self._vectors_ND) or not self._fits(copied):
            return False
        if self._extra.of(copied.fingerprint) + extra_us > self._price(copied.size)[1]:
            return True
        self._extra.add(copied.fingerprint, max(extra_us, 0.0))
        return False

    def _without_copy(self, eligible: EligibleSet, held: Selection | None) -> _Chosen:
        """Return the plan that searches a set without its own copy; ``held`` is the selection kept for it, if any."""
        if self._holds_whole:
            return _Chosen("whole", self._copy_of_all())
        if len(eligible.added):
            return _Chosen("ivf", Selection(eligible, len(self._vectors_ND)))
        return _Chosen("ivf", held or self._select(eligible.copied))

    def _select(self, eligible: EligibleSet) -> Selection | None:
        """Return a selection that restricts the inverted file to a set, and keep it; return None for all rows."""
        if eligible.size == len(self._vectors_ND):
            return None
        selection = Selection(eligible, len(self._vectors_ND))
        self.cache.keep(eligible.fingerprint, selection)
        return selection

    def _copy_of_all(self) -> kernel.QuantisedSet:
        """Return the copy of all rows; make it at the first call and count it against the cache's bound for good."""
        if self._whole is None:
            self._whole = self._quantised(np.arange(len(self._vectors_ND)))
            self.cache.reserve(self._whole.nbytes)
        return self._whole

    def _gather(self, eligible: EligibleSet) -> kernel.QuantisedSet:
        """Make a set's own copy, keep it if it fits, and return it."""
        whole, _ = self._price(eligible.size)
        copy = self._quantised(eligible.rows_N) if whole is None else whole.among(eligible.members)
        self.cache.keep(eligible.fingerprint, copy)
        self._extra.forget(eligible.fingerprint)
        return copy

    def _price(self, size: int) -> tuple[kernel.QuantisedSet | None, float]:
        """Return the cheapest source for a set's own copy, and the microseconds that making it takes.

        The source is the copy of all rows if it is held and the set is no small part of it, as its rows are rotated and
        sorted already. None stands for the vectors.
        """
        taking_us = self._costs.taking_us(size, len(self._vectors_ND))
        gathering_us = self._costs.gathering_us(size)
        if self._whole is not None and taking_us < gathering_us:
            return self._whole, taking_us
        return None, gathering_us

    def _quantised(self, rows_N: RowArray) -> kernel.QuantisedSet:
        rotated_ND = self._vectors_ND.take(rows_N, axis=0) @ self._rotation_DD
        return kernel.QuantisedSet(rotated_ND, rows_N, len(self._vectors_ND))

    def _fits(self, eligible: EligibleSet) -> bool:
        return self._bytes_of(eligible.size) <= self.cache.room

    def _bytes_of(self, rows: int) -> int:
        return kernel.QuantisedSet.bytes_of(rows, self._vectors_ND.shape[1])


def _any_number(_kept: int, wanted: int) -> int:
    """Return how many rows to propose: as many as wanted."""
    return wanted


def principal_rotation(vectors_ND: F32, max_norm: float) -> F32:
    """Return the rotation (D, D) onto the principal axes of the second moments about zero, one a column, largest first.

    Rotation by any orthonormal axes preserves inner products. The choice affects only how soon a scan can tell that a
    row is too far. So a sample of the rows suffices. For vectors so long that rotating them might overflow, the
    rotation is the identity.
    """
    dimensions = vectors_ND.shape[1]
    if max_norm > np.finfo(np.float32).max / dimensions:
        return np.eye(dimensions, dtype=np.float32)
    some_MD = vectors_ND[:: max(1, len(vectors_ND) // _ROWS_FOR_ROTATION)].astype(np.float64)
    _, ascending_DD = np.linalg.eigh(some_MD.T @ some_MD)
    return np.ascontiguousarray(ascending_DD[:, ::-1], np.float32)
