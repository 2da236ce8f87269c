"""Events read as every customer's past."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from embeddings.catalog import ChannelRule
from embeddings.history import EVENT, EVENT_CODES, Histories
from embeddings.tables import TABLES
from training.catalogue import master_catalog
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
    return read_histories(dataset, master_catalog(dataset, RECIPE, START), 0)


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


def test_guests_are_nobody_and_what_they_buy_is_kept_apart() -> None:
    bought: Row = {"type": "purchase", "product_id": "p1"}
    histories = read(
        [
            bought | {"at": at(50), "visit": "r2"},
            bought | {"at": at(10), "visit": "r1", "location": "l1"},
            bought | {"at": at(20), "visit": "r1", "product_id": "p0"},
            bought | {"at": at(30)},
            bought | {"at": at(40), "type": "view"},
            bought | {"at": at(60), "customer_id": "c"},
        ],
        products=pl.DataFrame({"product_id": ["p0", "p1"]}),
        locations=pl.DataFrame({"location": ["l1"]}),
    )
    assert histories.customers.ids() == ["c"]
    assert len(histories.events) == 1
    assert (histories.guests["at"] - int(START.timestamp())).tolist() == [10, 10, 30, 50]
    assert histories.guests["product"].tolist() == [1, 0, 1, 1]
    first, second, nowhere, other = histories.guest_visits.tolist()
    assert first == second != other
    assert nowhere == -1
    assert sorted(histories.sold()["product"].tolist()) == [0, 1, 1, 1, 1]
    earlier = histories.before(int(START.timestamp()) + 40)
    assert (len(earlier.events), len(earlier.guests), len(earlier.guest_visits)) == (0, 3, 3)


def test_guests_are_not_saved_and_the_gap_between_visits_is(tmp_path: Path) -> None:
    histories = replace(read([{"type": "purchase", "product_id": "p1", "at": at(0)}]), visit_gap=90)
    histories.save(tmp_path)
    loaded = Histories.load(tmp_path)
    assert (len(loaded.guests), loaded.visit_gap, loaded.of("c").visit_gap) == (0, 90, 90)
