"""What returns take back, against plain stacks, one event after the other."""

from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embeddings.arrays import Ragged
from embeddings.customer.history import BEGINS, EVENT, EVENT_CODES, GOES_ON, UNSAID, Events, Histories, History
from embeddings.customer.tower_input import Situation, encode
from embeddings.vocabulary import Vocabulary
from training.batches import Baskets


class Happened(NamedTuple):
    """An event without a moment; its place says when. What it says of its visit is as in ``EVENT``."""

    kind: str
    product: int
    quantity: int
    visit: int


HAPPENED = st.builds(
    Happened,
    st.sampled_from(["purchase", "purchase", "return", "view"]),
    st.integers(-1, 2),
    st.integers(1, 4),
    st.sampled_from([UNSAID, UNSAID, BEGINS, GOES_ON]),
)
PASTS = st.lists(HAPPENED, max_size=14)
PAUSES = st.integers(0, 3)


def moment(place: int) -> int:
    """When something happened: two things at a time."""
    return place // 2


def events_of(happened: list[Happened]) -> Events:
    events_E = np.zeros(len(happened), EVENT)
    for place, one in enumerate(happened):
        events_E[place]["type"], events_E[place]["at"] = EVENT_CODES[one.kind], moment(place)
        events_E[place]["product"], events_E[place]["quantity"] = one.product, one.quantity
        events_E[place]["visit"] = one.visit
    return events_E


def left(happened: list[Happened]) -> list[int]:
    """The places of the purchases of which something is left."""
    quantities: dict[int, int] = {}
    for place, one in enumerate(happened):
        if one.product >= 0 and one.kind == "purchase":
            quantities[place] = one.quantity
        elif one.kind == "return":
            due = one.quantity
            for earlier in sorted(quantities, reverse=True):
                if due and happened[earlier].product == one.product:
                    taken = min(due, quantities[earlier])
                    quantities[earlier] -= taken
                    due -= taken
    return [place for place, quantity in quantities.items() if quantity]


def past(happened: list[Happened], pause: int = 0) -> History:
    return History(events_of(happened), np.zeros(0, np.int32), (), pause)


def visits(happened: list[Happened], pause: int) -> list[list[int]]:
    """The places of what is left of purchases, by visit; what was taken back is of a visit, too."""
    found: list[list[int]] = []
    kept, before = set(left(happened)), None
    for place, one in enumerate(happened):
        if one.kind != "purchase":
            continue
        near = one.visit == GOES_ON or (one.visit == UNSAID and before is not None and moment(place) - before <= pause)
        if before is None or not near:
            found.append([])
        before = moment(place)
        if place in kept:
            found[-1].append(place)
    return [visit for visit in found if visit]


def first_left(happened: list[Happened], pause: int) -> list[int]:
    """The places of the purchases of which something is left; of several of one product in one visit the first."""
    return [
        place
        for visit in visits(happened, pause)
        for place in {happened[place].product: place for place in reversed(visit)}.values()
    ]


@given(PASTS, PAUSES)
def test_what_is_left_is_what_was_bought(happened: list[Happened], pause: int):
    bought = past(happened, pause).purchases
    kept = [happened[place].product for place in first_left(happened, pause)]
    assert dict(zip(bought.rows_R.tolist(), bought.times_R.tolist(), strict=True)) == {
        product: kept.count(product) for product in kept
    }


@given(PASTS, PASTS, PAUSES)
def test_it_is_the_same_event_by_event(before: list[Happened], then: list[Happened], pause: int):
    """Purchases are shared between histories that differ in nothing bought: a return is no such difference."""
    happened = before + then
    grown, whole = past(before, pause), past(happened, pause)
    assert grown.purchases.newest >= 0
    for event in events_of(happened)[len(before) :]:
        grown = grown.append(np.array([event], EVENT))
        assert grown.purchases.newest >= 0
    assert grown.purchases.rows_R.tolist() == whole.purchases.rows_R.tolist()
    assert grown.purchases.times_R.tolist() == whole.purchases.times_R.tolist()


@given(PASTS)
def test_the_tower_reads_what_is_left_and_what_was_looked_at(happened: list[Happened]):
    told = [*left(happened), *(place for place, one in enumerate(happened) if one.kind == "view" and one.product >= 0)]
    whole = past(happened)
    assert whole.has_interactions == bool(told)
    read = encode([whole], [Situation(-1, -1, 100)], 20)
    products = [happened[place].product for place in sorted(told, reverse=True)]
    assert read.products_BL[0, : len(told)].tolist() == products
    assert (read.products_BL[0, len(told) :] == -1).all()


@given(st.lists(PASTS, max_size=4), PAUSES)
def test_training_counts_what_is_left_of_each_customer(pasts: list[list[Happened]], pause: int):
    histories = Histories(
        customers=Vocabulary.of([f"c{row}" for row in range(len(pasts))]),
        events=np.concatenate([np.zeros(0, EVENT), *map(events_of, pasts)]),
        offsets=Ragged.of([range(len(happened)) for happened in pasts]).offsets,
        attributes_CA=np.zeros((len(pasts), 0), np.int32),
        audiences=Ragged.of([[]] * len(pasts)),
        attribute_names=(),
        attribute_labels=(),
        visit_pause=pause,
    )
    begins = histories.offsets.tolist()
    expected = [
        begin + place for begin, happened in zip(begins, pasts, strict=False) for place in first_left(happened, pause)
    ]
    assert histories.bought().places_P.tolist() == sorted(expected)
    baskets = Baskets.of(histories)
    whole = [
        (moment(visit[0]), sorted({happened[place].product for place in visit}))
        for happened in pasts
        for visit in visits(happened, pause)
    ]
    found = [(at, baskets.products[row].tolist()) for row, at in enumerate(baskets.moments_S.tolist())]
    assert found == whole
