"""The bootstrap of the quality suite, where the answer is known."""

import numpy as np
import pytest

from benchmarks.quality.bootstrap import Resamples

HUNDRED = [str(number) for number in range(100)]


def test_what_never_varies_has_no_interval():
    figure = Resamples(HUNDRED).mean([0.25] * 100)
    assert (figure.value, figure.low, figure.high) == (0.25, 0.25, 0.25)


def test_the_interval_of_a_mean_is_that_of_the_normal_approximation():
    values = np.random.default_rng(1).normal(3.0, 1.0, 100)
    figure = Resamples(HUNDRED).mean(values.tolist())
    error = values.std() / 10
    assert figure.value == pytest.approx(values.mean(), abs=1e-5)
    assert (figure.high - figure.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_what_differs_by_the_same_everywhere_is_certain_once_paired():
    theirs = np.random.default_rng(2).random(100)
    figure = Resamples(HUNDRED).difference((theirs + 0.1).tolist(), theirs.tolist())
    assert (figure.value, figure.low, figure.high) == pytest.approx((0.1, 0.1, 0.1))


def test_a_ratio_is_one_of_means_and_a_gain_one_less():
    ours, theirs = [3.0, 1.0] * 50, [1.0, 1.0] * 50
    ratio, gain = Resamples(HUNDRED).ratio(ours, theirs), Resamples(HUNDRED).gain(ours, theirs)
    assert ratio is not None
    assert gain is not None
    assert ratio.value == 2.0
    assert ratio.low < 2.0 < ratio.high
    assert (gain.value, gain.low, gain.high) == pytest.approx((1.0, ratio.low - 1, ratio.high - 1))


def test_nothing_is_divided_by_nothing():
    assert Resamples(HUNDRED).ratio([1.0] * 100, [0.0] * 100) is None
    assert Resamples(HUNDRED).gain([1.0] * 100, [0.0] * 100) is None


def test_questions_of_one_household_are_drawn_together():
    """Ten questions answered alike are one observation, not ten."""
    values = [float(number % 2) for number in range(10) for _ in range(10)]
    together = Resamples([str(number) for number in range(10) for _ in range(10)]).mean(values)
    alone = Resamples(HUNDRED).mean(values)
    assert together.value == alone.value == 0.5
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_a_mean_weighs_questions_and_not_households():
    assert Resamples(["one", "one", "one", "other"]).mean([1.0, 1.0, 1.0, 0.0]).value == 0.75


def test_the_draws_are_the_same_every_time():
    values = np.random.default_rng(3).random(100).tolist()
    assert Resamples(HUNDRED).mean(values) == Resamples(HUNDRED).mean(values)
    assert Resamples(HUNDRED).mean(values) != Resamples(HUNDRED, seed=1).mean(values)
