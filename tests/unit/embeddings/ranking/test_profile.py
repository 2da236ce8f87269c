import numpy as np
import pytest

from embeddings.ranking import profile as profiles
from embeddings.ranking.profile import OWN, Profile, profile_of
from embeddings.ranking.statistics import PRODUCT_STATISTICS
from tests.unit.embeddings.small import past, statistics

HOUR = 1 / 24


def work_out(*events: tuple[str, int, float, int]) -> Profile:
    return profile_of(past(*events).purchases, statistics())


def own(profile: Profile, row: int) -> dict[str, float]:
    return dict(zip(OWN, profile.own_RC[profile.rows_R.tolist().index(row)].tolist(), strict=True))


def test_of_nothing_nothing_is_known():
    profile = work_out()
    assert (profile.newest, len(profile.rows_R), profile.visits, profile.basket_size) == (0, 0, 0, 0)
    assert profile.own_RC.shape == (1, len(OWN))
    assert not profile.als_D.any()
    assert profile.at(0).slow_R.tolist() == [0]
    assert profile.at(0).visits == 0


def test_figures_hold_as_of_the_newest_purchase_however_long_ago_that_is():
    recent = work_out(("purchase", 1, 10, 0), ("purchase", 1, 3, 0), ("purchase", 2, 0, 1))
    years = work_out(("purchase", 1, 2010, 0), ("purchase", 1, 2003, 0), ("purchase", 2, 2000, 1))
    np.testing.assert_allclose(recent.own_RC, years.own_RC, rtol=1e-6)
    assert own(recent, 1)["since"] == 3
    assert own(recent, 2)["since"] == 0
    assert own(recent, 1)["visits_since"] == 1


def test_the_usual_gap_is_smoothed_by_everybodys():
    gaps = statistics().products_NP.base[:, PRODUCT_STATISTICS.index("gap")]
    weekly = work_out(*(("purchase", 4, 7.0 * week, 0) for week in range(9)))
    assert own(weekly, 4)["gap"] == pytest.approx((56 + gaps[4]) / 9)
    assert own(work_out(("purchase", 4, 5, 0)), 4)["gap"] == pytest.approx(gaps[4])


def test_several_lines_of_a_product_are_one_purchase_at_a_moment_and_one_day_in_a_day():
    profile = work_out(("purchase", 1, 0, 0), ("purchase", 1, 0, 0), ("purchase", 2, 0, 0), ("purchase", 1, HOUR, 0))
    assert own(profile, 1)["times"] == 2
    assert own(profile, 1)["days"] == 1
    assert profile.basket_size == 1.5
    assert profile.visits == pytest.approx(2, abs=0.01)


def test_the_last_location_is_remembered_and_the_others_worked_out_anew():
    profile = work_out(("purchase", 1, 3, 0), ("purchase", 2, 0, 1))
    for _ in range(2):
        assert profile.at(0).slow_R.tolist() == pytest.approx([0.995**3, 0, 0])
        assert profile.at(1).slow_R.tolist() == [0, 1, 0]
    first = profile.at(0)
    assert profile.at(0) is first
    profile.at(1)
    assert profile.at(0) is not first


def test_bought_without_a_location_is_bought_at_none():
    profile = work_out(("purchase", 1, 0, -1), ("purchase", 2, 0, 0))
    assert profile.at(-1).slow_R.tolist() == [0, 0, 0]
    assert profile.at(-1).visits == 0


def test_events_that_are_no_purchases_change_nothing():
    bought = [("purchase", 1, 9.0, 0), ("purchase", 2, 2.0, 1)]
    acted = [("view", 3, 1.0, 0), ("dismissal", 1, 1.0, 0), ("add_to_cart", 4, 0.1, 0), ("purchase", -1, 0.0, 0)]
    plain, more = work_out(*bought), work_out(*bought, *acted)
    assert plain.newest == more.newest
    np.testing.assert_array_equal(plain.own_RC, more.own_RC)
    np.testing.assert_array_equal(plain.also_bought, more.also_bought)
    assert (plain.visits, plain.basket_size) == (more.visits, more.basket_size)


def test_only_what_is_bought_most_speaks_for_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(profiles, "_ALSO_BOUGHT_FROM", 1)
    often = [("purchase", 2, float(days), 0) for days in range(5)]
    found = work_out(*often, ("purchase", 3, 0, 0))
    assert found.also_bought[0].tolist() == [3, 4]  # the neighbours of product 2 alone
