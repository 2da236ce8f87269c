"""Input tables from a directory of Parquet and delimited text files.

A table is a file named after it, or a folder of part files, as Spark writes one.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import IO

import polars as pl

from embeddings.catalogue.tables import TABLES, Table
from embeddings.errors import InvalidInput, InvalidTables
from training.config import TablesConfig
from training.datasets.delimited import MOST_COLUMNS, Delimited, read_delimited
from training.datasets.files import UNREADABLE, stamp_of, unreadable
from training.datasets.frames import Dataset, GivenTable, Part, assemble

FORMATS = (".parquet", ".csv", ".csv.gz")
_MAY_BE_TABLES = (
    *FORMATS,
    ".tsv",
    ".txt",
    ".xlsx",
    ".xls",
    ".json",
    ".jsonl",
    ".ndjson",
    ".avro",
    ".orc",
    ".gz",
    ".zip",
)
_OTHER_SEPARATORS = ",;\t|"


def read_directory(path: Path, config: TablesConfig | None = None, *, stored: bool = False) -> Dataset:
    """Read every input table of a directory, and check all of its delimited text.

    A table is ``<table>.parquet``, ``<table>.csv`` or ``<table>.csv.gz``, or a folder of that name or of the table's
    that holds parts of one format. Anything else that looks like a table is named in ``Dataset.unused``.

    Raises:
        InvalidInput: a table in two forms.
        InvalidTables: files that cannot be read, or whose text is in doubt.
    """
    config = config or TablesConfig()
    given: list[GivenTable] = []
    problems: list[str] = []
    used: set[str] = set()
    for table in TABLES:
        names = [table.name, *(table.name + suffix for suffix in FORMATS)]
        found = [one for name in names if (one := path / name).is_dir() or (name != table.name and one.is_file())]
        if len(found) > 1:
            # A folder beside the table's file may hold anything, such as the products' pictures.
            found = [one for one in found if one.name != table.name or _holds_parts(one)]
        if len(found) > 1:
            both = " and ".join(one.name for one in found)
            raise InvalidInput("data", f"expected one file for each table, {path} holds {both}: remove one")
        used.update(one.name for one in found)
        for one in found:
            read, wrong = _read(table, one, config)
            problems += wrong
            if read is not None:
                given.append(read)
    if problems:
        raise InvalidTables(problems)
    given = [one._replace(stored=stored) for one in given]
    return assemble(str(path), given, unused=_unused(path, used))


def _read(table: Table, path: Path, config: TablesConfig) -> tuple[GivenTable | None, list[str]]:
    """Read a table; return it, or None with the problems that prevent it."""
    name = f"{path.name}/" if path.is_dir() else path.name
    files = _parts(path) if path.is_dir() else [path]
    if isinstance(files, str):
        return None, [f"{name}: {files}"]
    frames: list[pl.LazyFrame] = []
    parts: list[Part] = []
    texts: list[IO[bytes]] = []
    problems: list[str] = []
    for file in files:
        part, stamp = name if file == path else name + file.name, stamp_of(file)
        if file.name.endswith(".parquet"):
            try:
                frame = pl.scan_parquet(file, glob=False)
                columns = len(frame.collect_schema())
                parts.append(Part(part, frame.select(pl.len()).collect().item(), file, stamp))
                frames.append(frame)
            except UNREADABLE as error:
                problems.append(unreadable(part, error))
            else:
                if columns > MOST_COLUMNS:
                    problems.append(f"{part}: has {columns:,} columns, expected at most {MOST_COLUMNS:,}")
            continue
        text = read_delimited(file, config.separator)
        wrong = list(_wrong(part, text, config.separator))
        problems += wrong
        if text.text is not None:
            texts.append(text.text)
        if not wrong:
            # Every value is read as text first: 007 stays 007, and a bad value can be shown as it was written.
            # glob=False: a directory's name may hold [ ] or *.
            frames.append(
                pl.scan_csv(
                    text.path,
                    separator=config.separator,
                    infer_schema=False,
                    glob=False,
                    n_rows=text.rows if text.blank else None,
                )
            )
            parts.append(Part(part, text.rows, file, stamp))
    problems += _unlike(frames, parts) if not problems else []
    if problems:
        return None, problems
    return GivenTable(table, name, pl.concat(frames), config, tuple(parts), tuple(texts)), []


def _parts(folder: Path) -> list[Path] | str:
    """Return the part files of a folder, or the reason why it holds none."""
    files = sorted(one for one in folder.iterdir() if not one.name.startswith(("_", ".")))
    for one in files:
        if _shown(one.name) != one.name:
            return f"the name of {_shown(one.name)} in the folder is no plain text; rename it"
        if not one.is_file():
            return (
                f"the folder holds {one.name}, which is no file; expected the part files of one table and nothing "
                "else: move those of inner folders, such as month=2026-05, up into it"
            )
    formats = {next((suffix for suffix in FORMATS if one.name.endswith(suffix)), one.name) for one in files}
    if not files:
        return f"the folder holds no part file; expected files that end in {', '.join(FORMATS)}"
    if len(formats) > 1 or not formats <= set(FORMATS):
        return f"the folder holds {', '.join(sorted(formats))}; expected part files of one format: {', '.join(FORMATS)}"
    return files


def _wrong(file: str, text: Delimited, separator: str) -> Iterator[str]:
    """Yield a sentence for each fault that keeps a text from being read."""
    header = text.header
    if len(header) == 1 and (others := [one for one in _OTHER_SEPARATORS if one != separator and one in header[0]]):
        yield (
            f"{file}, header (line 1): holds {others[0]!r} and no {separator!r}; expected fields separated by "
            f"{separator!r}, or separator = {others[0]!r} under [tables] in the recipe"
        )
        return
    yield from (fault.said(file) for fault in text.faults)
    if text.more:
        yield f"{file}: {text.more:,} further faults of this kind"
    for place, name in enumerate(header, start=1):
        if not name.strip():
            yield f"{file}, header (line 1): column {place} has no name; expected one, or no such column"
        elif name != name.strip():
            yield f"{file}, header (line 1): blanks around the name of column {name!r}; expected {name.strip()!r}"
        elif header[: place - 1].count(name):
            yield f"{file}, header (line 1): column {name} is there twice; expected every name once"


def _unlike(frames: Sequence[pl.LazyFrame], parts: Sequence[Part]) -> Iterator[str]:
    """Yield a sentence for each part of a table that has other columns than the first."""
    first = frames[0].collect_schema()
    for frame, part in zip(frames[1:], parts[1:], strict=True):
        schema = frame.collect_schema()
        if schema != first:
            unlike = sorted({f"{name} {dtype}" for name, dtype in {*schema.items()} ^ {*first.items()}}) or [
                "their order"
            ]
            other = f"other columns than {parts[0].file} ({', '.join(unlike)})"
            yield f"{part.file}: has {other}; expected the same in every part"


def _unused(path: Path, used: set[str]) -> tuple[str, ...]:
    """Return a sentence for everything in a directory that looks like a table and is none."""
    names = {table.name: table.name for table in TABLES} | {table.name[:-1]: table.name for table in TABLES}
    found: list[str] = []
    for one in sorted(path.iterdir()):
        if one.name in used or one.name.startswith("."):
            continue
        name = _shown(one.name)
        stem = one.name.casefold().partition(".")[0]
        close = get_close_matches(stem, names, 1, 0.8)
        suffix = one.name.casefold().removeprefix(stem)
        if not (one.is_file() or one.is_dir()):
            found.append(f"{name} is not read: it is neither a file nor a folder, or leads nowhere")
        elif close:
            expected = names[close[0]] + (suffix if suffix in FORMATS else f" ending in {', '.join(FORMATS)}")
            found.append(f"{name} is not read: the table of {names[close[0]]} would be {expected}")
        elif (suffix and suffix.endswith(_MAY_BE_TABLES)) or _holds_parts(one):
            found.append(f"{name} is not read: tables are {', '.join(table.name for table in TABLES)}")
    return tuple(found)


def _shown(name: str) -> str:
    """Return the name of a file with escapes for bytes that are no UTF-8 and characters that do not show."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _holds_parts(folder: Path) -> bool:
    with suppress(OSError):
        return folder.is_dir() and any(one.name.endswith(FORMATS) for one in folder.iterdir())
    return False
