"""The losses and the drawn products behind them, against sums over all products, one at a time."""

import math

import numpy as np
import pytest
import torch

from training.interactions.config import LossConfig
from training.interactions.losses import bilateral_softmax, sampled_softmax
from training.interactions.negatives import Negatives

RANDOM = np.random.default_rng(6)
COUNTS_N = np.array([40, 1, 0, 3, 9, 9, 1, 120])


@pytest.mark.parametrize(("exponent", "evenness"), [(1.0, 0.0), (0.84, 0.0), (1.3, 0.4)])
def test_bilateral_softmax_is_its_formula_pair_by_pair(exponent: float, evenness: float) -> None:
    scores_BN = RANDOM.normal(size=(3, 6))
    weights_N = RANDOM.uniform(0.1, 2, size=6)
    baskets = [{0, 3}, {5}, {1, 2, 4}]
    losses: list[float] = []
    for scores_N, basket in zip(scores_BN, baskets, strict=True):
        total = sum(weights_N[row] * math.exp(scores_N[row]) for row in range(6) if row not in basket)
        losses += [-math.log(math.exp(scores_N[row]) / total**exponent) for row in basket]
    drawn_BK = scores_BN + np.log(weights_N)
    for row, basket in enumerate(baskets):
        drawn_BK[row, list(basket)] = -np.inf
    found = bilateral_softmax(
        torch.tensor([sum(row[list(basket)]) for row, basket in zip(scores_BN, baskets, strict=True)]),
        torch.tensor([2.0, 1, 3]),
        torch.tensor(drawn_BK),
        exponent,
        evenness,
    )
    weights = [len(basket) ** -evenness for basket in baskets for _ in basket]
    assert found.item() == pytest.approx(np.average(losses, weights=weights))


@pytest.mark.parametrize("evenness", [0.0, 0.35])
def test_a_customer_to_whom_no_product_is_left_does_not_count(evenness: float) -> None:
    scores_BK = torch.tensor([[-torch.inf] * 3, [0.3, -torch.inf, 1.2], [0.0, 0.5, -0.5]])
    drawn_BK, positive_B = scores_BK.clone().requires_grad_(), torch.tensor([4.0, 1, 2], requires_grad=True)
    counts_B = torch.tensor([3.0, 1, 2])
    found = bilateral_softmax(positive_B, counts_B, drawn_BK, 0.9, evenness)
    others = bilateral_softmax(positive_B[1:], counts_B[1:], drawn_BK[1:], 0.9, evenness)
    torch.testing.assert_close(found, others)
    for got, expected in zip(
        torch.autograd.grad(found, (positive_B, drawn_BK)),
        torch.autograd.grad(others, (positive_B, drawn_BK)),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)
    nobody = bilateral_softmax(positive_B[:1], counts_B[:1], drawn_BK[:1], 0.9, evenness)
    assert nobody.item() == 0
    assert not any(one.any() for one in torch.autograd.grad(nobody, (positive_B, drawn_BK)))


def test_with_full_evenness_every_customer_counts_alike() -> None:
    drawn_BK, counts_B = torch.zeros(2, 1), torch.tensor([1.0, 9])
    losses = [bilateral_softmax(torch.tensor(one), counts_B, drawn_BK, 1, 1) for one in ([1.0, 0], [0.0, 9])]
    torch.testing.assert_close(losses[0], losses[1])


def test_with_every_product_drawn_sampled_softmax_is_the_softmax() -> None:
    scores_BN = torch.randn(4, 7, generator=torch.Generator().manual_seed(2))
    targets_B = torch.tensor([0, 6, 3, 3])
    others_BN = scores_BN.masked_fill(torch.nn.functional.one_hot(targets_B, 7).bool(), -torch.inf)
    found = sampled_softmax(scores_BN[torch.arange(4), targets_B], torch.zeros(4), others_BN)
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(scores_BN, targets_B))


@pytest.mark.parametrize("popularity", [0.0, 0.5, 1.0])
def test_the_drawn_estimate_the_sum_over_all_without_bias(popularity: float) -> None:
    negatives = Negatives(COUNTS_N, LossConfig(temperature=1, negatives=5, popularity=popularity))
    weights_N = np.where(COUNTS_N > 0, np.maximum(COUNTS_N, 1.0) ** popularity, 0)
    weights_N *= (COUNTS_N > 0).sum() / weights_N.sum()
    np.testing.assert_allclose(np.exp(negatives.log_shares_N)[COUNTS_N > 0], weights_N[COUNTS_N > 0], rtol=1e-5)
    values_N = np.exp(RANDOM.normal(size=len(COUNTS_N)))
    draws = [negatives.draw(np.random.default_rng([8, draw])) for draw in range(4_000)]
    estimates = [float((np.exp(negatives.log_weights_N[rows]) * values_N[rows]).sum()) for rows in draws]
    standard_error = np.std(estimates) / len(estimates) ** 0.5
    assert abs(np.mean(estimates) - (weights_N * values_N).sum()) < 4 * standard_error


def test_only_products_that_occur_are_drawn_each_once_and_by_the_generator_alone() -> None:
    negatives = Negatives(COUNTS_N, LossConfig(temperature=1, negatives=200))
    rows = negatives.draw(np.random.default_rng(1))
    assert rows.tolist() == [0, 1, 3, 4, 5, 6, 7]
    few = Negatives(COUNTS_N, LossConfig(temperature=1, negatives=3))
    assert few.draw(np.random.default_rng(5)).tolist() == few.draw(np.random.default_rng(5)).tolist()
    assert all(len(few.draw(np.random.default_rng(seed))) <= 3 for seed in range(20))
