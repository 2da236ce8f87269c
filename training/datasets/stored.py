"""Rows of a database that are many, copied to Parquet: events and promotions.

They go from PostgreSQL through a file of CSV, so that no row of them becomes an object of Python.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl

from embeddings.catalogue.tables import EVENTS, PROMOTIONS
from embeddings.database.connection import Connection
from embeddings.errors import InvalidTables
from training.datasets.cast import DTYPES
from training.datasets.finding import some
from training.datasets.frames import PROMOTION_ID

_MOST_SECONDS = 3_600.0
"""How long a copy may take."""

_PARTS = 64
"""So many files hold the promotions at most; the rows of one at a time are in memory."""

_APART = "\x1f"
"""Stands between the ids of a list: no id holds a control character."""

_MICROSECONDS = "(extract(epoch FROM {}) * 1000000)::bigint"

_TEXTS = ("customer_id", "type", "product_id", "offer_id", "location", "channel", "visit")

_EVENTS = f"""
SELECT {", ".join(_TEXTS)}, {_MICROSECONDS.format("at")}, quantity, value{{attributes}}
FROM events
WHERE NOT EXISTS (SELECT FROM customers WHERE customers.id = events.customer_id AND customers.withdrawn)
ORDER BY seq
"""  # noqa: S608 - names of ours

_PROMOTIONS = f"""
SELECT id, body ->> 'channel', body ->> 'location',
       {_MICROSECONDS.format("(body ->> 'starts')::timestamptz")},
       {_MICROSECONDS.format("(body ->> 'ends')::timestamptz")},
       array_to_string(ARRAY(SELECT jsonb_array_elements_text(body -> 'products')), $1)
FROM promotions
WHERE NOT withdrawn AND jsonb_array_length(body -> 'products') > 0
ORDER BY since
"""  # noqa: S608


class _Reference(NamedTuple):
    """A column of events whose values must be among those known.

    Attributes:
        known: the ids or names that there are.
        who: does not know the others.
    """

    column: str
    known: pl.Series
    who: str

    @property
    def unknown(self) -> pl.Expr:
        """Return whether an event names what is not known."""
        return pl.col(self.column).is_in(self.known.implode()).not_().fill_null(value=False)


async def write_promotions(connection: Connection, folder: Path) -> None:
    """Write the promotions that are not withdrawn as the parts of a table; nothing if there are none."""
    text = folder / "promotions.csv"
    times = dict.fromkeys(("starts", "ends"), DTYPES["time"])
    schema = {
        PROMOTION_ID: pl.String(),
        "channel": pl.String(),
        "location": pl.String(),
        **times,
        "product_id": pl.String(),
    }
    if await _copy(connection, _PROMOTIONS, text, _APART):
        parts = folder / PROMOTIONS.name
        parts.mkdir()
        states = _scan(text, schema).collect()
        for number, some in enumerate(states.iter_slices(-(-states.height // _PARTS))):
            rows = some.with_columns(pl.col("product_id").str.split(_APART)).explode("product_id")
            rows.write_parquet(parts / f"part-{number:02d}.parquet")
    text.unlink()


async def write_events(
    connection: Connection,
    folder: Path,
    context_attributes: Collection[str],
    channels: Collection[str],
    known: Mapping[str, pl.Series],
) -> list[str]:
    """Write the events as a table, in the order in which they arrived, and return a note for each thing left out.

    The service knew what an event names when it heard it; the tables and the recipe may not know it any more. Such an
    event is kept without that name, and left out where it names neither a product nor an offer then.

    Args:
        connection: within a transaction that reads one moment.
        folder: where to.
        context_attributes: names that the recipe declares.
        channels: those that the recipe declares.
        known: the ids that there are, by column, of those columns in which not every id is taken.
    """
    text, path = folder / "events.csv", folder / f"{EVENTS.name}.parquet"
    declared = {column.name: DTYPES[column.dtype] for column in EVENTS.columns}
    attributes = "".join(f", context ->> ${place + 1}" for place in range(len(context_attributes)))
    copied = await _copy(connection, _EVENTS.format(attributes=attributes), text, *context_attributes)
    if not copied:
        text.unlink()
        pl.DataFrame(schema=declared | dict.fromkeys(context_attributes, pl.String())).write_parquet(path)
        return []
    names = (*_TEXTS, "at", "quantity", "value")
    rows = _scan(text, {name: declared[name] for name in names} | dict.fromkeys(context_attributes, pl.String()))
    references = [
        _Reference("channel", pl.Series(sorted(channels), dtype=pl.String), "the recipe"),
        *(_Reference(column, ids, "the database") for column, ids in known.items()),
    ]
    kept = rows.with_columns(
        pl.when(~one.unknown).then(pl.col(one.column)).alias(one.column) for one in references
    ).filter(pl.any_horizontal(pl.col(EVENTS.any_of).is_not_null()))
    kept.select(*declared, *context_attributes).sink_parquet(path)
    notes = list(_notes(rows, kept, references, copied))
    text.unlink()
    return notes


def _notes(rows: pl.LazyFrame, kept: pl.LazyFrame, references: Collection[_Reference], copied: int) -> Iterator[str]:
    """Yield a sentence for each column in which events name what is not known, and for those left out.

    Raises:
        InvalidTables: not every row that was copied can be read.
    """
    found, whole = pl.collect_all(
        [
            rows.select(
                pl.len().alias("rows"),
                *(one.unknown.sum().alias(f"{one.column} events") for one in references),
                *(
                    pl.col(one.column).filter(one.unknown).unique().sort().implode().alias(one.column)
                    for one in references
                ),
            ),
            kept.select(pl.len()),
        ],
        engine="streaming",
    )
    if found["rows"][0] != copied:
        raise InvalidTables([f"events: {found['rows'][0]:,} rows were read of {copied:,}; please report this"])
    for one in references:
        if events := found[f"{one.column} events"][0]:
            names = some([repr(name) for name in found[one.column][0]])
            yield f"{events:,} events have a {one.column} that {one.who} does not know, and count without: {names}"
    if left_out := copied - whole.item():
        yield f"{left_out:,} events name neither a product nor an offer that the database knows: left out"


async def _copy(connection: Connection, query: str, path: Path, *arguments: str) -> int:
    """Write the rows of a query to a file as CSV without a header, and return how many they are."""
    told = await connection.copy_from_query(query, *arguments, output=path, format="csv", timeout=_MOST_SECONDS)
    return int(told.rpartition(" ")[2])


def _scan(path: Path, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """Return the rows of a file that `_copy` has written, times of which are counts of microseconds there."""
    times = [name for name, dtype in schema.items() if dtype == DTYPES["time"]]
    written = pl.Schema({**schema, **dict.fromkeys(times, pl.Int64())})
    rows = pl.scan_csv(path, has_header=False, schema=written, glob=False)
    return rows.with_columns(pl.col(times).cast(pl.Datetime("us")).dt.replace_time_zone("UTC"))
