"""What plans are estimated to cost, as arithmetic: nothing is searched here."""

import json
from pathlib import Path

import pytest

from embeddings.index.plan import MEASURED, Costs, ExtraCosts

COSTS = Costs(scan_ns=1.0, masked_ns=1.0, mask_us=2.0, gather_ns=10.0, sifted_ns=0.5, taken_ns=3.0, score_ns=20.0)


def test_a_mask_is_weighed_against_scoring_every_row():
    """10,000 rows, of which a quarter is wanted: 2 us and 10 us times the root of four; a hundredth: times ten."""
    assert COSTS.masked_us(2_500, 10_000) == pytest.approx(22)
    assert COSTS.masked_us(100, 10_000) == pytest.approx(102)
    assert COSTS.brute_force_us(2_500) == pytest.approx(50)
    assert COSTS.brute_force_us(100) == pytest.approx(2)


def test_a_copy_out_of_that_of_all_rows_is_cheap():
    """1,000 of 10,000 rows: half a nanosecond for each of all, and three for each of the set's; or ten for each."""
    assert COSTS.taking_us(1_000, 10_000) == pytest.approx(8)
    assert COSTS.gathering_us(1_000) == pytest.approx(10)
    assert COSTS.own_us(1_000) == pytest.approx(1)


def test_the_measured_costs_score_few_rows_and_mask_many():
    """Of 92,000 rows, the products of Complete Journey: some hundredths are the border."""
    few, many = 1_000, 9_000
    assert MEASURED.brute_force_us(few) < MEASURED.masked_us(few, 92_000)
    assert MEASURED.brute_force_us(many) > MEASURED.masked_us(many, 92_000)


def test_the_costs_are_those_of_the_committed_measurement():
    """Within a factor of two: a shared machine does not measure better."""
    results = Path(__file__).parents[4] / "benchmarks" / "results" / "search.json"
    measured = json.loads(results.read_bytes())["costs"]
    for name in ("scan_ns", "masked_ns", "gather_ns", "sifted_ns", "taken_ns", "score_ns"):
        assert 0.5 < getattr(MEASURED, name) / measured[name] < 2, name


def test_extra_costs_add_up_and_are_forgotten():
    extra = ExtraCosts(most=2)
    extra.add(b"a", 1.0)
    extra.add(b"a", 2.5)
    extra.add(b"b", 1.0)
    assert (extra.of(b"a"), extra.of(b"b"), extra.of(b"c")) == (3.5, 1.0, 0.0)
    extra.add(b"a", 1.0)
    extra.add(b"c", 1.0)  # b was searched longest ago
    assert (extra.of(b"a"), extra.of(b"b"), len(extra)) == (4.5, 0.0, 2)
    extra.forget(b"a")
    extra.forget(b"never met")
    assert (extra.of(b"a"), len(extra)) == (0.0, 1)
