"""Other trades than groceries, trained with the default recipe and asked over HTTP in every way that requests have."""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from haversine import haversine

from embeddings.metrics import area_under_curve, ndcg_at
from tests import worlds
from tests.integration.server import Server
from tests.world import UNTIL, write_tables
from tests.worlds import Tables
from training.config import RECIPES, read_recipe
from training.job import run

pytestmark = pytest.mark.slow
_log = logging.getLogger(__name__)
K = 10


class Question(NamedTuple):
    """What a customer takes on the first visit after the cut-off."""

    customer: str
    at: datetime
    location: str | None
    taken: frozenset[str]


class World:
    """A served world, with what the simplest methods know of it."""

    def __init__(self, tables: Tables, folder: Path) -> None:
        write_tables(tables, folder / "data")
        recipe = read_recipe(RECIPES / "default.toml")
        run(str(folder / "data"), folder / "store", recipe, until=UNTIL, device="cpu", gated=True)
        self.server = Server(folder / "store", "--clock", "replay")
        self.tables = tables
        events = tables["events"].sort("at")
        self.past = events.filter(pl.col("at") < UNTIL)
        where = pl.col("location") if "location" in events.columns else pl.lit(None, pl.String).alias("location")
        at = pl.col("at")
        first = (
            events.filter(pl.col("at") >= UNTIL)
            .group_by("customer_id", maintain_order=True)
            .agg(where.first(), at.first(), at.alias("moments"), pl.col("product_id").alias("taken"))
        )
        self.questions = [
            Question(one["customer_id"], one["at"], one["location"], self._of_visit(one)) for one in first.to_dicts()
        ]
        # Lately counts: half of it after two weeks.
        weights: dict[str, float] = defaultdict(float)
        self.own: dict[str, Counter[str]] = defaultdict(Counter)
        self.here: dict[str, set[str]] = defaultdict(set)
        for one in self.past.to_dicts():
            weights[one["product_id"]] += 0.5 ** ((UNTIL - one["at"]) / timedelta(weeks=2))
            self.own[one["customer_id"]][one["product_id"]] += 1
            if one.get("location") is not None:
                self.here[one["location"]].add(one["product_id"])
        self.popular = sorted(weights, key=lambda product: -weights[product])

    @staticmethod
    def _of_visit(one: dict[str, Any]) -> frozenset[str]:
        pairs = zip(one["moments"], one["taken"], strict=True)
        return frozenset(product for at, product in pairs if at == one["at"])

    def served(
        self,
        context: Callable[[Question], dict[str, Any]],
        allowed: Callable[[Question], set[str] | None] | None = None,
    ) -> float:
        """NDCG@10 of what the service recommends, as far as it is among what is allowed."""

        def ranking(one: Question) -> list[str]:
            among = None if allowed is None else allowed(one)
            if among is None:
                return self._ask(one, context(one), K)
            return [product for product in self._ask(one, context(one), 10 * K) if product in among][:K]

        return self._judge(ranking)

    def _ask(self, one: Question, context: dict[str, Any], limit: int) -> list[str]:
        body: dict[str, Any] = {"customer_id": one.customer, "kinds": ["product"], "limit": limit}
        body["context"] = {"at": one.at.isoformat(), **context}
        answer = self.server.client.post("/v1/recommend", json=body)
        assert answer.status_code == 200, answer.text
        return [item["id"] for item in answer.json()["items"]]

    def frequent(self, allowed: Callable[[Question], set[str] | None], *, own: bool) -> float:
        """NDCG@10 of what the customer took most, followed by what is popular; or of the latter alone."""

        def ranking(one: Question) -> list[str]:
            first = [product for product, _ in self.own[one.customer].most_common()] if own else []
            rest = allowed(one)
            both = [*first, *(product for product in self.popular if product not in first)]
            return [product for product in both if rest is None or product in rest][:K]

        return self._judge(ranking)

    def _judge(self, ranking: Callable[[Question], Sequence[str]]) -> float:
        return float(np.mean([ndcg_at(ranking(one), one.taken, K) for one in self.questions]))


def anything(_: Question) -> None:
    """Without a place everything may be shown."""


def on_web(_: Question) -> dict[str, Any]:
    return {"channel": "web"}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(tables: Tables, name: str = "world") -> World:
        made.append(World(tables, tmp_path / name))
        return made[-1]

    yield make
    for one in made:
        one.server.stop()


class Within:
    """Requests round where each customer was last, and what lies there."""

    def __init__(self, world: World, kilometres: float) -> None:
        self._here = world.here
        self._kilometres = kilometres
        self._points = {
            name: (latitude, longitude) for name, latitude, longitude in world.tables["locations"].iter_rows()
        }
        self._last = dict(world.past.select("customer_id", "location").iter_rows())

    def context(self, one: Question) -> dict[str, Any]:
        latitude, longitude = self._centre(one)
        where = {"latitude": latitude, "longitude": longitude, "radius_km": self._kilometres}
        return {"channel": "store", "location": where}

    def allowed(self, one: Question) -> set[str]:
        centre = self._centre(one)
        near = [name for name, point in self._points.items() if haversine(centre, point) <= self._kilometres]
        return set[str]().union(*(self._here[name] for name in near))

    def _centre(self, one: Question) -> tuple[float, float]:
        return self._points[self._last.get(one.customer, next(iter(self._points)))]


@pytest.mark.parametrize("name", ["bank", "cinema", "travel", "news", "shop"])
def test_without_a_place_the_service_beats_what_is_popular_and_what_was_taken_before(
    name: str, world: Callable[..., World]
) -> None:
    of = world(getattr(worlds, name)())
    served, popular, own = of.served(on_web), of.frequent(anything, own=False), of.frequent(anything, own=True)
    _log.info("%s: served %s, popular %s, own %s", name, served, popular, own)
    assert served > max(popular, own)
    if "locations" in of.tables:
        at_place = of.served(lambda one: {"channel": "store", "location": one.location})
        here = {one.location: of.here[one.location or ""] for one in of.questions}
        popular, own = (of.frequent(lambda one: here[one.location], own=own) for own in (False, True))
        _log.info("  at the place %s, popular there %s, own there %s", at_place, popular, own)
        assert at_place >= max(popular, own) - 0.005
    if name in ("bank", "travel"):
        round_last = Within(of, 30)
        within_radius, filtered = of.served(round_last.context), of.served(on_web, round_last.allowed)
        _log.info("  within a radius %s, without a place under the same filter %s", within_radius, filtered)
        assert within_radius >= filtered - 0.005


def test_where_each_place_is_a_product_no_location_is_as_good_as_data_without_locations(
    world: Callable[..., World],
) -> None:
    placed, unplaced = world(worlds.travel()), world(worlds.travel(placed=False), "unplaced")
    with_places, without = placed.served(on_web), unplaced.served(on_web)
    _log.info("travel: %s with places, %s without any", with_places, without)
    assert with_places >= without - 0.01


class Shown(NamedTuple):
    """An offer that was shown after the cut-off, to a customer who accepted it or not."""

    customer: str
    at: datetime
    offer: str
    accepted: float


def shown_after(tables: Tables) -> list[Shown]:
    events = tables["events"].filter(pl.col("at") >= UNTIL)
    redeemed = {
        (one["customer_id"], one["offer_id"], one["at"] - timedelta(minutes=1))
        for one in events.filter(pl.col("type") == "redemption").to_dicts()
    }
    return [
        Shown(who, at, offer, float((who, offer, at) in redeemed))
        for who, at, offer in events.filter(pl.col("type") == "impression")
        .select("customer_id", "at", "offer_id")
        .iter_rows()
    ]


@pytest.mark.parametrize(("sold", "sharp"), [(30, 0.2), (4, 1e6)], ids=["shop", "four products bought at random"])
def test_offers_shown_and_refused_are_ranked_better_than_by_a_table_of_their_rates(
    world: Callable[..., World], sold: int, sharp: float
) -> None:
    of = world(worlds.coupons(sold, sharp))
    shown = shown_after(of.tables)
    taken = np.array([one.accepted for one in shown])
    past = of.past.filter(pl.col("offer_id").is_not_null())
    rates = {
        offer: some.filter(pl.col("type") == "redemption").height / some.filter(pl.col("type") == "impression").height
        for (offer,), some in past.group_by("offer_id")
    }
    scores = []
    for one in shown:
        context = {"channel": "web", "at": one.at.isoformat()}
        body = {"customer_id": one.customer, "kinds": ["offer"], "limit": 10, "context": context}
        answer = of.server.client.post("/v1/recommend", json=body).json()
        scores.append({item["id"]: item["score"] for item in answer["items"]}[one.offer])
    served = area_under_curve(np.array(scores), taken)
    table = area_under_curve(np.array([rates[one.offer] for one in shown]), taken)
    unseen = np.array([int(one.customer[1:]) % 5 == 4 for one in shown])
    first = np.array([one.customer for one in shown])
    unseen &= np.array([place == int(np.flatnonzero(first == one)[0]) for place, one in enumerate(first)])
    within = [
        area_under_curve(np.array(scores)[some], taken[some])
        for offer in rates
        if 0 < taken[some := unseen & np.array([one.offer == offer for one in shown])].sum() < some.sum()
    ]
    _log.info("coupons: AUC served %s, rates %s; of unseen people within an offer %s", served, table, np.mean(within))
    assert served > table + 0.05
    assert np.mean(within) > 0.6, "their age and the time of day say something"
    assert abs(np.mean(scores) - taken.mean()) < 0.05, "a score is the probability that what is shown is accepted"
