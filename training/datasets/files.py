"""Watches the files of tables while they are read: they must stay as they were, and be whole."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import polars as pl

from embeddings.errors import InvalidTables
from training.datasets.frames import GivenTable

UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""What Polars raises where a file is damaged; the second is no ``Exception``."""

_ZONE = "unable to parse time zone"


class Stamp(NamedTuple):
    """The properties of a file that tell whether it has changed."""

    inode: int
    size: int
    changed_ns: int


def stamp_of(path: Path) -> Stamp | None:
    """Return the stamp of a file as it is now; None if the file is gone."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def unreadable(file: str, error: BaseException) -> str:
    """Return the message for a file that cannot be read as the format that its name states."""
    said = str(error).partition("\n")[0]
    if _ZONE in said:
        return f"{file}: cannot be read ({said}); write its times in UTC"
    expected = "UTF-8 text separated by commas" if file.endswith(".csv") else "Parquet"
    return f"{file}: cannot be read ({said}), expected {expected} with the same columns in every row"


@contextmanager
def reading(given: Iterable[GivenTable]) -> Generator[None]:
    """Refuse tables whose files change before the block ends, or turn out damaged in it.

    Every stage reads the files again: what one has checked, another one must still find.

    Raises:
        InvalidTables: naming the files.
    """
    tables = tuple(given)
    try:
        yield
    except (*UNREADABLE, InvalidTables, OSError) as error:
        _check_unchanged(tables)
        if not isinstance(error, UNREADABLE):
            raise
        files = ", ".join(one.file for one in tables)
        raise InvalidTables([unreadable(files, error)]) from error
    _check_unchanged(tables)


def _check_unchanged(given: Iterable[GivenTable]) -> None:
    changed = [
        f"{part.file}: the file was changed while it was read; start again once it is complete"
        for one in given
        for part in one.parts
        if part.path is not None and stamp_of(part.path) != part.stamp
    ]
    if changed:
        raise InvalidTables(changed)
