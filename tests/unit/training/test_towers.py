"""What the towers may and may not depend on."""

import pytest
import torch
from torch import Tensor, nn

from training.towers import CustomerTower, ProductTower

D, LOCATIONS, CHANNELS, CONTEXT = 8, 5, 3, (4,)
Customer = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@pytest.fixture
def customer_tower() -> CustomerTower:
    torch.manual_seed(1)
    tower = CustomerTower((3, 4), CHANNELS, LOCATIONS, CONTEXT, D, heads=2)
    for start in (module.weight for module in tower.modules() if isinstance(module, nn.Embedding)):
        nn.init.normal_(start)  # as training would leave what starts at zero
    return tower.eval()


def test_a_code_that_training_never_met_is_without_effect() -> None:
    tower = CustomerTower((3, 4), CHANNELS, LOCATIONS, CONTEXT, D, heads=2).eval()
    history, types, ages, attributes, context = customers(2, 3)
    expected = tower(history, types, ages, attributes * 0, context * 0)
    torch.testing.assert_close(tower(history, types, ages, attributes, context), expected)


@pytest.fixture
def product_tower() -> ProductTower:
    torch.manual_seed(2)
    tower = ProductTower(6, (3, 2), D)
    torch.nn.init.normal_(tower.unknown)
    return tower.eval()


def customers(batch: int, length: int) -> Customer:
    random = torch.Generator().manual_seed(4)
    return (
        torch.randn(batch, length, D, generator=random),
        torch.randint(1, 8, (batch, length), generator=random),
        torch.rand(batch, length, generator=random) * 8,
        torch.randint(0, 3, (batch, 2), generator=random),
        torch.randint(0, CHANNELS, (batch, 5), generator=random),
    )


def padded(some: Customer, by: int) -> Customer:
    history, types, ages, attributes, context = some
    pad = torch.nn.functional.pad
    return pad(history, (0, 0, 0, by)), pad(types, (0, by)), pad(ages, (0, by)), attributes, context


def test_padding_changes_no_vector(customer_tower: CustomerTower) -> None:
    some = customers(4, 5)
    torch.testing.assert_close(customer_tower(*padded(some, 11)), customer_tower(*some))


def test_what_lies_in_padding_changes_no_vector(customer_tower: CustomerTower) -> None:
    history, types, ages, attributes, context = padded(customers(4, 5), 3)
    expected = customer_tower(history, types, ages, attributes, context)
    history[:, 5:], ages[:, 5:] = 7.0, 9.0
    torch.testing.assert_close(customer_tower(history, types, ages, attributes, context), expected)


def test_without_any_event_the_situation_alone_speaks(customer_tower: CustomerTower) -> None:
    history, types, ages, attributes, context = customers(2, 1)
    types[:] = 0
    found = customer_tower(history, types, ages, attributes, context)
    assert found.isfinite().all()
    torch.testing.assert_close(customer_tower(history * 0, types, ages * 0, attributes, context), found)
    assert not torch.allclose(customer_tower(history, types, ages, attributes, (context + 1) % CHANNELS), found)


@pytest.mark.parametrize("changed", range(5))
def test_everything_given_counts(customer_tower: CustomerTower, changed: int) -> None:
    some = customers(1, 4)
    other = list(some)
    other[changed] = (
        some[changed] + 1 if some[changed].is_floating_point() else (some[changed] + 1) % 3 + (changed == 1)
    )
    assert not torch.allclose(customer_tower(*other), customer_tower(*some))


def test_customers_of_a_batch_do_not_see_each_other(customer_tower: CustomerTower) -> None:
    some, order = customers(6, 5), torch.tensor([3, 0, 5, 1, 4, 2])
    together = customer_tower(*some)
    torch.testing.assert_close(customer_tower(*(one[order] for one in some)), together[order])
    for row in range(6):
        torch.testing.assert_close(customer_tower(*(one[row : row + 1] for one in some)), together[row : row + 1])


def test_a_product_never_seen_is_placed_by_its_attributes_alone(product_tower: ProductTower) -> None:
    rows, price = torch.tensor([-1, -1, -1]), torch.ones(3)
    attributes = torch.tensor([[1, 1], [2, 1], [1, 1]])
    before = product_tower(rows, attributes, price)
    torch.testing.assert_close(before[0], before[2])
    assert not torch.allclose(before[0], before[1])
    torch.nn.init.normal_(product_tower.ids.weight)
    assert torch.equal(product_tower(rows, attributes, price), before)


def test_a_product_seen_is_more_than_its_attributes(product_tower: ProductTower) -> None:
    attributes, price = torch.ones(3, 2, dtype=torch.int64), torch.ones(3)
    first, second, unseen = product_tower(torch.tensor([0, 1, -1]), attributes, price)
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, unseen)


def test_an_unknown_price_is_neither_nan_nor_nought(product_tower: ProductTower) -> None:
    rows, attributes = torch.tensor([1, 1, 1]), torch.ones(3, 2, dtype=torch.int64)
    price = torch.tensor([float("nan"), 0.0, 2.0])
    vectors = product_tower(rows, attributes, price)
    assert vectors.isfinite().all()
    assert len({tuple(vector.tolist()) for vector in vectors}) == 3
    vectors.sum().backward()
    assert all(one.grad is None or one.grad.isfinite().all() for one in product_tower.parameters())


def test_products_of_a_batch_do_not_see_each_other(product_tower: ProductTower) -> None:
    rows, attributes = torch.tensor([2, -1, 5]), torch.tensor([[0, 1], [2, 0], [1, 1]])
    price, order = torch.tensor([1.0, float("nan"), 3.0]), torch.tensor([2, 0, 1])
    together = product_tower(rows, attributes, price)
    torch.testing.assert_close(product_tower(rows[order], attributes[order], price[order]), together[order])
