"""Estimated costs of the plans for a query, which decide when a copy of a set is worth making.

The choice changes only the time, never the answer. Whether to make a set's own copy is the problem of renting or buying
skis: every search without the copy pays the rent, and making the copy pays the price once. Buying when the rent paid
reaches the price costs about twice what knowing the future would, plus one search (Karlin, Manasse, Rudolph and
Sleator, 1988).
"""

import math
from collections import OrderedDict
from dataclasses import dataclass

MOST_SETS = 4_096
"""How many sets are remembered that have no copy of their own."""


@dataclass(frozen=True, slots=True)
class Costs:
    """The time that each part of a search takes, on one thread.

    ``opportune-bench search`` measures them: benchmarks/results/search.json, key "costs".

    Attributes:
        scan_ns: of a row of a set's own copy.
        masked_ns: of a row of a larger set's copy, where nearly all of them are wanted. The fewer are, the lower the
            best scores and the more rows are read to their end: for a share of the rows about the inverse of its square
            root times as much.
        mask_us: of such a scan, besides its rows.
        gather_ns: of a row copied out of the catalogue.
        sifted_ns: of a catalogue row, where a set's copy is made out of the copy of all rows.
        taken_ns: of a row taken from there.
        score_ns: of a row scored from its vector.
    """

    scan_ns: float
    masked_ns: float
    mask_us: float
    gather_ns: float
    sifted_ns: float
    taken_ns: float
    score_ns: float

    def own_us(self, rows: int) -> float:
        """Return the microseconds that a scan of a set's own copy takes, given its rows."""
        return rows * self.scan_ns / 1_000

    def brute_force_us(self, rows: int) -> float:
        """Return the microseconds that brute force takes: scoring so many rows from their vectors."""
        return rows * self.score_ns / 1_000

    def masked_us(self, wanted_rows: int, rows: int) -> float:
        """Return the microseconds that a scan of a copy of ``rows`` takes if only some are wanted, at least one."""
        return self.mask_us + rows * self.masked_ns * math.sqrt(rows / wanted_rows) / 1_000

    def gathering_us(self, rows: int) -> float:
        """Return the microseconds that making a copy of so many rows out of the catalogue takes."""
        return rows * self.gather_ns / 1_000

    def taking_us(self, rows: int, catalogue_rows: int) -> float:
        """Return the microseconds that making the same copy out of the copy of all rows takes."""
        return (catalogue_rows * self.sifted_ns + rows * self.taken_ns) / 1_000


MEASURED = Costs(
    scan_ns=0.2,
    masked_ns=0.7,
    mask_us=55.0,
    gather_ns=330.0,
    sifted_ns=1.0,
    taken_ns=50.0,
    score_ns=75.0,
)
"""What they take, in the middle of several runs, on the machine of benchmarks/results/search.json, key "costs"."""


class ExtraCosts:
    """The extra cost of searches without a copy, by set; the set searched longest ago is forgotten first."""

    def __init__(self, most: int = MOST_SETS) -> None:
        self._most = most
        self._us: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        """Return the number of sets remembered."""
        return len(self._us)

    def of(self, fingerprint: bytes) -> float:
        """Return the microseconds added for a set so far; 0 for a set not remembered."""
        return self._us.get(fingerprint, 0.0)

    def add(self, fingerprint: bytes, extra_us: float) -> None:
        """Add microseconds to those of a set."""
        self._us[fingerprint] = self._us.get(fingerprint, 0.0) + extra_us
        self._us.move_to_end(fingerprint)
        if len(self._us) > self._most:
            self._us.popitem(last=False)

    def forget(self, fingerprint: bytes) -> None:
        """Forget a set that has a copy now."""
        self._us.pop(fingerprint, None)
