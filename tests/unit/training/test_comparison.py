"""What is served beside its rival, against an oracle that draws whole customers."""

import numpy as np
import pytest

from training.comparison import Questions, compare, compare_products
from training.ways import Way


def test_the_interval_is_that_of_customers_and_not_of_their_questions() -> None:
    random = np.random.default_rng(3)
    customers, each = 60, 20
    gains_C = random.normal(0.1, 0.5, customers)  # every question of a customer has the same gain
    owners_Q = np.repeat(np.arange(customers), each)
    asked = {Way.AT_PLACE: Questions(owners_Q, gains_C[owners_Q], np.zeros(len(owners_Q)), owners_Q >= 0)}
    found = compare_products(asked, {Way.AT_PLACE: 1.0}, "ndcg@10")
    half = 1.96 * gains_C.std() / np.sqrt(customers)
    assert found.served - found.rival == pytest.approx(gains_C.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.15)
    assert found.customers == customers
    assert found == compare_products(asked, {Way.AT_PLACE: 1.0}, "ndcg@10"), "the same data are judged alike"


def test_ways_are_drawn_together_so_that_what_a_customer_loses_in_one_is_won_in_the_other() -> None:
    some = np.arange(100)
    gains_Q = np.where(some % 2, 0.4, -0.4)
    ours, theirs = (Questions(some, sign * gains_Q, np.zeros(100), some >= 0) for sign in (1, -1))
    found = compare_products({Way.AT_PLACE: ours, Way.AHEAD: theirs}, {Way.AT_PLACE: 0.5, Way.AHEAD: 0.5}, "ndcg@10")
    assert (found.low, found.high) == pytest.approx((0, 0), abs=1e-9)
    alone = compare_products({Way.AT_PLACE: ours}, {Way.AT_PLACE: 1.0}, "ndcg@10")
    assert alone.low < -0.03
    assert alone.high > 0.03
    assert not alone.is_worse


def test_what_cannot_be_measured_is_worse() -> None:
    found = compare("offers", "auc", "rates", 5, lambda _: (np.nan, np.nan))
    assert found.is_worse


def test_draws_in_which_nothing_is_left_are_passed_over() -> None:
    only = 0

    def measure(times_C: np.ndarray) -> tuple[float, float]:
        return (0.6, 0.5) if times_C[only] else (np.nan, np.nan)

    found = compare("offers", "auc", "rates", 10, measure)
    assert (found.low, found.high) == pytest.approx((0.1, 0.1))
