"""Input tables from a directory of Parquet and CSV files."""

from pathlib import Path

import polars as pl

from embeddings.errors import InvalidInput, InvalidTables
from embeddings.tables import TABLES
from training.datasets.checks import unreadable
from training.datasets.frames import Dataset, GivenTable, assemble

FORMATS = ("parquet", "csv")


def read_directory(path: Path) -> Dataset:
    """Find ``<table>.parquet`` or ``<table>.csv`` for every input table; other files are ignored.

    Only headers are read here. Nothing is checked yet but that the files can be opened.

    Raises:
        InvalidInput: a table in both formats.
        InvalidTables: files whose header cannot be read.
    """
    given: list[GivenTable] = []
    problems: list[str] = []
    for table in TABLES:
        files = [file for suffix in FORMATS if (file := path / f"{table.name}.{suffix}").is_file()]
        if len(files) > 1:
            both = " and ".join(file.name for file in files)
            raise InvalidInput("data", f"expected one file for each table, {path} holds {both}: remove one")
        for file in files:
            frame = _scan(file)
            try:
                frame.collect_schema()
            except pl.exceptions.PolarsError as error:
                problems.append(unreadable(file.name, error))
            else:
                given.append(GivenTable(table, file.name, frame))
    if problems:
        raise InvalidTables(problems)
    return assemble(str(path), given)


def _scan(file: Path) -> pl.LazyFrame:
    # Every CSV value is read as text first: 007 stays 007, and a bad value can be shown as it was written.
    # glob=False: a directory's name may hold [ ] or *.
    if file.suffix == ".csv":
        return pl.scan_csv(file, infer_schema=False, glob=False)
    return pl.scan_parquet(file, glob=False)
