"""The data contract: what is read, what is derived, and that every broken rule is reported, all at once."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from embeddings.catalogue.tables import EVENTS, TABLES
from embeddings.errors import InvalidInput, InvalidTables
from training.config import TablesConfig
from training.datasets import as_of, open_dataset
from training.datasets.cast import DTYPES
from training.datasets.directory import read_directory

CHANNELS = ("store", "web")
NOW = datetime(2025, 6, 1, tzinfo=UTC)
CONTRACT = Path(__file__).parents[4] / "docs" / "data-contract.md"
TABLE_NAMES = ("customers", "products", "locations", "offers", "promotions", "events")

VALID = {
    "customers": "customer_id,audiences,age\nc1,gold|new,30-39\nc2,,\n",
    "products": (
        "product_id,price,recommendable,locations,in_stock,out_of_stock_at,withdrawn_at,brand\n"
        "p1,1.5,True,l1|l2,true,l2,,Acme\n"
        "p2,,false,,,,l1|l2,\n"
    ),
    "locations": "location,latitude,longitude,region,closed\nl1,52.5,13.4,north,\nl2,,,,true\n",
    "offers": (
        "offer_id,kind,products,starts,ends,channels,locations,audience,uses,name,campaign,status\n"
        "o1,coupon,p1|p2,2025-01-01T00:00:00Z,2025-02-01T00:00:00+01:00,web,l1,gold,3,Two for one,spring,paused\n"
        "o2,,p1,2025-01-01T00:00:00Z,2025-01-01T00:00:00Z,,,,,,,\n"
    ),
    "promotions": ("channel,location,product_id,starts,ends\nstore,l1,p1,2025-01-01T00:00:00Z,2025-01-08T00:00:00Z\n"),
    "events": (
        "customer_id,type,at,product_id,offer_id,location,channel,visit,quantity,value\n"
        "c1,purchase,2025-01-02T10:00:00Z,p1,,l1,store,v1,2,3.0\n"
        "c3,redemption,2025-01-02T12:00:00.5+02:00,,o1,,,,,\n"
    ),
}


def write(directory: Path, tables: Mapping[str, str]) -> Path:
    for name, text in tables.items():
        (directory / f"{name}.csv").write_text(text)
    return directory


def problems(directory: Path) -> tuple[str, ...]:
    with pytest.raises(InvalidTables) as raised:
        open_dataset(str(directory), channels=CHANNELS, now=NOW)
    return raised.value.problems


def events(rows: str, header: str = "customer_id,type,at,product_id") -> dict[str, str]:
    return {"events": f"{header}\n{rows}"}


def test_every_table_is_read_in_its_declared_types(tmp_path: Path) -> None:
    dataset = open_dataset(str(write(tmp_path, VALID)), channels=CHANNELS, now=NOW)
    for table in TABLES:
        frame: pl.LazyFrame = getattr(dataset, table.name)
        schema = frame.collect_schema()
        assert {column.name: DTYPES[column.dtype] for column in table.columns}.items() <= schema.items()
    assert dataset.customers.collect().rows() == [("c1", ["gold", "new"], "30-39"), ("c2", None, None)]
    assert dataset.products.collect().rows() == [
        ("p1", 1.5, True, ["l1", "l2"], True, ["l2"], None, "Acme"),
        ("p2", None, False, None, None, None, ["l1", "l2"], None),
    ]
    assert dataset.offers.collect()["ends"][0] == datetime(2025, 1, 31, 23, tzinfo=UTC)
    assert dataset.events.collect()["at"][1] == datetime(2025, 1, 2, 10, 0, 0, 500_000, tzinfo=UTC)
    assert dataset.notes == ()


def test_csv_and_parquet_are_equal(tmp_path: Path) -> None:
    from_csv = read_directory(write(tmp_path, VALID))
    parquet = tmp_path / "parquet"
    parquet.mkdir()
    for name in TABLE_NAMES:
        getattr(from_csv, name).collect().write_parquet(parquet / f"{name}.parquet")
    from_parquet = open_dataset(str(parquet), channels=CHANNELS, now=NOW)
    for name in TABLE_NAMES:
        assert_frame_equal(getattr(from_csv, name), getattr(from_parquet, name))


def test_parquet_integers_are_ids_and_any_zone_becomes_utc(tmp_path: Path) -> None:
    at = pl.Series(["2025-01-02T10:00:00+01:00"]).str.to_datetime(time_zone="Europe/Berlin", time_unit="ns")
    pl.DataFrame({"customer_id": [7], "type": ["view"], "at": at, "product_id": [9]}).with_columns(
        pl.col("type").cast(pl.Categorical)
    ).write_parquet(tmp_path / "events.parquet")
    pl.DataFrame({"customer_id": [7], "audiences": [[1, 2]], "segment": [3]}).write_parquet(
        tmp_path / "customers.parquet"
    )
    dataset = open_dataset(str(tmp_path), channels=CHANNELS, now=NOW)
    row = dataset.events.collect().row(0, named=True)
    assert (row["customer_id"], row["type"], row["product_id"]) == ("7", "view", "9")
    assert row["at"] == datetime(2025, 1, 2, 9, tzinfo=UTC)
    assert dataset.customers.collect().rows() == [("7", ["1", "2"], "3")]


def test_empty_text_is_null_in_both_formats(tmp_path: Path) -> None:
    write(tmp_path, events('c1,view,2025-01-02T10:00:00Z,p1,""\n', "customer_id,type,at,product_id,channel"))
    pl.DataFrame({"product_id": ["p1"], "brand": [""]}).write_parquet(tmp_path / "products.parquet")
    dataset = open_dataset(str(tmp_path), channels=CHANNELS, now=NOW)
    assert dataset.events.collect()["channel"].to_list() == [None]
    assert dataset.products.collect()["brand"].to_list() == [None]


def test_absent_tables_are_derived_from_the_ids_that_others_mention(tmp_path: Path) -> None:
    given = {name: VALID[name] for name in ("offers", "promotions", "events")}
    dataset = open_dataset(str(write(tmp_path, given)), channels=CHANNELS, now=NOW)
    assert dataset.customers.collect()["customer_id"].to_list() == ["c1", "c3"]
    assert dataset.products.collect()["product_id"].to_list() == ["p1", "p2"]
    assert dataset.locations.collect()["location"].to_list() == ["l1"]
    assert dataset.locations.collect_schema().names() == ["location", "latitude", "longitude", "region", "closed"]


def test_events_are_enough_and_references_to_absent_tables_do_not_apply(tmp_path: Path) -> None:
    dataset = open_dataset(str(write(tmp_path, {"events": VALID["events"]})), channels=CHANNELS, now=NOW)
    assert dataset.products.collect()["product_id"].to_list() == ["p1"]
    for name in ("offers", "promotions"):
        assert getattr(dataset, name).collect().height == 0


def test_as_of_a_moment_later_events_leave_no_trace(tmp_path: Path) -> None:
    rows = "c1,view,2025-01-01T00:00:00Z,p1\nc2,view,2025-01-02T00:00:00Z,p2\n"
    dataset = open_dataset(str(write(tmp_path, events(rows))), channels=CHANNELS, now=NOW)
    past = as_of(dataset, datetime(2025, 1, 2, tzinfo=UTC))
    assert past.events.collect()["product_id"].to_list() == ["p1"]
    assert past.products.collect()["product_id"].to_list() == ["p1"]
    assert past.customers.collect()["customer_id"].to_list() == ["c1"]


def test_other_files_are_ignored_and_named_where_they_may_be_tables(tmp_path: Path) -> None:
    write(tmp_path, VALID)
    (tmp_path / "notes.csv").write_text("anything")
    (tmp_path / "README.md").write_text("anything")
    dataset = open_dataset(str(tmp_path), channels=CHANNELS, now=NOW)
    assert dataset.unused == (
        "notes.csv is not read: tables are customers, products, locations, offers, events, promotions",
    )


def test_a_table_in_both_formats_is_refused(tmp_path: Path) -> None:
    write(tmp_path, VALID)
    pl.DataFrame({"location": ["l1"]}).write_parquet(tmp_path / "locations.parquet")
    with pytest.raises(InvalidInput, match=r"locations\.parquet and locations\.csv: remove one"):
        open_dataset(str(tmp_path), channels=CHANNELS, now=NOW)


def test_an_unknown_source_is_refused_with_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="complete-journey, complete-journey-today or a directory"):
        open_dataset(str(tmp_path / "nowhere"), channels=CHANNELS, now=NOW)


EVENT_COLUMNS = [column.name for column in EVENTS.columns]
TIME = "a time with its zone, such as 2017-12-05T10:00:00Z"
NAIVE = "or, where all times are of one zone, time_zone under [tables] in the recipe (Spark's INT96 are UTC)"
FLOAT = "as whole numbers or text where it is an id, in a few ranges such as 10-20 where it is a quantity"
BROKEN = {
    "required value": ("customers", "c2,,", ",gold,", "row 2, column customer_id: no value, expected text"),
    "number": ("products", "1.5", "1 EUR", "row 1, column price: '1 EUR', expected a finite number"),
    "finite": ("events", ",3.0", ",nan", "row 1, column value: 'nan', expected a finite number"),
    "above": ("events", ",2,", ",0,", "row 1, column quantity: '0', expected a number above 0"),
    "at least": ("products", "1.5", "-1", "row 1, column price: '-1', expected a number of at least 0"),
    "both bounds": (
        "locations",
        "52.5",
        "91",
        "row 1, column latitude: '91', expected a number of at least -90 and of at most 90",
    ),
    "whole": (
        "offers",
        "gold,3",
        "gold,2.5",
        "row 1, column uses: '2.5', expected a number of at least 1 and of at most 100,000 and without a fraction",
    ),
    "flag": ("products", "True", "yes", "row 1, column recommendable: 'yes', expected true or false"),
    "time": (
        "events",
        "2025-01-02T10:00:00Z",
        "yesterday",
        f"row 1, column at: 'yesterday', expected {TIME}",
    ),
    "zone": (
        "events",
        "2025-01-02T10:00:00Z",
        "2025-01-02T10:00:00",
        f"row 1, column at: '2025-01-02T10:00:00', expected {TIME}",
    ),
    "list": (
        "customers",
        "gold|new",
        "gold||new",
        "row 1, column audiences: 'gold||new', expected no empty entry",
    ),
    "one of": (
        "offers",
        "o1,coupon",
        "o1,gift",
        "row 1, column kind: 'gift', expected one of coupon, promotion",
    ),
    "event type": (
        "events",
        "purchase",
        "bought",
        "row 1, column type: 'bought', expected one of impression, ",
    ),
    "unique": (
        "products",
        "p2,",
        "p1,",
        "row 2, column product_id: 'p1', expected every product_id only once",
    ),
    "reference": (
        "events",
        ",p1,,l1",
        ",p1,,l9",
        "row 1, column location: 'l9', expected a location that locations.csv holds",
    ),
    "rounded": (
        "customers",
        "c2,,",
        "4.00635E+12,,",
        "row 2, column customer_id: '4.00635E+12', expected all digits of the id",
    ),
    "list reference": (
        "offers",
        "p1|p2",
        "p1|p8|p9",
        "row 1, column products: 'p8|p9', expected a product_id that products.csv holds",
    ),
    "ordered": (
        "promotions",
        "2025-01-08",
        "2024-01-08",
        "row 1, columns starts, ends: '2025-01-01T00:00:00Z', '2024-01-08T00:00:00Z', expected starts",
    ),
    "any of": (
        "events",
        ",p1,,l1",
        ",,,l1",
        "row 1, columns product_id, offer_id: no value, no value, expected a value in at least one of them",
    ),
    "channel": (
        "events",
        "store",
        "till",
        "row 1, column channel: 'till', expected a channel that the recipe declares: store, web",
    ),
    "offer channel": (
        "offers",
        ",web,",
        ",tv,",
        "row 1, column channels: 'tv', expected a channel that the recipe",
    ),
    "promotion channel": (
        "promotions",
        "store",
        "tv",
        "row 1, column channel: 'tv', expected a channel that the",
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_one_broken_rule_is_one_sentence(tmp_path: Path, rule: str) -> None:
    table, valid, broken, expected = BROKEN[rule]
    assert VALID[table].count(valid) == 1 or rule == "unique"
    found = problems(write(tmp_path, VALID | {table: VALID[table].replace(valid, broken, 1)}))
    # A product that is gone is missed by those that refer to it; nothing else has company.
    assert [sentence for sentence in found if sentence.startswith(f"{table}.csv, {expected}")] == [found[0]]
    assert len(found) == (2 if rule == "unique" else 1), found


IDS = [
    (table.name, column.name)
    for table in TABLES
    for column in table.columns
    if column.dtype in ("text", "list") and not column.one_of
]


@pytest.mark.parametrize("bad", ["x" * 257, "x\0", "x\n", "\x1b[2J", "x\x85"], ids=ascii)
@pytest.mark.parametrize(("table", "column"), IDS)
def test_an_id_that_no_route_takes_is_refused_by_row(tmp_path: Path, table: str, column: str, bad: str) -> None:
    frames = {name: pl.read_csv(text.encode(), infer_schema=False) for name, text in VALID.items()}
    frames[table] = frames[table].with_columns(
        pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(bad)).otherwise(pl.col(column)).alias(column)
    )
    for name, frame in frames.items():
        frame.write_parquet(tmp_path / f"{name}.parquet")
    found = problems(tmp_path)
    assert any(sentence.startswith(f"{table}.parquet, row 1, column {column}: '") for sentence in found), found
    assert all(sentence.isprintable() for sentence in found)


def test_a_stranger_that_is_no_id_either_is_reported_once(tmp_path: Path) -> None:
    given = VALID | {"events": VALID["events"].replace(",p1,,l1", f",p1,,{'l' * 300}")}
    (sentence,) = problems(write(tmp_path, given))
    assert "expected a location that locations.csv holds" in sentence


def test_columns_that_are_missing_unknown_or_mistyped(tmp_path: Path) -> None:
    pl.DataFrame(
        {
            "customer_id": [1.5],
            "type": ["view"],
            "at": [datetime(2025, 1, 2)],  # noqa: DTZ001 the case under test
            "product_id": ["p1"],
            "quantity": [True],
            "basket": ["b1"],
        }
    ).write_parquet(tmp_path / "events.parquet")
    pl.DataFrame({"customer_id": ["1"], "age": [1.5]}).write_parquet(tmp_path / "customers.parquet")
    write(tmp_path, {"products": "id,price\np1,1\n", "locations": "location,brand\nl1,x\n"})
    assert problems(tmp_path) == (
        "customers.parquet, column age: the type is Float64, expected text, as in every attribute; " + FLOAT,
        "products.csv: column product_id is missing, expected text; is it what the file calls id?",
        "locations.csv: column brand is unknown, expected only location, latitude, longitude, region, closed",
        "events.parquet, column customer_id: the type is Float64, expected text; " + FLOAT.partition(",")[0],
        f"events.parquet, column at: the type is Datetime(time_unit='us', time_zone=None), expected {TIME}; {NAIVE}",
        "events.parquet, column quantity: the type is Boolean, expected a finite number",
        f"events.parquet: column basket is unknown, expected only {', '.join(EVENT_COLUMNS)}; did you mean visit?",
    )


def test_a_missing_or_empty_events_table(tmp_path: Path) -> None:
    assert problems(tmp_path) == ("events: the table is missing, expected events.parquet, events.csv or events.csv.gz",)
    write(tmp_path, {"events": "customer_id,type,at\n", "locations": "location\n"})
    assert problems(tmp_path) == (
        "events.csv: columns product_id, offer_id are missing, expected at least one of them",
        "events.csv: the table is empty, expected at least one row",
    )


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    tables = dict(VALID)
    for rule in ("required value", "number", "both bounds", "one of", "ordered", "time", "channel", "above"):
        table, valid, broken, _ = BROKEN[rule]
        tables[table] = tables[table].replace(valid, broken, 1)
    found = problems(write(tmp_path, tables))
    assert len(found) == 8
    assert {sentence.partition(".")[0] for sentence in found} == set(TABLE_NAMES)


def test_twenty_values_of_each_kind_with_their_first_row_then_the_count(tmp_path: Path) -> None:
    rows = "".join(f"c1,view,2025-01-02T10:00:00Z,p1,{-i}\n" for i in range(25))
    rows += "".join(f"c1,,2025-01-02T10:00:00Z,p1,{i + 1}\n" for i in range(20))
    found = problems(write(tmp_path, events(rows, "customer_id,type,at,product_id,quantity")))
    nameless = [sentence for sentence in found if "column type" in sentence]
    negative = [sentence for sentence in found if "quantity" in sentence]
    assert nameless == ["events.csv, row 26, column type: no value in 20 rows, this the first, expected text"]
    assert len(negative) == 22
    expected = "a number above 0 and of at most 1,000,000,000"
    assert negative[0].startswith(
        f"events.csv, row 2, column quantity: '-1', expected {expected}; or, where it was taken"
    )
    assert negative[19].startswith(f"events.csv, row 21, column quantity: '-20', expected {expected}; or")
    assert negative[20].startswith(f"events.csv, column quantity: 24 such rows in all, expected {expected}; or")
    assert negative[21] == f"events.csv, row 1, column quantity: '0', expected {expected}"
    assert len(found) == 23


def test_strangers_are_counted_by_row(tmp_path: Path) -> None:
    rows = "".join(f"c1,view,2025-01-02T10:00:00Z,p{i % 3}\n" for i in range(60))
    write(tmp_path, events(rows) | {"products": "product_id\np0\n"})
    with pytest.raises(InvalidTables) as raised:
        open_dataset(str(tmp_path), channels=CHANNELS, now=NOW, tables=TablesConfig(unlisted_products="refuse"))
    found = raised.value.problems
    assert found == (
        (
            "events.csv, row 2, column product_id: 'p1' in 20 rows, this the first, expected a product_id that "
            "products.csv holds"
        ),
        (
            "events.csv, row 3, column product_id: 'p2' in 20 rows, this the first, expected a product_id that "
            "products.csv holds"
        ),
    )


def test_products_that_events_alone_name_follow_those_listed_without_attributes(tmp_path: Path) -> None:
    rows = "c1,view,2025-01-02T10:00:00Z,p9\nc1,view,2025-01-03T10:00:00Z,p2\n"
    write(tmp_path, events(rows) | {"products": "product_id,brand\np2,Acme\n"})
    dataset = open_dataset(str(tmp_path), channels=CHANNELS, now=NOW)
    assert dataset.products.select("product_id", "brand").collect().rows() == [("p2", "Acme"), ("p9", None)]
    before = as_of(dataset, datetime(2025, 1, 2, tzinfo=UTC))
    assert before.products.select("product_id").collect().rows() == [("p2",)]


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "events.parquet").write_bytes(b"customer_id,type,at\n")
    (found,) = problems(tmp_path)
    assert found.startswith("events.parquet: cannot be read (")
    assert "expected Parquet" in found


def test_a_broken_referred_table_is_reported_once(tmp_path: Path) -> None:
    (found,) = problems(write(tmp_path, VALID | {"locations": "location\nl1\nl2,too,many\n"}))
    assert found.startswith("locations.csv, row 2 (line 3): expected 1 fields, as in the header, got 3; ")


def test_long_values_are_shortened(tmp_path: Path) -> None:
    (found,) = problems(write(tmp_path, events(f"c1,{'x' * 500},2025-01-02T10:00:00Z,p1\n")))
    assert len(found) < 300


def test_the_contract_names_every_table_and_column_with_its_type_and_meaning() -> None:
    text = CONTRACT.read_text()
    sections = {part.split("\n", 1)[0].strip("` "): part for part in text.split("\n### ")}
    for table in TABLES:
        for column in table.columns:
            needed = "required" if column.required else "optional"
            row = f"| `{column.name}` | {column.dtype} | {needed} | {column.means}"
            assert row in sections[table.name], row
            for word in column.one_of:
                assert f"`{word}`" in sections[table.name]
            if column.refers_to is not None:
                assert f"in `{column.refers_to[0]}`" in sections[table.name]


def test_the_error_report_in_the_contract_is_real(tmp_path: Path) -> None:
    text = CONTRACT.read_text()
    csv, report = re.findall(r"```(?:csv|text)\n(.*?)```", text, flags=re.DOTALL)[-2:]
    write(tmp_path, {"events": csv})
    with pytest.raises(InvalidTables) as raised:
        open_dataset(str(tmp_path), channels=("email", "store", "web"), now=NOW)
    assert str(raised.value) + "\n" == report
