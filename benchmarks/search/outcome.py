"""Results of the search suite, and the few figures that sum them up."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from benchmarks.harness.report import Table

SELECTIVE = 0.1
"""At this selectivity and below, the suite asks how much a copy of the set is faster than a bitmap."""
BEYOND_FIXED_COSTS = 1_000
"""From this many rows a set takes longer to scan than a call from Python."""


class Cell(Struct, frozen=True, kw_only=True):
    """One catalogue, one selectivity, one batch size; times are p50 in microseconds per call.

    Attributes:
        rows, eligible: of the catalogue, and of each set.
        selectivity: share of the rows that is eligible.
        batch: queries in one call, all in the same set.
        recall: share of the true 64 found, or of all eligible where fewer; the lower of hot and cold.
        plan, cold_plan: how the index answered.
        hot: our index on a set that it knows.
        cold: our index on a set that it has never seen; None at 100%, as there is but one such set.
        eligible_scan: FAISS flat, float32, over a copy of the eligible rows.
        panorama: FAISS Panorama, float32, over the same copy, turned to its principal axes.
        bitmap: FAISS flat, float32, over the whole catalogue, with an ID selector that is kept for the set.
        bitmap_cold: the same over a set that it has never scanned, the selector made beforehand; None at 100%.
    """

    catalogue: str
    rows: int
    selectivity: float
    eligible: int
    batch: int
    recall: float
    plan: str
    cold_plan: str | None
    repetitions: int
    hot: float
    cold: float | None
    eligible_scan: float
    panorama: float
    bitmap: float
    bitmap_cold: float | None

    @property
    def hot_vs_eligible_scan(self) -> float:
        """Return the time of our index over the time of the plain scan; 1 or less is as good."""
        return self.hot / self.eligible_scan

    @property
    def hot_vs_panorama(self) -> float:
        """Return the time of our index over that of Panorama; 1 or less is as good."""
        return self.hot / self.panorama

    @property
    def speedup_vs_bitmap(self) -> float:
        """Return how many times faster our index is than the filtered scan."""
        return self.bitmap / self.hot

    @property
    def cold_vs_bitmap(self) -> float | None:
        """Return the time of our index over the filtered scan's, both on a set never searched before."""
        return None if self.cold is None or self.bitmap_cold is None else self.cold / self.bitmap_cold

    def with_ratios(self) -> Mapping[str, object]:
        """Return all fields and all ratios."""
        return msgspec.structs.asdict(self) | {
            "hot_vs_eligible_scan": round(self.hot_vs_eligible_scan, 3),
            "hot_vs_panorama": round(self.hot_vs_panorama, 3),
            "speedup_vs_bitmap": round(self.speedup_vs_bitmap, 3),
            "cold_vs_bitmap": _rounded(self.cold_vs_bitmap),
        }


class Growth(Struct, frozen=True):
    """The same number of eligible rows out of larger and larger catalogues.

    Attributes:
        eligible: rows of each set.
        sets: as many take turns, so that caches help no size more than another.
        hot: p50 in microseconds, batch 1, by catalogue.
    """

    eligible: int
    sets: int
    hot: dict[str, float]


def summary(cells: Sequence[Cell], growth: Growth) -> dict[str, float | None]:
    """Return the figures, all of one run; None where nothing was measured that gives one.

    Args:
        cells: every cell.
        growth: by catalogue, of which the first and the last are compared.
    """
    large = [cell for cell in cells if cell.eligible >= BEYOND_FIXED_COSTS]
    sizes = list(growth.hot.values())
    return {
        "recall_min": min((cell.recall for cell in cells), default=None),
        "hot_vs_eligible_scan_max": _largest(cell.hot_vs_eligible_scan for cell in cells),
        "hot_vs_eligible_scan_max_from_1000_rows": _largest(cell.hot_vs_eligible_scan for cell in large),
        "hot_vs_panorama_max_from_1000_rows": _largest(cell.hot_vs_panorama for cell in large),
        "speedup_vs_bitmap_at_10pct": _smallest(
            cell.speedup_vs_bitmap for cell in cells if cell.selectivity <= SELECTIVE
        ),
        "cold_vs_bitmap_max": _largest(cell.cold_vs_bitmap for cell in cells),
        "cold_vs_bitmap_max_from_1000_rows": _largest(cell.cold_vs_bitmap for cell in large),
        "growth_68k_to_10m": _rounded(sizes[-1] / sizes[0]) if len(sizes) > 1 else None,
    }


def print_table(cells: Iterable[Cell], figures: Mapping[str, float | None]) -> None:
    """Print one line a cell, then the summary."""
    table = Table(
        "search, p50 microseconds a call, one thread",
        ["rows", "share", "batch", "plan", "hot", "copy", "panorama", "bitmap", "cold", "recall"],
    )
    for cell in cells:
        times = [cell.hot, cell.eligible_scan, cell.panorama, cell.bitmap, cell.cold]
        table.add(
            f"{cell.rows:,}",
            f"{cell.selectivity:g}",
            str(cell.batch),
            cell.plan,
            *("" if one is None else f"{one:,.0f}" for one in times),
            f"{cell.recall:.3f}",
        )
    table.print()
    found = Table("summary", ["figure", "value"])
    for name, value in figures.items():
        found.add(name, "" if value is None else f"{value:g}")
    found.print()


def _largest(found: Iterable[float | None]) -> float | None:
    return _rounded(max((one for one in found if one is not None), default=None))


def _smallest(found: Iterable[float | None]) -> float | None:
    return _rounded(min((one for one in found if one is not None), default=None))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
