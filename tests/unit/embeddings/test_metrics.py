import math

import pytest

from embeddings.metrics import ndcg_at, recall_at


def test_recall_by_hand():
    assert recall_at("abcd", "xbzd", 10) == 2 / 4
    assert recall_at("abcd", "xbzd", 3) == 1 / 4
    assert recall_at("abcd", ["b"], 2) == 1.0


def test_ndcg_by_hand():
    # Hits at ranks 2 and 4 of two relevant items: (1/log2(3) + 1/log2(5)) / (1/log2(2) + 1/log2(3)).
    expected = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))
    assert ndcg_at("abcd", "bd", 10) == pytest.approx(expected)
    assert expected == pytest.approx(0.6509, abs=5e-5)


def test_the_best_ranking_is_cut_at_k_too():
    # Three relevant items, but only two places: filling both with relevant ones is perfect.
    assert ndcg_at("abx", "abc", 2) == 1.0
    assert recall_at("abx", "abc", 2) == 2 / 3


@pytest.mark.parametrize("k", [1, 3, 10])
def test_perfect_is_one_and_nothing_is_zero(k: int):
    relevant = list(range(k))
    assert (recall_at(relevant, relevant, k), ndcg_at(relevant, relevant, k)) == pytest.approx((1.0, 1.0))
    assert (recall_at([-1, -2], relevant, k), ndcg_at([-1, -2], relevant, k)) == (0.0, 0.0)
    assert (recall_at([], relevant, k), ndcg_at([], relevant, k)) == (0.0, 0.0)


def test_what_comes_after_k_counts_for_nothing():
    assert (recall_at("xyza", "a", 3), ndcg_at("xyza", "a", 3)) == (0.0, 0.0)


def test_only_ndcg_cares_for_the_order():
    assert recall_at("ab", "a", 2) == recall_at("ba", "a", 2) == 1.0
    assert ndcg_at("ab", "a", 2) > ndcg_at("ba", "a", 2) > 0


def test_relevant_items_given_twice_count_once():
    assert recall_at("ab", ["a", "a", "c"], 2) == 1 / 2
    assert ndcg_at("ab", ["a", "a"], 2) == 1.0
