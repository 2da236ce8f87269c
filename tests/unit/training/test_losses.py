"""Sampled softmax against the full softmax it stands for."""

import numpy as np
import torch
from torch import Tensor

from training.losses import sampled_softmax

GENERATOR = torch.Generator().manual_seed(3)


def full_softmax(inner_BN: Tensor, owners_T: list[int], targets_T: list[int], baskets: list[set[int]]) -> Tensor:
    """Mean of -log p(target) over the target and every product outside the basket, one target at a time."""
    losses: list[Tensor] = []
    for owner, target in zip(owners_T, targets_T, strict=True):
        others = [row for row in range(inner_BN.shape[1]) if row not in baskets[owner]]
        losses.append(-inner_BN[owner, [target, *others]].log_softmax(0)[0])
    return torch.stack(losses).mean()


def bought(baskets: list[set[int]], products: int) -> Tensor:
    return torch.tensor([[row in basket for row in range(products)] for basket in baskets])


def test_with_every_product_as_candidate_it_is_the_full_softmax_and_so_is_its_gradient() -> None:
    baskets, owners, targets = [{0, 3}, {5}, {1, 2, 6}], [0, 0, 1, 2], [0, 3, 5, 2]
    inner = torch.randn(3, 7, generator=GENERATOR, requires_grad=True)
    found = sampled_softmax(inner, torch.tensor(owners), torch.tensor(targets), bought(baskets, 7), torch.zeros(7))
    expected = full_softmax(inner, owners, targets, baskets)
    torch.testing.assert_close(found, expected)
    (found_grad,) = torch.autograd.grad(found, inner)
    (expected_grad,) = torch.autograd.grad(expected, inner)
    torch.testing.assert_close(found_grad, expected_grad)
    assert found_grad[0, 0] < 0 < found_grad[0, 1]


def test_the_sum_over_all_products_is_estimated_without_bias() -> None:
    products, draws = 12, 3_000
    inner_N = torch.randn(products, generator=GENERATOR, dtype=torch.float64)
    inclusion_N = np.linspace(0.15, 0.9, products)
    random = np.random.default_rng(5)
    target = 4
    estimates: list[float] = []
    for _ in range(draws):
        drawn = random.random(products) < inclusion_N
        drawn[target] = True
        rows = np.flatnonzero(drawn)
        loss = sampled_softmax(
            inner_N[None, rows],
            torch.tensor([0]),
            torch.tensor([int((rows == target).argmax())]),
            torch.as_tensor(rows[None] == target),
            torch.as_tensor(np.log(inclusion_N[rows])),
        )
        # The loss is the log of e^target plus the sum, less the target.
        estimates.append(float((loss + inner_N[target]).exp() - inner_N[target].exp()))
    true = float(inner_N.exp().sum() - inner_N[target].exp())
    assert abs(np.mean(estimates) - true) < 4 * np.std(estimates) / draws**0.5
    assert np.std(estimates) / draws**0.5 < 0.03 * true


def test_who_bought_every_candidate_teaches_nothing_and_breaks_nothing() -> None:
    inner = torch.randn(1, 3, generator=GENERATOR, requires_grad=True)
    nobody = torch.ones(1, 3, dtype=torch.bool)
    loss = sampled_softmax(inner, torch.tensor([0, 0]), torch.tensor([0, 2]), nobody, torch.zeros(3))
    loss.backward()
    assert loss.item() == 0
    assert inner.grad is not None
    assert not inner.grad.any()
