"""Files that change while they are read, that are damaged, or that take more than they may."""

import errno
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from embeddings.errors import InvalidTables
from training.datasets import Dataset, delimited, open_dataset
from training.datasets.files import reading

NOW = datetime(2025, 6, 1, tzinfo=UTC)
ROWS = 2_000


def frame() -> pl.DataFrame:
    random = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "customer_id": [f"c{one}" for one in random.integers(0, 50, ROWS).tolist()],
            "type": ["purchase"] * ROWS,
            "at": [NOW - timedelta(minutes=one) for one in range(1, ROWS + 1)],
            "product_id": [f"p{one}" for one in random.integers(0, 40, ROWS).tolist()],
        }
    )


def written(folder: Path, file: str) -> Path:
    path = folder / file
    if file.endswith(".parquet"):
        frame().write_parquet(path, row_group_size=200)
    else:
        frame().with_columns(at=pl.col("at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).write_csv(path)
    return path


def opened(folder: Path) -> Dataset:
    return open_dataset(str(folder), channels=("web",), now=NOW)


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def touched(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def written_anew(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


@pytest.mark.parametrize("change", [cut, touched, written_anew, Path.unlink])
@pytest.mark.parametrize("file", ["events.csv", "events.parquet"])
def test_a_file_that_changes_before_all_of_it_is_read_is_refused(
    tmp_path: Path, file: str, change: Callable[[Path], None]
) -> None:
    path = written(tmp_path, file)
    dataset = opened(tmp_path)

    def read() -> None:
        with reading(dataset.given):
            change(path)
            dataset.events.collect()

    with pytest.raises(InvalidTables) as raised:
        read()
    assert raised.value.problems == (
        f"{file}: the file was changed while it was read; start again once it is complete",
    )


@pytest.mark.parametrize("file", ["events.csv", "events.parquet"])
def test_a_file_that_stays_as_it_was_is_read(tmp_path: Path, file: str) -> None:
    written(tmp_path, file)
    dataset = opened(tmp_path)
    with reading(dataset.given):
        assert dataset.events.collect().height == ROWS


def test_parquet_with_damaged_bytes_is_refused_or_read_and_never_a_panic(tmp_path: Path) -> None:
    path = written(tmp_path, "events.parquet")
    sound = path.read_bytes()
    random = np.random.default_rng(1)
    refused = 0
    for _ in range(60):
        damaged = bytearray(sound)
        # Half of them in the footer, which says how all else is to be read.
        near_end = random.random() < 0.5
        for place in random.integers(len(damaged) - 600 if near_end else 4, len(damaged), 3).tolist():
            damaged[place] ^= 1 << int(random.integers(8))
        path.write_bytes(damaged)
        try:
            dataset = opened(tmp_path)
            with reading(dataset.given):
                dataset.events.collect()
        except InvalidTables:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize(("sound", "zone"), [("Israel", "+05:30"), ("Asia/Riyadh", "Mars/Phobos")])
def test_times_in_a_zone_that_cannot_be_read_are_refused_with_what_to_do(tmp_path: Path, sound: str, zone: str) -> None:
    path = tmp_path / "events.parquet"
    frame().with_columns(pl.col("at").dt.convert_time_zone(sound)).write_parquet(path)
    whole = path.read_bytes()
    (schema,) = re.findall(rb"ARROW:schema.*?([A-Za-z0-9+/=]{100,})", whole, re.DOTALL)
    other = b64encode(b64decode(schema).replace(sound.encode(), zone.encode()))
    assert len(other) == len(schema)
    assert other != schema
    path.write_bytes(whole.replace(schema, other))
    with pytest.raises(InvalidTables) as raised:
        opened(tmp_path)
    (problem,) = raised.value.problems
    assert problem.startswith("events.parquet: cannot be read")
    assert problem.endswith("write its times in UTC")


def test_a_table_of_thousands_of_columns_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "events.csv")
    wide = {"product_id": ["p1"]} | {f"a{one}": ["x"] for one in range(1_000)}
    pl.DataFrame(wide).write_parquet(tmp_path / "products.parquet")
    with pytest.raises(InvalidTables) as raised:
        opened(tmp_path)
    assert raised.value.problems == ("products.parquet: has 1,001 columns, expected at most 1,000",)


def test_a_row_without_an_end_is_refused_before_all_of_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "PIECE_BYTES", 1 << 10)
    monkeypatch.setattr(delimited, "LONGEST_ROW", 1 << 14)
    (tmp_path / "events.csv").write_text("customer_id,type,at,product_id\n" + "x" * (1 << 17))
    with pytest.raises(InvalidTables) as raised:
        opened(tmp_path)
    (problem,) = raised.value.problems
    assert problem.startswith("events.csv, row 1 (line 2): the row is longer than")


def test_a_full_disk_names_the_folder_of_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = written(tmp_path, "events.csv").read_bytes().decode().encode("utf-16")
    (tmp_path / "events.csv").write_bytes(text)

    class Full(BytesIO):
        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(delimited, "TemporaryFile", Full)
    monkeypatch.setattr(delimited, "gettempdir", lambda: "/the/folder")
    with pytest.raises(OSError, match="/the/folder"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("at", "advice"),
    [
        ("26-10-01 10:00:00Z", "the year first, in four digits"),
        ("01.10.2026 10:00:00Z", "the year first, in four digits"),
        ("0000-00-00 00:00:00", "or nothing where there is no time"),
    ],
)
def test_a_year_has_four_digits(tmp_path: Path, at: str, advice: str) -> None:
    (tmp_path / "events.csv").write_text(f"customer_id,type,at,product_id\nc1,view,{at},p1\n")
    with pytest.raises(InvalidTables) as raised:
        opened(tmp_path)
    (problem,) = raised.value.problems
    assert problem.startswith(f"events.csv, row 1, column at: '{at}'")
    assert problem.endswith(advice)
