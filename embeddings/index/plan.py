"""How a query is answered: the plans, what each is estimated to cost, and the choice between them.

The choice changes time alone, never the answer. Between the set's own copy and a scan of the catalogue that passes
over what is not in the set it is that of renting or buying skis: such a scan is the rent, paid again by every search;
gathering the set is the price, paid once. Renting until the rent has come to the price costs about twice what knowing
the future would, plus one search.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass

from embeddings.index.base import Plan

MOST_REGRETS = 4_096
"""How many sets are remembered that were scanned by bitmap."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What the parts of a search take, on one thread.

    ``opportune-bench search`` measures them: benchmarks/results/search.json, key "costs".

    Attributes:
        scan_ns: of a row of a set's own copy.
        passed_ns: of a catalogue row that a bitmap scan passes over.
        selected_ns: of an eligible row under a bitmap, on top.
        filtered_ns: of a catalogue row, where the copy of all rows is scanned for a set that is nearly all of them. The
            fewer are eligible, the lower the best scores and the more rows are read to their end: for a share of the
            rows about the inverse of its square root times as much.
        gather_ns: of a row copied out of the catalogue.
        sifted_ns: of a catalogue row, where a set's copy is made out of the copy of all rows.
        taken_ns: of a row taken from there.
        gather_us: of making any copy, besides its rows.
        score_ns: of a row scored from its vector.
        mask_us: of scanning a copy for a part of its set, besides its rows.
    """

    scan_ns: float
    passed_ns: float
    selected_ns: float
    filtered_ns: float
    gather_ns: float
    sifted_ns: float
    taken_ns: float
    gather_us: float
    score_ns: float
    mask_us: float

    def rent(self, eligible_rows: int, catalogue_rows: int, *, filtered: bool) -> tuple[Plan, float]:
        """How a set without a copy of its own is searched, and what a query then takes beyond one, in microseconds.

        Args:
            eligible_rows: how many rows the set holds, one at least.
            catalogue_rows: how many there are.
            filtered: whether there is a copy of all rows.
        """
        bitmap_ns = catalogue_rows * self.passed_ns + eligible_rows * self.selected_ns
        filtered_ns = catalogue_rows * self.filtered_ns * math.sqrt(catalogue_rows / eligible_rows)
        own_ns = eligible_rows * self.scan_ns
        if filtered and filtered_ns < bitmap_ns:
            return "filtered", (filtered_ns - own_ns) / 1_000
        return "bitmap", (bitmap_ns - own_ns) / 1_000

    def scoring_us(self, rows: int) -> float:
        """What scoring rows from their vectors takes, in microseconds."""
        return rows * self.score_ns / 1_000

    def masked_us(self, part_rows: int, rows: int) -> float:
        """What a query of a part takes that is answered from the copy of the set it belongs to.

        Args:
            part_rows: how many rows the part holds, one at least.
            rows: how many the set holds.
        """
        return self.mask_us + rows * self.filtered_ns * math.sqrt(rows / part_rows) / 1_000

    def gathering_us(self, eligible_rows: int) -> float:
        """What copying a set out of the catalogue takes, in microseconds."""
        return self.gather_us + eligible_rows * self.gather_ns / 1_000

    def taking_us(self, eligible_rows: int, catalogue_rows: int) -> float:
        """What taking the same copy out of that of all rows takes."""
        return self.gather_us + (catalogue_rows * self.sifted_ns + eligible_rows * self.taken_ns) / 1_000


MEASURED = Costs(
    scan_ns=0.2,
    passed_ns=2.2,
    selected_ns=17.0,
    filtered_ns=1.0,
    gather_ns=330.0,
    sifted_ns=2.0,
    taken_ns=40.0,
    gather_us=0.0,
    score_ns=100.0,
    mask_us=30.0,
)
"""What they take, in the middle of several runs, on the machine of benchmarks/results/search.json, key "costs"."""


def plan_whole(*, fits: bool, bitmaps: bool, ivf: bool) -> Plan:
    """The plan for every row of the catalogue; the arguments are those of `plan`."""
    if fits and bitmaps:  # a copy is made at once: every catalogue is asked for as a whole
        return "gathered"
    return "ivf" if ivf else "flat"


def plan(*, fits: bool, renting: Plan, regret_us: float, price_us: float, bitmaps: bool, ivf: bool) -> Plan:
    """The plan for a set that has no copy yet, and more rows than are scored in any case.

    Args:
        fits: whether that copy could be kept.
        renting: how it is searched as long as it has none.
        regret_us: what that costs, the coming search included, beyond scans of its own copy.
        price_us: what making the copy costs.
        bitmaps: whether the device heeds a selection.
        ivf: whether there is a bounded IVF.
    """
    if ivf and not fits:
        return "ivf"
    if not bitmaps or (fits and regret_us > price_us):
        return "gathered"
    return renting


class Regrets:
    """What renting has cost beyond scans of own copies, by fingerprint; what was scanned longest ago is forgotten."""

    def __init__(self, most: int = MOST_REGRETS) -> None:
        self._most = most
        self._us: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        """How many sets are remembered."""
        return len(self._us)

    def of(self, fingerprint: bytes) -> float:
        """Microseconds regretted so far."""
        return self._us.get(fingerprint, 0.0)

    def add(self, fingerprint: bytes, regret_us: float) -> None:
        """Regret some more."""
        self._us[fingerprint] = self._us.get(fingerprint, 0.0) + regret_us
        self._us.move_to_end(fingerprint)
        if len(self._us) > self._most:
            self._us.popitem(last=False)

    def forget(self, fingerprint: bytes) -> None:
        """The set was gathered: nothing is left to regret."""
        self._us.pop(fingerprint, None)
