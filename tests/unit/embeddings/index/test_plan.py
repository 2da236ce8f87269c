"""Which plan is chosen, as arithmetic: nothing is searched here."""

import json
from pathlib import Path

import pytest

from embeddings.index.base import Plan
from embeddings.index.plan import MEASURED, Costs, Regrets, plan, plan_whole

COSTS = Costs(
    scan_ns=1.0,
    passed_ns=1.0,
    selected_ns=2.0,
    filtered_ns=1.0,
    gather_ns=10.0,
    sifted_ns=0.5,
    taken_ns=3.0,
    gather_us=5.0,
    score_ns=20.0,
    mask_us=2.0,
)


def chosen(
    *,
    fits: bool = True,
    renting: Plan = "bitmap",
    regret_us: float = 0.0,
    price_us: float = 15.0,
    bitmaps: bool = True,
    ivf: bool = False,
) -> Plan:
    return plan(fits=fits, renting=renting, regret_us=regret_us, price_us=price_us, bitmaps=bitmaps, ivf=ivf)


def test_the_whole_catalogue_is_copied_where_that_can_be_kept():
    assert [plan_whole(fits=True, bitmaps=True, ivf=ivf) for ivf in (False, True)] == ["gathered"] * 2
    assert plan_whole(fits=False, bitmaps=True, ivf=False) == "flat"
    assert plan_whole(fits=False, bitmaps=True, ivf=True) == "ivf"


def test_what_bitmap_scans_cost_is_weighed_against_gathering():
    """1,000 of 10,000 rows: 10 + 2 - 1 us regretted by every bitmap scan; 5 + 10 us to gather."""
    assert COSTS.rent(1_000, 10_000, filtered=False) == ("bitmap", pytest.approx(11))
    assert COSTS.gathering_us(1_000) == pytest.approx(15)
    assert [chosen(regret_us=us) for us in (0, 11, 15, 22)] == ["bitmap", "bitmap", "bitmap", "gathered"]


def test_a_set_of_most_rows_is_filtered_out_of_the_copy_of_all():
    """1,000 of 10,000 rows: 10 us times the root of ten against 10 + 2; 4,900: 10 / .7 against 10 + 9.8."""
    assert COSTS.rent(1_000, 10_000, filtered=True) == COSTS.rent(1_000, 10_000, filtered=False)
    assert COSTS.rent(4_900, 10_000, filtered=False) == ("bitmap", pytest.approx(19.8 - 4.9))
    assert COSTS.rent(4_900, 10_000, filtered=True) == ("filtered", pytest.approx(10 / 0.7 - 4.9))
    assert chosen(renting="filtered", regret_us=9.3) == "filtered"


def test_a_mask_is_weighed_against_scoring_every_row_of_a_part():
    """10,000 rows, of which a quarter is meant: 2 us and 10 us times the root of four; a hundredth: times ten."""
    assert COSTS.masked_us(2_500, 10_000) == pytest.approx(22)
    assert COSTS.masked_us(100, 10_000) == pytest.approx(102)
    assert COSTS.scoring_us(2_500) == pytest.approx(50)
    assert COSTS.scoring_us(100) == pytest.approx(2)


def test_a_copy_out_of_that_of_all_rows_is_cheap():
    """1,000 of 10,000 rows: 5 us, half a nanosecond for each of all, and three for each of the set's."""
    assert COSTS.taking_us(1_000, 10_000) == pytest.approx(13)


def test_a_set_too_large_to_be_kept_is_never_gathered():
    assert chosen(regret_us=1e9, fits=False) == "bitmap"
    assert chosen(regret_us=1e9, fits=False, ivf=True) == "ivf"


@pytest.mark.parametrize("fits", [True, False])
def test_where_selections_are_ignored_sets_are_gathered_at_once(fits: bool):
    assert chosen(bitmaps=False, fits=fits) == "gathered"
    assert plan_whole(fits=fits, bitmaps=False, ivf=False) == "flat"


def test_the_measured_costs_gather_a_common_set_soon():
    """6,000 of 92,000 rows, a location's assortment in Complete Journey: by the second search."""
    renting, regret_us = MEASURED.rent(6_000, 92_000, filtered=True)
    price_us = MEASURED.taking_us(6_000, 92_000)
    assert chosen(renting=renting, regret_us=regret_us, price_us=price_us) == renting
    assert chosen(renting=renting, regret_us=2 * regret_us, price_us=price_us) == "gathered"


def test_the_costs_are_those_of_the_committed_measurement():
    """Within a factor of two: a shared machine does not measure better."""
    results = Path(__file__).parents[4] / "benchmarks" / "results" / "search.json"
    measured = json.loads(results.read_bytes())["costs"]
    for name in ("scan_ns", "passed_ns", "selected_ns", "filtered_ns", "gather_ns", "sifted_ns", "taken_ns"):
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
