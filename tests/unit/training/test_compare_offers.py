"""Offers beside their rivals, where it is known which of both is right."""

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Literal, TypeAlias

import numpy as np
import pytest
import torch

from embeddings.metrics import area_under_curve, ndcg_at
from embeddings.ranking.offer_features import OFFER_FEATURES
from training.compare_offers import compare_accepted, compare_redeemed, expected_ndcg
from training.comparison import Comparison
from training.offer_ranker import OfferRanker
from training.visits import Visit, VisitExample

LIKED, REDEEMED, RATE = (OFFER_FEATURES.index(name) for name in ("slow_per_root", "redeemed_by_others", "accepted"))
Right = Literal["ranker", "rival", "neither"]
Compared: TypeAlias = Callable[[Sequence[VisitExample], OfferRanker], Comparison | None]


def visits(count: int, customers: int, right: Right, offers: int = 6) -> list[VisitExample]:
    """Visits in which one offer of some is taken: that of one feature, of the other, or any."""
    random = np.random.default_rng(count)
    found: list[VisitExample] = []
    for number in range(count):
        features_OF = np.zeros((offers, len(OFFER_FEATURES)), np.float32)
        liked_O, common_O = random.exponential(1, (2, offers))
        features_OF[:, LIKED], features_OF[:, REDEEMED], features_OF[:, RATE] = liked_O, common_O, common_O
        best = {"ranker": liked_O, "rival": common_O, "neither": random.random(offers)}[right]
        taken_O = (best == best.max()).astype(np.float32)
        visit = Visit(number % customers, number, -1, 0, (), frozenset(), 1.0 + number % 3)
        found.append(VisitExample(visit, features_OF, taken_O, np.zeros(1, np.float32)))
    return found


@pytest.fixture
def ranker() -> OfferRanker:
    """It ranks by what is liked."""
    return OfferRanker().eval()


@pytest.mark.parametrize("compared", [compare_redeemed, compare_accepted])
def test_the_better_one_is_told_from_the_worse_and_from_an_equal(compared: Compared, ranker: OfferRanker) -> None:
    better, worse, equal = (compared(visits(400, 80, right), ranker) for right in ("ranker", "rival", "neither"))
    assert better is not None
    assert worse is not None
    assert equal is not None
    assert better.low > 0.1
    assert worse.is_worse
    assert worse.high < -0.1
    assert equal.low < 0 < equal.high
    assert better.customers == 80


@pytest.mark.parametrize("compared", [compare_redeemed, compare_accepted])
@pytest.mark.parametrize(("count", "customers"), [(0, 1), (49, 49), (400, 29)])
def test_few_visits_or_customers_say_nothing(
    compared: Compared, count: int, customers: int, ranker: OfferRanker
) -> None:
    assert compared(visits(count, customers, "ranker"), ranker) is None


def test_visits_that_leave_no_choice_are_not_asked_about(ranker: OfferRanker) -> None:
    assert compare_redeemed(visits(400, 80, "ranker", offers=1), ranker) is None


def test_accepted_ones_are_told_from_refused_ones_as_often_as_each_visit_stands_for(ranker: OfferRanker) -> None:
    some = visits(300, 60, "neither")
    found = compare_accepted(some, ranker)
    assert found is not None
    with torch.inference_mode():
        scores = np.concatenate([ranker(torch.from_numpy(one.features_OF)).numpy() for one in some])
    rates = np.concatenate([one.features_OF[:, RATE] for one in some])
    taken = np.concatenate([one.taken_O for one in some])
    weights = np.concatenate([np.full(len(one.taken_O), one.visit.weight) for one in some])
    assert found.served == pytest.approx(area_under_curve(scores, taken, weights))
    assert found.rival == pytest.approx(area_under_curve(rates, taken, weights))


@pytest.mark.parametrize("k", [1, 3, 10])
def test_ties_count_as_all_their_orders_on_average(k: int) -> None:
    random = np.random.default_rng(k)
    for _ in range(20):
        scores_O, taken_O = random.integers(0, 3, 5).astype(float), np.zeros(5)
        taken_O[random.permutation(5)[: random.integers(1, 4)]] = 1
        relevant = np.flatnonzero(taken_O).tolist()
        orders = [order for order in permutations(range(5)) if all(np.diff(scores_O[list(order)]) <= 0)]
        oracle = np.mean([ndcg_at(order, relevant, k) for order in orders])
        assert expected_ndcg(scores_O, taken_O, k) == pytest.approx(oracle)
