"""What each way to answer a query is estimated to cost, and when a copy of a set is worth making.

The choice changes time alone, never the answer. Between the set's own copy and whatever answers without one it is that
of renting or buying skis: the rent is paid again by every search; making the copy is the price, paid once. To buy once
the rent has come to the price costs about twice what knowing the future would, plus one search (Karlin, Manasse,
Rudolph and Sleator, 1988).
"""

import math
from collections import OrderedDict
from dataclasses import dataclass

MOST_SETS = 4_096
"""How many sets are remembered that have no copy of their own."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What the parts of a search take, on one thread.

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
        """Return what a scan of the own copy of so many rows takes."""
        return rows * self.scan_ns / 1_000

    def brute_force_us(self, rows: int) -> float:
        """Return what scoring so many rows from their vectors takes."""
        return rows * self.score_ns / 1_000

    def masked_us(self, wanted_rows: int, rows: int) -> float:
        """Return what a scan of a copy of so many rows takes of which some are wanted, one at least."""
        return self.mask_us + rows * self.masked_ns * math.sqrt(rows / wanted_rows) / 1_000

    def gathering_us(self, rows: int) -> float:
        """Return what copying a set out of the catalogue takes."""
        return rows * self.gather_ns / 1_000

    def taking_us(self, rows: int, catalogue_rows: int) -> float:
        """Return what taking the same copy out of that of all rows takes."""
        return (catalogue_rows * self.sifted_ns + rows * self.taken_ns) / 1_000


MEASURED = Costs(
    scan_ns=0.2,
    masked_ns=1.0,
    mask_us=30.0,
    gather_ns=330.0,
    sifted_ns=2.0,
    taken_ns=40.0,
    score_ns=80.0,
)
"""What they take, in the middle of several runs, on the machine of benchmarks/results/search.json, key "costs"."""


class ExtraCosts:
    """What sets without a copy have cost beyond scans of one; the set searched longest ago is forgotten first."""

    def __init__(self, most: int = MOST_SETS) -> None:
        self._most = most
        self._us: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        """Return how many sets are remembered."""
        return len(self._us)

    def of(self, fingerprint: bytes) -> float:
        """Return the microseconds so far."""
        return self._us.get(fingerprint, 0.0)

    def add(self, fingerprint: bytes, extra_us: float) -> None:
        """Add some more."""
        self._us[fingerprint] = self._us.get(fingerprint, 0.0) + extra_us
        self._us.move_to_end(fingerprint)
        if len(self._us) > self._most:
            self._us.popitem(last=False)

    def forget(self, fingerprint: bytes) -> None:
        """Forget a set that has a copy now."""
        self._us.pop(fingerprint, None)
