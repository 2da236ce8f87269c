"""The ranker over HTTP: it reads in service what it read in training, and what a customer does shows at once."""

from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from embeddings.arrays import Table
from embeddings.catalogue.context import Context
from embeddings.catalogue.eligibility import Eligibility
from embeddings.catalogue.eligible import EligibleSet
from embeddings.customer.history import Histories
from embeddings.customer.tower_input import Situation, encode
from embeddings.ranking.features import RANKER_FEATURES, FeatureReader
from embeddings.ranking.popularity import most_popular, popular
from embeddings.ranking.profile import profile_of
from embeddings.ranking.sources import ALL, RETRIEVED, SOURCES, RankingQuery, propose, times_more
from embeddings.release.bundle import Manifest, ModelBundle, open_histories
from embeddings.release.store import BundleStore
from tests.integration.server import Postgres, Server, assortment, copy_store, event, ids, serve, world
from tests.world import CUSTOMERS, UNTIL, favourite, store

NOON = UNTIL + timedelta(hours=12)
EVERYTHING = {one["product_id"] for one in world()["products"]}
BOUGHT = {
    f"c{number:03d}": {
        one["product_id"] for one in world()["events"] if one["customer_id"] == f"c{number:03d}" and one["at"] < UNTIL
    }
    for number in range(CUSTOMERS)
}


# It reads in service what it read in training

NAMED = ["p000", "p017", "p018", "p044", "p111", "late", "unsold"]


class Offline(NamedTuple):
    """A release opened without the service."""

    bundle: ModelBundle
    histories: Histories

    def features(
        self, customer: str, channel: str, location: str | None, at: datetime, limit: int, *, novel: bool = False
    ) -> dict[str, NDArray[np.float32]]:
        """What the ranker is to read of every candidate, by its id."""
        catalogue, statistics, vectors_ND = self.bundle.catalogue, self.bundle.statistics, self.bundle.vectors_ND
        eligibility, history = Eligibility(catalogue), self.histories.of(customer)
        moment, place = int(at.timestamp()), eligibility.place(location)
        allowed = eligibility.products(Context(channel, location), place, moment)
        if novel:
            allowed = EligibleSet.derived(allowed, history.purchases.rows_R)
        situation = Situation(eligibility.channel(channel), -1, moment).at(place, history.purchases)
        tower_input = encode([history], [situation], self.bundle.manifest.history_length, statistics.longest_absence)
        customers_1D = self.bundle.customer_encoder.encode(tower_input, vectors_ND)
        most = max(RETRIEVED * times_more(limit, novel=novel), limit)
        retrieved = self.bundle.products.search(customers_1D, most, [allowed])
        observed = statistics.observed
        asked = RankingQuery.of(
            profile_of(history.purchases, statistics),
            history,
            statistics.bought_together,
            situation,
            allowed,
            retrieved.rows_BK[0],
            most_popular(popular(observed, allowed.rows_N, observed.lists_of(place.rows)), len(allowed.rows_N)).rows_R,
            novel=novel,
            wanted=limit,
        )
        rows_K = propose(asked, list(ALL.values()), limit).rows_K
        features_KF = np.empty((len(rows_K), len(RANKER_FEATURES)), np.float32)
        reader = FeatureReader(catalogue.promotions, statistics, Table.of(vectors_ND))
        reader.read(asked, rows_K, customers_1D[0], retrieved.scores_BK[0], features_KF)
        return dict(zip(catalogue.products.ids.ids(rows_K.tolist()), features_KF, strict=True))


@pytest.fixture(scope="module")
def offline(published: tuple[BundleStore, Manifest]) -> Offline:
    bundles, manifest = published
    return Offline(
        ModelBundle.open(bundles.bundle(manifest.version), "cpu", 2**24),
        open_histories(bundles.histories(manifest.version))[1],
    )


PLACES = [("store", "north"), ("store", "south"), ("web", "north"), ("web", None), ("mailer", "south"), ("app", "pole")]


@pytest.mark.parametrize("novel", [False, True])
def test_the_ranker_reads_in_service_what_is_worked_out_offline_to_the_bit(
    reader: Server, offline: Offline, novel: bool
):
    compared = 0
    for number, customer in enumerate(("c000", "c001", "c017", "c054", "c119")):
        for turn, (channel, location) in enumerate(PLACES):
            at = UNTIL + timedelta(hours=31 * number + 7 * turn, seconds=number)
            limit = (10, 60, 100)[turn % 3]
            expected = offline.features(customer, channel, location, at, limit, novel=novel)
            answer = reader.recommend(
                customer,
                channel,
                location,
                at=at,
                limit=limit,
                explain=True,
                filter_already_bought=novel,
                exclude=["unheard-of"],
            )
            assert len(answer["items"]) == min(limit, len(expected)) > 0
            read = np.array([list(item["explanation"]["features"].values()) for item in answer["items"]], np.float32)
            worked_out = np.array([expected[one] for one in ids(answer)])
            differing = [
                name for name, same in zip(RANKER_FEATURES, (read == worked_out).all(axis=0), strict=True) if not same
            ]
            assert read.tobytes() == worked_out.tobytes(), differing
            assert offline.bundle.rankers is not None
            scores = [item["score"] for item in answer["items"]]
            regular = not novel and len(offline.histories.of(customer).purchases.rows_R) > 0
            ranker = offline.bundle.rankers.regular if regular else offline.bundle.rankers.newcomers
            assert scores == pytest.approx(ranker.rank(worked_out).tolist(), abs=1e-6)
            compared += len(read)
    assert compared >= 1_000


# What a customer does shows at once


def items(server: Server, customer: str | None, **rest: Any) -> dict[str, dict[str, Any]]:
    """The answer's items in order, by id."""
    answer = server.recommend(customer, rest.pop("channel", "store"), at=NOON, explain=True, **rest)
    return {item["id"]: item for item in answer["items"]}


def test_what_is_put_in_the_cart_is_not_recommended_and_what_goes_with_it_is(recorder: Server):
    customer, place = "c017", store(17)
    before = list(items(recorder, customer, location=place))
    assert before[0] == favourite(17)
    recorder.report(event(customer, before[0], NOON - timedelta(minutes=1), "add_to_cart"))
    after = items(recorder, customer, location=place)
    assert before[0] not in after
    assert len(after) == 10
    assert {item["explanation"]["features"]["in_cart"] for item in after.values()} == {1}
    assert "bought_together" in {item["source"] for item in after.values()}
    assert any(item["explanation"]["features"]["bought_together"] > 0 for item in after.values())
    recorder.report(event(customer, before[1], NOON - timedelta(minutes=1), "add_to_cart"))
    more = items(recorder, customer, location=place)
    assert not {before[0], before[1]} & set(more)
    assert {item["explanation"]["features"]["in_cart"] for item in more.values()} == {2}


def test_a_cart_that_was_bought_is_no_cart_any_more(recorder: Server):
    customer, place = "c018", store(18)
    first = next(iter(items(recorder, customer, location=place)))
    recorder.report(event(customer, first, NOON - timedelta(minutes=2), "add_to_cart"))
    assert first not in items(recorder, customer, location=place)
    recorder.report(event(customer, first, NOON - timedelta(minutes=1), location=place))
    found = items(recorder, customer, location=place, limit=60)
    assert found[first]["explanation"]["features"]["in_cart"] == 0
    assert found[first]["explanation"]["features"]["own_times"] == 17


@pytest.mark.parametrize("kind", ["view", "click"])
def test_what_is_looked_at_is_a_candidate_of_the_very_next_answer(recorder: Server, kind: str):
    customer = {"view": "c020", "click": "c021"}[kind]
    number = int(customer[1:])
    shown = assortment(store(number))
    before = items(recorder, customer, location=store(number), limit=60)
    assert "bought_together" not in {item["source"] for item in before.values()}
    looked = min(shown - BOUGHT[customer])
    recorder.report(event(customer, looked, NOON - timedelta(minutes=1), kind))
    after = items(recorder, customer, location=store(number), limit=60)
    assert after[looked]["source"] == "bought_together"
    assert after[looked]["explanation"]["features"]["looked"] == 1
    assert after[looked]["reasons"][0]["code"] == "viewed"
    assert [item["score"] for item in after.values()] != [item["score"] for item in before.values()]


def test_what_was_dismissed_comes_last_in_the_very_next_answer(recorder: Server):
    customer, place = "c022", store(22)
    before = list(items(recorder, customer, location=place, limit=100))
    recorder.report(event(customer, before[0], NOON - timedelta(minutes=1), "dismissal"))
    assert before[0] not in items(recorder, customer, location=place)
    after = list(items(recorder, customer, location=place, limit=100))
    assert set(after) == set(before)
    assert after[-1] == before[0]


def test_a_session_ends_after_six_hours(recorder: Server):
    customer, place = "c024", store(24)
    first = next(iter(items(recorder, customer, location=place)))
    recorder.report(event(customer, first, NOON - timedelta(hours=6, seconds=1), "add_to_cart"))
    assert first in items(recorder, customer, location=place)


# Only the new, and only what is named


@pytest.mark.parametrize("customer", ["c017", "c000"])
@pytest.mark.parametrize(("channel", "location"), [("web", None), ("store", "north"), ("mailer", "south")])
@pytest.mark.parametrize("limit", [10, 100])
def test_novel_answers_hold_nothing_bought_before(
    reader: Server, customer: str, channel: str, location: str | None, limit: int
):
    allowed = set(ids(reader.recommend(customer, channel, location, limit=100)))
    allowed |= set(ids(reader.recommend(customer, channel, location, limit=100, exclude=sorted(allowed))))
    answer = reader.recommend(customer, channel, location, limit=limit, filter_already_bought=True)
    assert not BOUGHT[customer] & set(ids(answer))
    assert set(ids(answer)) <= allowed
    assert len(ids(answer)) == min(limit, len(allowed - BOUGHT[customer]))
    assert not {"buy_again", "due_now"} & {item["source"] for item in answer["items"]}


@pytest.mark.parametrize("customer", [None, "nobody-yet"])
def test_to_whom_nothing_is_known_everything_is_new(reader: Server, customer: str | None):
    assert ids(reader.recommend(customer, filter_already_bought=True, limit=100)) == ids(
        reader.recommend(customer, limit=100)
    )


@pytest.mark.parametrize(
    ("now", "before"),
    [({"items": NAMED}, {"among": NAMED}), ({"filter_already_bought": True}, {"novel": True})],
    ids=["items", "filter_already_bought"],
)
def test_the_earlier_name_of_a_field_says_the_same(reader: Server, now: dict[str, Any], before: dict[str, Any]):
    whole = ids(reader.recommend("c017", limit=100))
    assert (
        ids(reader.recommend("c017", limit=100, **now)) == ids(reader.recommend("c017", limit=100, **before)) != whole
    )


def test_a_purchase_is_no_longer_new_in_the_very_next_answer(recorder: Server):
    first = ids(recorder.recommend("c026", at=NOON, filter_already_bought=True))[0]
    recorder.report(event("c026", first, NOON - timedelta(minutes=1)))
    assert first not in ids(recorder.recommend("c026", at=NOON, filter_already_bought=True, limit=100))


@pytest.mark.parametrize("customer", ["c017", "c000", "nobody-yet", None])
def test_among_answers_hold_only_what_is_named_and_all_of_it(reader: Server, customer: str | None):
    whole = ids(reader.recommend(customer, items=[*NAMED, "unheard-of", "p000"], limit=100))
    assert sorted(whole) == sorted(NAMED)
    assert ids(reader.recommend(customer, items=[*reversed(NAMED)], limit=3)) == whole[:3]
    assert ids(reader.recommend(customer, items=NAMED, limit=3, exclude=whole[:2])) == whole[2:5]
    assert ids(reader.recommend(customer, items=["unheard-of"])) == []


@pytest.mark.parametrize("customer", ["c017", None])
def test_among_does_not_show_what_the_context_forbids(reader: Server, customer: str | None):
    found = ids(reader.recommend(customer, "store", "north", items=NAMED))
    assert sorted(found) == sorted(assortment("north") & set(NAMED))


def test_among_many_the_best_come_first_in_the_order_of_the_ranker(reader: Server):
    answer = reader.recommend("c017", "store", store(17), items=sorted(EVERYTHING), limit=100, explain=True)
    assert set(ids(answer)) == assortment(store(17))
    assert ids(answer)[0] == favourite(17)
    assert all(item["explanation"]["features"] for item in answer["items"])


def test_among_and_novel_go_together(reader: Server):
    old, new = min(BOUGHT["c017"]), min(EVERYTHING - BOUGHT["c017"])
    assert ids(reader.recommend("c017", items=[old, new], filter_already_bought=True)) == [new]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"items": []}, "items"),
        ({"items": ["a"], "among": ["a"]}, "among"),
        ({"items": ["a"] * 10_001}, "items"),
        ({"items": [1.5]}, "items[0]"),
        ({"filter_already_bought": "yes"}, "filter_already_bought"),
    ],
)
def test_wrong_wishes_are_refused_by_name(reader: Server, body: dict[str, Any], field: str):
    answer = reader.client.post("/v1/recommend", json={"context": {"channel": "web"}, **body})
    assert (answer.status_code, answer.json()["field"]) == (422, field)


# Always as many as asked for


def test_an_answer_is_as_long_as_it_can_be_whatever_lies_in_the_cart_or_was_dismissed(recorder: Server):
    customer, place = "c029", store(29)
    shown = sorted(assortment(place))
    everything = [("add_to_cart", 0), ("dismissal", 20), ("view", 40)]
    recorder.report(
        *(
            event(customer, product, NOON - timedelta(minutes=1), kind)
            for kind, start in everything
            for product in shown[start : start + 20]
        )
    )
    held = set(shown[:40])
    for limit in (1, 5, 19, 20, 21, 50, 60, 61, 100):
        for exclude in ([], shown[:3], shown[55:]):
            left = set(shown) - set(exclude)
            answer = recorder.recommend(customer, "store", place, at=NOON, limit=limit, exclude=exclude)
            assert len(ids(answer)) == min(limit, len(left))
            assert set(ids(answer)) <= left
            free = len(left - held)
            assert not set(ids(answer)[:free]) & held, "what is held back comes after all else"
            scores = [item["score"] for item in answer["items"]]
            assert scores == sorted(scores, reverse=True)


# Fewer sources, no ranker

Start = partial[Server]


@pytest.fixture(scope="module")
def start(
    published: tuple[BundleStore, Manifest], postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Start:
    folder = copy_store(published[0], tmp_path_factory.mktemp("fewer"))
    return partial(Server, folder, "--database", postgres.database())


@pytest.mark.parametrize(("named", "limit"), [("towers,buy_again", 30), ("buy_again,towers", 30), ("trending", 10)])
def test_only_the_sources_named_propose(start: Start, named: str, limit: int):
    server = start("--sources", named)
    try:
        found = {
            item["source"]
            for number in range(0, CUSTOMERS, 10)
            for item in server.recommend(f"c{number:03d}", "store", store(number), limit=limit)["items"]
        }
        assert found == set(named.split(","))
    finally:
        server.stop()


def test_without_the_ranker_the_towers_order(start: Start, reader: Server):
    known = reader.recommend("c017", explain=True, limit=100)
    inner = {item["id"]: item["explanation"]["features"]["inner"] for item in known["items"]}
    server = start("--no-ranker")
    try:
        plain = server.recommend("c017", explain=True, limit=30)
        assert {one: {} for one in ids(plain)} == {
            item["id"]: item["explanation"]["features"] for item in plain["items"]
        }
        order = [inner[one] for one in ids(plain) if one in inner]
        assert len(order) >= 20
        assert order == pytest.approx(sorted(order, reverse=True), abs=1e-5)
        assert all(0 <= item["score"] <= 1 for item in plain["items"])
        assert ids(plain) != ids(known)[:30]
    finally:
        server.stop()


@pytest.mark.parametrize("named", ["towers,nonesuch", "", "towers,"])
def test_an_unknown_source_ends_the_start(own_store: Path, tmp_path: Path, named: str):
    process, _ = serve(own_store, tmp_path / "log", "--sources", named)
    assert process.wait(30) == 2
    text = (tmp_path / "log").read_text()
    assert "--sources" in text
    assert "Traceback" not in text
    assert all(name in text for name in SOURCES)
