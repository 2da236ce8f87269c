"""The forms in which people have tables: what is read, and what is refused with its file, its row and what to do."""

import gzip
import os
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from embeddings.errors import InvalidInput, InvalidTables
from training.config import TablesConfig
from training.datasets import Dataset, open_dataset

NOW = datetime(2025, 6, 1, tzinfo=UTC)
HEADER = "customer_id,type,at,product_id"
EVENTS = f"{HEADER}\nc1,view,2025-01-02T10:00:00Z,p1\nc2,purchase,2025-01-03T10:00:00Z,p2\n"
OFFERS = "offer_id,products,starts,ends\no1,p1,2025-01-01T00:00:00Z,2025-02-01T00:00:00Z\n"


def opened(folder: Path, tables: TablesConfig | None = None) -> Dataset:
    return open_dataset(str(folder), channels=("web",), now=NOW, tables=tables)


def problems(folder: Path, tables: TablesConfig | None = None) -> tuple[str, ...]:
    with pytest.raises(InvalidTables) as raised:
        opened(folder, tables)
    return raised.value.problems


def products(folder: Path, text: str | bytes) -> Path:
    (folder / "events.csv").write_text(EVENTS)
    (folder / "products.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


NAMED = "product_id,name,brand\n"
DOUBTFUL = {
    "a quote escaped by a backslash": (
        NAMED + '1,"12\\" pipe",A\n2,"3\\" pipe",B\n',
        "products.csv, row 1 (line 2): a quoted field goes on after its closing quote",
    ),
    "inch marks": (
        NAMED + '1,12" pipe,A\n',
        "products.csv, row 1 (line 2): a quote stands in a field that is not quoted",
    ),
    "a word in quotes": (
        NAMED + '1,the "best" one,A\n',
        "row 1 (line 2): a quote stands in a field that is not quoted",
    ),
    "a quote that never ends": (NAMED + '1,x,A\n2,"y,B\n3,z,C\n', "row 2 (line 4): a quoted field begins in this row"),
    "a comma without quotes": (
        NAMED + "1,x,A\n2,y, or z,B\n",
        "row 2 (line 3): expected 3 fields, as in the header, got 4",
    ),
    "a field too few": (NAMED + "1,x,A\n2,y\n", "row 2 (line 3): expected 3 fields, as in the header, got 2"),
    "an empty line": (NAMED + "1,x,A\n\n2,y,B\n", "row 2 (line 3): the line is empty"),
    "a line break in quotes counts for lines alone": (NAMED + '1,"x\ny",A\n2,y\n', "row 2 (line 4): expected 3 fields"),
    "Latin-1": (NAMED.encode() + "1,é,A\n".encode("latin-1"), "row 1 (line 2): is not UTF-8 (byte 0xE9)"),
    "a NUL": (NAMED + "1,x,A\n2,\0,B\n", "row 2 (line 3): holds a NUL byte"),
    "line ends of CR alone": (NAMED.replace("\n", "\r") + "1,x,A\r", "header (line 1): a line ends in CR alone"),
    "semicolons": (NAMED.replace(",", ";") + "1;x;A\n", "holds ';' and no ','"),
    "a column twice": ("product_id,name,name\n1,x,y\n", "header (line 1): column name is there twice"),
    "a thousand columns and more": (
        ",".join(f"c{one}" for one in range(1_001)) + "\n",
        "header (line 1): the header names about 1,001 columns; expected at most 1,000",
    ),
    "a column with a very long name": (
        "product_id," + "x" * 200_000 + "\n1,y\n",
        "header (line 1): a column's name is too long",
    ),
    "a column whose name does not show": (
        "product_id,na\x1b[2Jme\n1,x\n",
        r"column 'na\x1b[2Jme' cannot be an attribute; expected a name of letters and digits",
    ),
    "a row instead of a header": (
        "1001,x,A\n1002,y,B\n",
        "products.csv: no column has a name that a table of products has",
    ),
    "a column without a name": ("product_id,name,\n1,x,y\n", "header (line 1): column 3 has no name"),
    "blanks in the header": ("product_id, name\n1,x\n", "blanks around the name of column ' name'; expected 'name'"),
    "a zip": (b"PK\x03\x04" + bytes(range(200)), "products.csv: is a zip archive, as workbooks of Excel are"),
    "Parquet": (b"PAR1" + bytes(range(200)), "products.csv: is Parquet; give it a name that ends in .parquet"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(range(200)), "products.csv: is compressed by zstd"),
    "UTF-16 without its mark": (NAMED.encode("utf-16-le"), "holds a NUL byte, as UTF-16 without its mark does"),
    "a mark of UTF-8 twice": ("\ufeff\ufeff" + NAMED + "1,x,A\n", "the mark of UTF-8 (BOM) is there twice"),
    "a line for Excel": ("sep=,\n" + NAMED + "1,x,A\n", "'sep=,' is meant for Excel alone; remove the line"),
    "JSON": ('{"product_id": "1"}\n', "products.csv: is JSON"),
    "a page": ("<html>Log in</html>\n", "products.csv: is HTML or XML"),
    "compressed twice": (gzip.compress(gzip.compress(NAMED.encode())), "is compressed twice"),
    "compressed Parquet": (gzip.compress(b"PAR1" + bytes(200)), "is Parquet"),
    "an empty first line": ("\n" + NAMED + "1,x,A\n", "products.csv, header (line 1): the first line is empty"),
    "nothing": ("", "products.csv, header (line 1): the file is empty"),
    "a damaged archive": (
        gzip.compress((NAMED + "1,x,A\n").encode())[:12] + b"\xff" * 40,
        "the compressed file is damaged or cut off",
    ),
    "a cut-off archive": (
        gzip.compress((NAMED + "1,x,A\n").encode())[:-9],
        "the compressed file is damaged or cut off",
    ),
}


@pytest.mark.parametrize("kind", DOUBTFUL)
def test_a_file_in_doubt_is_refused_with_its_row(tmp_path: Path, kind: str) -> None:
    text, expected = DOUBTFUL[kind]
    found = problems(products(tmp_path, text))
    assert any(expected in sentence for sentence in found), found
    assert all(sentence.startswith("products.csv") for sentence in found), found


READ = {
    "with a mark of UTF-8": ("\ufeff" + NAMED + "1,x,A\n").encode(),
    "lines of Windows": (NAMED + "1,x,A\n").replace("\n", "\r\n").encode(),
    "without a last line end": (NAMED + "1,x,A").encode(),
    "empty lines at the end": (NAMED + "1,x,A\n\n\r\n").encode(),
    "all in quotes": b'"product_id","name","brand"\n"1","x","A"\n',
    "UTF-16": (NAMED + "1,x,A\n").encode("utf-16"),
    "UTF-16, the other order": b"\xfe\xff" + (NAMED + "1,x,A\n").encode("utf-16-be"),
    "gzip": gzip.compress((NAMED + "1,x,A\n").encode()),
}


@pytest.mark.parametrize("kind", READ)
def test_what_is_unambiguous_is_read(tmp_path: Path, kind: str) -> None:
    dataset = opened(products(tmp_path, READ[kind]))
    found = dataset.products.collect()
    assert found.select("product_id", "name", "brand").rows() == [
        ("1", "x", "A"),
        ("p1", None, None),
        ("p2", None, None),
    ]


def test_quotes_separators_and_line_breaks_in_quotes_are_what_they_are(tmp_path: Path) -> None:
    found = opened(products(tmp_path, NAMED + '1,"12"" pipe, ""best""\nof all",A\n')).products.collect()
    assert found["name"][0] == '12" pipe, "best"\nof all'


def test_semicolons_and_decimal_commas_are_read_where_they_are_declared(tmp_path: Path) -> None:
    products(tmp_path, "product_id;price\np1;1,50\np2;7\n")
    (tmp_path / "events.csv").write_text(EVENTS.replace(",", ";"))
    tables = TablesConfig(separator=";", decimal=",")
    assert opened(tmp_path, tables).products.collect()["price"].to_list() == [1.5, 7.0]
    products(tmp_path, "product_id;price\np1;1.000,50\n")
    (tmp_path / "events.csv").write_text(EVENTS.replace(",", ";"))
    assert problems(tmp_path, tables) == (
        "products.csv, row 1, column price: '1.000,50', expected a finite number; without marks between thousands",
    )


@pytest.mark.parametrize("name", ["events.parquet", "events"])
def test_a_folder_of_parts_is_one_table(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for place in range(3):
        at = [datetime(2025, 1, 1 + place, tzinfo=UTC)]
        frame = pl.DataFrame({"customer_id": ["c"], "type": ["view"], "at": at, "product_id": [f"p{place}"]})
        frame.write_parquet(folder / f"part-{place}.parquet")
    (folder / "_SUCCESS").touch()
    (folder / ".part-0.parquet.crc").touch()
    assert opened(tmp_path).events.collect()["product_id"].to_list() == ["p0", "p1", "p2"]


def test_a_problem_in_a_part_names_the_part_and_its_row(tmp_path: Path) -> None:
    folder = tmp_path / "events.csv"
    folder.mkdir()
    (folder / "part-0.csv").write_text(EVENTS)
    (folder / "part-1.csv").write_text(EVENTS.replace("purchase", "bought"))
    (found,) = problems(tmp_path)
    assert found.startswith("events.csv/part-1.csv, row 2, column type: 'bought', expected one of")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((), "events.csv/: the folder holds no part file"),
        (("day=1/part.csv",), "events.csv/: the folder holds day=1, which is no file"),
        (("a.csv", "b.parquet"), "events.csv/: the folder holds .csv, .parquet; expected part files of one format"),
        (("a.txt",), "events.csv/: the folder holds a.txt; expected part files of one format"),
    ],
)
def test_a_folder_that_is_no_table_is_refused_by_name(tmp_path: Path, files: tuple[str, ...], expected: str) -> None:
    (tmp_path / "events.csv").mkdir()
    for file in files:
        path = tmp_path / "events.csv" / file
        path.parent.mkdir(exist_ok=True)
        path.write_text(EVENTS)
    (found,) = problems(tmp_path)
    assert found.startswith(expected)


def test_parts_with_other_columns_are_named(tmp_path: Path) -> None:
    (tmp_path / "events.csv").mkdir()
    (tmp_path / "events.csv" / "a.csv").write_text(EVENTS)
    (tmp_path / "events.csv" / "b.csv").write_text(EVENTS.replace("product_id", "product"))
    (found,) = problems(tmp_path)
    assert found.startswith(
        "events.csv/b.csv: has other columns than events.csv/a.csv (product String, product_id String)"
    )


@pytest.mark.parametrize(
    "name", ["Offers.csv", "offer.csv", "offers.xlsx", "offers.CSV", "Offers.parquet", "oders.csv"]
)
def test_what_looks_like_a_table_and_is_not_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "events.csv").write_text(EVENTS)
    (tmp_path / name).write_text(OFFERS)
    (sentence,) = opened(tmp_path).unused
    assert sentence.startswith(f"{name} is not read: ")


def test_a_missing_table_names_what_may_be_it(tmp_path: Path) -> None:
    (tmp_path / "events.tsv").write_text(EVENTS)
    (tmp_path / "events.csv").symlink_to(tmp_path / "nowhere")
    (found,) = problems(tmp_path)
    assert found.startswith(
        "events: the table is missing, expected events.parquet, events.csv or events.csv.gz; events.csv is not read: "
    )
    assert "leads nowhere" in found
    assert "events.tsv is not read" in found


def test_a_column_in_other_letters_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(EVENTS.replace("customer_id", "Customer_ID"))
    missing, unknown = problems(tmp_path)
    assert missing == "events.csv: column customer_id is missing, expected text; is it what the file calls Customer_ID?"
    assert unknown.endswith("; did you mean customer_id?")


def test_a_table_as_file_and_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(EVENTS)
    (tmp_path / "events.parquet").mkdir()
    with pytest.raises(InvalidInput, match=r"events\.parquet and events\.csv: remove one"):
        opened(tmp_path)


MOMENT = datetime(2026, 11, 15, 15, 36, 20, tzinfo=UTC)
ZONED = [
    "2026-11-15T15:36:20Z",
    "2026-11-15 15:36:20+00",
    "2026-11-15 15:36:20.000000+00:00",
    "2026-11-15 10:36:20-05",
    "2026-11-15T21:06:20+0530",
    "2026-11-15 15:36:20 UTC",
    "2026-11-15t15:36:20z",
    "2026-11-15 15:36:20.0 UTC",
]
MINUTES = ["2026-11-15T15:36Z", "2026-11-15 16:36+01", "2026-11-15T15:36 UTC"]


@pytest.mark.parametrize("written", ZONED)
def test_a_moment_with_its_zone_is_read_however_it_is_written(tmp_path: Path, written: str) -> None:
    (tmp_path / "events.csv").write_text(f"{HEADER}\nc1,view,{written},p1\n")
    assert opened(tmp_path).events.collect()["at"].to_list() == [MOMENT]


@pytest.mark.parametrize("written", MINUTES)
def test_a_moment_may_end_with_its_minutes(tmp_path: Path, written: str) -> None:
    (tmp_path / "events.csv").write_text(f"{HEADER}\nc1,view,{written},p1\n")
    assert opened(tmp_path).events.collect()["at"].to_list() == [MOMENT.replace(second=0)]


@pytest.mark.parametrize("written", ["2026-11-15 16:36:20", "2026-11-15T16:36:20.000", "2026-11-15T16:36"])
def test_a_moment_without_a_zone_is_read_in_the_one_declared_or_refused(tmp_path: Path, written: str) -> None:
    (tmp_path / "events.csv").write_text(f"{HEADER}\nc1,view,{written},p1\n")
    berlin = TablesConfig(time_zone="Europe/Berlin")
    assert opened(tmp_path, berlin).events.collect()["at"].to_list() == [
        MOMENT.replace(second=int(written[17:19] or 0))
    ]
    (found,) = problems(tmp_path)
    assert "time_zone under [tables] in the recipe" in found


def test_of_an_hour_that_a_clock_skips_there_is_no_moment_and_of_one_shown_twice_the_first(tmp_path: Path) -> None:
    berlin = TablesConfig(time_zone="Europe/Berlin")
    (tmp_path / "events.csv").write_text(f"{HEADER}\nc1,view,2026-10-25 02:30:00,p1\n")
    assert opened(tmp_path, berlin).events.collect()["at"].to_list() == [datetime(2026, 10, 25, 0, 30, tzinfo=UTC)]
    (tmp_path / "events.csv").write_text(f"{HEADER}\nc1,view,2026-03-29 02:30:00,p1\n")
    (found,) = problems(tmp_path, berlin)
    assert found.startswith("events.csv, row 1, column at: '2026-03-29 02:30:00'")
    assert "one that the clock of Europe/Berlin shows" in found


def test_a_midnight_that_a_clock_skips_is_the_first_moment_of_its_day(tmp_path: Path) -> None:
    santiago = TablesConfig(time_zone="America/Santiago")
    begun = [datetime(2026, 9, 6, 4, tzinfo=UTC)]  # at 00:00 it became 01:00 there
    for written in ("2026-09-06", "2026-09-06 00:00:00"):
        (tmp_path / "events.csv").write_text(f"{HEADER}\nc1,view,{written},p1\n")
        assert opened(tmp_path, santiago).events.collect()["at"].to_list() == begun
    (tmp_path / "events.csv").unlink()
    for at in (date(2026, 9, 6), datetime(2026, 9, 6)):  # noqa: DTZ001 the case under test
        assert opened(parquet(tmp_path, at=[at]), santiago).events.collect()["at"].to_list() == begun


FAR = {
    "infinity of PostgreSQL": pl.Series([9223371331200000000]).cast(pl.Datetime("us", "UTC")),
    "milliseconds that are microseconds": pl.Series([1780308000000000]).cast(pl.Datetime("ms", "UTC")),
    "milliseconds that are nanoseconds": pl.Series([1780308000000000000]).cast(pl.Datetime("ms", "UTC")),
    "before the year 1": pl.Series([-62167219200000001]).cast(pl.Datetime("us", "UTC")),
    "another zone": pl.Series([9223371331200000000]).cast(pl.Datetime("us", "America/New_York")),
}


@pytest.mark.parametrize("kind", FAR)
def test_moments_outside_of_all_years_are_refused_as_they_are_counted(tmp_path: Path, kind: str) -> None:
    (found,) = problems(parquet(tmp_path, at=FAR[kind]))
    assert found.startswith(f"events.parquet, row 1, column at: '{FAR[kind].to_physical()[0]}', expected a time ")
    assert "of the years 1 to 9999" in found
    (tmp_path / "events.parquet").unlink()
    (tmp_path / "events.csv").write_text(f"{HEADER}\nc1,view,9999-12-31T23:59:59-05:00,p1\n")
    (found,) = problems(tmp_path)
    assert found.endswith("'9999-12-31T23:59:59-05:00', expected a time of the years 1 to 9999 in UTC")


def test_offers_outside_of_all_years_are_refused(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(EVENTS)
    pl.DataFrame(
        {"offer_id": ["o1"], "products": [["p1"]], "starts": FAR["infinity of PostgreSQL"], "ends": [MOMENT]}
    ).write_parquet(tmp_path / "offers.parquet")
    assert "offers.parquet, row 1, column starts: '9223371331200000000', expected" in "\n".join(problems(tmp_path))


@pytest.mark.parametrize(
    "written", ["15.11.2026 15:36", "11/15/2026", "1763220980", "46341.65", "2026-13-45T00:00:00Z"]
)
def test_a_moment_that_could_be_several_is_refused(tmp_path: Path, written: str) -> None:
    (tmp_path / "events.csv").write_text(f"{HEADER}\nc1,view,{written},p1\n")
    (found,) = problems(tmp_path, TablesConfig(time_zone="UTC"))
    assert found.startswith(f"events.csv, row 1, column at: '{written}', expected a time with its zone")


def parquet(folder: Path, **columns: object) -> Path:
    data = {"customer_id": ["c1"], "type": ["view"], "at": [MOMENT], "product_id": ["p1"]} | columns
    pl.DataFrame(data).write_parquet(folder / "events.parquet")
    return folder


def test_decimals_are_ids_where_they_are_whole(tmp_path: Path) -> None:
    decimals = pl.Series([Decimal("1029.00")], dtype=pl.Decimal(12, 2))
    assert opened(parquet(tmp_path, customer_id=decimals)).events.collect()["customer_id"].to_list() == ["1029"]
    decimals = pl.Series([Decimal("1029.50")], dtype=pl.Decimal(12, 2))
    (found,) = problems(parquet(tmp_path, customer_id=decimals))
    assert found.startswith("events.parquet, row 1, column customer_id: 1029.50, expected")


def test_times_without_a_zone_in_parquet_are_read_in_the_one_declared(tmp_path: Path) -> None:
    parquet(tmp_path, at=[MOMENT.replace(tzinfo=None)])
    assert opened(tmp_path, TablesConfig(time_zone="UTC")).events.collect()["at"].to_list() == [MOMENT]
    (found,) = problems(tmp_path)
    assert "time_zone under [tables] in the recipe (Spark's INT96 are UTC)" in found


def test_lists_as_attributes_are_refused_with_what_to_do_and_truth_values_are_text(tmp_path: Path) -> None:
    parquet(tmp_path)
    pl.DataFrame({"product_id": ["p1"], "genres": [["a", "b"]]}).write_parquet(tmp_path / "products.parquet")
    (found,) = problems(tmp_path)
    assert found.startswith("products.parquet, column genres: the type is List(String), expected text")
    assert "join it to one text" in found
    pl.DataFrame({"product_id": ["p1"], "organic": [True]}).write_parquet(tmp_path / "products.parquet")
    assert opened(tmp_path).products.collect()["organic"].to_list() == ["true"]


LISTS = ["['p1', 'p2']", '["p1","p2"]', "{p1,p2}", "p1 | p2", " p1|p2"]


@pytest.mark.parametrize("written", LISTS)
def test_a_list_that_is_written_another_way_is_refused(tmp_path: Path, written: str) -> None:
    (tmp_path / "events.csv").write_text(EVENTS)
    quoted = written.replace('"', '""')
    (tmp_path / "offers.csv").write_text(OFFERS.replace(",p1,", f',"{quoted}",'))
    (found,) = problems(tmp_path)
    assert found.startswith("offers.csv, row 1, column products: ")
    assert "separated by |, without brackets or blanks around" in found


@pytest.mark.parametrize("name", ["Recommendable", "recomendable", "location", "Price"])
def test_a_column_that_is_nearly_a_declared_one_is_no_attribute(tmp_path: Path, name: str) -> None:
    found = problems(products(tmp_path, f"product_id,{name},brand\np1,x,A\n"))
    assert len(found) == 1
    assert found[0].startswith(f"products.csv: column {name} would be an attribute; expected ")


@pytest.mark.parametrize("name", ["list_price", "brand", "colour", "kind", "store", "name", "description"])
def test_other_columns_are_attributes(tmp_path: Path, name: str) -> None:
    found = opened(products(tmp_path, f"product_id,{name}\np1,x\n")).products.collect()
    assert found[name].to_list()[0] == "x"


@pytest.mark.parametrize("name", ["productId", "Product ID", "id", "sku", "item_id"])
def test_a_key_by_another_name_is_asked_about(tmp_path: Path, name: str) -> None:
    found = problems(products(tmp_path, f"{name},brand\np1,A\n"))
    assert found[0] == f"products.csv: column product_id is missing, expected text; is it what the file calls {name}?"


@pytest.mark.parametrize("name", ["*", "^.*$", "^brand$"])
def test_a_name_that_stands_for_several_columns_is_refused(tmp_path: Path, name: str) -> None:
    (found,) = problems(products(tmp_path, f"product_id,{name},brand\np1,x,A\n"))
    assert found.startswith(f"products.csv: column {name} cannot be an attribute")


def test_an_attribute_may_have_the_name_of_what_messages_count(tmp_path: Path) -> None:
    (found,) = problems(products(tmp_path, "product_id,row,chosen,price\np1,3,x,free\n"))
    assert found == "products.csv, row 1, column price: 'free', expected a finite number"


def test_an_empty_category_is_no_value(tmp_path: Path) -> None:
    parquet(tmp_path, location=pl.Series([""], dtype=pl.Categorical))
    assert opened(tmp_path).events.collect()["location"].to_list() == [None]


NUMBERS = {
    "1,50": 'or, where commas stand for points, decimal = "," under [tables]',
    "1,234.50": "without marks between thousands",
    "1'234.50": "without marks between thousands",
    "nan": "or nothing where there is no value",
    "(null)": "or nothing where there is no value",
}


@pytest.mark.parametrize("written", NUMBERS)
def test_a_number_that_is_written_another_way_is_refused_with_what_to_do(tmp_path: Path, written: str) -> None:
    (found,) = problems(products(tmp_path, f'product_id,price\np1,"{written}"\n'))
    assert found == f"products.csv, row 1, column price: '{written}', expected a finite number; {NUMBERS[written]}"


@pytest.mark.parametrize("rounded", ["4.00635E+12", "4.00635E12", "4.0e+12"])
def test_an_id_that_was_rounded_is_refused(tmp_path: Path, rounded: str) -> None:
    (found,) = problems(products(tmp_path, f"product_id,name\n{rounded},x\n"))
    assert found.startswith(f"products.csv, row 1, column product_id: '{rounded}', expected all digits of the id")
    assert opened(products(tmp_path, "product_id,name\n4E12,x\n")) is not None


def test_a_folder_of_pictures_beside_a_table_is_none(tmp_path: Path) -> None:
    (tmp_path / "products").mkdir()
    (tmp_path / "products" / "p1.jpg").write_bytes(b"x")
    found = opened(products(tmp_path, "product_id,brand\np1,A\n"))
    assert found.products.collect()["brand"].to_list()[0] == "A"
    assert found.unused[0].startswith("products is not read")


def test_a_part_whose_name_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/events/\xe9t\xe9.csv")).write_text(EVENTS)
    (found,) = problems(tmp_path)
    assert found.isprintable()
    assert r"the name of \xe9t\xe9.csv in the folder is no plain text" in found


def test_negative_quantities_are_refused_or_returns_as_the_recipe_says(tmp_path: Path) -> None:
    rows = "c1,purchase,2025-01-02T10:00:00Z,p1,3,6\nc1,purchase,2025-01-03T10:00:00Z,p1,-2,-4\n"
    rows += "c1,purchase,2025-01-04T10:00:00Z,p1,,-1\n"
    (tmp_path / "events.csv").write_text(f"{HEADER},quantity,value\n{rows}")
    assert len(problems(tmp_path)) == 3
    found = opened(tmp_path, TablesConfig(negative_quantities="return")).events.collect()
    assert found.select("type", "quantity", "value").rows() == [
        ("purchase", 3.0, 6.0),
        ("return", 2.0, 4.0),
        ("return", None, 1.0),
    ]
    (tmp_path / "events.csv").write_text(f"{HEADER},quantity,value\nc1,purchase,2025-01-02T10:00:00Z,p1,3,-6\n")
    (sentence,) = problems(tmp_path, TablesConfig(negative_quantities="return"))
    assert "column value: '-6', expected a number of at least 0" in sentence
