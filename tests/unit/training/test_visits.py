"""What offers are learnt from: visits with what went before them, by whomever, and nothing later."""

from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import cast

import numpy as np
import polars as pl
import pytest
import torch

from embeddings.arrays import Ragged
from embeddings.catalogue.columns import Offers
from embeddings.customer.history import EVENT, EVENT_CODES, Histories
from embeddings.ranking.offer_features import OFFER_FEATURES
from embeddings.vocabulary import Vocabulary
from tests.unit.training.test_candidates import RECIPE, read
from tests.world import UNTIL, tables
from training.evaluate import Fitted
from training.fit import Towers, fit_als, product_vectors
from training.observed import observe
from training.ranker import Ranker, Rankers
from training.statistics import count, find_nearby
from training.visits import Visit, find_visits, visit_examples

BEGIN = UNTIL - timedelta(days=8)
FIRST, SECOND, THIRD = (BEGIN + timedelta(days=days) for days in (1, 2, 3))


def redemption(customer: str, offer: str, at: datetime) -> dict[str, object]:
    return {"customer_id": customer, "type": "redemption", "at": at, "channel": "store", "offer_id": offer}


def test_every_visit_knows_the_redemptions_before_it_and_none_of_its_moment_or_later():
    redeemed = pl.DataFrame(
        [
            redemption("c000", "everyone", BEGIN - timedelta(hours=1)),
            redemption("c001", "everyone", FIRST),
            redemption("c002", "everyone", SECOND),
            redemption("c003", "everyone", THIRD),
            redemption("c003", "at-north", THIRD),
            redemption("c003", "at-north", THIRD + timedelta(days=1)),  # of a single use
            redemption("c003", "everyone", THIRD + timedelta(days=1)),  # of two
            redemption("c004", "coming", FIRST),  # not valid yet
        ]
    ).with_columns(pl.col("at").dt.cast_time_unit("us"))
    master, histories = read(pl.concat([tables()["events"], redeemed], how="diagonal"))
    begin = int(BEGIN.timestamp())
    past = histories.before(begin)
    catalogue, observed = observe(master, past.events, begin, RECIPE.assortment)
    als = fit_als(past, len(catalogue.products.ids), RECIPE)
    nearby = find_nearby(past, catalogue, als.products_ND, RECIPE.als.regularisation, RECIPE.ranker)
    towers = Towers(catalogue, histories, RECIPE).eval()
    vectors_ND = product_vectors(towers, catalogue.products, observed.trained_N, torch.device("cpu"))
    statistics = count(past, catalogue, observed, begin, nearby, RECIPE.ranker)
    fitted = Fitted(catalogue, statistics, towers, vectors_ND)

    visits = [one for one in find_visits(histories, catalogue.offers, begin, 10**6, 0) if one.at >= begin]
    found = visit_examples(
        visits, histories, fitted, Rankers(Ranker((4,)), Ranker((4,)), 30.0), RECIPE.towers.history_length
    )

    # Rows of ``everyone``, ``expired``, which then was valid still, and ``at-north``.
    column = OFFER_FEATURES.index("redeemed_by_others")
    redeeming = [(one.features_OF[:, column].tolist(), one.taken_O.tolist()) for one in found if one.taken_O.any()]
    assert redeeming == [
        ([1, 0, 0], [1, 0, 0]),
        ([2, 0, 0], [1, 0, 0]),
        ([3, 0, 0], [1, 0, 1]),
        ([4, 0], [1, 0]),  # without ``at-north``
    ]
    assert len(found) == len(visits) > 30, "all others are visits too"
    assert all(np.isfinite(one.features_OF).all() and np.isfinite(one.features_F).all() for one in found)


def events(*some: tuple[int, float, str, int]) -> Histories:
    """Histories of three customers, the last of whom is of audience 0, from (customer, hour, type, offer)."""
    found = np.zeros(len(some), EVENT)
    for place, (_, hour, kind, offer) in enumerate(some):
        found[place]["at"], found[place]["type"], found[place]["offer"] = hour * HOUR, EVENT_CODES[kind], offer
    found["product"] = np.where(found["offer"] < 0, 0, -1)
    found["location"] = -1
    offsets = np.searchsorted([one[0] for one in some], range(4))
    ids = Vocabulary.of(["a", "b", "c"])
    return Histories(ids, found, offsets, np.zeros((3, 0), np.int32), Ragged.of([[], [], [0]]), (), ())


HOUR = 3_600
# Offer 0 runs for everybody in hours 10 to 20, offer 1 for audience 0 in hours 15 to 30.
RUNS = SimpleNamespace(
    audiences_O=np.array([-1, 0]), starts_O=np.array([10, 15]) * HOUR, ends_O=np.array([20, 30]) * HOUR
)


def visits(*some: tuple[int, float, str, int], window: int = 10**6, most: int = 100) -> list[Visit]:
    return find_visits(events(*some), cast("Offers", RUNS), window, most, 1)


def test_a_visit_is_what_is_done_within_half_an_hour_while_an_offer_runs_for_the_customer():
    found = visits(
        (0, 9.9, "purchase", -1),  # too early
        (0, 12, "view", -1),
        (0, 12.4, "purchase", -1),
        (0, 12.8, "redemption", 0),
        (0, 14, "impression", -1),  # nothing done
        (0, 16, "purchase", -1),
        (0, 20, "purchase", -1),  # too late
        (2, 25, "purchase", -1),  # for them another one runs
    )
    assert [(one.customer, one.at / HOUR, set(one.redeemed)) for one in found] == [
        (0, 12, {0}),
        (0, 16, set()),
        (2, 25, set()),
    ]
    assert {(one.location, one.channel, one.weight) for one in found} == {(-1, 0, 1.0)}


def test_every_redemption_is_kept_and_others_stand_for_those_not_drawn():
    many = [(0, 10 + place / 1.5, "purchase", -1) for place in range(12)]
    found = visits(*many[:6], (0, 14.1, "redemption", 0), *many[7:], window=14 * HOUR, most=3)
    early, late = ([one for one in found if (one.at < 14 * HOUR) is early] for early in (True, False))
    assert [one.weight for one in early] == [2.0] * 3
    assert sorted(one.weight for one in late) == [1.0] + [5 / 3] * 3
    assert sum(one.weight for one in found) == pytest.approx(12)
    assert found == visits(*many[:6], (0, 14.1, "redemption", 0), *many[7:], window=14 * HOUR, most=3)


def test_nothing_done_and_nothing_offered_are_no_visits():
    assert visits() == []
    assert visits((0, 1, "purchase", -1)) == []
