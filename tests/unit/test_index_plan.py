"""Which plan is chosen, as arithmetic: nothing is searched here."""

import json
from pathlib import Path

import pytest

from embeddings.index.base import Plan
from embeddings.index.plan import MEASURED, Costs, Regrets, plan

COSTS = Costs(
    scan_ns=1.0,
    passed_ns=1.0,
    selected_ns=2.0,
    filtered_ns=1.0,
    gather_ns=10.0,
    gather_us=5.0,
)


def chosen(
    eligible_rows: int,
    catalogue_rows: int = 10_000,
    *,
    fits: bool = True,
    renting: Plan = "bitmap",
    regret_us: float = 0.0,
    bitmaps: bool = True,
    ivf: bool = False,
    costs: Costs = COSTS,
) -> Plan:
    return plan(
        eligible_rows,
        catalogue_rows,
        fits=fits,
        renting=renting,
        regret_us=regret_us,
        bitmaps=bitmaps,
        ivf=ivf,
        costs=costs,
    )


def test_the_whole_catalogue_is_copied_where_that_can_be_kept():
    assert chosen(10_000) == chosen(10_000, ivf=True) == "gathered"
    assert chosen(10_000, fits=False) == "flat"
    assert chosen(10_000, fits=False, ivf=True) == "ivf"


def test_what_bitmap_scans_cost_is_weighed_against_gathering():
    """1,000 of 10,000 rows: 10 + 2 - 1 us regretted by every bitmap scan; 5 + 10 us to gather."""
    assert COSTS.rent(1_000, 10_000, filtered=False) == ("bitmap", pytest.approx(11))
    assert COSTS.gathering_us(1_000) == pytest.approx(15)
    assert [chosen(1_000, regret_us=us) for us in (0, 11, 15, 22)] == ["bitmap", "bitmap", "bitmap", "gathered"]


def test_a_set_of_most_rows_is_filtered_out_of_the_copy_of_all():
    """1,000 of 10,000 rows: 10 us times the root of ten against 10 + 2; 4,900: 10 / .7 against 10 + 9.8."""
    assert COSTS.rent(1_000, 10_000, filtered=True) == COSTS.rent(1_000, 10_000, filtered=False)
    assert COSTS.rent(4_900, 10_000, filtered=False) == ("bitmap", pytest.approx(19.8 - 4.9))
    assert COSTS.rent(4_900, 10_000, filtered=True) == ("filtered", pytest.approx(10 / 0.7 - 4.9))
    assert chosen(4_900, renting="filtered", regret_us=9.3) == "filtered"


def test_a_set_too_large_to_be_kept_is_never_gathered():
    assert chosen(1_000, regret_us=1e9, fits=False) == "bitmap"
    assert chosen(1_000, regret_us=1e9, fits=False, ivf=True) == "ivf"


@pytest.mark.parametrize("fits", [True, False])
def test_where_selections_are_ignored_sets_are_gathered_at_once(fits: bool):
    assert chosen(1_000, bitmaps=False, fits=fits) == "gathered"
    assert chosen(10_000, bitmaps=False) == "flat"


def test_the_measured_costs_gather_a_common_set_soon():
    """6,000 of 92,000 rows, a location's assortment in Complete Journey: by the seventh search."""
    renting, regret_us = MEASURED.rent(6_000, 92_000, filtered=True)
    assert chosen(6_000, 92_000, renting=renting, regret_us=6 * regret_us, costs=MEASURED) == renting
    assert chosen(6_000, 92_000, renting=renting, regret_us=7 * regret_us, costs=MEASURED) == "gathered"


def test_the_costs_are_those_of_the_committed_measurement():
    """Within a factor of two: a shared machine does not measure better."""
    results = Path(__file__).parents[2] / "benchmarks" / "results" / "search.json"
    measured = json.loads(results.read_bytes())["costs"]
    for name in ("scan_ns", "passed_ns", "selected_ns", "filtered_ns", "gather_ns"):
        assert 0.5 < getattr(MEASURED, name) / measured[name] < 2, name


def test_regrets_add_up_and_are_forgotten():
    regrets = Regrets(most=2)
    regrets.add(b"a", 1.0)
    regrets.add(b"a", 2.5)
    regrets.add(b"b", 1.0)
    assert (regrets.of(b"a"), regrets.of(b"b"), regrets.of(b"c")) == (3.5, 1.0, 0.0)
    regrets.add(b"a", 1.0)
    regrets.add(b"c", 1.0)  # b was scanned longest ago
    assert (regrets.of(b"a"), regrets.of(b"b"), len(regrets)) == (4.5, 0.0, 2)
    regrets.forget(b"a")
    regrets.forget(b"never met")
    assert (regrets.of(b"a"), len(regrets)) == (0.0, 1)
