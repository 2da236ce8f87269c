"""Histories against plain lists. An event here is (second, product): the product tells events apart."""

import bisect
from typing import TypeAlias

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embeddings.arrays import Ragged
from embeddings.customer.history import EVENT, IMPRESSION, PURCHASE, Events, Histories, History
from embeddings.vocabulary import Vocabulary

Pairs: TypeAlias = list[tuple[int, int]]

MOMENTS = st.lists(st.integers(0, 9), max_size=12)


def events_of(pairs: Pairs) -> Events:
    events_E = np.zeros(len(pairs), EVENT)
    events_E["at"] = [at for at, _ in pairs]
    events_E["product"] = [product for _, product in pairs]
    events_E["type"] = PURCHASE
    events_E["value"] = [product / 2 for _, product in pairs]
    return events_E


def pairs_of(events_E: Events) -> Pairs:
    assert events_E["value"].tolist() == (events_E["product"] / 2).tolist()  # whole records move
    return list(zip(events_E["at"].tolist(), events_E["product"].tolist(), strict=True))


def in_time(pairs: Pairs) -> Pairs:
    """Oldest first; those of the same second in the order given."""
    return sorted(pairs, key=lambda pair: pair[0])


def past(pairs: Pairs) -> History:
    return History(events_of(in_time(pairs)), np.zeros(2, np.int32), (3,))


@given(MOMENTS, MOMENTS)
def test_each_event_takes_its_place_in_time_after_older_ones_of_its_second(old: list[int], new: list[int]):
    old_pairs = list(zip(old, range(100), strict=False))
    new_pairs = list(zip(new, range(100, 200), strict=False))
    before = past(old_pairs)
    after = before.append(events_of(new_pairs))
    assert pairs_of(after.events_E) == in_time(old_pairs + new_pairs)
    assert after.events_E.dtype == EVENT
    assert (after.attributes_A is before.attributes_A, after.audiences) == (True, (3,))


@given(MOMENTS, MOMENTS)
def test_one_by_one_or_all_at_once_makes_no_difference(old: list[int], new: list[int]):
    pairs = list(zip(new, range(100, 200), strict=False))
    together = past(list(zip(old, range(100), strict=False)))
    single = together
    for pair in pairs:
        single = single.append(events_of([pair]))
    assert pairs_of(single.events_E) == pairs_of(together.append(events_of(pairs)).events_E)


@given(MOMENTS, MOMENTS)
def test_appending_changes_neither_the_old_history_nor_the_new_events(old: list[int], new: list[int]):
    before = past(list(zip(old, range(100), strict=False)))
    before.events_E.flags.writeable = False
    added = events_of(list(zip(new, range(100, 200), strict=False)))
    kept, given_events = before.events_E.copy(), added.copy()
    after = before.append(added)
    if new:
        after.events_E["product"] = -7  # the new history shares nothing with either
    assert pairs_of(before.events_E) == pairs_of(kept)
    assert pairs_of(added) == pairs_of(given_events)


@given(st.lists(MOMENTS, max_size=5), st.integers(-1, 11))
def test_before_keeps_what_happened_earlier_of_every_customer(moments: list[list[int]], moment: int):
    products = iter(range(1000))
    pairs = [[(at, next(products)) for at in sorted(one)] for one in moments]
    histories = Histories(
        customers=Vocabulary.of([f"c{row}" for row in range(len(pairs))]),
        events=events_of([pair for one in pairs for pair in one]),
        offsets=Ragged.of(moments).offsets,
        attributes_CA=np.zeros((len(pairs), 0), np.int32),
        audiences=Ragged.of([[]] * len(pairs)),
        attribute_names=(),
        attribute_labels=(),
    )
    earlier = histories.before(moment)
    for row, one in enumerate(pairs):
        assert pairs_of(histories[row].events_E) == one
        assert pairs_of(earlier[row].events_E) == one[: bisect.bisect_left([at for at, _ in one], moment)]
    shown = histories.events["product"] % 3 == 0
    histories.events["type"][shown] = IMPRESSION
    forgetful = histories.without_impressions(moment)
    for row, one in enumerate(pairs):
        left = [(at, product) for at, product in one if product % 3 or at >= moment]
        assert pairs_of(forgetful[row].events_E) == left
    for name in ("customers", "attributes_CA", "audiences", "attribute_names", "attribute_labels", "visit_pause"):
        assert getattr(earlier, name) is getattr(histories, name)
