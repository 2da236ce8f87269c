"""Events read as every customer's past."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from embeddings.catalogue.columns import ChannelRule
from embeddings.catalogue.tables import TABLES
from embeddings.customer.history import EVENT, EVENT_CODES, Histories
from training.batches import Baskets
from training.catalogue import master_catalogue
from training.config import Recipe
from training.datasets.frames import GivenTable, assemble
from training.histories import read_histories

RECIPE = Recipe(channels={"store": ChannelRule.ASSORTMENT, "web": ChannelRule.EVERYTHING})
START = datetime(2025, 6, 1, tzinfo=UTC)

Row = dict[str, str | float | datetime | None]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def read(events: list[Row], **tables: pl.DataFrame) -> Histories:
    schema = {
        "customer_id": pl.String,
        "type": pl.String,
        "at": pl.Datetime("us", "UTC"),
        "product_id": pl.String,
        "offer_id": pl.String,
        "location": pl.String,
        "channel": pl.String,
        "visit": pl.String,
        "quantity": pl.Float64,
        "value": pl.Float64,
    }
    tables["events"] = pl.DataFrame(events, schema=schema)
    given = (GivenTable(one, one.name, tables[one.name].lazy()) for one in TABLES if one.name in tables)
    dataset = assemble("test", given)
    return read_histories(dataset, master_catalogue(dataset, RECIPE, START), 0)


def test_an_event_is_read_into_rows_codes_and_seconds() -> None:
    histories = read(
        [
            {
                "customer_id": "c",
                "type": "redemption",
                "at": at(1.9),
                "product_id": "p1",
                "offer_id": "o1",
                "location": "l1",
                "channel": "web",
                "quantity": 3.0,
                "value": 1.5,
            }
        ],
        products=pl.DataFrame({"product_id": ["p0", "p1"]}),
        locations=pl.DataFrame({"location": ["l1", "l0"]}),
        offers=pl.DataFrame({"offer_id": ["o0", "o1"], "products": [["p0"]] * 2, "starts": [START] * 2}).with_columns(
            ends="starts"
        ),
    )
    (event,) = histories[0].events_E
    assert event["at"] == int(START.timestamp()) + 1
    assert (event["product"], event["offer"], event["location"], event["channel"]) == (1, 1, 0, 1)
    assert (event["quantity"], event["value"], event["type"]) == (3.0, 1.5, EVENT_CODES["redemption"])


def test_what_was_not_given_is_unknown() -> None:
    histories = read([{"customer_id": "c", "type": "view", "at": START, "product_id": "p"}])
    (event,) = histories[0].events_E
    assert (event["offer"], event["location"], event["channel"]) == (-1, -1, -1)
    assert event["quantity"] == 1
    assert np.isnan(event["value"])
    histories = read([{"customer_id": "c", "type": "view", "at": START, "offer_id": "o"}])
    # Without a table of offers there are none, but the event was there.
    (event,) = histories[0].events_E
    assert (event["product"], event["offer"]) == (-1, -1)


def test_each_customer_owns_their_events_the_oldest_first_in_the_order_of_the_table_within_a_second() -> None:
    rows: list[tuple[str, float, str]] = [
        ("b", 5, "p0"),
        ("a", 9, "p1"),
        ("b", 1, "p2"),
        ("b", 5.4, "p3"),
        ("a", 2, "p4"),
        ("b", 5.2, "p1"),
    ]
    histories = read(
        [{"customer_id": who, "type": "view", "at": at(when), "product_id": what} for who, when, what in rows],
        customers=pl.DataFrame({"customer_id": ["b", "nobody", "a"]}),
        products=pl.DataFrame({"product_id": [f"p{row}" for row in range(5)]}),
    )
    products = {one: histories.of(one).events_E["product"].tolist() for one in ("a", "b", "nobody", "stranger")}
    assert products == {"a": [4, 1], "b": [2, 0, 3, 1], "nobody": [], "stranger": []}
    assert histories.customers.ids() == ["b", "nobody", "a"]


def test_nothing_lies_between_the_fields_of_a_record() -> None:
    """Else whatever was in memory would get into the snapshot, and equal histories would have unequal bytes."""
    assert sum(field[0].itemsize for field in (EVENT.fields or {}).values()) == EVENT.itemsize


def test_customers_whom_only_events_name_follow_the_listed_ones_without_attributes() -> None:
    histories = read(
        [{"customer_id": who, "type": "view", "at": START, "product_id": "p"} for who in ("z", "m", "a", "z")],
        customers=pl.DataFrame({"customer_id": ["m"], "age": ["30"], "audiences": [["gold"]]}),
    )
    assert histories.customers.ids() == ["m", "a", "z"]
    assert np.diff(histories.offsets).tolist() == [1, 1, 2]
    assert histories.attributes_CA.tolist() == [[1], [0], [0]]
    assert histories.of("z").audiences == ()


def test_attributes_are_codes_and_audiences_are_those_that_offers_name() -> None:
    offers = pl.DataFrame(
        {
            "offer_id": ["o0", "o1", "o2"],
            "products": [["p"]] * 3,
            "starts": [START] * 3,
            "ends": [START] * 3,
            "audience": ["vip", None, "new"],
        }
    )
    customers = pl.DataFrame(
        {
            "customer_id": ["a", "b", "c"],
            "audiences": [["vip", "unused", "new"], None, ["unused"]],
            "age": ["old", None, "young"],
            "sex": [None, "x", None],
        }
    )
    histories = read(
        [{"customer_id": "a", "type": "view", "at": START, "product_id": "p"}], offers=offers, customers=customers
    )
    assert histories.attribute_names == ("age", "sex")
    assert histories.attribute_labels == (("old", "young"), ("x",))
    assert histories.attribute_sizes == (3, 2)
    assert histories.attributes_CA.tolist() == [[1, 0], [0, 1], [2, 0]]
    assert [histories.of(one).audiences for one in "abc"] == [(0, 1), (), ()]


BOUGHT: Row = {"type": "purchase", "product_id": "p1"}
PRODUCTS = pl.DataFrame({"product_id": ["p0", "p1"]})


def seconds(histories: Histories) -> list[int]:
    return (histories.sold_to_guests()["at"] - int(START.timestamp())).tolist()


def test_guests_are_no_customers_and_what_they_buy_is_kept_apart() -> None:
    histories = read(
        [
            BOUGHT | {"at": at(50), "visit": "r2"},
            BOUGHT | {"at": at(10), "visit": "r1"},
            BOUGHT | {"at": at(20), "visit": "r1", "product_id": "p0"},
            BOUGHT | {"at": at(25), "visit": "r1"},
            BOUGHT | {"at": at(30)},
            BOUGHT | {"at": at(30)},
            BOUGHT | {"at": at(40), "type": "view"},
            BOUGHT | {"at": at(60), "customer_id": "c"},
        ],
        products=PRODUCTS,
    )
    assert histories.customers.ids() == ["c"]
    assert (len(histories.events), len(histories.sold())) == (1, 1)
    assert seconds(histories) == [10, 20, 30, 30, 50]  # two lines of p1 on one receipt are one purchase
    _, visits = histories.bought_by_guests()
    assert len(set(visits.tolist())) == 4
    assert visits[0] == visits[1]
    assert seconds(histories.before(int(START.timestamp()) + 40)) == [10, 20, 30, 30]


def test_the_number_of_a_guests_receipt_counts_at_its_location_and_on_its_day() -> None:
    histories = read(
        [
            BOUGHT | {"at": at(day * 86_400 + line), "visit": "1", "location": shop, "product_id": f"p{line}"}
            for shop in ("l0", "l1")
            for day in (0, 1)
            for line in (0, 1)
        ],
        products=PRODUCTS,
    )
    places, visits = histories.bought_by_guests()
    by_visit = [set(histories.guests[places[visits == visit]]["product"].tolist()) for visit in set(visits.tolist())]
    assert by_visit == [{0, 1}] * 4


def test_what_guests_bring_back_was_not_sold_from_then_on() -> None:
    histories = read(
        [BOUGHT | {"at": at(10)}, BOUGHT | {"at": at(20)}, BOUGHT | {"at": at(30), "type": "return"}],
        products=PRODUCTS,
    )
    assert seconds(histories) == [10]
    assert seconds(histories.before(int(START.timestamp()) + 30)) == [10, 20]


def baskets(rows: Sequence[tuple[float, str | None, str]], pause: int = 0) -> list[list[int]]:
    """The baskets of one customer, from (seconds, visit, product)."""
    histories = read(
        [BOUGHT | {"customer_id": "c", "at": at(when), "visit": visit, "product_id": one} for when, visit, one in rows],
        products=pl.DataFrame({"product_id": [f"p{one}" for one in range(6)]}),
    )
    found = Baskets.of(replace(histories, visit_pause=pause))
    return [found.products[row].tolist() for row in range(len(found))]


def test_a_visit_that_is_named_is_one_basket_whatever_the_pause() -> None:
    rows = [(0, "v1", "p0"), (900, "v1", "p1"), (960, "v2", "p2"), (5_000, "v2", "p3")]
    for pause in (0, 60, 1_800):
        assert baskets(rows, pause) == [[0, 1], [2, 3]]


def test_visits_of_one_moment_are_told_apart_by_their_names() -> None:
    assert baskets([(0, "v1", "p0"), (0, "v2", "p1"), (0, "v1", "p2"), (0, "v2", "p3")]) == [[0, 2], [1, 3]]


def test_a_name_that_is_used_again_on_another_day_is_another_visit() -> None:
    rows = [(day * 86_400, "v1", f"p{day * 2 + line}") for day in range(3) for line in range(2)]
    assert baskets(rows) == [[0, 1], [2, 3], [4, 5]]


def test_purchases_without_a_name_are_of_one_visit_by_their_pauses() -> None:
    rows = [(0, None, "p0"), (50, None, "p1"), (110, None, "p2"), (400, "v1", "p3"), (410, None, "p4")]
    assert baskets(rows, 60) == [[0, 1, 2], [3, 4]]
    assert baskets(rows, 0) == [[0], [1], [2], [3], [4]]


def test_no_visit_lasts_a_day() -> None:
    rows = [(hour * 3_600, None, f"p{hour // 10}") for hour in range(60)]
    assert baskets(rows, 3_600) == [[0, 1, 2], [2, 3, 4], [4, 5]]


def test_what_is_bought_later_in_a_visit_is_not_known_earlier() -> None:
    histories = read(
        [BOUGHT | {"customer_id": "c", "at": at(when), "visit": "v"} for when in (0, 100)], products=PRODUCTS
    )
    earlier = histories.before(int(START.timestamp()) + 50)
    assert (earlier.events["at"] - int(START.timestamp())).tolist() == [0]


def test_guests_are_not_saved_and_the_pause_of_a_visit_is(tmp_path: Path) -> None:
    histories = replace(read([BOUGHT | {"at": at(0)}]), visit_pause=90)
    histories.save(tmp_path)
    loaded = Histories.load(tmp_path)
    assert (len(loaded.guests), loaded.visit_pause, loaded.of("c").visit_pause) == (0, 90, 90)
