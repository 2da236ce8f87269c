"""``include``: what answers show of the catalogue is what the tables say, and only if asked for."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import demo
from tests.integration.server import Postgres, Server, eventually, free_port, ids, world
from tests.integration.test_admin import client_of, done

SHOWN = {"attributes", "price", "products", "products_total"}
ALL = ["attributes", "price", "products"]


def of_product(product: str) -> dict[str, Any]:
    """What the tables say of a product."""
    (row,) = [one for one in world()["products"] if one["product_id"] == product]
    known = {name: row[name] for name in ("department", "brand") if row[name] is not None}
    return {"attributes": known} | ({} if row["price"] is None else {"price": row["price"]})


def of_offer(offer: str) -> dict[str, Any]:
    """What the tables say of an offer."""
    (row,) = [one for one in world()["offers"] if one["offer_id"] == offer]
    window = {name: row[name].isoformat().replace("+00:00", "Z") for name in ("starts", "ends")}
    audience = {} if row["audience"] is None else {"audience": row["audience"]}
    return {
        "attributes": {"kind": "coupon", **window, **audience},
        "products": sorted(row["products"]),
        "products_total": len(row["products"]),
    }


def shown(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name in SHOWN}


def test_products_show_what_their_table_says(reader: Server):
    products = [one["product_id"] for one in world()["products"]]
    for some in (products[:61], products[61:]):
        items = reader.recommend("c017", items=some, include=ALL, limit=100)["items"]
        assert {item["id"]: shown(item) for item in items} == {one: of_product(one) for one in some}


@pytest.mark.parametrize("customer", ["c010", None])
def test_offers_show_what_their_table_says(reader: Server, customer: str | None):
    items = reader.recommend(customer, channel="email", kinds=["offer"], include=ALL)["items"]
    assert items
    for item in items:
        assert shown(item) == of_offer(item["id"])


def test_mixed_answers_show_each_kind_its_own(reader: Server):
    items = reader.recommend("c017", kinds=["product", "offer"], include=["products", "price"], limit=100)["items"]
    assert {tuple(sorted(shown(item))) for item in items if item["kind"] == "offer"} == {("products", "products_total")}
    assert {tuple(shown(item)) for item in items if item["kind"] == "product"} <= {("price",), ()}


@pytest.mark.parametrize("asked", [{}, {"include": []}])
def test_nothing_else_changes(reader: Server, asked: Any):
    plain = reader.recommend("c017", kinds=["product", "offer"], **asked)["items"]
    told = reader.recommend("c017", kinds=["product", "offer"], include=ALL)["items"]
    assert [shown(item) for item in plain] == [{}] * len(plain)
    assert [{name: value for name, value in item.items() if name not in SHOWN} for item in told] == plain


def test_similar_products_show_what_their_table_says(reader: Server):
    plain = reader.client.get("/v1/products/p008/similar?limit=100").json()["items"]
    told = reader.client.get("/v1/products/p008/similar?limit=100&include=price,attributes").json()["items"]
    assert [{name: value for name, value in item.items() if name not in SHOWN} for item in told] == plain
    assert {item["id"]: shown(item) for item in told} == {item["id"]: of_product(item["id"]) for item in plain}
    only = reader.client.get("/v1/products/p008/similar?include=price").json()["items"]
    assert {tuple(shown(item)) for item in only} == {("price",)}


@pytest.mark.parametrize("include", [["colour"], ["price"] * 4, "price", [1], None])
def test_another_part_is_refused_by_name(reader: Server, include: Any):
    body = {"context": {"channel": "web"}, "include": include}
    answer = reader.client.post("/v1/recommend", json=body)
    assert answer.status_code == 422
    assert answer.json()["field"] in {"include", "include[0]"}


@pytest.mark.parametrize(
    "include", ["colour", "products", "price,products", "", "price,", "price%20", "price&include=attributes"]
)
def test_another_part_is_refused_by_name_in_a_query(reader: Server, include: str):
    answer = reader.client.get(f"/v1/products/p008/similar?include={include}")
    assert answer.status_code == 422
    assert answer.json()["field"].startswith("include")


def test_the_demo_says_what_its_ids_stand_for(
    reader: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    request = {"context": {"channel": "email"}, "kinds": ["product", "offer"], "limit": 20}
    monkeypatch.setattr(demo, "SAMPLES", (("Everything.", request),))
    assert demo.run(f"http://127.0.0.1:{reader.port}") == 0
    shown = capsys.readouterr().out
    for item in reader.recommend(channel="email", kinds=["product", "offer"], limit=20, at=None)["items"]:
        row = of_product(item["id"]) if item["kind"] == "product" else of_offer(item["id"])
        first = row if item["kind"] == "product" else of_product(row["products"][0])
        (line,) = [line for line in shown.splitlines() if f"  {item['id']}  " in line]
        assert first["attributes"]["department"] in line
        if item["kind"] == "offer":
            assert f"on {row['products_total']} products, such as" in line


def test_the_demo_fails_where_an_answer_does(
    reader: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(demo, "SAMPLES", (("Nowhere.", {"context": {"channel": "smoke-signal"}}),))
    assert demo.run(f"http://127.0.0.1:{reader.port}") == 1
    assert "smoke-signal" in capsys.readouterr().err


def test_the_demo_pauses_the_best_offer_and_resumes_it(
    own_store: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    port = free_port()
    request = {"context": {"channel": "email"}, "kinds": ["offer"], "limit": 20}
    monkeypatch.setattr(demo, "SAMPLES", (("Offers.", request),))
    server = Server(own_store, "--database", postgres.database(), "--admin-port", str(port))
    try:
        with client_of(server) as admin:
            done(admin.put("/v1/products/p001", json={}))
            offer = {"products": ["p001"], "starts": "2020-01-01T00:00:00Z", "ends": "2099-01-01T00:00:00Z"}
            seq = done(admin.put("/v1/offers/always", json=offer))["seq"]
        eventually(lambda: server.recommend(at=None)["catalogue_seq"] == seq, "the offer")
        assert demo.run(f"http://127.0.0.1:{server.port}", f"http://127.0.0.1:{port}") == 0
        before, _, after = capsys.readouterr().out.partition("always:pause")
        assert "  always  " in before
        assert "  always  " not in after
        eventually(lambda: ids(server.recommend(channel="email", kinds=["offer"], at=None)) == ["always"], "its return")
    finally:
        server.stop()
