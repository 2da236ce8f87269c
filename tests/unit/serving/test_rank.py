from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from embeddings.catalogue.context import Context
from embeddings.catalogue.eligible import EligibleSet
from embeddings.customer.history import EVENT, EVENT_CODES, History
from embeddings.customer.session import Session, session_of
from embeddings.customer.tower_input import Situation
from embeddings.ranking.features import RANKER_FEATURES
from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from serving.opening import open_view
from serving.pipeline import answer_batch, answer_in_pieces
from serving.rank_popular import rank_popular
from serving.ranked import Ranked
from serving.retrieve import Offered, RankRequest
from serving.settings import Settings
from serving.state.events import EventStore
from serving.view import View
from tests.world import UNTIL, favourite, store

NOW = int(UNTIL.timestamp())


@pytest.fixture(scope="module")
def model(published: tuple[BundleStore, Manifest]) -> View:
    bundles, manifest = published
    root: Path = bundles.bundle(manifest.version).parents[1]
    return open_view(Settings(store=root), manifest.version, cast("EventStore", None))


def ask(
    model: View,
    customer: str,
    kinds: str,
    channel: str = "store",
    location: str | None = "north",
    limit: int = 10,
    excluded: frozenset[tuple[str, int]] = frozenset(),
    explain: bool = False,
) -> RankRequest:
    """A request for a customer; ``kinds`` has a p for products and an o for offers."""
    context = Context(channel, location)
    place = model.eligibility.place(location)
    history = model.release.live._snapshot.of(customer)  # pyright: ignore[reportPrivateUsage]
    return RankRequest(
        view=model,
        history=history,
        situation=Situation(model.eligibility.channel(channel), place.nearest, NOW),
        place=place,
        products=model.eligibility.products(context, place, NOW) if "p" in kinds else None,
        offers=Offered(
            model.eligibility.offers(context, place, NOW, history.audiences, history.redeemed_R),
            model.release.bundle.statistics.redeemed_O,
        )
        if "o" in kinds
        else None,
        limit=limit,
        excluded=excluded,
        explain=explain,
    )


def with_release(model: View, **changes: Any) -> View:
    """The view of the same release, but for some of its parts."""
    return replace(model, release=replace(model.release, **changes))


def ranked(one: RankRequest, limit: int, excluded: set[tuple[str, int]] | None = None) -> list[Ranked]:
    return answer_batch([one._replace(limit=limit, excluded=frozenset(excluded or ()))])[0]


def names(model: View, found: list[Ranked]) -> list[str]:
    catalogue = model.catalogue
    return [(catalogue.products if one.kind == "product" else catalogue.offers).ids.id(one.row) for one in found]


@pytest.mark.parametrize("customer", [1, 17, 38, 119])
def test_the_favourite_comes_first(model: View, customer: int):
    found = ranked(ask(model, f"c{customer:03d}", "p", location=store(customer)), 10)
    assert names(model, found)[0] == favourite(customer)
    assert found[0].source == "due_now"


def test_the_score_is_the_rankers_probability_of_what_it_read_and_descends(model: View):
    found = ranked(ask(model, "c000", "p", explain=True), 40)
    assert model.release.rankers is not None
    features_KF = np.array([one.features for one in found])
    assert features_KF.shape == (40, len(RANKER_FEATURES))
    assert [one.score for one in found] == pytest.approx(
        model.release.rankers.regular.rank(features_KF).tolist(), abs=1e-6
    )
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert len({one.row for one in found}) == 40
    assert 0 <= found[-1].score < found[0].score < 1


def test_features_are_shown_only_where_they_were_asked_for(model: View):
    assert all(one.features is None for one in ranked(ask(model, "c000", "p"), 40))


@pytest.mark.parametrize("kind", ["product", "offer"])
def test_an_explained_item_keeps_no_features_of_others(model: View, kind: str):
    kept = [one.features for one in ranked(ask(model, "c000", "po", explain=True), 100) if one.kind == kind]
    assert kept
    assert all(features is not None and features.base is None for features in kept)


def test_what_both_kinds_read_of_a_request_is_worked_out_once(model: View, monkeypatch: pytest.MonkeyPatch):
    moments: list[int] = []

    def counted(history: History, moment: int) -> Session | None:
        moments.append(moment)
        return session_of(history, moment)

    monkeypatch.setattr("embeddings.ranking.sources.session_of", counted)
    answer_batch([ask(model, "c000", "po"), ask(model, "c017", "po"), ask(model, "nobody", "po")])
    assert moments == [NOW] * 3


def test_products_and_offers_come_in_one_order(model: View):
    found = ranked(ask(model, "c000", "po"), 100)
    keys = [(-one.score, one.kind, one.row) for one in found]
    assert keys == sorted(keys)
    assert {one.kind for one in found} == {"product", "offer"}


def test_every_candidate_has_the_most_telling_source_that_proposed_it(model: View):
    names = set[str]()
    for customer in ("c000", "c017", "c034", "c051", "c068"):
        one = ask(model, customer, "p", channel="web", location=None)
        times = Counter(one.history.events_E["product"].tolist())
        for item in ranked(one, 20):
            names.add(item.source)
            if item.source == "due_now":
                assert times[item.row] > 1
            elif item.source == "buy_again":
                assert times[item.row] > 0
            else:  # these customers have bought fewer products than these two propose
                assert times[item.row] == 0
    assert {"due_now", "buy_again", "also_bought", "towers", "trending"} <= names
    assert "bought_together" not in names


def test_an_answer_is_as_long_as_it_can_be_with_what_is_popular(model: View):
    one = ask(model, "c017", "p", channel="web", location=None)
    assert one.products is not None
    few = ranked(one, 10)
    assert "popular" not in {item.source for item in few}
    all_rows = [item.row for item in ranked(one, 1_000)]
    assert sorted(all_rows) == one.products.rows_N.tolist()


def test_without_the_ranker_the_towers_order(model: View):
    plain = with_release(model, rankers=None)
    found = ranked(ask(plain, "c017", "p", explain=True), 30)
    read = {one.row: one.features for one in ranked(ask(model, "c017", "p", explain=True), 1_000)}
    inner = [
        float(features[RANKER_FEATURES.index("inner")]) for one in found if (features := read[one.row]) is not None
    ]
    assert len(inner) == 30
    assert all(early >= late - 1e-5 for early, late in pairwise(inner))
    assert [one.row for one in found] != [one.row for one in ranked(ask(model, "c017", "p"), 30)]
    assert all(0 <= one.score <= 1 and one.features is None for one in found)


def test_only_sources_that_are_switched_on_propose(model: View):
    alone = with_release(model, sources={"buy_again": model.release.sources["buy_again"]})
    one = ask(alone, "c017", "p")
    bought = set(one.history.purchases.rows_R.tolist())
    found = ranked(one, 5)
    assert {item.source for item in found} == {"buy_again"}
    assert {item.row for item in found} <= bought


def history_with(model: View, customer: str, kind: str, row: int, ago: int = 60) -> History:
    """A customer's past and one event more."""
    event = np.zeros(1, EVENT)
    event["type"], event["product"], event["at"], event["location"] = EVENT_CODES[kind], row, NOW - ago, -1
    return model.release.live._snapshot.of(customer).append(event)  # pyright: ignore[reportPrivateUsage]


def with_offer(model: View, customer: str, kind: str, offer: str) -> History:
    """A customer's past and something done with an offer a minute ago."""
    event, row = np.zeros(1, EVENT), model.catalogue.offers.ids.row(offer)
    assert row is not None
    event["type"], event["product"], event["offer"], event["at"] = EVENT_CODES[kind], -1, row, NOW - 60
    event["location"] = event["channel"] = -1
    return model.release.live._snapshot.of(customer).append(event)  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("customer", ["c000", "nobody"])
@pytest.mark.parametrize("kinds", ["o", "po"])
def test_a_dismissed_offer_comes_last_with_and_without_a_history(model: View, customer: str, kinds: str):
    one = ask(model, customer, kinds, "email")
    before = ranked(one, 1_000)
    first = next(item for item in before if item.kind == "offer")
    held = one._replace(history=with_offer(model, customer, "dismissal", names(model, [first])[0]))
    after = ranked(held, 1_000)
    assert sorted((item.kind, item.row) for item in after) == sorted((item.kind, item.row) for item in before)
    assert (after[-1].kind, after[-1].row) == ("offer", first.row)
    assert [item.score for item in after] == sorted((item.score for item in after), reverse=True)
    month = NOW + 31 * 86_400
    later = held._replace(situation=held.situation._replace(moment=month))
    assert ranked(later, 1_000)[-1].row != first.row


def test_without_ranker_and_history_what_was_dismissed_comes_last_too(model: View):
    one = ask(model, "nobody", "po", "email")
    assert one.products is not None
    assert one.offers is not None
    row = int(one.offers.eligible.rows_N[0])
    nothing = np.zeros(0, np.int64)
    session = Session(nothing, nothing, np.array([3]), np.array([row]))
    found = rank_popular(model, one.place, one.products, one.offers.eligible, 1_000, set(), session)
    assert {(item.kind, item.row) for item in found[-2:]} == {("product", 3), ("offer", row)}
    assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)
    assert len(found) == one.products.size + one.offers.eligible.size


def test_offers_share_the_probability_that_any_is_redeemed(model: View):
    one = ask(model, "c000", "o", "email", explain=True)
    found = ranked(one, 100)
    bundle = model.release.bundle
    assert bundle.offer_ranker is not None
    assert bundle.redemption is not None
    logits_O = bundle.offer_ranker.rank(np.array([item.features for item in found]))
    total = sum(item.score for item in found)
    shares_O = np.exp(logits_O) / np.exp(logits_O).sum()
    assert [item.score / total for item in found] == pytest.approx(shares_O.tolist(), rel=1e-4)
    assert 0 < total < 0.5, "the world knows no redemptions: an only offer is no certainty"


@pytest.mark.parametrize("kind", ["add_to_cart", "dismissal"])
def test_what_is_in_the_basket_or_was_dismissed_comes_last(model: View, kind: str):
    one = ask(model, "c017", "p")
    first = ranked(one, 1)[0].row
    held = one._replace(history=history_with(model, "c017", kind, first))
    assert first not in [item.row for item in ranked(held, 10)]
    everything = ranked(held, 1_000)
    assert len(everything) == len(ranked(one, 1_000))
    assert everything[-1].row == first


def test_what_was_looked_at_is_proposed_with_what_goes_with_it(model: View):
    one = ask(model, "c017", "p")
    unbought = next(row for row in one.products.rows_N.tolist() if row not in one.history.purchases.rows_R)  # pyright: ignore[reportOptionalMemberAccess]
    looking = one._replace(history=history_with(model, "c017", "view", unbought))
    found = {item.row: item.source for item in ranked(looking, 60)}
    assert found[unbought] == "bought_together"
    near = set(model.release.bundle.statistics.bought_together.rows_NT.base[unbought].tolist()) & set(found)
    assert near
    assert {found[row] for row in near} == {"bought_together"}


def test_an_excluded_item_makes_room_for_the_next(model: View):
    whole = ranked(ask(model, "c017", "p"), 5)
    out = {("product", whole[0].row), ("product", whole[2].row)}
    found = ranked(ask(model, "c017", "p"), 3, {*out})
    assert [one.row for one in found] == [whole[1].row, whole[3].row, whole[4].row]


def test_excluding_an_offers_row_leaves_the_product_in_that_row(model: View):
    first = ranked(ask(model, "c017", "p"), 1)[0]
    assert ranked(ask(model, "c017", "p"), 1, {("offer", first.row)}) == [first]


def test_thousands_of_parts_of_one_set_leave_nothing_behind(model: View):
    random, one = np.random.default_rng(0), ask(model, "c017", "p", channel="web", location=None)
    assert one.products is not None
    ranked(one, 10)
    cache, remembered = model.release.bundle.products.cache, model.release.popular._remembered  # pyright: ignore[reportPrivateUsage]
    before = len(remembered), len(cache), cache.bytes, cache.misses
    for _ in range(100):
        some_BR = random.choice(model.release.bundle.vectors_ND.shape[0], (20, 30))
        parts = [EligibleSet.derived(one.products, some_R) for some_R in some_BR[:10]]
        parts += [one.products.among(some_R) for some_R in some_BR[10:]]
        for part, found in zip(parts, answer_batch([one._replace(products=part) for part in parts]), strict=True):
            assert len(found) == one.limit
            assert part.contains(np.array([item.row for item in found])).all()
    assert (len(remembered), len(cache), cache.bytes, cache.misses) == before


def test_an_answer_does_not_depend_on_its_batch(model: View):
    asks = [
        ask(model, "c017", "p"),
        ask(model, "c001", "po", limit=100),
        ask(model, "c017", "o", "email"),
        ask(model, "c000", "p", limit=3, excluded=frozenset([("product", 2)])),
    ]
    for one, together in zip(asks, answer_batch(asks), strict=True):
        alone = answer_batch([one])[0]
        assert [(item.kind, item.row, item.source, item.plan) for item in together] == [
            (item.kind, item.row, item.source, item.plan) for item in alone
        ]
        assert [item.score for item in together] == pytest.approx([item.score for item in alone], abs=1e-6)


def test_a_batch_across_a_swap_is_answered_by_the_model_each_request_pinned(model: View):
    other = with_release(model, rankers=None)
    one = ask(model, "c017", "p")
    assert answer_batch([one, one._replace(view=other), one])[::2] == answer_batch([one, one])


def test_offers_on_what_a_customer_buys_come_first(model: View):
    # Offer ``everyone`` covers department 0, ``at-north`` department 2.
    assert names(model, ranked(ask(model, "c000", "o"), 10))[0] == "everyone"
    assert names(model, ranked(ask(model, "c002", "o"), 10))[0] == "at-north"


def test_popular_offers_are_those_on_popular_products(model: View):
    one = ask(model, "nobody", "o", "email")
    assert one.offers is not None
    assert model.release.bundle.redemption is not None
    found = rank_popular(model, model.eligibility.place("north"), None, one.offers.eligible, 10, set(), None)
    assert sorted(names(model, found)) == ["at-north", "by-email", "everyone"]
    assert sum(item.score for item in found) == pytest.approx(model.release.bundle.redemption.base_rate)
    assert {item.source for item in found} == {"popular"}


def test_somebody_without_a_history_gets_ranked_products_and_popular_offers(model: View):
    one = ask(model, "nobody", "po", explain=True)
    found = ranked(one, 30)
    products = [item for item in found if item.kind == "product"]
    assert {item.source for item in products} <= {"towers", "trending", "popular"}
    features_KF = np.array([item.features for item in products])
    assert model.release.rankers is not None
    assert [item.score for item in products] == pytest.approx(
        model.release.rankers.newcomers.rank(features_KF).tolist(), abs=1e-6
    )
    assert not features_KF[:, RANKER_FEATURES.index("own_times")].any()
    offers = [item for item in found if item.kind == "offer"]
    place = model.eligibility.place("north")
    assert one.offers is not None
    popular = rank_popular(model, place, None, one.offers.eligible, 30, set(), None)
    assert offers == [item for item in popular if item in offers]


def test_attributes_move_the_answer_to_somebody_without_a_history(model: View):
    one = ask(model, "nobody", "p", channel="web", location=None)
    answers = set[tuple[int, ...]]()
    for segment in ("s0", "s1", "s2", "s3"):
        described = model.release.live.described(one.history, {"segment": segment})
        answers.add(tuple(item.row for item in ranked(one._replace(history=described), 10)))
    assert len(answers) > 1


def test_nothing_eligible_gives_nothing(model: View):
    nowhere = ask(model, "c017", "p")._replace(products=model.eligibility.products(
        Context("mailer", "pole"), model.eligibility.place("pole"), NOW
    ))  # fmt: skip
    assert ranked(nowhere, 10) == []
    assert rank_popular(model, model.eligibility.place("pole"), nowhere.products, None, 10, set(), None) == []
    assert rank_popular(model, model.eligibility.place(None), None, None, 10, set(), None) == []


@pytest.mark.parametrize("kinds", ["p", "po"])
def test_ranked_in_pieces_the_answer_is_the_same(model: View, kinds: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("serving.pipeline._SLICE", 7)
    one = ask(model, "c017", kinds, limit=100, explain=True)._replace(rank_all=True)
    pieces, count = answer_in_pieces(one), 0
    while True:
        try:
            next(pieces)
        except StopIteration as done:
            found = done.value
            break
        count += 1
    expected = answer_batch([one])[0]
    assert one.products is not None
    assert count >= one.products.size / 7
    assert [(got.kind, got.row, got.source) for got in found] == [(it.kind, it.row, it.source) for it in expected]
    assert [got.score for got in found] == pytest.approx([it.score for it in expected], abs=1e-6)
