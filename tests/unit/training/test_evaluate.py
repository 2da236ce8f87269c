"""The examples of the validation window, and the baselines' figures against slow recomputation from the tables."""

import copy
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from math import log2
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import torch

from embeddings.catalogue.columns import Catalogue, ChannelRule
from embeddings.catalogue.eligibility import Place
from embeddings.catalogue.eligible import FOREVER, EligibleSet
from embeddings.customer.history import PURCHASE, Histories
from embeddings.ranking.features import RANKER_FEATURES
from embeddings.ranking.observed import Observed
from embeddings.ranking.sources import ALL
from tests.world import STORES, UNTIL, dataset_of, tables
from training.batches import Baskets
from training.candidates import gather_candidates
from training.catalogue import master_catalogue
from training.config import Recipe, TowersConfig
from training.evaluate import Fitted, Metrics, by_method, cautions, evaluate
from training.examples import Example, first_baskets
from training.fit import Factors, Towers, fit_als, product_vectors
from training.histories import read_histories
from training.observed import observe
from training.ranker import Ranker, Rankers
from training.statistics import count, find_nearby
from training.ways import Way

RECIPE = Recipe(
    channels={"store": ChannelRule.ASSORTMENT, "mailer": ChannelRule.PROMOTED, "email": ChannelRule.EVERYTHING},
    towers=TowersConfig(dimensions=8, history_length=4, heads=2),
)
SINCE = UNTIL - timedelta(days=14)
NEWCOMER = "c003"
BY_MAIL, BY_EMAIL, SOMEHOW = "c004", "c005", "c006"
CUSTOMERS = 32


class Window(NamedTuple):
    events: pl.DataFrame
    promotions: pl.DataFrame
    histories: Histories
    before: Catalogue
    observed: Observed
    examples: list[Example]

    def example(self, customer_id: str) -> Example:
        (found,) = (one for one in self.examples if self.histories.customers.id(one.customer) == customer_id)
        return found


@pytest.fixture(scope="module")
def window() -> Window:
    """Some customers of the small world: one came only now, some bought by other ways, and all were looking."""
    frames = tables()
    who, at = pl.col("customer_id"), pl.col("at")
    bought = frames["events"].filter(who < f"c{CUSTOMERS:03d}", (who != NEWCOMER) | (at >= SINCE))
    ways = {BY_MAIL: "mailer", BY_EMAIL: "email", SOMEHOW: None}
    bought = bought.with_columns(channel=who.replace_strict(ways, default=pl.col("channel"), return_dtype=pl.String))
    looked = bought.with_columns(type=pl.lit("view"), at=at - timedelta(minutes=5), product_id=pl.lit("unsold"))
    frames["events"] = pl.concat([bought, looked])
    dataset = dataset_of(frames)
    master = master_catalogue(dataset, RECIPE, SINCE)
    histories = read_histories(dataset, master, 0)
    since = int(SINCE.timestamp())
    past = histories.before(since)
    before, observed = observe(master, past.events, since, RECIPE.assortment)
    inside = Baskets.of(histories).between(since, int(UNTIL.timestamp()))
    events = frames["events"].filter(at < UNTIL)
    return Window(
        events,
        frames["promotions"],
        histories,
        before,
        observed,
        first_baskets(past, inside, before, 10**6, np.random.default_rng(0)),
    )


def purchases(window: Window) -> pl.DataFrame:
    return window.events.filter(pl.col("type") == "purchase")


def test_each_customer_is_asked_about_their_first_basket_in_the_window(window: Window) -> None:
    inside = purchases(window).filter(pl.col("at") >= SINCE)
    expected: dict[str, tuple[datetime, set[str]]] = {}
    for (customer_id,), lines in inside.group_by("customer_id"):
        at = lines["at"].to_list()
        expected[str(customer_id)] = (min(at), set(lines.filter(pl.col("at") == min(at))["product_id"]))
    ids = window.before.products.ids
    found = {
        window.histories.customers.id(one.customer): (
            datetime.fromtimestamp(one.situation.moment, UNTIL.tzinfo),
            set(ids.ids(one.bought)),
        )
        for one in window.examples
    }
    assert found == expected
    assert len(window.examples) == CUSTOMERS


def test_the_answer_may_know_only_what_happened_before_the_window(window: Window) -> None:
    since = int(SINCE.timestamp())
    for one in window.examples:
        assert (one.past.events_E["at"] < since).all()
        customer_id = window.histories.customers.id(one.customer)
        known = window.events.filter(pl.col("customer_id") == customer_id, pl.col("at") < SINCE)
        assert len(one.past.events_E) == known.height
    assert not len(window.example(NEWCOMER).past.events_E)


def test_what_may_be_shown_is_what_the_channel_and_the_place_allow_as_known_before_the_window(window: Window) -> None:
    ids = window.before.products.ids
    for one in window.examples:
        customer_id = window.histories.customers.id(one.customer)
        eligible = set(ids.ids(one.eligible.rows_N.tolist()))
        store = window.before.locations.ids.id(one.situation.location)
        assert one.place.rows == (one.situation.location,)
        match customer_id:
            case "c004":
                moment = datetime.fromtimestamp(one.situation.moment, UNTIL.tzinfo)
                plan = window.promotions.filter(
                    pl.col("location") == store, pl.col("starts") <= moment, pl.col("ends") > moment
                )
                assert eligible == set(plan["product_id"])
                assert eligible
            case "c005" | "c006":
                assert eligible == set(ids.ids())
            case _:
                sold = purchases(window).filter(pl.col("location") == store, pl.col("at") < SINCE)
                declared = {"unsold"} if store == "south" else set[str]()
                assert eligible == set(sold["product_id"]) | declared


class Models(NamedTuple):
    """Towers and a ranker that have learnt nothing, with what they are evaluated with."""

    fitted: Fitted
    ranker: Ranker
    als: Factors

    def metrics(self, examples: list[Example]) -> Metrics:
        rankers = Rankers(self.ranker, self.ranker, 30.0)
        asked = {Way.AT_PLACE: examples}
        return evaluate(asked, self.fitted, rankers, self.als, RECIPE.towers.history_length).metrics[Way.AT_PLACE]


@pytest.fixture(scope="module")
def models(window: Window) -> Models:
    torch.manual_seed(1)
    towers = Towers(window.before, window.histories, RECIPE).eval()
    since, size = int(SINCE.timestamp()), len(window.before.products.ids)
    past = window.histories.before(since)
    als = fit_als(past, size, RECIPE)
    nearby = find_nearby(past, window.before, als.products_ND, RECIPE.als.regularisation, RECIPE.ranker)
    statistics = count(past, window.before, window.observed, since, nearby, RECIPE.ranker)
    vectors_ND = product_vectors(towers, window.before.products, window.observed.trained_N, torch.device("cpu"))
    ranker = Ranker((4,)).eval()
    return Models(Fitted(window.before, statistics, towers, vectors_ND), ranker, als)


@pytest.fixture(scope="module")
def metrics(window: Window, models: Models) -> Metrics:
    return models.metrics(window.examples)


def slow_popularity(window: Window) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    everywhere: dict[str, float] = defaultdict(float)
    here: dict[str, dict[str, float]] = {store: defaultdict(float) for store in STORES}
    for line in purchases(window).filter(pl.col("at") < SINCE).iter_rows(named=True):
        weight = 0.98 ** ((SINCE - line["at"]) / timedelta(days=1))
        everywhere[line["product_id"]] += weight
        here[line["location"]][line["product_id"]] += weight
    return everywhere, here


def slow_answers(window: Window) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """By customer, the ten most popular products, and the ten they bought most, filled up with popular ones."""
    everywhere, here = slow_popularity(window)
    ids = window.before.products.ids.ids()
    common: dict[int, list[int]] = {}
    often: dict[int, list[int]] = {}
    for one in window.examples:
        store = window.before.locations.ids.id(one.situation.location)
        total = sum(everywhere.values())
        # The shares everywhere count for a hundred purchases here.
        shares = {
            row: here[store][ids[row]] + 100 * everywhere[ids[row]] / total for row in one.eligible.rows_N.tolist()
        }
        common[one.customer] = sorted(shares, key=lambda row: (-shares[row], row))[:10]
        bought: Counter[int] = Counter(one.past.events_E["product"][one.past.events_E["type"] == PURCHASE].tolist())
        own = sorted((row for row in bought if row in shares), key=lambda row: (-bought[row], row))
        often[one.customer] = (own + [row for row in common[one.customer] if row not in own])[:10]
    return common, often


def slow_metrics(answers: dict[int, list[int]], examples: list[Example]) -> dict[str, float]:
    ndcg: list[float] = []
    recall: list[float] = []
    for one in examples:
        hits = [row in one.bought for row in answers[one.customer]]
        best = sum(1 / log2(rank + 2) for rank in range(min(10, len(one.bought))))
        ndcg.append(sum(1 / log2(rank + 2) for rank, hit in enumerate(hits) if hit) / best)
        recall.append(sum(hits) / len(one.bought))
    return {"ndcg@10": float(np.mean(ndcg)), "recall@10": float(np.mean(recall))}


def test_the_baselines_are_what_counting_by_hand_gives(window: Window, metrics: Metrics) -> None:
    common, often = slow_answers(window)
    assert metrics["popular"] == pytest.approx(slow_metrics(common, window.examples), abs=1e-4)
    assert metrics["personal_top_frequency"] == pytest.approx(slow_metrics(often, window.examples), abs=1e-4)
    assert metrics["personal_top_frequency"]["ndcg@10"] > 2 * metrics["popular"]["ndcg@10"] > 0


def bought_most_first(ranker: Ranker) -> Ranker:
    """One that reads nothing but how often a product was bought."""
    wanted = copy.deepcopy(ranker)
    with torch.no_grad():
        for parameter in wanted.parameters():
            parameter.zero_()
        wanted.get_parameter("layers.0.weight")[0, RANKER_FEATURES.index("own_times")] = 1.0
        wanted.get_parameter("layers.3.weight")[0, 0] = 1.0
        wanted.calibration.copy_(torch.tensor([1.0, -3.0]))
    return wanted


def test_what_is_served_is_in_the_rankers_order(window: Window, models: Models, metrics: Metrics) -> None:
    """The favourite was bought far more often than all else, and nothing else decides."""
    served = models._replace(ranker=bought_most_first(models.ranker)).metrics(window.examples)["served"]
    sources = {f"source {name}" for name in ALL}
    parts = {method for method in metrics if method.startswith("without ")}
    assert {f"without {name}" for name in sources} < parts
    assert set(metrics) == {"popular", "personal_top_frequency", "als", "towers", "served", *sources, *parts}
    assert set(served) == {"ndcg@10", "recall@10", "calibration_error", "examples"}
    assert served["examples"] == len(window.examples)
    common, often = slow_answers(window)
    hits = slow_metrics(
        {one.customer: often[one.customer][:1] for one in window.examples if one.past.has_interactions}
        | {one.customer: common[one.customer] for one in window.examples if not one.past.has_interactions},
        window.examples,
    )
    assert served["ndcg@10"] >= hits["ndcg@10"] - 1e-4 > 0.3


def test_the_calibration_error_is_that_of_all_candidates(window: Window, models: Models) -> None:
    ranker = copy.deepcopy(models.ranker)
    with torch.no_grad():
        for parameter in ranker.parameters():
            parameter.zero_()
    ranker.calibration.copy_(torch.tensor([1.0, 30.0]))  # certain of everything
    candidates = gather_candidates(window.examples, *models.fitted, RECIPE.towers.history_length)
    found = models._replace(ranker=ranker).metrics(window.examples)["served"]["calibration_error"]
    assert found == pytest.approx(1 - float(candidates.taken_M.mean()), abs=1e-4)


def test_who_has_no_past_is_ranked_too_and_buys_most_often_what_is_popular(window: Window, models: Models) -> None:
    newcomer = window.example(NEWCOMER)
    veteran = next(one for one in window.examples if one.past.has_interactions)
    alone, both = models.metrics([veteran]), models.metrics([newcomer, veteran])
    popular = models.metrics([veteran, newcomer])["popular"]
    for name in ("ndcg@10", "recall@10"):
        newcomers = 2 * popular[name] - alone["popular"][name]
        ranked = models.metrics([newcomer])["served"][name]
        assert 2 * both["served"][name] - alone["served"][name] == pytest.approx(ranked, abs=3e-4)
        assert 2 * both["personal_top_frequency"][name] - alone["personal_top_frequency"][name] == pytest.approx(
            newcomers, abs=3e-4
        )


def test_every_way_is_measured_on_what_can_be_asked_in_it(window: Window, models: Models) -> None:
    rankers = Rankers(models.ranker, models.ranker, 30.0)
    some = window.examples[:5]
    asked = {Way.AT_PLACE: window.examples, Way.WITHOUT_PLACE: some, Way.AHEAD: list[Example]()}
    evaluated = evaluate(asked, models.fitted, rankers, models.als, RECIPE.towers.history_length)
    found = evaluated.metrics
    assert set(found) == set(evaluated.asked)
    for way, questions in evaluated.asked.items():
        assert questions.customers_Q.tolist() == [one.customer for one in asked[way]]
        assert questions.served_Q.mean() == pytest.approx(found[way]["served"]["ndcg@10"], abs=1e-4)
        assert questions.rival_Q.mean() == pytest.approx(found[way]["popular"]["ndcg@10"], abs=1e-4)
        assert questions.open_Q.tolist() == [one.eligible.size > 10 for one in asked[way]]
    assert set(found) == {Way.AT_PLACE, Way.WITHOUT_PLACE}
    assert found[Way.WITHOUT_PLACE]["popular"] == models.metrics(some)["popular"]
    assert not any(method.startswith("source") for method in found[Way.WITHOUT_PLACE])
    named = by_method(found)
    assert named["served"] == found[Way.AT_PLACE]["served"]
    assert named["served without_place"] == found[Way.WITHOUT_PLACE]["served"]
    assert len(named) == sum(map(len, found.values()))


HARD, EASY = ({Way.AT_PLACE: {"popular": {"ndcg@10": figure}}} for figure in (0.2, 0.95))


def test_few_examples_and_places_that_tell_the_product_are_doubted(window: Window) -> None:
    many = window.examples * 10
    assert cautions({Way.AT_PLACE: many}, HARD) == []
    (nothing,) = cautions({Way.AT_PLACE: []}, {})
    assert "say nothing of products" in nothing
    (few,) = cautions({Way.AT_PLACE: window.examples[:30]}, HARD)
    assert "means of 30 examples" in few
    told = [
        one._replace(eligible=EligibleSet.of(np.array(sorted(one.bought), np.int32), FOREVER), place=Place((0,)))
        for one in many
    ]
    (said,) = cautions({Way.AT_PLACE: told}, EASY)
    assert said.startswith(f"in {len(many):,} of {len(many):,} examples the place shows at most 10 products")
    # Without a place a small set says nothing of places.
    assert cautions({Way.AT_PLACE: [one._replace(place=Place(None)) for one in told]}, HARD) == []
    (said,) = cautions({Way.AT_PLACE: many}, EASY)
    assert "ndcg@10 0.950 at the place" in said


def test_als_is_filled_with_what_is_popular_for_whom_it_does_not_know(window: Window, models: Models) -> None:
    newcomer = window.example(NEWCOMER)
    found = models.metrics([newcomer])
    assert found["als"] == found["popular"]
