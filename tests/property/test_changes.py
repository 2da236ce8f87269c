"""A release whose catalogue changes answers like one that was published with everything in its place."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, cast
from weakref import WeakKeyDictionary

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embeddings.catalogue.changes import (
    Change,
    LocationState,
    OfferState,
    PlacementState,
    ProductState,
    PromotionState,
    Withdrawal,
)
from embeddings.catalogue.context import Context, GeoPoint
from embeddings.catalogue.eligible import EligibleSet
from embeddings.catalogue.snapshot import apply
from embeddings.customer.history import EVENT, EVENT_CODES, History, Purchases
from embeddings.customer.session import session_of
from embeddings.customer.tower_input import Situation
from embeddings.errors import UnknownReference
from embeddings.ranking.profile import Profile
from embeddings.release.bundle import Manifest, open_histories
from embeddings.release.store import BundleStore
from serving.opening import open_view
from serving.pipeline import answer_batch
from serving.popular import PopularRankings
from serving.rank_popular import rank_popular
from serving.ranked import Ranked
from serving.retrieve import Offered, RankRequest
from serving.settings import Settings
from serving.slot import ViewSlot
from serving.state.events import EventStore
from serving.view import View
from tests.in_place import Published, catalogue_of, changed, in_place, tables_of
from tests.world import STORES, UNTIL, tables
from training.catalogue import promotion_id
from training.config import Recipe

NOW = int(UNTIL.timestamp())
CLOSE = 1e-6

PUBLISHED_OFFERS = tables()["offers"].height
NEW = [f"new{number}" for number in range(4)]
PLACED = ["opened", "planned"]
OFFERED = ["fresh", "later"]
PROMOTED = ["spring", "summer", *(promotion_id("mailer", at, UNTIL, UNTIL + timedelta(weeks=1)) for at in STORES)]
OLD = ["p000", "p001", "p005", "p118", "late", "unsold"]


@pytest.fixture(scope="module")
def world_release(published: tuple[BundleStore, Manifest], recipe: Recipe) -> Published:
    store, manifest = published
    root: Path = store.bundle(manifest.version).parents[1]
    view = open_view(Settings(store=root), manifest.version, cast("EventStore", None))
    _, histories = open_histories(store.histories(manifest.version))
    return Published(view, histories, recipe.ranker)


# Changes


def some_of(ids: Sequence[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(ids), max_size=4, unique=True).map(tuple)


# A change may name what the release knows, and what the first changes bring: others may not be there yet.
PRODUCT = st.builds(
    ProductState,
    id=st.sampled_from([*NEW, *OLD]),
    attributes=st.fixed_dictionaries(
        {}, optional={"department": st.sampled_from(["d0", "d1", "d9"]), "brand": st.sampled_from(["b0", "b9"])}
    ),
    price=st.sampled_from([None, 2.0, 99.0]),
    recommendable=st.booleans(),
    locations=some_of(["north", "south", "unopened", "nowhere", PLACED[0]]),
    in_stock=st.sampled_from([True, True, False]),
    out_of_stock_at=some_of(["north", "south", PLACED[0]]),
    withdrawn_at=some_of(["north", "south", "unopened"]),
)
LOCATION = st.builds(
    LocationState,
    id=st.sampled_from([*PLACED, "unopened", "south"]),
    latitude=st.sampled_from([None, 52.0, 60.0]),
    longitude=st.sampled_from([None, 10.0, 13.0]),
    region=st.sampled_from([None, "cold", "warm", "tropical"]),
    closed=st.sampled_from([False, False, True]),
    time_zone=st.sampled_from([None, "Europe/Oslo", "Asia/Tokyo"]),
)
OFFER = st.builds(
    OfferState,
    id=st.sampled_from([*OFFERED, "everyone", "at-north"]),
    products=some_of(["p000", "p002", "p118", "unsold", NEW[0]]),
    starts=st.sampled_from([UNTIL - timedelta(days=3), UNTIL + timedelta(days=3)]),
    ends=st.sampled_from([UNTIL + timedelta(days=9), UNTIL + timedelta(days=5)]),
    kind=st.sampled_from(["coupon", "content"]),
    channels=st.sampled_from([None, (), ("web",), ("store", "email")]),
    locations=st.sampled_from([None, (), ("north",), ("south", PLACED[0])]),
    audience=st.sampled_from([None, "vip", "nobody"]),
    uses=st.sampled_from([1, 2]),
    status=st.sampled_from(["live", "live", "draft", "paused"]),
    value=st.sampled_from([None, 0.0, 2.5]),
    priority=st.sampled_from([1.0, 3.0]),
    campaign=st.sampled_from([None, "spring"]),
)
PLACEMENT = st.builds(
    PlacementState,
    id=st.sampled_from(["home", "till"]),
    slots=st.sampled_from([1, 5]),
    strategy=st.sampled_from(["probability", "value"]),
    fallback=st.sampled_from([(), (OFFERED[0],)]),
)
PROMOTION = st.builds(
    PromotionState,
    id=st.sampled_from(PROMOTED),
    channel=st.sampled_from(["mailer", "mailer", "email"]),
    location=st.sampled_from(["north", "south", PLACED[0]]),
    products=some_of([NEW[0], *OLD]),
    starts=st.sampled_from([UNTIL, UNTIL - timedelta(days=2)]),
    ends=st.sampled_from([UNTIL + timedelta(weeks=1), UNTIL + timedelta(days=1)]),
)
WITHDRAWAL = st.one_of(
    st.builds(Withdrawal, kind=st.just("product"), id=st.sampled_from([*NEW, *OLD])),
    st.builds(Withdrawal, kind=st.just("location"), id=st.sampled_from([*PLACED, "south", "unopened"])),
    st.builds(Withdrawal, kind=st.just("offer"), id=st.sampled_from([*OFFERED, "everyone"])),
    st.builds(Withdrawal, kind=st.just("placement"), id=st.sampled_from(["home", "till"])),
    st.builds(Withdrawal, kind=st.just("promotion"), id=st.sampled_from(PROMOTED)),
)
FIRST: list[Change] = [
    LocationState(id=PLACED[0], latitude=59.5, longitude=10.5, region="warm"),
    ProductState(id=NEW[0], attributes={"department": "d0", "brand": "b1"}, price=2.0, locations=("north",)),
    OfferState(
        id=OFFERED[0], products=(NEW[0], "p000"), starts=UNTIL - timedelta(days=3), ends=UNTIL + timedelta(days=9)
    ),
]
CHANGES = st.lists(
    st.one_of(PRODUCT, PRODUCT, LOCATION, OFFER, PROMOTION, PLACEMENT, WITHDRAWAL), min_size=1, max_size=12
)


# Requests


class Asked(NamedTuple):
    customer: str
    bought: tuple[tuple[str, str], ...]
    channel: str
    location: str | GeoPoint | None
    novel: bool
    named: tuple[str, ...]


ASKED = st.builds(
    Asked,
    customer=st.sampled_from(["c000", "c010", "c017", "c038", "nobody"]),
    bought=st.lists(
        st.tuples(st.sampled_from(["purchase", "add_to_cart", "view", "dismissal"]), st.sampled_from([*NEW, *OLD])),
        max_size=4,
    ).map(tuple),
    channel=st.sampled_from(["store", "web", "mailer", "email"]),
    location=st.sampled_from([None, "north", "south", "unopened", *PLACED, GeoPoint(60.0, 10.0, 900.0)]),
    novel=st.booleans(),
    named=st.one_of(st.just(()), some_of([*NEW, *OLD])),
)


ALWAYS = [
    Asked("c017", (("purchase", NEW[0]), ("add_to_cart", OLD[1])), "web", None, novel=False, named=(*NEW, *OLD)),
    Asked("c000", (("view", NEW[0]),), "store", PLACED[0], novel=False, named=(*NEW, *OLD)),
    Asked("c010", (("purchase", NEW[0]),), "store", "unopened", novel=True, named=()),
    Asked("nobody", (), "web", "north", novel=False, named=(*NEW, *OLD)),
]
"""Asked after every change: so much is new that few other questions meet it."""


def history_of(view: View, asked: Asked) -> History:
    """The customer's past, and what they did in the last hour."""
    history = view.release.live._snapshot.of(asked.customer)  # pyright: ignore[reportPrivateUsage]
    events_E = np.zeros(len(asked.bought), EVENT)
    events_E["offer"] = events_E["location"] = -1
    for place, (kind, product) in enumerate(asked.bought):
        row = view.catalogue.products.ids.row(product)
        events_E[place]["product"] = -1 if row is None else row
        events_E[place]["type"], events_E[place]["at"] = EVENT_CODES[kind], NOW - 3_600 + place
    return history.append(events_E)


def request(view: View, asked: Asked, past: History | None = None) -> RankRequest | None:
    """The request as the engine makes it; None if it names a location that is not there."""
    history, eligibility = past or history_of(view, asked), view.eligibility
    try:
        place = eligibility.place(asked.location)
    except UnknownReference:
        return None
    context = Context(asked.channel, asked.location)
    products = eligibility.products(context, place, NOW)
    if asked.named:
        rows = view.catalogue.products.ids.rows(asked.named)
        products = products.among(rows[rows >= 0])
    if asked.novel:
        products = EligibleSet.derived(products, history.purchases.rows_R)
    offers = eligibility.offers(context, place, NOW, history.audiences, history.redeemed_R)
    redeemed_O = np.zeros(len(view.catalogue.offers.ids), np.float32)
    redeemed_O[:PUBLISHED_OFFERS] = 1
    return RankRequest(
        view=view,
        history=history,
        situation=Situation(eligibility.channel(asked.channel), place.nearest, NOW),
        place=place,
        products=products,
        offers=Offered(offers, redeemed_O),
        limit=40,
        novel=asked.novel,
        explain=True,
        rank_all=bool(asked.named),
    )


def assert_alike(one: Sequence[Ranked], other: Sequence[Ranked]) -> None:
    """The same items with the same scores; where scores are as good as equal, in either order."""
    assert [item.score for item in one] == pytest.approx([item.score for item in other], abs=CLOSE)
    last = min((item.score for item in one), default=0.0)
    others = {(item.kind, item.row): item for item in other}
    for item in one:
        found = others.get((item.kind, item.row))
        if found is None:
            assert item.score - last < 2 * CLOSE, item
            continue
        assert (item.source, item.demoted) == (found.source, found.demoted)
        assert item.score == pytest.approx(found.score, abs=CLOSE)
        if item.features is not None and found.features is not None:
            np.testing.assert_allclose(item.features, found.features, rtol=1e-5, atol=1e-5)


def rows_and_scores(view: View, row: int, eligible: EligibleSet | None) -> list[tuple[int, float]]:
    rows = view.release.newest
    found = rows.similar.search(rows.units.take(np.array([row])), 8, [eligible])
    return list(zip(found.rows_BK[0].tolist(), found.scores_BK[0].tolist(), strict=True))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CHANGES, st.lists(ASKED, min_size=1, max_size=4), st.integers(1, 5))
def test_a_changed_release_answers_like_one_published_with_everything_in_place(
    world_release: Published, changes: list[Change], asked: list[Asked], at_a_time: int
):
    published, before = world_release.view.catalogue, world_release.view
    own = {"popular": PopularRankings(), "profiles": WeakKeyDictionary[Purchases, Profile]()}
    slot = ViewSlot(replace(before, release=replace(before.release, **own)))
    pasts: list[History] = []
    for some in [FIRST, *(changes[begin : begin + at_a_time] for begin in range(0, len(changes), at_a_time))]:
        slot.publish(slot.current.following(apply(slot.current.catalogue, some), 1))
        pasts = pasts or [history_of(slot.current, one) for one in ALWAYS]
        for one, past in zip(ALWAYS, pasts, strict=True):  # what is kept of one catalogue must not spoil the next
            answer_batch([made for made in [request(slot.current, one, past)] if made is not None])
    view = slot.current
    expected = in_place(world_release, catalogue_of(changed(tables_of(published), [*FIRST, *changes]), published))
    assert view.catalogue.products.ids.ids() == expected.catalogue.products.ids.ids()
    assert view.catalogue.placements == expected.catalogue.placements
    assert view.catalogue.offers.terms == expected.catalogue.offers.terms
    assert view.catalogue.locations.time_zones == expected.catalogue.locations.time_zones
    for one, past in [*zip(ALWAYS, pasts, strict=True), *((one, None) for one in asked)]:
        mine, theirs = request(view, one, past), request(expected, one)
        assert (mine is None) == (theirs is None)
        if mine is None or theirs is None:
            continue
        for ours, others in ((mine.products, theirs.products), (mine.offers, theirs.offers)):
            assert ours is not None
            assert others is not None
            first, second = (part.eligible if isinstance(part, Offered) else part for part in (ours, others))
            assert first.rows_N.tolist() == second.rows_N.tolist()
        (answer,), (expectation,) = answer_batch([mine]), answer_batch([theirs])
        assert_alike(answer, expectation)
        session = session_of(mine.history, NOW)
        assert_alike(
            *(rank_popular(part.view, part.place, part.products, None, 200, (), session) for part in (mine, theirs))
        )
    for product in [*NEW, *OLD]:
        row = view.catalogue.products.ids.row(product)
        if row is not None:
            near, expected_near = (
                rows_and_scores(part, row, part.eligibility.recommendable) for part in (view, expected)
            )
            assert [score for _, score in near] == pytest.approx([score for _, score in expected_near], abs=CLOSE)


@settings(max_examples=40)
@given(CHANGES, st.integers(1, 11))
def test_changes_one_by_one_and_all_at_once_give_the_same_catalogue(
    world_release: Published, changes: list[Change], cut: int
):
    changes, published = [*FIRST, *changes], world_release.view.catalogue
    whole, parts = apply(published, changes), apply(apply(published, changes[:cut]), changes[cut:])
    assert tables_of(whole) == tables_of(parts)
    columns = [
        (one.products.recommendable_N, one.locations.withdrawn_M, one.locations.why_L, one.offers.withdrawn_O)
        for one in (whole, parts)
    ]
    assert [part.tolist() for part in columns[0]] == [part.tolist() for part in columns[1]]
