"""Whatever ids the tables hold, every route and every body finds them: over real HTTP, in a release trained on them."""

import json
import random
from collections.abc import Generator, Iterator
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import polars as pl
import pytest

from embeddings.catalogue.context import LONGEST_ID
from embeddings.catalogue.tables import TABLES
from tests.integration.server import Postgres, Server, event
from tests.world import UNTIL, tables
from training.config import Recipe
from training.job import run

ODD = [
    *("a/b", "/", "//", "/a", "a/", "a//b", "a%2Fb", "%2F", "%252F", "%", "%zz", ".", "..", "../x", "a/../b", "./"),
    *(
        " ",
        "  ",
        " a",
        "a ",
        "a  b",
        "+",
        "a+b",
        "a&b=c",
        "a=b",
        "a;b",
        "a,b",
        "a|b",
        "?",
        "a?b",
        "#",
        "a#b",
        "&limit=1",
    ),
    *('"', "'", "''", "\\", "\\\\", "\\n", "a\\", "{}", "[]", "${x}", "{{x}}", "<b>", "'; DROP TABLE events; --"),
    *("null", "None", "NaN", "true", "0", "007", "-1", "1e5", "1.0", "similar", "a/similar", "similar/"),
    *(
        "caf\u00e9",
        "cafe\u0301",
        "\u00df",
        "\u1e9e",
        "\u0130",
        "i",
        "I",
        "\u2028",
        "\u202e",
        "\u200b",
        "\ufeff",
        "\ufffd",
    ),
    *("\u00a0", "\u3000", "\U0001f4a9", "\U0010ffff", "\u0645\u0631\u062d\u0628\u0627", "\u65e5\u672c"),
    *("x" * 199, "x" * 200, "x" * 201, "x" * LONGEST_ID, "\U0001f4a9" * LONGEST_ID, "/" * LONGEST_ID),
]


def unlike(count: int, taken: list[str]) -> Iterator[str]:
    """Random ids of any characters that an id may hold."""
    numbers, seen = random.Random(11), set(taken)
    letters = [chr(one) for one in range(0x20, 0x3000) if not 0x7F <= one < 0xA0]
    while count > 0:
        one = "".join(numbers.choices(letters, k=numbers.randint(1, 40)))
        if one not in seen:
            seen.add(one)
            count -= 1
            yield one


def renamed(ids: pl.Series) -> dict[str, str]:
    """Another id for each, odd ones first."""
    odd = ODD[: len(ids)] if len(ids) < len(ODD) else [*ODD, *unlike(len(ids) - len(ODD), ODD)]
    return dict(zip(ids.to_list(), odd, strict=True))


Ids = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def ids() -> Ids:
    """By table, which id of the small world became which. Few locations and offers: those take the odd ones in turn."""
    world = tables()
    found = {table.name: renamed(world[table.name][table.key]) for table in TABLES if table.key}
    for name, start in (("locations", 0), ("offers", 7)):
        keys = list(found[name])
        found[name] = dict(zip(keys, ODD[start :: len(ODD) // len(keys)], strict=False))
    return found


@pytest.fixture(scope="module")
def server(
    ids: Ids, recipe: Recipe, postgres: Postgres, anybodys: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Server]:
    """A server with a release of the small world under these ids."""
    folder, store = tmp_path_factory.mktemp("odd-tables"), anybodys / "odd"
    for table in TABLES:
        frame = tables()[table.name]
        for column in table.columns:
            key = (table.name, column.name) if column.name == table.key else column.refers_to
            if column.name == "customer_id":
                key = ("customers", "customer_id")
            if key is None or column.name not in frame.columns:
                continue
            names, text = ids[key[0]], pl.element() if column.dtype == "list" else pl.col(column.name)
            text = text.replace_strict(names)
            frame = frame.with_columns(pl.col(column.name).list.eval(text) if column.dtype == "list" else text)
        frame.write_parquet(folder / f"{table.name}.parquet")
    run(str(folder), store, recipe, until=UNTIL, device="cpu", gated=True)
    store.chmod(0o755)
    server = Server(store, "--database", postgres.database())
    yield server
    server.stop()


def similar(server: Server, product: str, **query: str) -> tuple[int, dict[str, Any]]:
    """What a client gets that encodes all but letters and digits, and does nothing else to a path."""
    path = "".join(f"%{byte:02X}" for byte in product.encode())
    asked = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("GET", f"/v1/products/{path}/similar?{asked}")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_every_product_has_similar_ones(server: Server, ids: Ids):
    for product in ids["products"].values():
        status, answer = similar(server, product)
        assert status == 200, (product, answer)
        assert product not in [one["id"] for one in answer["items"]]
        assert {one["id"] for one in answer["items"]} <= set(ids["products"].values())


def test_slashes_and_more_may_stand_in_a_path_as_they_are(server: Server, ids: Ids):
    for product in set(ids["products"].values()) & {
        "a/b",
        "a//b",
        "a/similar",
        "a;b",
        "a,b",
        "a+b",
        "a&b=c",
        "a=b",
        "'",
    }:
        plain = server.client.get(f"/v1/products/{product}/similar")
        assert (plain.status_code, plain.json()) == similar(server, product)


def test_every_product_can_be_wanted_and_excluded(server: Server, ids: Ids):
    for product in ids["products"].values():
        (only,) = server.recommend(items=[product])["items"]
        assert only["id"] == product
        assert server.recommend(items=[product], exclude=[product])["items"] == []


def test_every_location_is_found_in_a_body_and_in_a_query(server: Server, ids: Ids):
    seen: set[tuple[str, ...]] = set()
    for location in ids["locations"].values():
        shown = server.recommend(channel="store", location=location, limit=100)["items"]
        assert shown
        status, answer = similar(server, ids["products"]["p000"], channel="store", location=location, limit="100")
        assert status == 200, (location, answer)
        if len(shown) < 100:  # all that is carried there
            assert {one["id"] for one in answer["items"]} <= {one["id"] for one in shown}
        seen.add(tuple(sorted(one["id"] for one in shown)))
    assert len(seen) > 1  # not all of them taken for the same place


def test_every_customer_is_known_by_what_they_bought(server: Server, ids: Ids):
    for customer in ids["customers"].values():
        assert server.recommend(customer)["personalised"], customer


def test_every_offer_is_shown_and_excluded(server: Server, ids: Ids):
    shown = {item["id"] for item in server.recommend(channel="email", kinds=["offer"])["items"]}
    assert shown == {ids["offers"][one] for one in ("everyone", "by-email", "at-north")}
    for offer in shown:
        left = server.recommend(channel="email", kinds=["offer"], exclude=[offer])["items"]
        assert {item["id"] for item in left} == shown - {offer}


def test_events_name_any_of_them_and_count_at_once(server: Server, ids: Ids):
    after, north = UNTIL + timedelta(hours=1), ids["locations"]["north"]
    products, offers = list(ids["products"].values()), list(ids["offers"].values())
    for place, customer in enumerate([*ODD, *unlike(40, ODD)]):
        product, offer = products[place % len(products)], offers[place % len(offers)]
        answer = server.report(
            event(f"new {customer}"[:LONGEST_ID], product, after, "add_to_cart", location=north, channel="store"),
            event(customer, None, after, "click", offer_id=offer),
            event(customer, product, after, "purchase", event_id=f"{place} {customer}"[:LONGEST_ID]),
        )
        assert answer == {"accepted": 3, "duplicates": 0, "unknown": 0, "rejected": []}
        later = after + timedelta(minutes=1)
        assert server.recommend(customer, items=[product], filter_already_bought=True, at=later)["items"] == []
        assert server.report(event(uuid4().hex, "never sold", after))["unknown"] == 1


@pytest.mark.parametrize("product", ["never sold", "x" * (LONGEST_ID + 1), "\0", "\n", "a\nb", "", "A/B"], ids=ascii)
def test_no_other_product_is_found(server: Server, product: str):
    status, answer = similar(server, product)
    assert (status, answer["type"]) == (404, "urn:opportune:problem:unknown-resource")
