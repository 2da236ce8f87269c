"""What a recommend call answers, and what bad input gets: over HTTP, as ``docs/http-api.md`` promises."""

import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from embeddings.ranking.features import RANKER_FEATURES
from embeddings.ranking.sources import SOURCES
from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from tests.integration.server import Server, assortment, carried, eligible_offers, eligible_products, event, ids, world
from tests.world import CUSTOMERS, PRODUCTS, UNTIL, department, favourite, store, taste, visit

WEEK = timedelta(weeks=1)
EVERYTHING = {one["product_id"] for one in world()["products"]}


def customer(number: int) -> str:
    return f"c{number:03d}"


# What an answer holds


@pytest.mark.parametrize("who", [customer(17), "nobody-yet", None])
@pytest.mark.parametrize("kinds", [["product"], ["offer"], ["product", "offer"]])
def test_an_answer_holds_what_the_contract_says(reader: Server, who: str | None, kinds: list[str]):
    answer = reader.recommend(who, "store", "north", kinds=kinds, limit=7)
    fields = {"recommendation_id", "model_version", "catalogue_seq", "items", "personalised", "fallback", "degraded"}
    assert set(answer) == fields
    assert answer["model_version"] == reader.client.get("/v1/model").json()["version"]
    assert (answer["fallback"], answer["degraded"]) == (False, False)
    items = answer["items"]
    assert [item["rank"] for item in items] == list(range(1, len(items) + 1))
    assert [item["score"] for item in items] == sorted((item["score"] for item in items), reverse=True)
    assert len({(item["kind"], item["id"]) for item in items}) == len(items) > 0
    for item in items:
        assert set(item) == {"id", "kind", "rank", "score", "source", "reasons"}
        assert item["kind"] in kinds
        assert item["source"] in {*SOURCES, "popular", "eligible"}
        assert item["reasons"]
        for reason in item["reasons"]:
            assert set(reason) == {"code", "text"}
            assert reason["code"]
            assert reason["text"]


def test_every_answer_has_an_id_of_its_own(reader: Server):
    assert len({reader.recommend(customer(1))["recommendation_id"] for _ in range(5)}) == 5


def test_kinds_and_limit_have_the_defaults_of_the_contract(reader: Server):
    answer = reader.client.post("/v1/recommend", json={"context": {"channel": "web"}}).json()
    assert len(answer["items"]) == 10
    assert {item["kind"] for item in answer["items"]} == {"product"}


def test_the_same_question_gets_the_same_items(reader: Server):
    first, second = (reader.recommend(customer(17), "store", "north")["items"] for _ in range(2))
    assert first == second


def test_a_placement_is_taken_as_a_label(reader: Server):
    assert ids(reader.recommend(customer(17), placement="home")) == ids(reader.recommend(customer(17)))


@pytest.mark.parametrize("who", [customer(17), "nobody-yet"])
def test_explain_adds_what_the_ranker_read_and_how_was_searched(reader: Server, who: str):
    plain, explained = (reader.recommend(who, explain=explain) for explain in (False, True))
    assert ids(plain) == ids(explained)
    for item in explained["items"]:
        parts = item["explanation"]
        assert set(parts) == {"plan", "features", "facts"}
        assert parts["facts"] == parts["features"]
        assert tuple(parts["features"]) == RANKER_FEATURES
        assert parts["plan"] is not None


# The known answer


def test_when_they_shop_every_customer_gets_the_favourite_first_then_their_department(reader: Server):
    departments: list[int] = []
    for number in range(CUSTOMERS):
        answer = reader.recommend(customer(number), "store", store(number), at=visit(number))
        assert answer["personalised"]
        assert ids(answer)[0] == favourite(number)
        assert set(ids(answer)) <= carried(store(number))
        departments += [department(one) == taste(number) for one in ids(answer) if one != "unsold"]
    assert sum(departments) >= 0.9 * 10 * CUSTOMERS


def test_what_was_bought_every_week_says_so(reader: Server):
    first = reader.recommend(customer(17), "store", store(17), at=visit(17))["items"][0]
    assert first["source"] == "due_now"
    assert [one["code"] for one in first["reasons"]] == ["due_now", "bought_before"]
    assert first["reasons"][1]["text"] == "Bought 16 times before."


def test_what_was_sold_only_after_the_cut_off_is_nowhere_ahead(reader: Server):
    assert "late" not in ids(reader.recommend(customer(0), "store", "north", limit=100))
    assert "late" not in ids(reader.recommend(None, "web", limit=100))


@pytest.mark.parametrize("channel", ["web", "app", "email"])
def test_the_web_shows_everything_also_the_other_stores(reader: Server, channel: str):
    shown = ids(reader.recommend(customer(17), channel, "north", limit=100))
    rest = ids(reader.recommend(customer(17), channel, "north", limit=100, exclude=shown))
    assert len(shown) == 100
    assert {*shown, *rest} == EVERYTHING


@pytest.mark.parametrize("location", ["north", "south", "unopened", "nowhere", "dateline", "pole", None])
def test_a_store_shows_what_it_carries_or_comparable_ones_do(reader: Server, location: str | None):
    shown = ids(reader.recommend(customer(17), "store", location, limit=100))
    expected = eligible_products("store", None if location is None else [location], UNTIL)
    assert len(shown) == min(100, len(expected))
    assert set(shown) <= expected


def test_a_store_not_opened_yet_is_no_empty_store(reader: Server):
    assert set(ids(reader.recommend(None, "store", "unopened", limit=100))) == carried("north")


@pytest.mark.parametrize("who", [customer(17), None])
@pytest.mark.parametrize("location", ["north", "south"])
@pytest.mark.parametrize("at", [UNTIL, UNTIL + WEEK - timedelta(seconds=1), UNTIL + WEEK, UNTIL + 2 * WEEK])
def test_the_mailer_shows_exactly_that_stores_promotions_of_that_week(
    reader: Server, who: str | None, location: str, at: datetime
):
    expected = eligible_products("mailer", [location], at)
    assert (len(expected) > 0) == (at < UNTIL + 2 * WEEK)
    assert set(ids(reader.recommend(who, "mailer", location, at=at, limit=100))) == expected


def test_a_mailer_of_a_location_without_promotions_is_empty_and_not_an_error(reader: Server):
    answer = reader.recommend(customer(17), "mailer", "pole")
    assert (answer["items"], answer["personalised"]) == ([], False)


@pytest.mark.parametrize(
    ("latitude", "longitude", "radius", "inside"),
    [
        (60.0, 10.0, 1, ["north"]),
        (59.5, 10.0, 60, ["north", "unopened"]),
        (56.0, 11.5, 600, ["north", "south", "unopened"]),
        (52.5, 13.4, 1, ["south"]),
        (-17.0, -179.9, 50, ["dateline"]),
        (90.0, 123.0, 1, ["pole"]),
        (0.0, 0.0, 1, []),
        (0.0, 0.0, 20_038, ["north", "south", "dateline", "pole", "unopened"]),
    ],
)
@pytest.mark.parametrize("who", [customer(17), None])
def test_a_point_means_all_locations_within_its_radius(
    reader: Server, who: str | None, latitude: float, longitude: float, radius: float, inside: list[str]
):
    point = {"latitude": latitude, "longitude": longitude, "radius_km": radius}
    shown: list[str] = []
    for _ in range(2):
        shown += ids(reader.recommend(who, "store", point, limit=100, exclude=shown))
    assert sorted(shown) == sorted(eligible_products("store", inside, UNTIL))


# Cold start


@pytest.mark.parametrize("who", ["nobody-yet", None])
@pytest.mark.parametrize("location", ["north", "south"])
def test_whoever_is_unknown_is_ranked_by_the_context_alone(reader: Server, who: str | None, location: str):
    answer = reader.recommend(who, "store", location)
    assert not answer["personalised"]
    assert {item["source"] for item in answer["items"]} <= {"towers", "trending", "popular"}
    assert {item["reasons"][0]["code"] for item in answer["items"]} <= {"fits_context", "popular_here"}
    assert len(ids(answer)) == 10
    assert set(ids(answer)) <= set(assortment(location))


@pytest.mark.parametrize("who", ["nobody-yet", None])
def test_somebody_unknown_may_be_described(reader: Server, who: str | None):
    plain = reader.recommend(who, "web")
    assert ids(reader.recommend(who, "web", attributes={})) == ids(plain)
    described = {taste: ids(reader.recommend(who, "web", attributes={"segment": f"s{taste}"})) for taste in range(4)}
    assert len({tuple(found) for found in described.values()}) > 1
    own = [sum(department(one) == taste for one in found) for taste, found in described.items()]
    others = [sum(department(one) == (taste + 1) % 4 for one in found) for taste, found in described.items()]
    assert sum(own) > sum(others), "whoever is of a segment buys from its department"
    assert not reader.recommend(who, "web", attributes={"segment": "s1"})["personalised"]
    assert ids(reader.recommend(who, "web", attributes={"segment": "never heard of"})) == ids(plain)


def test_an_attribute_that_is_given_counts_for_this_request_alone(reader: Server):
    before = reader.recommend(customer(17), "web")["items"]
    reader.recommend(customer(17), "web", attributes={"segment": "s3"})
    assert reader.recommend(customer(17), "web")["items"] == before


def test_popular_differs_from_place_to_place(reader: Server):
    assert not set(ids(reader.recommend(None, "web", "north"))) & set(ids(reader.recommend(None, "web", "south")))


# Always as many as asked for


@pytest.mark.parametrize("who", [customer(17), "nobody-yet"])
@pytest.mark.parametrize("limit", [1, 59, 60, 61, 100])
def test_there_are_always_as_many_as_asked_for_if_that_many_are_eligible(reader: Server, who: str, limit: int):
    assert len(ids(reader.recommend(who, "store", "north", limit=limit))) == min(limit, len(assortment("north")))


@pytest.mark.parametrize("who", [customer(17), "nobody-yet"])
def test_excluded_items_are_replaced_by_the_next(reader: Server, who: str):
    whole = ids(reader.recommend(who, limit=20))
    assert ids(reader.recommend(who, limit=10, exclude=[*whole[:10], "unheard-of"])) == whole[10:]


@pytest.mark.parametrize("who", [customer(17), "nobody-yet", None])
@pytest.mark.parametrize("kinds", [["product"], ["product", "offer"]])
def test_of_many_excluded_none_is_shown_and_all_others_are(reader: Server, who: str | None, kinds: list[str]):
    whole = ids(reader.recommend(who, limit=100, kinds=kinds))
    left = ids(reader.recommend(who, limit=100, kinds=kinds, exclude=whole[:90]))
    assert not set(whole[:90]) & set(left)
    assert set(whole[90:]) <= set(left)
    assert {*whole[:90], *left} >= EVERYTHING


@pytest.mark.parametrize("who", [customer(17), "nobody-yet"])
def test_everything_can_be_excluded(reader: Server, who: str):
    assert ids(reader.recommend(who, exclude=sorted(EVERYTHING))) == []


# Offers


@pytest.mark.parametrize("who", [customer(10), customer(11), None])
@pytest.mark.parametrize("channel", ["web", "email", "store"])
@pytest.mark.parametrize("location", ["north", "south", None])
@pytest.mark.parametrize("days", [0, 29, 30, 364, 365])
def test_only_valid_offers_for_this_audience_channel_and_location(
    reader: Server, who: str | None, channel: str, location: str | None, days: int
):
    at = UNTIL + timedelta(days=days)
    answer = reader.recommend(who, channel, location, at=at, kinds=["offer"], limit=100)
    expected = eligible_offers(channel, None if location is None else [location], at, who)
    assert sorted(ids(answer)) == sorted(expected)
    assert ("vips" in ids(answer)) == (who == customer(10) and days < 365)
    assert all(item["reasons"][-1]["code"] == "valid_until" for item in answer["items"])


def test_products_and_offers_come_in_one_order(reader: Server):
    named = ["p000", "p001", "p002", favourite(10)]
    answer = reader.recommend(customer(10), "web", limit=100, kinds=["product", "offer"], items=named)
    offers = [item["id"] for item in answer["items"] if item["kind"] == "offer"]
    assert sorted(offers) == sorted(eligible_offers("web", None, UNTIL, customer(10)))
    assert sorted(ids(answer)) == sorted([*named, *offers])
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[-1] <= scores[0] < 1


def test_an_offer_can_be_excluded(reader: Server):
    assert "vips" not in ids(reader.recommend(customer(10), kinds=["offer"], exclude=["vips"]))


# Similar products and the model


def similar(reader: Server, product: str, **query: Any) -> list[dict[str, Any]]:
    answer = reader.client.get(f"/v1/products/{product}/similar", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model_version"] == reader.client.get("/v1/model").json()["version"]
    return answer.json()["items"]


def test_similar_products_are_near_ordered_and_never_the_product_itself(reader: Server):
    items = similar(reader, "p008", limit=5)
    assert [item["rank"] for item in items] == [1, 2, 3, 4, 5]
    scores = [item["score"] for item in items]
    assert scores == sorted(scores, reverse=True)
    assert -1 <= scores[-1] <= scores[0] <= 1 + 1e-6
    assert "p008" not in {item["id"] for item in items}
    assert {department(item["id"]) for item in items} == {0}


@pytest.mark.parametrize("product", ["p008", "p012"])
def test_similar_products_are_those_of_the_context(reader: Server, product: str):
    found = {item["id"] for item in similar(reader, product, channel="store", location="north", limit=100)}
    assert found == assortment("north") - {product}


def test_substitutes_say_what_they_share(reader: Server):
    table = {one["product_id"]: one for one in world()["products"]}
    for item in similar(reader, "p008"):
        ((code, text),) = [(one["code"], one["text"]) for one in item["reasons"]]
        shared = [
            f"{name} {table['p008'][name]}"
            for name in ("department", "brand")
            if table["p008"][name] == table[item["id"]][name]
        ]
        assert code == "same_attributes"
        assert sorted(text.removeprefix("Also ").removesuffix(".").split(", ")) == sorted(shared)
        assert "support" not in item


def test_complements_lay_in_the_same_baskets_oftener_than_by_chance(reader: Server):
    baskets: dict[tuple[str, datetime], set[str]] = defaultdict(set)
    for one in world()["events"]:
        if one["at"] < UNTIL - timedelta(days=14):  # relations are found before the validation window
            baskets[one["customer_id"], one["at"]].add(one["product_id"])
    lay = Counter(product for basket in baskets.values() for product in basket)
    one = max(lay, key=lambda product: lay[product])
    together = Counter(other for basket in baskets.values() if one in basket for other in basket - {one})
    items = similar(reader, one, relation="complements", limit=100)
    assert 0 < len(items) <= 20
    for item in items:
        times = together[item["id"]]
        assert item["support"] == times >= 1.2 * lay[one] * lay[item["id"]] / len(baskets)
        assert item["score"] == pytest.approx(times / lay[one])
        assert item["reasons"] == [{"code": "bought_together", "text": f"Bought together {times} times."}]
    assert [item["support"] for item in items] == sorted((item["support"] for item in items), reverse=True)
    north = similar(reader, one, relation="complements", channel="store", location="north", limit=100)
    assert {item["id"] for item in north} == {item["id"] for item in items} & assortment("north")
    assert similar(reader, "unsold", relation="complements") == []


def test_ten_similar_products_by_default_at_most_a_hundred(reader: Server):
    assert len(similar(reader, "p008")) == 10
    assert len(similar(reader, "p008", limit=100)) == 100


def test_the_model_tells_its_cut_off_and_its_metrics(reader: Server, published: tuple[BundleStore, Manifest]):
    answer, manifest = reader.client.get("/v1/model").json(), published[1]
    assert answer["version"] == manifest.version
    assert datetime.fromisoformat(answer["data_cut_off"]) == UNTIL
    assert answer["counts"]["products"] == PRODUCTS + 2
    assert answer["metrics"] == manifest.metrics


# Bad input


def refused(answer: httpx.Response, status: int, field: str | None = None) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"]
    assert problem["title"]
    assert problem["detail"]
    assert problem.get("field") == field
    return problem


def post(server: Server, body: bytes | str | dict[str, Any], path: str = "/v1/recommend") -> httpx.Response:
    content = json.dumps(body) if isinstance(body, dict) else body
    return server.client.post(path, content=content, headers={"content-type": "application/json"})


WEB = {"channel": "web"}
POINT = {"latitude": 60.0, "longitude": 10.0, "radius_km": 5.0}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "context"),
        ({"context": {}}, "context.channel"),
        ({"context": WEB, "colour": "red"}, "colour"),
        ({"context": {**WEB, "colour": "red"}}, "context.colour"),
        ({"context": {**WEB, "location": {**POINT, "colour": "red"}}}, "context.location.colour"),
        ({"context": WEB, "limit": "10"}, "limit"),
        ({"context": WEB, "limit": 0}, "limit"),
        ({"context": WEB, "limit": 101}, "limit"),
        ({"context": WEB, "limit": -1}, "limit"),
        ({"context": WEB, "limit": 1.5}, "limit"),
        ({"context": WEB, "kinds": []}, "kinds"),
        ({"context": WEB, "kinds": ["coupon"]}, "kinds[0]"),
        ({"context": WEB, "customer_id": 10.5}, "customer_id"),
        ({"context": WEB, "customer_id": "c\0"}, "customer_id"),
        ({"context": WEB, "exclude": ["a", None]}, "exclude[1]"),
        ({"context": WEB, "exclude": ["a"] * 1_001}, "exclude"),
        ({"context": {"channel": "smoke-signal"}}, "context.channel"),
        ({"context": {"channel": 5}}, "context.channel"),
        ({"context": {**WEB, "location": "atlantis"}}, "context.location"),
        ({"context": {**WEB, "location": 367}}, "context.location"),
        ({"context": {**WEB, "location": {**POINT, "latitude": 91}}}, "context.location.latitude"),
        ({"context": {**WEB, "location": {**POINT, "longitude": 180.1}}}, "context.location.longitude"),
        ({"context": {**WEB, "location": {**POINT, "radius_km": 0}}}, "context.location.radius_km"),
        ({"context": {**WEB, "location": {"latitude": 1, "longitude": 1}}}, "context.location.radius_km"),
        ({"context": {**WEB, "at": "tomorrow"}}, "context.at"),
        ({"context": WEB, "attributes": {"segment": 1}}, "attributes[...]"),
        ({"context": WEB, "attributes": ["segment"]}, "attributes"),
        ({"context": {**WEB, "at": "2025-06-01T00:00:00"}}, "context.at"),
        ({"context": {**WEB, "at": "2025-13-01T00:00:00Z"}}, "context.at"),
    ],
)
def test_a_wrong_value_is_refused_by_name(reader: Server, body: dict[str, Any], field: str):
    refused(post(reader, body), 422, field)


def test_an_unknown_attribute_is_told_which_there_are(reader: Server):
    body = {"context": WEB, "attributes": {"shoe_size": "42"}}
    assert "segment" in refused(post(reader, body), 422, "attributes.shoe_size")["detail"]


def test_an_unknown_channel_is_told_which_there_are(reader: Server):
    assert "mailer" in refused(post(reader, {"context": {"channel": "mail"}}), 422, "context.channel")["detail"]


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1960-01-01T00:00:00Z"])
@pytest.mark.parametrize("who", [customer(17), None])
def test_any_moment_that_can_be_written_is_answered(reader: Server, who: str | None, at: str):
    for channel, location in (("web", None), ("mailer", "north")):
        context = {"channel": channel, "location": location, "at": at}
        answer = post(reader, {"customer_id": who, "context": context, "kinds": ["product", "offer"]})
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b'{"limit": NaN}', b'{"limit": Infinity}', b"\xff\xfe", b'{"customer_id": "\xff"}'],
)
def test_what_is_no_json_in_utf8_is_a_bad_request(reader: Server, body: bytes):
    refused(post(reader, body), 400)


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b'{"events": NaN}', b'{"events": [', b"\xff\xfe"])
def test_events_that_are_no_json_in_utf8_are_a_bad_request(reader: Server, body: bytes):
    refused(post(reader, body, "/v1/events"), 400)


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/xml", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/events"])
def test_a_body_not_declared_as_json_is_refused(reader: Server, path: str, content_type: str | None):
    headers = {} if content_type is None else {"content-type": content_type}
    refused(reader.client.post(path, content=b'{"context": {"channel": "web"}}', headers=headers), 415)


@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/events"])
def test_a_compressed_body_is_refused(reader: Server, path: str):
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    refused(reader.client.post(path, content=gzip.compress(BODY), headers=headers), 415)


LARGEST = 2**20
BODY = b'{"context": {"channel": "web"}}'


@pytest.mark.parametrize("path", ["/v1/recommend", "/v1/events"])
def test_a_body_over_one_mebibyte_is_too_large_declared_or_chunked(reader: Server, path: str):
    def chunks() -> Iterator[bytes]:
        for _ in range(17):
            yield b" " * 2**16

    headers = {"content-type": "application/json"}
    refused(reader.client.post(path, content=BODY.ljust(LARGEST + 1), headers=headers), 413)
    refused(reader.client.post(path, content=chunks(), headers=headers), 413)
    assert reader.client.get("/healthz").status_code == 200


def test_a_body_of_one_mebibyte_is_taken(reader: Server):
    assert post(reader, BODY.ljust(LARGEST)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/recommend", "POST"),
        ("PUT", "/v1/events", "POST"),
        ("POST", "/v1/model", "GET"),
        ("DELETE", "/readyz", "GET"),
    ],
)
def test_a_wrong_method_is_told_the_right_one(reader: Server, method: str, path: str, allowed: str):
    answer = reader.client.request(method, path)
    refused(answer, 405)
    assert allowed in answer.headers["allow"]


@pytest.mark.parametrize("path", ["/", "/nowhere", "/v1", "/v1/recommend/more", "/v1/products/p000", "/docs"])
def test_an_unknown_path_is_not_found(reader: Server, path: str):
    refused(reader.client.get(path), 404)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("limit=2&limit=3", "limit"),
        ("colour=red", "colour"),
        ("channel=smoke-signal", "channel"),
        ("channel=%FF", "channel"),
        ("channel=store&location=atlantis", "location"),
        ("location=north", "channel"),
        ("relation=cousins", "relation"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(reader: Server, query: str, field: str):
    refused(reader.client.get(f"/v1/products/p000/similar?{query}"), 422, field)


@pytest.mark.parametrize("product", ["p999", "%FF", "%00", "x" * 1_000])
def test_an_unknown_product_is_not_found(reader: Server, product: str):
    refused(reader.client.get(f"/v1/products/{product}/similar"), 404)


GOOD = event(customer(1), "p000", datetime(2025, 6, 2, tzinfo=UTC))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"type": "stare"}, "events[1].type"),
        ({"colour": "red"}, "events[1].colour"),
        ({"at": "2025-06-02T00:00:00"}, "events[1].at"),
        ({"at": None}, "events[1].at"),
        ({"quantity": 0}, "events[1].quantity"),
        ({"quantity": "1"}, "events[1].quantity"),
        ({"value": -1}, "events[1].value"),
        ({"event_id": ""}, "events[1].event_id"),
        ({"event_id": "x" * 257}, "events[1].event_id"),
        ({"event_id": "x\0"}, "events[1].event_id"),
        ({"recommendation_id": "\0"}, "events[1].recommendation_id"),
        ({"customer_id": None}, "events[1].customer_id"),
    ],
)
def test_a_malformed_event_is_rejected_by_name_and_the_other_one_stored(
    recorder: Server, change: dict[str, Any], field: str
):
    good = event(customer(1), "p000", datetime(2025, 6, 2, tzinfo=UTC))
    answer = recorder.report(good, {**good, **change})
    assert answer["accepted"] == 1
    assert [(one["index"], one["error"]["field"]) for one in answer["rejected"]] == [(1, field)]


@pytest.mark.parametrize(
    "bad", [b'{"event_id": "\xff"}', b'{"\xff": 1}', b'{"event_id": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"]
)
def test_bytes_that_are_no_text_and_bottomless_nesting_are_no_json(reader: Server, bad: bytes):
    body = b'{"events": [{"type": 1}, ' + bad + b"]}"
    refused(reader.client.post("/v1/events", content=body, headers={"Content-Type": "application/json"}), 400)


@pytest.mark.parametrize("count", [0, 1_001])
def test_too_many_or_no_events_are_refused(reader: Server, count: int):
    refused(post(reader, {"events": [GOOD] * count}, "/v1/events"), 422, "events")


def test_bad_input_leaves_no_trace_of_an_error_in_the_log(reader: Server):
    assert " ERROR " not in reader.log
