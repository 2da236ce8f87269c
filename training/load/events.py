"""Brings events of tables into the database, each row once however often it is brought.

The sender of loaded events gave them no ids. Each gets one of what it holds, and of how many equal rows lie before it:
so rows that are equal stay as many as they are, and a second load brings none again.
"""

from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import date

import asyncpg
import msgspec
import polars as pl

from embeddings.catalogue.tables import EVENTS
from training.datasets import Dataset
from training.datasets.frames import attribute_names

_AT_ONCE = 50_000
"""Rows in one transaction; fewer than there are places in a group of the order of arrival."""

_TEXTS = ("customer_id", "type", "product_id", "offer_id", "location", "channel", "visit")
_COLUMNS = ("place", "nth", *_TEXTS, "at", "quantity", "value", "context")

_TABLE = f"""
CREATE TEMPORARY TABLE loading (
    place bigint, nth bigint, {", ".join(f"{name} text" for name in _TEXTS)},
    at timestamptz, quantity double precision, value double precision, context text, event_id text
) ON COMMIT DELETE ROWS
"""

# Numbers and moments are written in one way whatever the session's settings are.
_NAME = f"""
UPDATE loading SET event_id = left(encode(sha256(convert_to(jsonb_build_array(
    nth, {", ".join(_TEXTS)}, extract(epoch FROM at)::text, quantity, value, context::jsonb
)::text, 'UTF8')), 'hex'), 32)
"""  # noqa: S608 - names of ours

# A loaded event arrived when it happened: it is of the past, and counts with the next training.
_INSERT = f"""
WITH fresh AS (
    INSERT INTO event_keys (source, event_id, day)
    SELECT 'load', event_id, timezone('UTC', at)::date FROM loading
    ON CONFLICT (source, event_id) DO NOTHING
    RETURNING event_id
)
INSERT INTO events (source, event_id, received_at, {", ".join(_TEXTS)}, at, quantity, value, context, seq, xid)
SELECT 'load', event_id, at, {", ".join(_TEXTS)}, at, coalesce(quantity, 1), value, context::jsonb,
       (SELECT nextval('event_groups') << 20) + place, (SELECT event_transaction())
FROM loading JOIN fresh USING (event_id)
"""  # noqa: S608


def count(dataset: Dataset) -> int:
    """Return how many events a data set has."""
    return dataset.events.select(pl.len()).collect(engine="streaming").item()


def days_of(dataset: Dataset) -> list[date]:
    """Return the days in UTC on which a data set has events."""
    return dataset.events.select(pl.col("at").dt.date().unique()).collect(engine="streaming")["at"].to_list()


async def load_events(connection: asyncpg.Connection, dataset: Dataset) -> AsyncGenerator[tuple[int, int]]:
    """Load a data set's events, some rows at a time; yield how many there were, and how many of them were new.

    Args:
        connection: of its own; its transactions are numbered for the cluster.
        dataset: checked.
    """
    await connection.execute(_TABLE)
    for rows in _slices(dataset):
        async with connection.transaction():
            await connection.copy_records_to_table("loading", records=rows, columns=_COLUMNS)
            await connection.execute(_NAME)
            told = await connection.execute(_INSERT)
        yield len(rows), int(told.rpartition(" ")[2])


def _slices(dataset: Dataset) -> Iterator[Sequence[tuple[object, ...]]]:
    """Yield the rows of events, in their order, as values of ``_COLUMNS``."""
    contexts = sorted(attribute_names(dataset.events, EVENTS))
    values = [*_TEXTS, "at", "quantity", "value"]
    # Which rows are equal is asked of hashes: to group by all columns would take several times the memory.
    alike = pl.struct(*values, *contexts).hash()
    events = dataset.events.select(*values, *contexts).with_columns(nth=pl.int_range(pl.len()).over(alike)).collect()
    for some in events.iter_slices(_AT_ONCE):
        said = map(_context, some.select(contexts).iter_rows(named=True)) if contexts else [None] * len(some)
        numbered = enumerate(zip(some["nth"], some.select(values).iter_rows(), said, strict=True))
        yield [(place, nth, *row, context) for place, (nth, row, context) in numbered]


def _context(row: dict[str, str | None]) -> str | None:
    said = {name: value for name, value in row.items() if value is not None}
    return msgspec.json.encode(said).decode() if said else None
