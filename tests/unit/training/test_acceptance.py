"""What is counted of offers shown and refused, and which visits they are learnt from, beside plain counting."""

import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from embeddings.arrays import Ragged
from embeddings.catalogue.columns import Catalogue
from embeddings.customer.history import EVENT, EVENT_CODES, Histories
from embeddings.ranking.acceptance import ACCEPTED_WITHIN
from embeddings.vocabulary import Vocabulary
from training.acceptance import FEWEST, count_acceptance, covers_redemptions, exposures_of, is_enough
from training.offer_ranker import OfferRanker, is_enough_to_fit, measure_accepted
from training.visits import find_visits_with_exposures

DAY, UNTIL = 86_400, 200 * 86_400
OFFERS, CUSTOMERS, CHANNELS = 3, 40, 2


def histories(seed: int = 0) -> Histories:
    """Customers of two kinds who are shown offers every few days and accept some of them some hours later."""
    random = np.random.default_rng(seed)
    rows: list[tuple[int, int, str, int, int]] = []
    for customer in range(CUSTOMERS):
        for day in range(0, 200, int(random.integers(2, 6))):
            at, channel = day * DAY + int(random.integers(DAY // 2)), int(random.integers(CHANNELS))
            for offer in random.permutation(OFFERS)[: int(random.integers(1, 3))].tolist():
                rows.append((customer, at, "impression", offer, channel))
                if random.random() < 0.2 + 0.3 * (offer == customer % 2):
                    rows.append((customer, at + int(random.integers(9 * DAY)), "redemption", offer, channel))
    rows.sort(key=lambda row: row[:2])
    events = np.zeros(len(rows), EVENT)
    events["product"] = -1
    for place, (_, at, kind, offer, channel) in enumerate(rows):
        events[place]["at"], events[place]["type"] = at, EVENT_CODES[kind]
        events[place]["offer"], events[place]["channel"] = offer, channel
    sizes = Counter(customer for customer, *_ in rows)
    return Histories(
        customers=Vocabulary.of([f"c{row}" for row in range(CUSTOMERS)]),
        events=events,
        offsets=np.cumsum([0, *(sizes[row] for row in range(CUSTOMERS))]),
        attributes_CA=np.array([[1 + customer % 2] for customer in range(CUSTOMERS)], np.int32),
        audiences=Ragged.of([[]] * CUSTOMERS),
        attribute_names=("kind",),
        attribute_labels=(("even", "odd"),),
    )


CATALOGUE = cast(
    "Catalogue",
    SimpleNamespace(
        offers=SimpleNamespace(ids=range(OFFERS)), channels=["web", "app"], context=SimpleNamespace(sizes=())
    ),
)


def logit(share: float) -> float:
    return math.log(share / (1 - share))


def test_the_odds_of_offers_and_of_what_customers_are_like_are_what_counting_gives() -> None:
    past = histories()
    found = exposures_of(past, "offer").before(UNTIL)
    acceptance = count_acceptance(past, found, CATALOGUE, UNTIL)
    ripe = [
        (owner, offer, at > 0)
        for owner, offer, at, shown in zip(
            *(one.tolist() for one in (found.owners_X, found.rows_X, found.accepted_at_X, found.at_X)), strict=True
        )
        if shown < UNTIL - ACCEPTED_WITHIN
    ]

    def share(some: list[bool], towards: float) -> float:
        return (sum(some) + 20 * towards) / (len(some) + 20)

    overall = (sum(accepted for *_, accepted in ripe) + 1) / (len(ripe) + 20)
    of_offer, of_customer, _ = acceptance.log_odds(np.arange(OFFERS), np.array([1, 0, 0, 0]))
    of_even = logit(share([accepted for owner, _, accepted in ripe if owner % 2 == 0], overall)) - logit(overall)
    for offer in range(OFFERS):
        alone = logit(share([accepted for _, row, accepted in ripe if row == offer], overall))
        both = [accepted for owner, row, accepted in ripe if row == offer and owner % 2 == 0]
        expected = 1 / (1 + math.exp(-alone - of_even))
        assert of_offer[offer] == pytest.approx(alone, abs=1e-5)
        assert of_customer[offer] == pytest.approx(logit(share(both, expected)), abs=1e-5)
    assert of_customer[0] > of_customer[1], "they accept the first more often"
    unseen, _, _ = acceptance.log_odds(np.array([OFFERS]), np.array([1, 0, 0, 0]))
    assert unseen[0] == pytest.approx(logit(overall), abs=1e-5)


def test_what_happens_later_is_counted_neither_as_shown_nor_as_accepted() -> None:
    past, moment = histories(), 100 * DAY
    whole = count_acceptance(past, exposures_of(past, "offer").before(moment), CATALOGUE, moment)
    before = past.before(moment)
    cut = count_acceptance(before, exposures_of(before, "offer"), CATALOGUE, moment)
    for one, other in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(one, other)


def test_of_visits_drawn_each_stands_for_several_and_no_acceptance_is_rare() -> None:
    past = histories()
    found = exposures_of(past, "offer")
    everything = find_visits_with_exposures(past, found, 10**6, 0)
    assert [visit.at for visit in everything] == sorted(visit.at for visit in everything)
    assert {visit.weight for visit in everything} == {1.0}
    assert sum(len(visit.shown) for visit in everything) == len(found.at_X)
    assert all(visit.redeemed <= visit.shown for visit in everything)
    accepting = sum(bool(visit.redeemed) for visit in everything)
    some = find_visits_with_exposures(past, found, 50, 0)
    assert sum(bool(visit.redeemed) for visit in some) == 50
    assert sum(visit.weight for visit in some) == pytest.approx(len(everything))
    assert sum(visit.weight for visit in some if visit.redeemed) == pytest.approx(accepting)


def test_each_exposure_keeps_its_own_situation() -> None:
    past = histories()
    slots = np.arange(len(past.events), dtype=np.int32)[:, None] % 3
    placed = replace(past, context_EX=slots)
    found = exposures_of(placed, "offer")
    visits = find_visits_with_exposures(placed, found, 10**6, 0)
    told = {(visit.customer, visit.at, offer): visit.context for visit in visits for offer in visit.shown}
    expected = {
        (owner, at, row): tuple(slots[place].tolist())
        for owner, at, row, place in zip(
            *(one.tolist() for one in (found.owners_X, found.at_X, found.rows_X, found.places_X)), strict=True
        )
    }
    assert told == expected


def test_without_any_visit_there_is_not_enough_to_fit() -> None:
    assert not is_enough_to_fit([])
    assert measure_accepted([], OfferRanker().eval()) == {}


def test_too_few_accepted_or_refused_are_not_enough() -> None:
    found = exposures_of(histories(), "offer")
    assert is_enough(found)
    few = type(found)(*(column[: FEWEST + 10] for column in found))
    assert not is_enough(few)
    assert not is_enough(few._replace(accepted_at_X=np.zeros_like(few.accepted_at_X)))


def test_redemptions_of_what_was_never_shown_are_to_be_learnt_from_themselves() -> None:
    past = histories()
    found = exposures_of(past, "offer")
    assert covers_redemptions(past, found)
    some = np.flatnonzero(past.events["type"] == EVENT_CODES["impression"])[::4]
    kept = past.events.copy()
    kept["type"][np.setdiff1d(np.flatnonzero(past.events["type"] == EVENT_CODES["impression"]), some)] = 0
    little = replace(past, events=kept)
    assert not covers_redemptions(little, exposures_of(little, "offer"))


def test_a_history_without_impressions_has_no_exposures() -> None:
    past = histories()
    kept = past.events.copy()
    kept["type"] = EVENT_CODES["view"]
    assert len(exposures_of(replace(past, events=kept), "product").at_X) == 0
