"""The input tables as lazy Polars frames in one set of types, whatever they were read from."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

import polars as pl

from embeddings.tables import TABLES, Column, Dtype, Table

DTYPES: dict[Dtype, pl.DataType] = {
    "text": pl.String(),
    "number": pl.Float64(),
    "time": pl.Datetime("us", "UTC"),
    "list": pl.List(pl.String()),
}
"""The Polars type of every declared type. Attributes are text."""

TEXTUAL = (pl.String, pl.Categorical, pl.Enum)
LIST_SEPARATOR = "|"
RFC_3339 = "%+"


class GivenTable(NamedTuple):
    """A table as its owner gave it: nothing renamed, cast or dropped yet.

    Attributes:
        table: what the columns are meant to be.
        file: how messages name it, such as ``events.csv``.
        frame: the rows, in the order in which messages number them.
    """

    table: Table
    file: str
    frame: pl.LazyFrame


class Dataset(NamedTuple):
    """Every input table, with all declared columns in the types of ``DTYPES``.

    Columns that were not given are null. Tables that were not given are derived from the ids that others
    mention, but offers and promotions, which are empty then. Customers and products keep further columns of
    text as attributes. Until ``training.datasets.checks.validate`` has passed, nothing is promised of the
    values: what could not be understood is null.

    Attributes:
        name: where the data come from.
        notes: one sentence for each thing that was left out, filled in or moved, with its count.
        given: the tables before they were cast, for the checks.
    """

    name: str
    customers: pl.LazyFrame
    products: pl.LazyFrame
    locations: pl.LazyFrame
    offers: pl.LazyFrame
    promotions: pl.LazyFrame
    events: pl.LazyFrame
    notes: tuple[str, ...]
    given: tuple[GivenTable, ...]


def assemble(name: str, given: Iterable[GivenTable], notes: Iterable[str] = ()) -> Dataset:
    """Cast the given tables and derive the others, lazily.

    Raises:
        polars.exceptions.PolarsError: a frame's schema cannot be read.
    """
    given = tuple(given)
    cast = {one.table.name: _cast_table(one) for one in given}
    frames = {table.name: cast[table.name] if table.name in cast else _derived(table, cast) for table in TABLES}
    return Dataset(name=name, notes=tuple(notes), given=given, **frames)


def cast_column(name: str, to: Dtype, given: pl.DataType) -> pl.Expr | None:
    """The column in its declared type, what cannot be understood as null; None where the type is unsuitable.

    Empty text is null. Text is read as a number, an RFC 3339 time with its zone, or a list separated by
    ``|``, and integers as text. Unsuitable are a time without a zone, and as text a number with a fraction.
    """
    value = pl.col(name)
    if given == DTYPES["time"] and to == "time":
        return value  # as it is, so that a filter on it can move on to where the rows come from
    if given == pl.Null():
        return value.cast(DTYPES[to])
    if isinstance(given, TEXTUAL):
        return _from_text(_filled(value.cast(pl.String)), to)
    cast: pl.Expr | None = None
    match to:
        case "text" if given.is_integer():
            cast = value.cast(pl.String)
        case "number" if given.is_numeric():
            cast = value.cast(pl.Float64)
        case "time" if isinstance(given, pl.Datetime) and given.time_zone is not None:
            cast = value.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
        case "list" if isinstance(given, pl.List) and (
            isinstance(given.inner, (*TEXTUAL, pl.Null)) or given.inner.is_integer()
        ):
            cast = value.cast(pl.List(pl.String))
        case _:
            pass
    return cast


def given_value(name: str, given: pl.DataType) -> pl.Expr:
    """The column as it was given, empty text as null."""
    return _filled(pl.col(name)) if given == pl.String() else pl.col(name)


def _filled(text: pl.Expr) -> pl.Expr:
    return pl.when(text != "").then(text)


def _from_text(text: pl.Expr, to: Dtype) -> pl.Expr:
    match to:
        case "text":
            return text
        case "number":
            return text.cast(pl.Float64, strict=False)
        case "time":
            return text.str.to_datetime(RFC_3339, time_unit="us", time_zone="UTC", strict=False)
        case "list":
            return text.str.split(LIST_SEPARATOR)


def _cast_table(given: GivenTable) -> pl.LazyFrame:
    schema = given.frame.collect_schema()
    columns = [_declared(column, schema) for column in given.table.columns]
    if given.table.attributes:
        declared = {column.name for column in given.table.columns}
        columns += [
            attribute.alias(name)
            for name, dtype in schema.items()
            if name not in declared and (attribute := cast_column(name, "text", dtype)) is not None
        ]
    return given.frame.select(columns)


def _declared(column: Column, schema: pl.Schema) -> pl.Expr:
    cast = cast_column(column.name, column.dtype, schema[column.name]) if column.name in schema else None
    return (pl.lit(None, DTYPES[column.dtype]) if cast is None else cast).alias(column.name)


def _derived(table: Table, given: dict[str, pl.LazyFrame]) -> pl.LazyFrame:
    """The ids of a table that was not given, from the tables that mention them."""
    empty = pl.LazyFrame(schema={column.name: DTYPES[column.dtype] for column in table.columns})
    # An id alone makes no offer: its products and times would be unknown.
    if table.key is None or table.name == "offers":
        return empty
    mentions = [
        given[other.name].select(_one_per_row(column).alias(table.key))
        for other in TABLES
        for column in other.columns
        if other.name in given and _mentions(other, column, table)
    ]
    if not mentions:
        return empty
    ids = pl.concat(mentions).drop_nulls().unique().sort(table.key)
    return ids.with_columns(
        pl.lit(None, DTYPES[column.dtype]).alias(column.name) for column in table.columns if column.name != table.key
    )


def _one_per_row(column: Column) -> pl.Expr:
    value = pl.col(column.name)
    return value.explode() if column.dtype == "list" else value


def _mentions(other: Table, column: Column, table: Table) -> bool:
    # Events need not name a customer of the customers table, so that column declares no reference.
    named_alike = other.name == "events" and table.name == "customers" and column.name == table.key
    return named_alike or column.refers_to == (table.name, table.key)


def as_of(dataset: Dataset, until: datetime) -> Dataset:
    """The data set without the events at or after a moment, and without what only those mention.

    Master data that were given stay whole; derived tables are derived from the earlier events alone.
    """
    cast = {one.table.name: getattr(dataset, one.table.name) for one in dataset.given}
    cast["events"] = dataset.events.filter(pl.col("at") < until)
    frames = {table.name: cast[table.name] if table.name in cast else _derived(table, cast) for table in TABLES}
    return dataset._replace(**frames)
