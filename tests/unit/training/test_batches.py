"""Baskets and batches as training sees them, against slow grouping and counting."""

from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embeddings.arrays import Ragged
from embeddings.customer.history import EVENT, PURCHASE, Histories, History
from embeddings.customer.tower_input import Situation
from embeddings.vocabulary import Vocabulary
from training.batches import Baskets, Batch, Batches
from training.config import FitConfig

VIEW = 3
HOUR = 3_600


class Event(NamedTuple):
    at: int
    type: int = PURCHASE
    product: int = 0
    location: int = -1
    channel: int = -1


def histories(customers: list[list[Event]]) -> Histories:
    """Customers c0, c1 …, each with an attribute of its own code, 0, 1 …"""
    rows = [event for one in customers for event in sorted(one, key=lambda event: event.at)]
    events = np.zeros(len(rows), EVENT)
    for column in Event._fields:
        events[column] = [getattr(row, column) for row in rows]
    count = len(customers)
    return Histories(
        customers=Vocabulary.of([f"c{row}" for row in range(count)]),
        events=events,
        offsets=np.cumsum([0, *map(len, customers)]),
        attributes_CA=np.arange(count, dtype=np.int32)[:, None],
        audiences=Ragged.of([[]] * count),
        attribute_names=("own",),
        attribute_labels=(tuple(f"{row}" for row in range(count)),),
    )


def as_visited(situation: Situation, past: History, random: np.random.Generator) -> Situation:
    """Return the situation of the visit: a request knows all of it."""
    del past, random
    return situation


pasts = st.lists(
    st.lists(
        st.builds(
            Event,
            at=st.integers(0, 5),
            type=st.sampled_from([PURCHASE, PURCHASE, VIEW]),
            product=st.integers(-1, 3),
            location=st.integers(-1, 1),
            channel=st.integers(-1, 1),
        ),
        max_size=12,
    ),
    min_size=1,
    max_size=4,
)


@given(pasts)
def test_a_basket_is_what_one_customer_bought_in_one_second(customers: list[list[Event]]) -> None:
    expected: list[tuple[int, int, int, int, int, list[int]]] = []
    for row, one in enumerate(customers):
        bought = [event for event in one if event.type == PURCHASE and event.product >= 0]
        for at in sorted({event.at for event in bought}):
            lines = [event for event in bought if event.at == at]
            earlier = sum(event.at < at for event in one)
            products = sorted({event.product for event in lines})
            expected.append((row, at, earlier, lines[0].location, lines[0].channel, products))
    baskets = Baskets.of(histories(customers))
    assert len(baskets) == len(expected)
    found = zip(
        baskets.customers_S.tolist(),
        baskets.moments_S.tolist(),
        baskets.starts_S.tolist(),
        baskets.locations_S.tolist(),
        baskets.channels_S.tolist(),
        [baskets.products[row].tolist() for row in range(len(baskets))],
        strict=True,
    )
    assert list(found) == expected


@given(pasts, st.integers(1, 4))
def test_a_baskets_history_is_the_latest_products_before_its_second(customers: list[list[Event]], length: int) -> None:
    past = histories(customers)
    baskets = Baskets.of(past)
    for row in range(len(baskets)):
        found = baskets.encode(np.array([row]), past, length, as_visited, np.random.default_rng(1))
        events = past[int(baskets.customers_S[row])].events_E
        earlier = events[(events["at"] < baskets.moments_S[row]) & (events["product"] >= 0)][-length:][::-1]
        real = found.types_BL[0] > 0
        assert found.products_BL[0][real].tolist() == earlier["product"].tolist()
        assert found.types_BL[0][real].tolist() == earlier["type"].tolist()
        assert (found.ages_BL[0][real] > 0).all()
        assert found.attributes_BA[0].tolist() == [baskets.customers_S[row]]
        assert found.context_BC[0, :2].tolist() == [baskets.channels_S[row] + 1, baskets.locations_S[row] + 1]


TWO = [[Event(1, product=2), Event(1, product=1), Event(4, product=3)], [Event(2), Event(5, product=2)]]


def test_baskets_between_two_moments_begin_with_the_first_and_end_before_the_second() -> None:
    baskets = Baskets.of(histories(TWO))
    some = baskets.between(2, 5)
    assert some.customers_S.tolist() == [0, 1]
    assert some.moments_S.tolist() == [4, 2]
    assert [some.products[row].tolist() for row in range(2)] == [[3], [0]]
    assert len(baskets.between(6, 9)) == 0


def test_a_customers_baskets_are_everything_bought_in_them() -> None:
    baskets = Baskets.of(histories(TWO))
    assert baskets.by_customer() == {0: {1, 2, 3}, 1: {0, 2}}
    assert baskets.between(1, 2).by_customer() == {0: {1, 2}}


CONFIG = FitConfig(baskets_a_batch=4, targets_a_basket=2, uniform_negatives=3)
PRODUCTS = 12


@pytest.fixture(scope="module")
def past() -> Histories:
    """Five customers with a basket in each of six hours, of one to four products of the first ten."""
    random = np.random.default_rng(1)
    return histories(
        [
            [
                Event(hour * HOUR, product=product)
                for hour in range(6)
                for product in random.choice(10, random.integers(1, 5), replace=False).tolist()
            ]
            for _ in range(5)
        ]
    )


@pytest.fixture(scope="module")
def batches(past: Histories) -> Batches:
    return Batches(past, PRODUCTS, 4, CONFIG, seed=3, situated=as_visited)


def baskets_in(batch: Batch) -> list[tuple[int, int]]:
    """The customer and the hour of every basket in a batch."""
    return list(
        zip(
            batch.tower_input.attributes_BA[:, 0].tolist(),
            (batch.tower_input.context_BC[:, 3] - 1).tolist(),
            strict=True,
        )
    )


def same(one: Batch, other: Batch) -> bool:
    pairs = zip((*one.tower_input, *one[1:]), (*other.tower_input, *other[1:]), strict=True)
    return all(np.array_equal(first, second) for first, second in pairs)


def test_an_epoch_has_every_basket_once_and_another_order_each_time(batches: Batches) -> None:
    epochs = [[basket for batch in batches.epoch(epoch) for basket in baskets_in(batch)] for epoch in range(2)]
    every = [(customer, hour) for customer in range(5) for hour in range(6)]
    assert [sorted(one) for one in epochs] == [every, every]
    assert epochs[0] != epochs[1]
    assert batches.steps == len(list(batches.epoch(0))) == 8


def test_an_epoch_from_a_step_on_is_the_rest_of_that_epoch(past: Histories, batches: Batches) -> None:
    whole = list(batches.epoch(1))
    for first in range(batches.steps + 1):
        rest = list(Batches(past, PRODUCTS, 4, CONFIG, seed=3, situated=as_visited).epoch(1, first=first))
        assert len(rest) == batches.steps - first
        assert all(same(one, other) for one, other in zip(rest, whole[first:], strict=True))
    assert not same(whole[0], next(Batches(past, PRODUCTS, 4, CONFIG, seed=4, situated=as_visited).epoch(1)))


def test_a_batch_holds_targets_of_its_baskets_and_negatives_once_each(past: Histories, batches: Batches) -> None:
    bought = {
        (customer, hour): {int(one["product"]) for one in past[customer].events_E if one["at"] == hour * HOUR}
        for customer in range(5)
        for hour in range(6)
    }
    ever = set().union(*bought.values())
    for batch in batches.epoch(0):
        candidates = batch.candidates_C.tolist()
        assert candidates == sorted(set(candidates))
        assert ever.issuperset(candidates)
        baskets = [bought[one] for one in baskets_in(batch)]
        assert batch.bought_BC.tolist() == [[one in basket for one in candidates] for basket in baskets]
        targets = [(owner, candidates[place]) for owner, place in zip(batch.owners_T, batch.targets_T, strict=True)]
        assert len(set(targets)) == len(targets)
        assert all(target in baskets[owner] for owner, target in targets)
        assert Counter(owner for owner, _ in targets) == {row: min(2, len(one)) for row, one in enumerate(baskets)}
        assert len(candidates) <= len(targets) + CONFIG.uniform_negatives


def test_where_repeats_are_rare_what_was_taken_before_is_no_negative_either(past: Histories, batches: Batches) -> None:
    novel = Batches(past, PRODUCTS, 4, CONFIG, seed=3, situated=as_visited, novel=True)
    for batch, usual in zip(novel.epoch(0), batches.epoch(0), strict=True):
        assert same(batch._replace(bought_BC=usual.bought_BC), usual)
        for row, products_L in enumerate(batch.tower_input.products_BL):
            expected = usual.bought_BC[row] | np.isin(batch.candidates_C, products_L)
            assert batch.bought_BC[row].tolist() == expected.tolist()


def test_log_inclusion_is_how_often_a_product_is_a_candidate() -> None:
    random = np.random.default_rng(2)
    common = np.arange(30, 0, -1) / np.arange(30, 0, -1).sum()  # the first product is bought most, the last least
    customers = [
        [Event(0, product=product) for product in random.choice(30, random.integers(1, 7), replace=False, p=common)]
        for _ in range(300)
    ]
    config = FitConfig(baskets_a_batch=15, targets_a_basket=3, uniform_negatives=5)
    batches = Batches(histories(customers), 30, 1, config, seed=1, situated=as_visited)
    claimed: dict[int, float] = {}
    counts: Counter[int] = Counter()
    epochs = 60
    for epoch in range(epochs):
        for batch in batches.epoch(epoch):
            counts.update(batch.candidates_C.tolist())
            claimed |= dict(zip(batch.candidates_C.tolist(), np.exp(batch.log_inclusion_C).tolist(), strict=True))
    found = {product: count / (epochs * batches.steps) for product, count in counts.items()}
    assert claimed == pytest.approx(found, abs=0.04)
    assert max(claimed.values()) - min(claimed.values()) > 0.3
