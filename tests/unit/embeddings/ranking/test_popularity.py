"""What everybody buys lately: shares in a place, and the largest of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.arrays import Ragged
from embeddings.ranking.observed import Observed
from embeddings.ranking.popularity import Shares, most_popular, popular


def shares(found: Shares) -> dict[int, float]:
    assert (found.rows_R.dtype, found.shares_R.dtype) == (np.int64, np.float32)
    return dict(zip(found.rows_R.tolist(), found.shares_R.tolist(), strict=True))


def observed() -> Observed:
    """Four products; location 0 sold 0 and 2, location 1 sold 2 and 3, location 2 nothing."""
    return Observed(
        popularity_N=np.array([10, 20, 30, 40], np.float32),
        trained_N=np.ones(4, np.bool_),
        sold=Ragged.of([[0, 2], [2, 3], []]),
        popularity_L=np.array([5, 15, 60, 20], np.float32),
        lists_M=np.array([0, 1, -1]),
    )


def popularity(rows: list[int], places: tuple[int, ...] | None) -> dict[int, float]:
    return shares(popular(observed(), np.array(rows, np.int32), observed().lists_of(places)))


def test_popular_without_a_place_is_the_share_of_all_purchases():
    assert popularity([0, 1, 3], None) == pytest.approx({0: 0.1, 1: 0.2, 3: 0.4})


def test_popular_in_a_place_is_smoothed_by_a_hundred_purchases_elsewhere():
    # 20 purchases here, 5 and 15 of them of 0 and 2; elsewhere the shares are .1 .2 .3 .4.
    expected = {0: (10 + 5) / 120, 1: 20 / 120, 2: (30 + 15) / 120, 3: 40 / 120}
    assert popularity([0, 1, 2, 3], (0,)) == pytest.approx(expected)


def test_popular_in_several_locations_adds_them_up():
    expected = {0: 15 / 200, 1: 20 / 200, 2: (30 + 15 + 60) / 200, 3: (40 + 20) / 200}
    found = popularity([0, 1, 2, 3], (1, 0, 2))
    assert found == pytest.approx(expected)
    assert sum(found.values()) == pytest.approx(1)


def test_a_product_has_the_same_share_whatever_else_is_asked_for():
    alone = popularity([2], (0, 1))
    assert alone[2] == pytest.approx(popularity([0, 1, 2, 3], (0, 1))[2])


@pytest.mark.parametrize("places", [None, (), (0,), (2,)])
def test_popular_of_no_products_is_empty(places: tuple[int, ...] | None):
    assert popularity([], places) == {}


def test_a_place_without_any_location_is_like_no_place():
    assert popularity([0, 3], ()) == popularity([0, 3], None)


def test_a_world_without_sales_has_no_popular_products():
    nothing = observed()._replace(popularity_N=np.zeros(4, np.float32))
    assert shares(popular(nothing, np.array([0, 1]), ())) == {0: 0, 1: 0}


def test_what_came_later_was_never_bought():
    assert popularity([0, 4, 9], (0,)) == pytest.approx({0: 15 / 120, 4: 0, 9: 0})


@given(
    st.dictionaries(st.integers(0, 500), st.sampled_from([0.0, 1e-8, 0.25, 0.5, 1.0]), max_size=40), st.integers(1, 50)
)
def test_the_largest_shares_are_found_the_largest_first_and_ties_by_row(given_shares: dict[int, float], most: int):
    rows = sorted(given_shares)
    found = most_popular(
        Shares(np.array(rows, np.int64), np.array([given_shares[row] for row in rows], np.float32)), most
    )
    expected = sorted(rows, key=lambda row: (-np.float32(given_shares[row]), row))[:most]
    assert found.rows_R.tolist() == expected
    assert found.shares_R.tolist() == [float(np.float32(given_shares[row])) for row in expected]
