"""The forms in which people have tables: what is read, and what is refused with its file, its row and what to do."""

import gzip
from datetime import UTC, datetime
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
    "a column without a name": ("product_id,name,\n1,x,y\n", "header (line 1): column 3 has no name"),
    "blanks in the header": ("product_id, name\n1,x\n", "blanks around the name of column ' name'; expected 'name'"),
    "a zip": (b"PK\x03\x04" + bytes(range(200)), "products.csv: is a zip archive, as workbooks of Excel are"),
    "Parquet": (b"PAR1" + bytes(range(200)), "products.csv: is Parquet; give it a name that ends in .parquet"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(range(200)), "products.csv: is compressed by zstd"),
    "UTF-16 without its mark": (NAMED.encode("utf-16-le"), "holds a NUL byte, as UTF-16 without its mark does"),
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
    assert problems(tmp_path, tables) == ("products.csv, row 1, column price: '1.000,50', expected a finite number",)


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
        "events: the table is missing, expected events.parquet or events.csv; events.csv is not read: "
    )
    assert "leads nowhere" in found
    assert "events.tsv is not read" in found


def test_a_column_in_other_letters_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text(EVENTS.replace("customer_id", "Customer_ID"))
    missing, unknown = problems(tmp_path)
    assert missing == "events.csv: column customer_id is missing, expected text; the file has Customer_ID"
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
]


@pytest.mark.parametrize("written", ZONED)
def test_a_moment_with_its_zone_is_read_however_it_is_written(tmp_path: Path, written: str) -> None:
    (tmp_path / "events.csv").write_text(f"{HEADER}\nc1,view,{written},p1\n")
    assert opened(tmp_path).events.collect()["at"].to_list() == [MOMENT]


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
