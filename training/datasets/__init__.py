"""Input tables: where they come from, how they are typed, and what they must hold."""

from collections.abc import Callable, Collection
from datetime import datetime
from pathlib import Path

from embeddings.errors import InvalidInput
from training.config import TablesConfig
from training.datasets.checks import validate
from training.datasets.complete_journey import complete_journey as read_complete_journey
from training.datasets.directory import read_directory
from training.datasets.files import reading
from training.datasets.frames import Dataset, as_of

__all__ = ["ADAPTERS", "MOVING", "Dataset", "as_of", "open_dataset"]

ADAPTERS: dict[str, Callable[[datetime], Dataset]] = {
    "complete-journey": lambda _: read_complete_journey(),
    "complete-journey-today": read_complete_journey,
}
"""Data sets known by name, each opened with the present moment. Any other source is a directory."""

MOVING = ("complete-journey-today",)
"""Those of them whose times are others in another week."""


def open_dataset(
    source: str,
    *,
    channels: Collection[str],
    now: datetime,
    tables: TablesConfig | None = None,
    stored: bool = False,
    whole: bool = True,
) -> Dataset:
    """Open a data set and check all of it, writing nothing.

    Args:
        source: a name in ``ADAPTERS`` or the path of a directory with input tables.
        channels: the channels that the recipe declares.
        now: the present moment, with its time zone.
        tables: how the tables of a directory are written; None for the defaults.
        stored: whether they are of a database, and only written into that directory.
        whole: whether the tables that training requires must be there; otherwise any one table will do.

    Raises:
        InvalidInput: the source is neither a known name nor a directory, or lacks what it needs.
        InvalidTables: the tables break the data contract; carries every problem.
    """
    if not source.isprintable():
        raise InvalidInput("data", f"expected the path of a directory in characters of UTF-8 that show, got {source!a}")
    adapter = ADAPTERS.get(source)
    if adapter is None and not Path(source).is_dir():
        known = ", ".join(ADAPTERS)
        raise InvalidInput("data", f"expected {known} or a directory with the input tables, got {source!r}")
    dataset = read_directory(Path(source), tables, stored=stored) if adapter is None else adapter(now)
    with reading(dataset.given):
        validate(dataset, channels, whole=whole)
    return dataset
