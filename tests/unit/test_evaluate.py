"""The questions of the validation window, and the baselines' figures against slow recomputation from the tables."""

from collections import Counter, defaultdict
from datetime import datetime, timedelta
from math import log2
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import torch

from embeddings.catalog import Catalog, ChannelRule
from embeddings.history import PURCHASE, Histories
from embeddings.scoring import ScoreParameters
from embeddings.tables import TABLES
from tests.world import STORES, UNTIL, tables
from training.catalogue import master_catalog, observe
from training.config import Recipe, TowersConfig
from training.datasets.frames import GivenTable, as_of, assemble
from training.evaluate import TOWER_SHARES, Evaluation, Question, ask, evaluate
from training.fit import Towers, fit_als, product_vectors
from training.histories import read_histories

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
    before: Catalog
    questions: list[Question]

    def question(self, customer_id: str) -> Question:
        (found,) = (one for one in self.questions if self.histories.customers.id(one.customer) == customer_id)
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
    dataset = as_of(assemble("world", (GivenTable(one, one.name, frames[one.name].lazy()) for one in TABLES)), UNTIL)
    master = master_catalog(dataset, RECIPE, SINCE)
    histories = read_histories(dataset, master)
    since = int(SINCE.timestamp())
    before = observe(master, histories.before(since).events, since, RECIPE.assortment)
    events = frames["events"].filter(at < UNTIL)
    return Window(events, frames["promotions"], histories, before, ask(histories, before, since))


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
        for one in window.questions
    }
    assert found == expected
    assert len(window.questions) == CUSTOMERS


def test_the_answer_may_know_only_what_happened_before_the_window(window: Window) -> None:
    since = int(SINCE.timestamp())
    for one in window.questions:
        assert (one.past.events_E["at"] < since).all()
        customer_id = window.histories.customers.id(one.customer)
        known = window.events.filter(pl.col("customer_id") == customer_id, pl.col("at") < SINCE)
        assert len(one.past.events_E) == known.height
    assert not len(window.question(NEWCOMER).past.events_E)


def test_what_may_be_shown_is_what_the_channel_and_the_place_allow_as_known_before_the_window(window: Window) -> None:
    ids = window.before.products.ids
    for one in window.questions:
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


@pytest.fixture(scope="module")
def evaluation(window: Window) -> Evaluation:
    torch.manual_seed(1)
    cpu = torch.device("cpu")
    towers = Towers(window.before, window.histories, RECIPE).eval()
    als = fit_als(window.histories.before(int(SINCE.timestamp())), len(window.before.products.ids), RECIPE)
    vectors_ND = product_vectors(towers, window.before, cpu)
    return evaluate(
        window.questions, window.before, towers, vectors_ND, als, RECIPE.towers.history_length, ScoreParameters(0.9, 1)
    )


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
    for one in window.questions:
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


def slow_metrics(answers: dict[int, list[int]], questions: list[Question]) -> dict[str, float]:
    ndcg: list[float] = []
    recall: list[float] = []
    for one in questions:
        hits = [row in one.bought for row in answers[one.customer]]
        best = sum(1 / log2(rank + 2) for rank in range(min(10, len(one.bought))))
        ndcg.append(sum(1 / log2(rank + 2) for rank, hit in enumerate(hits) if hit) / best)
        recall.append(sum(hits) / len(one.bought))
    return {"ndcg@10": float(np.mean(ndcg)), "recall@10": float(np.mean(recall))}


def test_the_baselines_are_what_counting_by_hand_gives(window: Window, evaluation: Evaluation) -> None:
    common, often = slow_answers(window)
    assert evaluation.metrics["popular"] == pytest.approx(slow_metrics(common, window.questions), abs=1e-4)
    assert evaluation.metrics["personal_top_frequency"] == pytest.approx(
        slow_metrics(often, window.questions), abs=1e-4
    )
    assert evaluation.metrics["personal_top_frequency"]["ndcg@10"] > 2 * evaluation.metrics["popular"]["ndcg@10"] > 0


def test_what_is_served_is_the_best_mix_that_was_tried(evaluation: Evaluation) -> None:
    assert evaluation.score.towers in TOWER_SHARES
    assert (evaluation.score.daily_decay, evaluation.score.same_location) == (0.9, 1)
    # The share 0, buying again alone, is among those tried; these towers have learnt nothing.
    assert evaluation.metrics["served"]["ndcg@10"] > evaluation.metrics["popular"]["ndcg@10"]
    assert set(evaluation.metrics) == {"popular", "personal_top_frequency", "als", "towers", "served"}


def test_who_has_no_past_is_answered_by_what_is_popular(window: Window) -> None:
    newcomers = [window.question(NEWCOMER)]
    cpu = torch.device("cpu")
    towers = Towers(window.before, window.histories, RECIPE).eval()
    als = fit_als(window.histories.before(int(SINCE.timestamp())), len(window.before.products.ids), RECIPE)
    vectors_ND = product_vectors(towers, window.before, cpu)
    found = evaluate(newcomers, window.before, towers, vectors_ND, als, 4, ScoreParameters()).metrics
    assert found["served"] == found["popular"] == found["personal_top_frequency"]
