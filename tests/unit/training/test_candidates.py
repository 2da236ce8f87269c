"""What the ranker learns from: candidates as the service would propose them, and nothing of what was to come."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import torch

from embeddings.catalogue.columns import Catalogue, ChannelRule
from embeddings.customer.history import EVENT_CODES, PURCHASE, Histories
from embeddings.ranking.features import RANKER_FEATURES
from embeddings.ranking.profile import profile_of
from tests.world import UNTIL, dataset_of, tables
from training.batches import Baskets
from training.candidates import ExampleCandidates, as_newcomers, for_new, for_novel, gather_candidates, with_sessions
from training.catalogue import master_catalogue
from training.config import FitConfig, RankerConfig, Recipe, TowersConfig
from training.evaluate import Fitted
from training.examples import Example, first_baskets
from training.fit import Towers, fit_als, product_vectors
from training.histories import read_histories
from training.observed import observe
from training.stages import Stages, windows
from training.statistics import count, find_nearby

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = Recipe(
    channels={"store": ChannelRule.ASSORTMENT, "mailer": ChannelRule.PROMOTED, "email": ChannelRule.EVERYTHING},
    towers=TowersConfig(dimensions=8, history_length=4, heads=2),
    fit=FitConfig(epochs=1, least_steps=0, baskets_a_batch=64, uniform_negatives=16),
    ranker=RankerConfig(windows=2, window_days=7, type_attribute="brand", category_attribute="department"),
)
LENGTH = RECIPE.towers.history_length
SINCE = UNTIL - timedelta(days=14)
CART, VIEW = EVENT_CODES["add_to_cart"], EVENT_CODES["view"]
CUSTOMERS = 24


class Window(NamedTuple):
    fitted: Fitted
    histories: Histories
    examples: list[Example]

    def candidates(self, examples: list[Example]) -> ExampleCandidates:
        return gather_candidates(examples, *self.fitted, LENGTH)


def read(events: pl.DataFrame) -> tuple[Catalogue, Histories]:
    frames = tables() | {"events": events.filter(pl.col("customer_id") < f"c{CUSTOMERS:03d}")}
    dataset = dataset_of(frames)
    master = master_catalogue(dataset, RECIPE, SINCE - timedelta(weeks=2))
    return master, read_histories(dataset, master, 0)


@pytest.fixture(scope="module")
def window() -> Window:
    """The window before the cut-off, with towers that have learnt nothing."""
    master, histories = read(tables()["events"])
    since = int(SINCE.timestamp())
    past = histories.before(since)
    catalogue, observed = observe(master, past.events, since, RECIPE.assortment)
    als = fit_als(past, len(catalogue.products.ids), RECIPE)
    nearby = find_nearby(past, catalogue, als.products_ND, RECIPE.als.regularisation, RECIPE.ranker)
    statistics = count(past, catalogue, observed, since, nearby, RECIPE.ranker)
    inside = Baskets.of(histories).between(since, int(UNTIL.timestamp()))
    torch.manual_seed(1)
    towers = Towers(catalogue, histories, RECIPE).eval()
    fitted = Fitted(catalogue, statistics, towers, product_vectors(towers, catalogue.products, observed.trained_N, CPU))
    return Window(fitted, histories, first_baskets(past, inside, catalogue, 10**6, np.random.default_rng(0)))


def visits(window: Window, share: float = 1.0, seed: int = 0) -> list[Example]:
    return with_sessions(window.examples, share, np.random.default_rng(seed))


def acted(example: Example, kind: int) -> set[int]:
    """The products of the events of a kind."""
    events_E = example.past.events_E
    return set(events_E["product"][events_E["type"] == kind].tolist())


# In the middle of a visit


@pytest.mark.parametrize("seed", range(5))
def test_of_a_basket_one_half_is_in_the_cart_and_the_other_is_asked_for(window: Window, seed: int):
    changed = visits(window, seed=seed)
    assert len(changed) == len(window.examples)
    for whole, one in zip(window.examples, changed, strict=True):
        cart = acted(one, CART)
        assert not cart & one.bought, "what is asked for is never in the cart"
        assert cart | one.bought == whole.bought
        assert len(cart) == len(whole.bought) // 2
        assert one[2:5] == whole[2:5]


def test_what_was_looked_at_is_eligible_or_bought_and_a_few_only(window: Window):
    looked = 0
    for seed in range(20):
        for one in visits(window, seed=seed):
            views = acted(one, VIEW)
            assert views <= {*one.eligible.rows_N.tolist(), *one.bought}
            looked += len(views & one.bought)
    assert looked


def test_all_of_it_happened_lately_and_before_the_question(window: Window):
    for whole, one in zip(window.examples, visits(window), strict=True):
        new = len(one.past.events_E) - len(whole.past.events_E)
        assert new > 0
        session_E = one.past.events_E[np.isin(one.past.events_E["type"], [CART, VIEW])]
        assert len(session_E) == new
        ago_E = one.situation.moment - session_E["at"]
        assert ((ago_E > 0) & (ago_E <= 6 * 3_600)).all()
        assert not (one.past.events_E["type"] == PURCHASE)[-new:].any()


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 4, 20), (1.0, CUSTOMERS, CUSTOMERS)])
def test_only_a_share_of_the_questions_is_changed(window: Window, share: float, least: int, most: int):
    found = visits(window, share)
    changed = sum(one is not whole for one, whole in zip(found, window.examples, strict=True))
    assert least <= changed <= most
    assert [one.customer for one in found] == [one.customer for one in window.examples]


def test_a_basket_of_one_product_is_left_alone(window: Window):
    single = [one._replace(bought=frozenset(sorted(one.bought)[:1])) for one in window.examples]
    assert with_sessions(single, 1.0, np.random.default_rng(0)) == single


def test_the_same_seed_asks_the_same(window: Window):
    for one, other in zip(visits(window), visits(window), strict=True):
        assert one.past.events_E.tobytes() == other.past.events_E.tobytes()
        assert one.bought == other.bought


# As if nobody knew them


def strangers(window: Window, seed: int = 0) -> list[Example]:
    return as_newcomers(window.examples, np.random.default_rng(seed))


def test_of_a_newcomer_nothing_is_known_but_the_first_purchases_of_this_visit(window: Window):
    seen: set[int] = set()
    for seed in range(20):
        for whole, one in zip(window.examples, strangers(window, seed), strict=True):
            first = acted(one, PURCHASE)
            assert len(one.past.events_E) == len(first) <= 5
            assert one.bought, "something is left to be asked for"
            assert not first & one.bought
            assert first | one.bought == whole.bought
            assert (one.situation.moment - one.past.events_E["at"] == 60).all()
            assert (one.past.events_E["location"] == one.situation.location).all()
            assert one.past.audiences == ()
            assert one[2:5] == whole[2:5]
            seen.add(len(first))
    assert seen == set(range(min(6, max(len(one.bought) for one in window.examples)))) - {4}


def test_half_of_the_newcomers_are_described(window: Window):
    described = [one for one in window.examples if one.past.attributes_A.any()]
    kept = 0
    for seed in range(20):
        for whole, one in zip(window.examples, strangers(window, seed), strict=True):
            assert not one.past.attributes_A.any() or (one.past.attributes_A == whole.past.attributes_A).all()
            kept += bool(one.past.attributes_A.any())
    assert 0.4 < kept / (20 * len(described)) < 0.6


def test_the_same_seed_makes_the_same_newcomers(window: Window):
    for one, other in zip(strangers(window), strangers(window), strict=True):
        assert one.past.events_E.tobytes() == other.past.events_E.tobytes()
        assert one.bought == other.bought


# Candidates


def of_each(found: ExampleCandidates) -> list[tuple[list[int], list[float]]]:
    return [(found.rows_M[b:e].tolist(), found.taken_M[b:e].tolist()) for b, e in found.spans()]


def test_what_was_taken_is_exactly_what_is_asked_for(window: Window):
    examples = [*window.examples, *visits(window)]
    found = of_each(window.candidates(examples))
    assert len(found) == len(examples)
    hits = 0
    for one, (rows, taken) in zip(examples, found, strict=True):
        assert {row for row, hit in zip(rows, taken, strict=True) if hit} == one.bought & set(rows)
        assert set(taken) <= {0.0, 1.0}
        hits += int(sum(taken))
    assert hits > len(examples)


def test_candidates_are_eligible_distinct_and_not_in_the_cart(window: Window):
    examples = visits(window)
    for one, (rows, _) in zip(examples, of_each(window.candidates(examples)), strict=True):
        assert len(set(rows)) == len(rows) > 0
        assert set(rows) <= set(one.eligible.rows_N.tolist())
        assert not acted(one, CART) & set(rows)


def test_what_sources_propose_of_what_was_looked_at_and_bought_is_there(window: Window):
    for one, (rows, _) in zip(window.examples, of_each(window.candidates(window.examples)), strict=True):
        profile = profile_of(one.past.purchases, window.fitted.statistics)
        own = set(profile.rows_R.tolist()) & set(one.eligible.rows_N.tolist())
        assert own <= set(rows)  # so few were bought that all are candidates


def test_offsets_say_whose_candidates_are_whose(window: Window):
    whole = window.candidates(window.examples)
    assert whole.offsets_Q[0] == 0
    assert whole.offsets_Q[-1] == len(whole.rows_M) == len(whole.taken_M) == len(whole.features_MF)
    assert whole.features_MF.shape[1] == len(RANKER_FEATURES)
    assert len(whole.offsets_Q) == len(window.examples) + 1
    alone = window.candidates([window.examples[3]])
    begin, end = whole.spans()[3]
    assert alone.rows_M.tolist() == whole.rows_M[begin:end].tolist()
    np.testing.assert_allclose(alone.features_MF, whole.features_MF[begin:end], rtol=1e-4, atol=1e-5)


def test_joined_windows_lie_one_after_the_other(window: Window):
    parts = [window.candidates(window.examples[:4]), window.candidates(window.examples[4:9])]
    joined = ExampleCandidates.joined(parts.copy())
    assert of_each(joined) == of_each(parts[0]) + of_each(parts[1])
    assert joined.features_MF.tobytes() == parts[0].features_MF.tobytes() + parts[1].features_MF.tobytes()
    assert len(joined.spans()) == 9


def test_features_tell_the_cart_and_what_was_looked_at(window: Window):
    examples = visits(window)
    found = window.candidates(examples)
    for one, (begin, end) in zip(examples, found.spans(), strict=True):
        features = found.features_MF[begin:end]
        assert (features[:, RANKER_FEATURES.index("in_cart")] == len(acted(one, CART))).all()
        looked = features[:, RANKER_FEATURES.index("looked")] > 0
        assert set(found.rows_M[begin:end][looked].tolist()) == acted(one, VIEW) - acted(one, CART)


# Other examples


def baskets_of(window: Window) -> dict[int, frozenset[int]]:
    found: dict[int, set[int]] = {}
    for customer in range(len(window.histories.customers)):
        events_E = window.histories[customer].events_E
        bought_E = events_E[(events_E["type"] == PURCHASE) & (events_E["at"] >= SINCE.timestamp())]
        found[customer] = set(bought_E["product"].tolist())
    return {customer: frozenset(rows) for customer, rows in found.items()}


def test_who_asks_for_the_new_is_shown_nothing_bought_before(window: Window):
    baskets = baskets_of(window)
    asked = for_novel(window.examples, window.fitted.catalogue, baskets)
    assert len(asked) == len(window.examples)
    for whole, one in zip(window.examples, asked, strict=True):
        own = set(whole.past.purchases.rows_R.tolist())
        assert own
        assert one.novel
        assert not own & set(one.eligible.rows_N.tolist())
        assert len(one.eligible.rows_N) + len(own) == len(window.fitted.catalogue.products.ids)
        assert one.bought == baskets[one.customer] - own
    found = window.candidates(asked)
    assert (found.features_MF[:, RANKER_FEATURES.index("novel")] == 1).all()
    assert not found.features_MF[:, RANKER_FEATURES.index("own_times")].any()


def test_products_that_nobody_had_bought_are_asked_about_among_each_other(window: Window):
    catalogue = window.fitted.catalogue
    new = [row for row in range(len(catalogue.products.ids)) if catalogue.products.ids.id(row) in ("late", "unsold")]
    known = [row for row in range(len(catalogue.products.ids)) if row not in new]
    trained_N = np.isin(np.arange(len(catalogue.products.ids)), known[:-20])
    baskets = baskets_of(window)
    random = np.random.default_rng(0)
    asked = for_new(window.examples, ~trained_N, baskets, 5, random)
    fresh = {row for rows in baskets.values() for row in rows if not trained_N[row]}
    assert {one.customer for one in asked} == {one.customer for one in window.examples if baskets[one.customer] & fresh}
    assert asked
    for one in asked:
        rows = set(one.eligible.rows_N.tolist())
        assert one.rank_all
        assert one.bought == baskets[one.customer] & fresh
        assert one.bought <= rows <= fresh
        assert len(rows) <= 5 + len(one.bought)
    for one, (rows, _) in zip(asked, of_each(window.candidates(asked)), strict=True):
        assert rows == one.eligible.rows_N.tolist()


def test_where_nothing_is_new_nothing_is_asked_about_it(window: Window):
    nothing_N = np.zeros(len(window.fitted.catalogue.products.ids), np.bool_)
    assert for_new(window.examples, nothing_N, baskets_of(window), 5, np.random.default_rng(0)) == []


# What must stay unseen


def parts_of(events: pl.DataFrame, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[ExampleCandidates]:
    """What the ranker would be fitted on, window by window, the latest first."""
    master, histories = read(events)
    found: list[ExampleCandidates] = []

    def noted(parts: list[ExampleCandidates]) -> None:
        found.extend(parts)
        raise InterruptedError

    monkeypatch.setattr("training.stages.ExampleCandidates.joined", noted)
    window = int(SINCE.timestamp())
    past = histories.before(window)
    begins = windows(past, window, RECIPE.ranker.windows)
    stages = Stages(master, RECIPE, CPU, folder, novel=False)
    _, fitted = stages.towers(past.before(begins[-1]), begins[-1])
    with pytest.raises(InterruptedError):
        stages.rankers(past, begins, fitted)
    return found


Change = Callable[[pl.DataFrame], pl.DataFrame]


def test_of_a_window_the_features_know_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    events = tables()["events"]
    begin = SINCE - timedelta(weeks=1)
    first = parts_of(events, tmp_path, monkeypatch)
    # The contexts stay, and the baskets' sizes: else other examples would be asked.
    at = pl.col("at")
    others = events.with_columns(
        product_id=pl.when(at >= begin).then(pl.col("product_id").reverse()).otherwise("product_id")
    )
    others = others.with_columns(
        product_id=pl.when(pl.col("product_id") == "late").then(pl.lit("p000")).otherwise("product_id")
    )
    second = parts_of(others, tmp_path / "other", monkeypatch)
    assert len(first) == len(second) == 2
    (latest, earlier), (latest_, earlier_) = first, second
    assert earlier.features_MF.tobytes() == earlier_.features_MF.tobytes()
    assert earlier.taken_M.tobytes() == earlier_.taken_M.tobytes()
    assert latest.taken_M.tobytes() != latest_.taken_M.tobytes()
    for one, other in zip(*(of_features(part) for part in (latest, latest_)), strict=True):
        assert one == other


def of_features(part: ExampleCandidates) -> list[bytes]:
    """The features of every example that is not asked in the middle of a visit."""
    lists = [part.features_MF[begin:end] for begin, end in part.spans() if end > begin]
    in_cart, away = RANKER_FEATURES.index("in_cart"), RANKER_FEATURES.index("away")
    return [
        features_KF.tobytes()
        for features_KF in lists
        if not features_KF[0, in_cart] and not 0 < features_KF[0, away] < 0.01
    ]


def test_of_the_validation_window_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    events = tables()["events"]
    later = pl.col("at") >= SINCE
    others = events.with_columns(product_id=pl.when(later).then(pl.lit("unsold")).otherwise("product_id"))
    first, second = (parts_of(one, tmp_path / name, monkeypatch) for one, name in ((events, "one"), (others, "other")))
    for one, other in zip(first, second, strict=True):
        assert [array.tobytes() for array in one] == [array.tobytes() for array in other]
