import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from embeddings.arrays import Ragged
from embeddings.catalog import Attributes, Catalog, ChannelRule, Locations, Offers, Products, Promotions
from embeddings.eligibility import Place
from embeddings.eligible import FOREVER, EligibleSet
from embeddings.history import EVENT, EVENT_CODES, PURCHASE, Events, History
from embeddings.index.base import Candidates
from embeddings.index.exact import ExactIndex
from embeddings.scoring import REPEATED, Mixer, ScoreParameters, Shares, bought_again, nearness, popular
from embeddings.vocabulary import Vocabulary

DAY = 86_400
NOW = 1_750_000_000
HALF = ScoreParameters(daily_decay=0.5, same_location=2.0)


def bought(*purchases: tuple[float, int, int], kind: int = PURCHASE) -> Events:
    """Events as (days ago, product, location)."""
    events_E = np.zeros(len(purchases), EVENT)
    events_E["at"] = [NOW - round(days * DAY) for days, _, _ in purchases]
    events_E["product"] = [product for _, product, _ in purchases]
    events_E["location"] = [location for _, _, location in purchases]
    events_E["type"] = kind
    return events_E


def past(events_E: Events) -> History:
    return History(events_E, np.zeros(0, np.int32), ())


def shares(found: Shares) -> dict[int, float]:
    assert (found.rows_R.dtype, found.shares_R.dtype) == (np.int64, np.float32)
    return dict(zip(found.rows_R.tolist(), found.shares_R.tolist(), strict=True))


def eligible(rows: Sequence[int]) -> EligibleSet:
    return EligibleSet.of(np.array(rows, np.int32), FOREVER)


def small_catalog() -> Catalog:
    """Four products; location 0 carries 0 and 2, location 1 carries 2 and 3, location 2 nothing."""
    none, nothing = Ragged.of([]), np.zeros(0, np.int64)
    return Catalog(
        channels={"web": ChannelRule.EVERYTHING},
        audiences=(),
        products=Products(
            ids=Vocabulary.of(["p0", "p1", "p2", "p3"]),
            attributes=Attributes((), (), np.zeros((4, 0), np.int32)),
            price_N=np.ones(4, np.float32),
            popularity_N=np.array([10, 20, 30, 40], np.float32),
            trained_N=np.ones(4, np.bool_),
        ),
        locations=Locations(
            ids=Vocabulary.of(["l0", "l1", "l2"]),
            coordinates_M2=np.full((3, 2), np.nan),
            regions_M=np.zeros(3, np.int32),
            assortment=Ragged.of([[0, 2], [2, 3], []]),
            popularity=np.array([5, 15, 60, 20], np.float32),
            known_M=np.ones(3, np.bool_),
        ),
        offers=Offers(
            Vocabulary.of([]), np.zeros(0, np.uint8), nothing, nothing, np.zeros(0, np.int32), none, none, none
        ),
        promotions=Promotions(np.zeros(0, np.int32), np.zeros(0, np.int32), nothing, nothing, none),
    )


def test_a_purchase_loses_weight_by_the_day_and_gains_at_the_very_location():
    found = shares(bought_again(past(bought((0, 3, 1), (1, 3, 0), (2, 5, 0))), 0, NOW, HALF))
    # 3: 1 elsewhere today, 3 * 1/2 here yesterday; 5: 3 * 1/4 here two days ago.
    assert found == pytest.approx({3: 2.5 / 3.25, 5: 0.75 / 3.25})


def test_without_a_location_none_counts_more():
    events_E = bought((1, 3, -1), (1, 5, 0))
    assert shares(bought_again(past(events_E), -1, NOW, HALF)) == pytest.approx({3: 0.5, 5: 0.5})


def test_only_purchases_of_products_count():
    views = bought((0, 3, 0), kind=EVENT_CODES["view"])
    offers_only = bought((0, -1, 0))
    found = bought_again(past(np.concatenate([views, offers_only, bought((0, 4, 0))])), 0, NOW, HALF)
    assert shares(found) == {4: 1.0}
    assert shares(bought_again(past(views), 0, NOW, HALF)) == {}


def test_a_purchase_still_to_come_weighs_as_if_made_now():
    assert shares(bought_again(past(bought((-30, 3, 0), (0, 4, 0))), -1, NOW, HALF)) == {3: 0.5, 4: 0.5}


@pytest.mark.parametrize("years", [1, 30, 300])
def test_a_customer_away_for_years_still_has_the_same_shares(years: int):
    purchases = [(0.0, 3, 0), (1.0, 4, 0), (2.5, 3, 1)]
    recent = bought_again(past(bought(*purchases)), 0, NOW, HALF)
    long_ago = bought(*((days + 365 * years, product, location) for days, product, location in purchases))
    away = bought_again(past(long_ago), 0, NOW, HALF)
    assert away.shares_R.sum() == pytest.approx(1)
    assert shares(away) == pytest.approx(shares(recent))


def test_nearness_is_a_softmax():
    products_KD = np.array([[2, 0], [1, 0], [0, 9]], np.float32)
    found_K = nearness(products_KD, np.array([1, 0], np.float32))
    total = math.exp(2) + math.exp(1) + 1
    assert found_K.tolist() == pytest.approx([math.exp(2) / total, math.exp(1) / total, 1 / total])


def test_nearness_survives_large_inner_products():
    found_K = nearness(np.array([[9000], [8999], [-9000]], np.float32), np.array([10], np.float32))
    assert found_K.tolist() == pytest.approx([1 / (1 + math.exp(-10)), math.exp(-10) / (1 + math.exp(-10)), 0])


def test_of_nothing_nothing_is_near():
    assert nearness(np.zeros((0, 3), np.float32), np.ones(3, np.float32)).tolist() == []


def test_the_largest_shares_are_found():
    order = np.random.default_rng(0).permutation(3 * REPEATED)
    most = Shares(np.arange(3 * REPEATED), order.astype(np.float32)).most
    assert dict(zip(most.rows_R.tolist(), most.shares_R.tolist(), strict=True)) == {
        row: order[row] for row in np.flatnonzero(order >= 2 * REPEATED).tolist()
    }
    few = Shares(np.arange(9), np.ones(9, np.float32)).most
    assert few.rows_R.tolist() == [*range(9), *[-1] * (REPEATED - 9)]
    assert few.shares_R.sum() == 9


def test_what_lies_in_a_set_is_found_for_as_many_sets_as_there_are():
    shares = Shares(np.arange(20), np.ones(20, np.float32))
    for _ in range(2):
        for step in range(1, 15):
            found = shares.most_within(eligible(range(0, 20, step)))
            assert found[found >= 0].tolist() == list(range(0, 20, step))


def test_shares_are_kept_by_location_and_parameters_and_only_from_the_newest_purchase_on():
    history = past(bought((0, 3, 0), (1, 3, 1), (5, 4, 1)))
    other = ScoreParameters(daily_decay=0.9, same_location=0)
    asked = [
        (0, NOW, HALF),
        (1, NOW, HALF),
        (-1, NOW, HALF),
        (0, NOW, other),
        (0, NOW - 2 * DAY, HALF),
        (0, NOW + DAY, HALF),
    ]
    for _ in range(2):
        for location, moment, parameters in asked:
            fresh = past(history.events_E)
            expected = shares(bought_again(fresh, location, moment, parameters))
            assert shares(bought_again(history, location, moment, parameters)) == pytest.approx(expected)


def mixed(
    own: Shares, retrieved: Sequence[int], allowed: Sequence[int], towers: float, most: int = 9
) -> list[list[float]]:
    """Rows, scores and both terms of the only request of a batch, without pads."""
    rows_1K = np.array([[*retrieved, -1]])
    inner_1K = np.where(rows_1K < 0, -np.inf, (VECTORS @ CUSTOMER)[rows_1K]).astype(np.float32)
    found = Mixer(VECTORS).mix(
        [own], Candidates(rows_1K, inner_1K, ("exact",)), [eligible(allowed)], CUSTOMER[None], towers, most
    )
    kept = int((found.rows_BK >= 0).sum())
    assert not any(column_BK[:, kept:].any() for column_BK in found[1:])
    return [column_BK[0, :kept].tolist() for column_BK in found]


VECTORS = np.array([[3, 0], [2, 0], [1, 0], [1, 0], [0, 1]], np.float32)
CUSTOMER = np.array([1, 0], np.float32)
OWN = Shares(np.array([1, 3, 4]), np.array([0.2, 0.2, 0.6], np.float32))


def test_candidates_are_what_was_retrieved_and_what_was_bought_and_may_be_shown():
    rows, *_ = mixed(OWN, [0, 1], [0, 1, 2, 3], 0.5)
    assert sorted(rows) == [0, 1, 3]  # 4 may not be shown, 2 was neither bought nor retrieved


def test_the_score_is_the_documented_one():
    total = math.exp(3) + math.exp(2)
    near = {0: math.exp(3) / total, 1: math.exp(2) / total, 3: math.exp(1) / total, 4: 1 / total}
    again = {0: 0.0, 1: 0.2, 3: 0.2, 4: 0.6}
    score = {row: 0.75 * again[row] + 0.25 * near[row] for row in near}
    order = sorted(score, key=lambda row: -score[row])
    assert mixed(OWN, [0, 1], range(5), 0.25) == [
        order,
        *(pytest.approx([term[row] for row in order]) for term in (score, again, near)),
    ]
    assert mixed(OWN, [0, 1], range(5), 0.25, most=2)[0] == order[:2]


@pytest.mark.parametrize(("towers", "expected"), [(0.0, [4, 1, 3, 0, 2]), (1.0, [0, 1, 2, 3, 4])])
def test_either_half_alone_decides_and_ties_go_by_row(towers: float, expected: list[int]):
    assert mixed(OWN, [0, 1, 2], range(5), towers)[0] == expected


def test_without_a_history_the_towers_alone_propose():
    rows, _, _, near = mixed(Shares(np.zeros(0, np.int64), np.zeros(0, np.float32)), [0, 1, 2], range(5), 0.05)
    assert rows == [0, 1, 2]
    assert sum(near) == pytest.approx(1)


def test_without_retrieval_the_history_alone_decides():
    rows, scores, *_ = mixed(OWN, [], range(5), 0.5)
    assert rows == [4, 1, 3]
    assert scores == pytest.approx([0.3, 0.1, 0.1])


def test_nothing_at_all_gives_no_candidates():
    assert mixed(OWN, [], [], 0.5) == [[], [], [], []]


def test_requests_of_a_batch_do_not_meet():
    nothing = Shares(np.zeros(0, np.int64), np.zeros(0, np.float32))
    many = Shares(np.arange(0, 2 * REPEATED, 2), np.full(REPEATED, 1 / REPEATED, np.float32))
    random = np.random.default_rng(0)
    vectors_ND = random.standard_normal((300, 2)).astype(np.float32)
    customers_BD = random.standard_normal((4, 2)).astype(np.float32)
    again = [OWN, nothing, many, OWN]
    sets = [eligible(range(300)), eligible(range(0, 300, 3)), eligible(range(7, 250)), eligible([1])]
    found = ExactIndex(vectors_ND).search(customers_BD, 64, sets)
    mixer = Mixer(vectors_ND)
    together = mixer.mix(again, found, sets, customers_BD, 0.3, 20)
    for b in range(4):
        these = slice(b, b + 1)
        one = Candidates(found.rows_BK[these], found.scores_BK[these], found.plans_B[these])
        alone = mixer.mix(again[these], one, sets[these], customers_BD[these], 0.3, 20)
        assert [column_BK[b].tobytes() for column_BK in together] == [column_1K[0].tobytes() for column_1K in alone]


def popularity(rows: list[int], places: tuple[int, ...] | None) -> dict[int, float]:
    return shares(popular(small_catalog(), np.array(rows, np.int32), Place(places)))


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
    catalog = small_catalog()
    catalog.products.popularity_N[:] = 0
    assert shares(popular(catalog, np.array([0, 1]), Place((2,)))) == {0: 0, 1: 0}


@pytest.mark.parametrize(
    "wrong", [{"daily_decay": 1.5}, {"daily_decay": -0.1}, {"same_location": -1}, {"towers": 1.1}, {"tower": 0.1}]
)
def test_parameters_outside_their_bounds_are_refused(wrong: dict[str, Any]):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, ScoreParameters)
