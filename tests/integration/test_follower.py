"""Changes in the database count in the answers of a server that runs, in every worker and under every release."""

import asyncio
import json
import uuid
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from embeddings.catalogue.changes import (
    AnyState,
    Change,
    CustomerState,
    LocationState,
    OfferState,
    ProductState,
    PromotionState,
    SegmentState,
    Withdrawal,
)
from embeddings.database.changelog import write
from embeddings.database.migrate import prepare
from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from tests.integration.server import Postgres, Server, copy_store, event, eventually, ids, on_connection, release, world
from tests.integration.test_workers import Line, heir, workers
from tests.world import UNTIL

ALWAYS: dict[str, Any] = {"starts": UNTIL - timedelta(days=30), "ends": UNTIL + timedelta(days=30_000)}


class Live:
    """A server, and the database that it follows."""

    def __init__(self, server: Server, url: str) -> None:
        self.server = server
        self.url = url

    def change(self, *changes: Change) -> int:
        """Write changes, wait until they are in the view, and return their seq."""
        seq = write_all(self.url, *changes)
        self.see(seq)
        return seq

    def see(self, seq: int) -> None:
        request = {"context": {"channel": "web"}, "at_least": seq}
        eventually(lambda: self.server.client.post("/v1/recommend", json=request).status_code == 200, f"change {seq}")

    def named(self, *products: str, **rest: Any) -> list[str]:
        """Which of some products may be shown."""
        return sorted(ids(self.server.recommend(items=products, limit=100, **rest)))

    def offers(self, customer: str | None = None, **rest: Any) -> list[str]:
        return sorted(ids(self.server.recommend(customer, kinds=["offer"], limit=100, **rest)))


def write_all(url: str, *changes: Change) -> int:
    return on_connection(url, lambda connection: write(connection, changes, "test"))


def states() -> list[AnyState]:
    """The tables that the release was trained on."""
    products = [
        ProductState(
            id=one["product_id"],
            attributes={name: one[name] for name in ("department", "brand") if one[name]},
            price=one["price"],
            locations=tuple(one["locations"] or ()),
        )
        for one in world()["products"]
    ]
    locations = [LocationState(id=one.pop("location"), **one) for one in map(dict, world()["locations"])]
    customers = [
        CustomerState(
            id=one["customer_id"],
            attributes={"segment": one["segment"]} if one["segment"] else {},
            audiences=tuple(one["audiences"]),
        )
        for one in world()["customers"]
    ]
    offers = [
        OfferState(
            id=one["offer_id"],
            products=tuple(one["products"]),
            starts=one["starts"],
            ends=one["ends"],
            channels=one["channels"] and tuple(one["channels"]),
            locations=one["locations"] and tuple(one["locations"]),
            audience=one["audience"],
            uses=one["uses"] or 1,
        )
        for one in world()["offers"]
    ]
    return [SegmentState(id="vip"), *locations, *products, *customers, *offers]


def product(one: str) -> ProductState:
    return next(state for state in states() if isinstance(state, ProductState) and state.id == one)


@pytest.fixture(scope="module")
def loaded(postgres: Postgres) -> str:
    """A database with the tables that the release was trained on."""
    url = postgres.database()
    asyncio.run(prepare(url))
    write_all(url, *states())
    return url


@pytest.fixture(scope="module")
def live(
    published: tuple[BundleStore, Manifest], loaded: str, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Live]:
    server = Server(copy_store(published[0], tmp_path_factory.mktemp("live")), "--database", loaded)
    yield Live(server, loaded)
    server.stop()


def test_a_release_whose_tables_were_loaded_answers_as_without_a_database(live: Live, reader: Server):
    assert live.server.recommend()["catalogue_seq"] >= len(states())
    for customer in ("c000", "c017", "c050", "nobody"):
        for channel, location in (("web", None), ("store", "north"), ("mailer", "south")):
            asked: dict[str, Any] = {
                "customer": customer,
                "channel": channel,
                "location": location,
                "kinds": ["product", "offer"],
            }
            live_items, items = (one.recommend(**asked)["items"] for one in (live.server, reader))
            assert [one["id"] for one in live_items] == [one["id"] for one in items]
            assert [one["score"] for one in live_items] == pytest.approx([one["score"] for one in items], abs=1e-6)


def test_a_new_product_is_recommendable_and_shows_what_the_catalogue_says(live: Live):
    assert live.named("fresh") == []
    live.change(ProductState(id="fresh", attributes={"department": "d1", "brand": "b2"}, price=9.5))
    (item,) = live.server.recommend(items=["fresh"], include=["price", "attributes"])["items"]
    assert (item["price"], item["attributes"]) == (9.5, {"department": "d1", "brand": "b2"})
    live.change(ProductState(id="fresh", attributes={"department": "d2"}))
    (item,) = live.server.recommend(items=["fresh"], include=["price", "attributes"])["items"]
    assert "price" not in item
    assert item["attributes"] == {"department": "d2"}


def test_the_price_of_a_trained_product_changes(live: Live):
    live.change(replace(product("p004"), price=77.0))
    (item,) = live.server.recommend(items=["p004"], include=["price"])["items"]
    assert item["price"] == 77.0


def test_a_withdrawn_product_is_gone_until_it_comes_back(live: Live):
    assert live.named("p119") == ["p119"]
    seq = live.change(replace(product("p119"), recommendable=False))
    assert live.named("p119") == []
    assert live.server.recommend()["catalogue_seq"] >= seq
    live.change(product("p119"))
    assert live.named("p119") == ["p119"]


def test_a_deleted_product_is_gone(live: Live):
    live.change(ProductState(id="short-lived"))
    assert live.named("short-lived") == ["short-lived"]
    live.change(Withdrawal(kind="product", id="short-lived"))
    assert live.named("short-lived") == []


@pytest.mark.parametrize("field", ["out_of_stock_at", "withdrawn_at"])
def test_what_a_location_lacks_is_not_shown_there(live: Live, field: str):
    both = replace(product("p000"), locations=("north", "south"))
    live.change(both)
    live.change(replace(both, **{field: ("north",)}))
    shown = {
        (channel, location): live.named("p000", channel=channel, location=location) == ["p000"]
        for channel in ("store", "web")
        for location in ("north", "south", None)
    }
    assert shown == {
        ("store", "north"): False,
        ("web", "north"): False,
        ("store", "south"): True,
        ("web", "south"): True,
        ("store", None): True,
        ("web", None): True,
    }
    live.change(replace(both, **{field: tuple(one["location"] for one in world()["locations"])}))
    assert live.named("p000", channel="store") == []
    assert live.named("p000") == ["p000"]
    live.change(replace(both, in_stock=False))
    assert live.named("p000") == []
    live.change(product("p000"))
    assert live.named("p000", channel="store", location="north") == ["p000"]


def test_offers_appear_pause_and_go(live: Live):
    offer = OfferState(id="flash", products=("p001", "p002"), **ALWAYS)
    assert "flash" not in live.offers()
    live.change(offer)
    assert "flash" in live.offers()
    for status, shown in (("paused", False), ("draft", False), ("pending", False), ("live", True)):
        live.change(replace(offer, status=status))
        assert ("flash" in live.offers()) == shown
    live.change(replace(offer, channels=("email",)))
    assert "flash" not in live.offers()
    assert "flash" in live.offers(channel="email")
    live.change(replace(offer, ends=UNTIL))
    assert "flash" not in live.offers()
    live.change(Withdrawal(kind="offer", id="flash"))
    assert "flash" not in live.offers(channel="email")


def test_an_offer_of_a_channel_that_the_release_does_not_declare_is_not_shown_and_holds_nothing_up(live: Live):
    live.change(
        OfferState(id="kiosk", products=("p001",), channels=("kiosk",), **ALWAYS),
        OfferState(id="kiosk-and-web", products=("p001",), channels=("kiosk", "web"), **ALWAYS),
    )
    assert "kiosk" not in live.offers()
    assert "kiosk-and-web" in live.offers()


def test_a_promotion_is_shown_on_its_channel(live: Live):
    promotion = PromotionState(id="next", channel="mailer", location="north", products=("p008",), **ALWAYS)
    live.change(promotion)
    assert "p008" in live.named("p008", channel="mailer", location="north")
    live.change(Withdrawal(kind="promotion", id="next"))
    assert live.named("p008", channel="mailer", location="north", at=UNTIL + timedelta(days=90)) == []


def test_a_location_opens_and_closes(live: Live):
    request = {"context": {"channel": "store", "location": "brand-new"}}
    assert live.server.client.post("/v1/recommend", json=request).status_code == 422
    live.change(LocationState(id="brand-new", region="cold"))
    assert live.server.recommend(channel="store", location="brand-new")["items"]
    live.change(Withdrawal(kind="location", id="brand-new"))
    assert live.server.client.post("/v1/recommend", json=request).status_code == 422


def test_what_is_known_of_a_customer_counts_in_the_next_answer(live: Live):
    customer = CustomerState(id="c001", attributes={"segment": "s1"})
    live.change(SegmentState(id="club"), OfferState(id="for-club", products=("p001",), audience="club", **ALWAYS))
    assert "for-club" not in live.offers("c001")
    live.change(replace(customer, audiences=("club", "vip")))
    assert {"for-club", "vips"} <= {*live.offers("c001")}
    live.change(replace(customer, audiences=("vip",)))
    assert "for-club" not in live.offers("c001")
    assert "vips" in live.offers("c001")
    live.change(CustomerState(id="c001"))
    assert "vips" not in live.offers("c001")


def test_an_audience_of_a_later_offer_finds_who_belongs_to_it_already(live: Live):
    live.change(SegmentState(id="early"), CustomerState(id="c002", audiences=("early",)))
    live.offers("c002")  # in memory from here on
    live.change(OfferState(id="for-early", products=("p001",), audience="early", **ALWAYS))
    assert "for-early" in live.offers("c002")
    assert "for-early" not in live.offers("c003")


def test_attributes_of_a_customer_that_training_never_saw_count(live: Live):
    one = f"new-{uuid.uuid4().hex}"
    before = live.server.recommend(one)["items"]
    live.change(CustomerState(id=one, attributes={"segment": "s3", "unheard": "of"}))
    told = live.server.recommend(one)["items"]
    assert told == live.server.recommend(f"other-{one}", attributes={"segment": "s3"})["items"]
    assert [item["score"] for item in told] != [item["score"] for item in before]


def test_a_purchase_of_a_product_that_comes_later_counts_once_it_is_there(live: Live):
    one = f"late-{uuid.uuid4().hex}"
    bought = event("c004", one, UNTIL + timedelta(hours=1))
    assert live.server.report(bought)["unknown"] == 1
    live.change(ProductState(id=one, attributes={"department": "d0"}))
    assert live.named(one, customer="c004", at=UNTIL + timedelta(hours=2)) == [one]
    named = live.server.recommend("c004", items=[one], at=UNTIL + timedelta(hours=2))["items"]
    assert "bought_before" in [reason["code"] for reason in named[0]["reasons"]]


def test_an_answer_that_cannot_have_seen_a_change_is_refused(live: Live):
    request = {"context": {"channel": "web"}, "at_least": 10**9}
    answer = live.server.client.post("/v1/recommend", json=request)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "change 1000000000" in answer.json()["detail"]


def test_another_release_answers_with_the_catalogue_as_it_is_now(
    published: tuple[BundleStore, Manifest], loaded: str, tmp_path: Path
):
    live = Live(Server(copy_store(published[0], tmp_path / "store"), "--database", loaded), loaded)
    try:
        live.change(ProductState(id="kept", price=3.0), replace(product("p005"), recommendable=False))
        for version in ("second", "third"):
            release(live.server.store, version, gap=5.0)

            def swapped(wanted: str = version) -> bool:
                answer = live.server.recommend(items=["kept", "p005"], include=["price"])
                assert [(one["id"], one["price"]) for one in answer["items"]] == [("kept", 3.0)]
                return answer["model_version"] == wanted

            eventually(swapped, version)
    finally:
        live.change(product("p005"))
        live.server.stop()


def test_every_worker_follows_and_one_that_replaces_another_has_it_all(
    published: tuple[BundleStore, Manifest], loaded: str, tmp_path: Path
):
    server = Server(copy_store(published[0], tmp_path / "store"), "--database", loaded, "--workers", "2")
    try:
        seq = write_all(loaded, ProductState(id="for-all", price=float(uuid.uuid4().int % 1000)))

        def seen() -> bool:
            page = server.client.get("/metrics").text
            found = [line for line in page.splitlines() if line.startswith("opportune_catalogue_seq{")]
            return [float(line.split()[-1]) for line in found] == [seq, seq]

        eventually(seen, "both workers")
    finally:
        server.stop()


def test_without_postgresql_the_last_view_serves_and_says_so(
    published: tuple[BundleStore, Manifest], anybodys: Path, tmp_path: Path
):
    own = Postgres(anybodys / "followed")
    try:
        url = own.database()
        asyncio.run(prepare(url))
        live = Live(Server(copy_store(published[0], tmp_path / "store"), "--database", url), url)
        try:
            live.change(ProductState(id="before", price=1.0))
            own.stop()

            def behind() -> bool:
                ready = live.server.client.get("/readyz").json()
                answer = live.server.recommend(items=["before"])
                assert ids(answer) == ["before"]
                assert answer["degraded"] or ready["catalogue"] == "follows"
                return ready["catalogue"] == "behind" and ready["catalogue_lag_seconds"] > 0

            eventually(behind, "the lag")
            assert live.server.client.get("/readyz?strict").status_code == 503
            own.start()
            live.change(ProductState(id="after", price=1.0))
            assert live.named("before", "after") == ["after", "before"]
            eventually(lambda: live.server.client.get("/readyz?strict").status_code == 200, "readiness")
        finally:
            live.server.stop()
    finally:
        own.close()


def test_a_worker_that_replaces_another_answers_while_postgresql_is_silent(
    published: tuple[BundleStore, Manifest], anybodys: Path, tmp_path: Path
):
    own = Postgres(anybodys / "silent")
    try:
        url = own.database()
        server = Server(copy_store(published[0], tmp_path / "store"), "--database", url, "--workers", "2")
        try:
            release(server.store, "second", gap=5.0)
            eventually(lambda: server.metric("opportune_model", version="second") == 2, "both workers to swap")
            seq = write_all(url, ProductState(id="before", price=1.0))
            own.stop()
            doomed, steady = workers(server)
            doomed.kill()
            line = Line(server, eventually(lambda: heir(server, doomed, steady), "another worker"))
            answer = line.recommend("c017")
            assert (answer["model_version"], answer["degraded"]) == ("second", True)
            assert json.loads(line.get("/readyz"))["catalogue"] == "behind"
            own.start()

            def caught_up() -> bool:
                ready = json.loads(line.get("/readyz"))
                return (ready["catalogue"], ready["catalogue_seq"]) == ("follows", seq)

            eventually(caught_up, "what was changed")
            assert "before" in [one["id"] for one in line.recommend("c017", items=["before"])["items"]]
        finally:
            server.stop()
    finally:
        own.close()


def test_filters_follow_the_catalogue_as_it_is_now(live: Live):
    cheap: dict[str, Any] = {"filters": {"department": ["d1"], "price": {"max": 2.0}}}
    products = [one for one in world()["products"] if one["department"] == "d1"]
    before = {one["product_id"] for one in products if (one["price"] or 9) <= 2}
    shown = ids(live.server.recommend("c000", limit=100, **cheap))
    assert set(shown) <= before
    assert len(shown) == len(before)
    dear = sorted(before)[0]
    live.change(replace(product(dear), price=50.0))
    assert set(ids(live.server.recommend("c000", limit=100, **cheap))) == before - {dear}
    live.change(product(dear))
    answer = live.server.client.post(
        "/v1/recommend", json={"context": {"channel": "web"}, "filters": {"colour": ["red"]}}
    )
    assert (answer.status_code, answer.json()["field"]) == (422, "filters.colour")
    only_offers = {"context": {"channel": "web"}, "kinds": ["offer"], "filters": {"department": ["d1"]}}
    assert live.server.client.post("/v1/recommend", json=only_offers).json()["field"] == "filters"
