from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from embeddings.bundle import Manifest
from embeddings.context import Context
from embeddings.features import Situation
from embeddings.store import BundleStore
from serving.rank import Ranked, rank_personal, rank_popular
from serving.retrieve import Ask
from serving.settings import Settings
from serving.slot import Model, open_model
from serving.state.events import EventStore
from tests.world import UNTIL, favourite, store

NOW = int(UNTIL.timestamp())


@pytest.fixture(scope="module")
def model(published: tuple[BundleStore, Manifest]) -> Model:
    bundles, manifest = published
    root: Path = bundles.bundle(manifest.version).parents[1]
    return open_model(Settings(store=root), manifest.version, cast("EventStore", None))


def ask(
    model: Model,
    customer: str,
    kinds: str,
    channel: str = "store",
    location: str | None = "north",
    limit: int = 10,
    excluded: frozenset[tuple[str, int]] = frozenset(),
) -> Ask:
    """A request for a customer; ``kinds`` has a p for products and an o for offers."""
    context = Context(channel, location)
    place = model.eligibility.place(location)
    history = model.live._snapshot.of(customer)  # pyright: ignore[reportPrivateUsage]
    return Ask(
        model,
        history,
        Situation(model.eligibility.channel(channel), place.nearest, NOW),
        model.eligibility.products(context, place, NOW) if "p" in kinds else None,
        model.eligibility.offers(context, place, history.audiences, NOW) if "o" in kinds else None,
        limit,
        excluded,
    )


def ranked(one: Ask, limit: int, excluded: set[tuple[str, int]] | None = None) -> list[Ranked]:
    return rank_personal([one._replace(limit=limit, excluded=frozenset(excluded or ()))])[0]


def names(model: Model, found: list[Ranked]) -> list[str]:
    catalog = model.bundle.catalog
    return [(catalog.products if one.kind == "product" else catalog.offers).ids.id(one.row) for one in found]


@pytest.mark.parametrize("customer", [1, 17, 38, 119])
def test_the_favourite_comes_first(model: Model, customer: int):
    found = ranked(ask(model, f"c{customer:03d}", "p", location=store(customer)), 10)
    assert names(model, found)[0] == favourite(customer)
    assert found[0].source == "buy_again"


def test_the_score_is_the_documented_mix_descending_and_unique(model: Model):
    towers = model.bundle.manifest.score.towers
    found = ranked(ask(model, "c000", "po"), 40)
    for one in found:
        assert one.score == pytest.approx((1 - towers) * one.again + towers * one.near, abs=1e-6)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert len({(one.kind, one.row) for one in found}) == len(found) == 40
    assert {one.kind for one in found} == {"product", "offer"}


def test_an_item_is_bought_again_only_if_it_was_bought_before(model: Model):
    one = ask(model, "c017", "p", channel="web", location=None)
    bought = set(one.history.events_E["product"].tolist())
    found = ranked(one, 100)
    assert {item.source for item in found} == {"buy_again", "towers"}
    assert all(item.row in bought for item in found if item.source == "buy_again")
    assert all(item.again == 0 for item in found if item.row not in bought)


def test_an_excluded_item_makes_room_for_the_next(model: Model):
    whole = ranked(ask(model, "c017", "p"), 5)
    out = {("product", whole[0].row), ("product", whole[2].row)}
    found = ranked(ask(model, "c017", "p"), 3, {*out})
    assert [one.row for one in found] == [whole[1].row, whole[3].row, whole[4].row]


def test_excluding_an_offers_row_leaves_the_product_in_that_row(model: Model):
    first = ranked(ask(model, "c017", "p"), 1)[0]
    assert ranked(ask(model, "c017", "p"), 1, {("offer", first.row)}) == [first]


def test_an_answer_does_not_depend_on_its_batch(model: Model):
    asks = [
        ask(model, "c017", "p"),
        ask(model, "c001", "po", limit=100),
        ask(model, "c017", "o", "email"),
        ask(model, "c000", "p", limit=3, excluded=frozenset([("product", 2)])),
    ]
    for one, together in zip(asks, rank_personal(asks), strict=True):
        alone = rank_personal([one])[0]
        assert [(item.kind, item.row, item.source, item.plan) for item in together] == [
            (item.kind, item.row, item.source, item.plan) for item in alone
        ]
        assert [item.score for item in together] == pytest.approx([item.score for item in alone], abs=1e-6)


def test_a_batch_across_a_swap_is_answered_by_the_model_each_request_pinned(model: Model):
    other = replace(model, bundle=replace(model.bundle, vectors_ND=-np.asarray(model.bundle.vectors_ND)))
    one = ask(model, "c017", "p")
    assert rank_personal([one, one._replace(model=other), one])[::2] == rank_personal([one, one])


def test_offers_on_what_a_customer_buys_come_first(model: Model):
    # Offer ``everyone`` covers department 0, ``at-north`` department 2.
    assert names(model, ranked(ask(model, "c000", "o"), 10))[0] == "everyone"
    assert names(model, ranked(ask(model, "c002", "o"), 10))[0] == "at-north"


def test_popular_offers_are_those_on_popular_products(model: Model):
    one = ask(model, "nobody", "o", "email")
    found = rank_popular(model, model.eligibility.place("north"), None, one.offers, 10, set())
    assert sorted(names(model, found)) == ["at-north", "by-email", "everyone"]
    assert sum(item.score for item in found) == pytest.approx(1)
    assert {item.source for item in found} == {"popular"}


def test_nothing_eligible_gives_nothing(model: Model):
    nowhere = ask(model, "c017", "p")._replace(products=model.eligibility.products(
        Context("mailer", "pole"), model.eligibility.place("pole"), NOW
    ))  # fmt: skip
    assert ranked(nowhere, 10) == []
    assert rank_popular(model, model.eligibility.place("pole"), nowhere.products, None, 10, set()) == []
    assert rank_popular(model, model.eligibility.place(None), None, None, 10, set()) == []
