"""The ways in which examples are asked: what a request would know, and no more."""

from typing import NamedTuple

import haversine
import numpy as np
import polars as pl
import pytest

from embeddings.catalogue.columns import Catalogue, ChannelRule
from embeddings.catalogue.context import Context
from embeddings.catalogue.eligibility import Eligibility, Place
from embeddings.customer.history import Histories
from embeddings.customer.tower_input import Situation
from tests.world import UNTIL, dataset_of, tables
from training.batches import Baskets
from training.catalogue import master_catalogue
from training.config import Recipe, WaysConfig
from training.datasets import Dataset
from training.examples import Example, first_baskets
from training.histories import read_histories
from training.observed import observe
from training.ways import Way, Ways

CHANNELS = {
    "store": ChannelRule.ASSORTMENT,
    "web": ChannelRule.EVERYTHING,
    "email": ChannelRule.EVERYTHING,
    "app": ChannelRule.EVERYTHING,
    "mailer": ChannelRule.PROMOTED,
}
STORE, WEB, EMAIL, APP = range(4)
RECIPE = Recipe(channels=CHANNELS)
BEGIN = int(UNTIL.timestamp()) - 14 * 86_400


class Window(NamedTuple):
    catalogue: Catalogue
    histories: Histories
    examples: list[Example]

    def ways(self, config: WaysConfig = RECIPE.ways) -> Ways:
        return Ways(self.catalogue, config)

    def asked(self, way: Way, seed: int = 0) -> list[Example]:
        return list(self.ways().each(self.examples, BEGIN, seed)[way])


def window_of(dataset: Dataset, recipe: Recipe = RECIPE) -> Window:
    master = master_catalogue(dataset, recipe, UNTIL)
    histories = read_histories(dataset, master, 0)
    past = histories.before(BEGIN)
    catalogue, _ = observe(master, past.events, BEGIN, recipe.assortment)
    baskets = Baskets.of(histories).between(BEGIN, int(UNTIL.timestamp()))
    return Window(catalogue, histories, first_baskets(past, baskets, catalogue, 10**6, np.random.default_rng(0)))


@pytest.fixture(scope="module")
def window() -> Window:
    return window_of(dataset_of(tables()))


def test_at_the_place_nothing_is_changed(window: Window) -> None:
    assert window.asked(Way.AT_PLACE) == window.examples
    assert all(one.situation.placed and not one.situation.ahead for one in window.examples)


def test_without_a_place_everything_is_asked_for_where_the_customer_usually_is(window: Window) -> None:
    asked = window.asked(Way.WITHOUT_PLACE)
    assert len(asked) == len(window.examples)
    everything = Eligibility(window.catalogue).recommendable
    for before, one in zip(window.examples, asked, strict=True):
        assert one.place == Place(None)
        assert one.situation.channel in (WEB, APP)
        assert one.situation.moment == before.situation.moment
        assert (one.situation.placed, one.situation.ahead) == (False, False)
        # Everybody of this world shops at one store.
        assert one.situation.location == before.situation.location == one.past.purchases.usual_location()
        assert one.eligible.fingerprint == everything.fingerprint
        assert (one.past, one.bought, one.customer) == (before.past, before.bought, before.customer)
    assert {one.situation.channel for one in asked} == {WEB, APP}


def test_ahead_of_the_visit_neither_its_place_nor_its_moment_is_known(window: Window) -> None:
    for before, one in zip(window.examples, window.asked(Way.AHEAD), strict=True):
        assert one.place == Place(None)
        assert one.situation._replace(location=0) == Situation(EMAIL, 0, BEGIN, (), placed=False, ahead=True)
        assert before.situation.moment > BEGIN
        assert one.bought == before.bought


def test_within_a_radius_the_nearest_locations_to_the_last_one_count(window: Window) -> None:
    locations, eligibility = window.catalogue.locations, Eligibility(window.catalogue)
    placed = np.flatnonzero(np.isfinite(locations.coordinates_M2).all(axis=1)).tolist()
    sizes = set[int]()
    for one in window.asked(Way.WITHIN_RADIUS):
        centre = int(one.past.events_E["location"][-1])
        points = locations.coordinates_M2.tolist()
        far = [(haversine.haversine(points[centre], points[row]), row) for row in placed]
        rows = one.place.rows
        assert rows is not None
        assert list(rows) == [row for _, row in sorted(far)][: len(rows)]
        assert one.situation.location == one.past.purchases.usual_location(rows) == centre
        assert not one.situation.placed
        assert one.situation.channel == STORE
        expected = eligibility.products(Context("store"), one.place, one.situation.moment)
        assert one.eligible.fingerprint == expected.fingerprint
        assert one.eligible.contains(np.array(sorted(one.bought))).all()
        sizes.add(len(rows))
    assert len(sizes) > 1


def test_nobody_is_asked_within_a_radius_who_was_never_anywhere_or_bought_what_is_not_shown_there(
    window: Window,
) -> None:
    one = window.examples[0]
    stranger = one._replace(past=window.histories.of(None))
    late = one._replace(bought=frozenset({120}))
    ways = window.ways(WaysConfig(without_place=0, within_radius=1, ahead=0))
    assert ways.each([stranger, late], BEGIN, 0)[Way.WITHIN_RADIUS] == []
    # Where a way was drawn for it, such an example is asked at its place.
    assert ways.drawn([stranger, late], BEGIN, np.random.default_rng(0)) == [stranger, late]


def test_ways_are_drawn_by_their_shares(window: Window) -> None:
    ways = window.ways(WaysConfig(without_place=0.5, within_radius=0.2, ahead=0.1))
    many = window.examples * 40
    drawn = ways.drawn(many, BEGIN, np.random.default_rng(1))
    ahead = np.mean([one.situation.ahead for one in drawn])
    nowhere = np.mean([one.place.rows is None and not one.situation.ahead for one in drawn])
    several = np.mean([one.place.rows is not None and len(one.place.rows) > 1 for one in drawn])
    assert (ahead, nowhere, several) == pytest.approx((0.1, 0.5, 0.2), abs=0.03)
    assert sum(ways.shares.values()) == pytest.approx(1)


def test_a_way_that_the_data_do_not_know_has_no_share() -> None:
    frames = tables()
    frames["locations"] = frames["locations"].drop("latitude", "longitude")
    shares = window_of(dataset_of(frames)).ways().shares
    assert shares == pytest.approx({Way.AT_PLACE: 0.55, Way.WITHOUT_PLACE: 0.3, Way.WITHIN_RADIUS: 0, Way.AHEAD: 0.15})
    frames = tables()
    frames["offers"] = frames["offers"].filter(pl.col("offer_id") != "by-email")
    channels = {name: rule for name, rule in CHANNELS.items() if name != "email"}
    found = window_of(dataset_of(frames), Recipe(channels=channels))
    assert found.ways().shares[Way.AHEAD] == 0
    assert Way.AHEAD not in found.ways().each(found.examples, BEGIN, 0)


def test_the_tower_reads_a_visit_as_a_request_asks(window: Window) -> None:
    ways, random = window.ways(WaysConfig(without_place=0.3, within_radius=0.2, ahead=0.1)), np.random.default_rng(2)
    one = window.examples[0]
    told = [ways.situation(one.situation, one.past, random) for _ in range(2_000)]
    assert np.mean([each == one.situation for each in told]) == pytest.approx(0.4, abs=0.05)
    assert np.mean([each.ahead for each in told]) == pytest.approx(0.1, abs=0.05)
    assert {each.channel for each in told if each.ahead} == {EMAIL}
    unplaced = [each.channel for each in told if not each.placed and not each.ahead]
    assert set(unplaced) == {WEB, APP, STORE}  # the last are those within a radius
    assert unplaced.count(STORE) / len(told) == pytest.approx(0.2, abs=0.05)
    assert {each.moment for each in told} == {one.situation.moment}
    # A visit that says no place has the usual one.
    nowhere = ways.situation(one.situation._replace(location=-1, channel=WEB), one.past, np.random.default_rng(5))
    assert nowhere.location == one.past.purchases.usual_location() >= 0
    assert not nowhere.placed


def test_equal_seeds_ask_alike(window: Window) -> None:
    first, second, other = (window.asked(Way.WITHOUT_PLACE, seed) for seed in (3, 3, 4))
    channels = [[one.situation.channel for one in asked] for asked in (first, second, other)]
    assert channels[0] == channels[1] != channels[2]
