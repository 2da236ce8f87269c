"""Full ranking and its metrics against a slow oracle."""

import math

import numpy as np
import pytest

from embeddings.arrays import Ragged
from training.interactions.evaluate import measure, popular, rank, validate
from training.interactions.files import Interactions, Split
from training.interactions.model import Vectors

RANDOM = np.random.default_rng(7)
CUSTOMERS, PRODUCTS, D, K = 30, 25, 4, 5
SEEN = Ragged.of(RANDOM.permutation(PRODUCTS)[: RANDOM.integers(0, 23)] for _ in range(CUSTOMERS))
RELEVANT = [RANDOM.permutation(PRODUCTS)[: RANDOM.integers(1, 9)].astype(np.int32) for _ in range(CUSTOMERS)]
VECTORS = Vectors(
    RANDOM.normal(size=(CUSTOMERS, D)).astype(np.float32), RANDOM.normal(size=(PRODUCTS, D)).astype(np.float32)
)


def slow_ranking(customer: int) -> list[int]:
    scores_N = VECTORS.products_NV.astype(float) @ VECTORS.customers_CV[customer].astype(float)
    left = [row for row in range(PRODUCTS) if row not in SEEN[customer].tolist()]
    return sorted(left, key=lambda row: -scores_N[row])[:K]


def slow_metrics() -> tuple[float, float]:
    recalls: list[float] = []
    gains: list[float] = []
    for customer in range(CUSTOMERS):
        wanted = RELEVANT[customer].tolist()
        ranking = slow_ranking(customer)
        recalls.append(sum(row in ranking for row in wanted) / len(wanted))
        best = sum(1 / math.log2(place + 2) for place in range(min(K, len(wanted))))
        gains.append(sum(1 / math.log2(place + 2) for place, row in enumerate(ranking) if row in wanted) / best)
    return sum(recalls) / CUSTOMERS, sum(gains) / CUSTOMERS


def test_ranking_leaves_out_what_was_seen_and_pads_where_too_little_is_left() -> None:
    ranked_BK = rank(VECTORS.customers_CV, VECTORS.products_NV, SEEN, K)
    for customer in range(CUSTOMERS):
        expected = slow_ranking(customer)
        assert ranked_BK[customer].tolist() == expected + [-1] * (K - len(expected))
    assert (ranked_BK < 0).any()


def test_metrics_are_the_slow_ones() -> None:
    found = measure(rank(VECTORS.customers_CV, VECTORS.products_NV, SEEN, K), RELEVANT)
    recall, ndcg = slow_metrics()
    assert found == {"recall@5": pytest.approx(recall), "ndcg@5": pytest.approx(ndcg)}


def test_validation_asks_only_those_of_whom_something_is_held_out() -> None:
    names = tuple(map(str, range(PRODUCTS)))
    fit = Interactions("interactions", ("a", "b", "c"), names, Ragged.of([[0, 1], [0], [0, 1, 2]]))
    parts = Split(fit, fit.with_rows(Ragged.of([[2], [], [3]])))
    all_right = Vectors(np.eye(3, PRODUCTS, 2, dtype=np.float32), np.eye(PRODUCTS, dtype=np.float32))
    all_right.customers_CV[2] = np.eye(PRODUCTS)[3]
    assert validate(all_right, parts, 1) == {"recall@1": 1.0, "ndcg@1": 1.0}
    # By popularity, a is shown 2, the third most frequent; c is shown one that nobody has.
    assert validate(popular(parts), parts, 1)["recall@1"] >= 0.5
