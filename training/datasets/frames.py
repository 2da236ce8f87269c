"""The input tables as lazy Polars frames in one set of types, whatever they were read from."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import polars as pl

from embeddings.catalogue.tables import EARLIEST, EVENTS, PROMOTIONS, TABLES, Column, Table, TargetType
from training.config import TablesConfig
from training.datasets.cast import DTYPES, cast_column


class Part(NamedTuple):
    """A file of a table.

    Attributes:
        file: how messages name it.
        rows: how many lie in it.
        path, stamp: where it lies, and what it looked like before it was read; see ``files.stamp_of``.
    """

    file: str
    rows: int
    path: Path | None = None
    stamp: tuple[int, int, int] | None = None


PROMOTION_ID = "promotion_id"
"""The column of a database's promotions that tells which one a row is of; tables of a folder have none."""


class GivenTable(NamedTuple):
    """A table as its owner gave it: nothing renamed, cast or dropped yet.

    Attributes:
        table: what the columns are meant to be.
        file: how messages name it, such as ``events.csv``.
        frame: the rows, in the order in which messages number them.
        config: how the values are written.
        parts: the files that it lies in, in the order of its rows; none where it lies in no file of its owner.
        texts: decoded copies of files, open as long as the frame is to be read.
        stored: whether a database holds the rows, whose ids were ids of the service already: nobody wrote them down.
    """

    table: Table
    file: str
    frame: pl.LazyFrame
    config: TablesConfig = TablesConfig()
    parts: tuple[Part, ...] = ()
    texts: tuple[IO[bytes], ...] = ()
    stored: bool = False

    def place(self, row: int) -> str:
        """Return the file and row, counted from 1 in that file, of a row counted from 1 in the table."""
        for part in self.parts:
            if row <= part.rows:
                return f"{part.file}, row {row:,}"
            row -= part.rows
        return f"{self.file}, row {row:,}"


class Dataset(NamedTuple):
    """Every input table, with all declared columns in the types of ``DTYPES``.

    Columns that were not given are null. Tables that were not given are derived from the ids that others mention, but
    offers and promotions, which are empty then. Products that only events name come after those that the table of
    products lists, without attributes. Customers and products keep further columns of text as attributes. Until
    ``training.datasets.checks.validate`` has passed, nothing is promised of the values: what could not be understood is
    null.

    Attributes:
        name: where the data come from.
        notes: one sentence for each thing that was left out, filled in or moved, with its count.
        given: the tables before they were cast, for the checks.
        unused: a sentence for each file that looks like a table and is none.
        targets: the types of events that are purchases here, whatever the tables call them.
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
    unused: tuple[str, ...] = ()
    targets: tuple[TargetType, ...] = ()

    def with_targets(self, targets: tuple[TargetType, ...], note: str) -> Self:
        """Return the data set with every event of some types as a purchase, and a note that says so."""
        return self._replace(targets=targets, events=_with_purchases(self.events, targets), notes=(*self.notes, note))


def assemble(
    name: str, given: Iterable[GivenTable], notes: Iterable[str] = (), unused: tuple[str, ...] = ()
) -> Dataset:
    """Cast the given tables and derive the others, lazily.

    Raises:
        polars.exceptions.PolarsError: a frame's schema cannot be read.
    """
    given = tuple(given)
    return Dataset(
        name=name,
        notes=tuple(notes),
        given=given,
        unused=unused,
        targets=(),
        **_completed(_cast_tables(given)),
    )


def usable_values(given: GivenTable) -> dict[str, pl.Expr]:
    """Return the declared columns that are there with a suitable type, each cast to it.

    If the recipe says so, purchases and returns of a negative quantity become returns of a positive one. Where there is
    no quantity, the value decides.
    """
    schema = given.frame.collect_schema()
    values = {
        column.name: value
        for column in given.table.columns
        if column.name in schema
        and (value := cast_column(column.name, column.dtype, schema[column.name], given.config)) is not None
    }
    if given.table is EVENTS and given.config.negative_quantities == "return" and "type" in values:
        amounts = {name: values[name] for name in ("quantity", "value") if name in values}
        taken_back = values["type"].is_in(["purchase", "return"]) & (pl.coalesce(*amounts.values(), pl.lit(0.0)) < 0)
        values["type"] = pl.when(taken_back).then(pl.lit("return")).otherwise(values["type"])
        values |= {name: pl.when(taken_back).then(value.abs()).otherwise(value) for name, value in amounts.items()}
    return values


def first_rows(given: GivenTable, chosen: pl.Expr, values: Iterable[pl.Expr], most: int) -> Iterator[tuple[Any, ...]]:
    """Yield the first rows that are chosen, each as its number, counted from 1, and some values.

    Args:
        given: the table.
        chosen: true in those rows; null counts as false.
        values: of its columns, with names of their own.
        most: how many.
    """
    # Selected first: a column of the owner's may be called row.
    found = given.frame.select(chosen.alias("chosen"), *values).with_row_index("row", offset=1)
    yield from found.filter("chosen").head(most).drop("chosen").collect(engine="streaming").iter_rows()


def _cast_tables(given: Iterable[GivenTable]) -> dict[str, pl.LazyFrame]:
    return {one.table.name: _cast_table(one) for one in given}


def _cast_table(given: GivenTable) -> pl.LazyFrame:
    schema, values = given.frame.collect_schema(), usable_values(given)
    columns = [
        values.get(column.name, pl.lit(None, DTYPES[column.dtype])).alias(column.name) for column in given.table.columns
    ]
    columns += [
        attribute.alias(name)
        for name in attributes_of_table(given)
        if (attribute := cast_column(name, "text", schema[name], given.config)) is not None
    ]
    return given.frame.select(columns)


def attributes_of_table(given: GivenTable) -> list[str]:
    """Return the names of the columns that are attributes.

    Of customers and products these are all columns that are not declared; of events, those that the recipe names; of
    a database's promotions, their ids.
    """
    names = attribute_names(given.frame, given.table)
    if given.table.attributes:
        return names
    if given.table is EVENTS:
        return [name for name in names if name in given.config.context_attributes]
    return [name for name in names if given.table is PROMOTIONS and given.stored and name == PROMOTION_ID]


def attribute_names(frame: pl.LazyFrame, table: Table) -> list[str]:
    """Return the names of the columns that a table does not declare."""
    declared = {column.name for column in table.columns}
    return [name for name in frame.collect_schema().names() if name not in declared]


def _completed(cast: dict[str, pl.LazyFrame]) -> dict[str, pl.LazyFrame]:
    """Return all tables: those given, and the others derived from the ids that these mention.

    Products that only events name are added to those given.
    """
    frames = {table.name: cast[table.name] if table.name in cast else _derived(table, cast) for table in TABLES}
    if "products" in cast and "events" in cast:
        unlisted = _unlisted_products(cast["products"], cast["events"])
        frames["products"] = pl.concat([cast["products"], unlisted.sort("product_id")], how="diagonal")
    return frames


def as_given(dataset: Dataset) -> Dataset:
    """Return the data set with nothing derived.

    Tables that were not given are empty, and products are those listed.
    """
    cast = _cast_tables(dataset.given)
    if "events" in cast:
        cast["events"] = _with_purchases(cast["events"], dataset.targets)
    return dataset._replace(**{table.name: cast.get(table.name, _empty(table)) for table in TABLES})


def _with_purchases(events: pl.LazyFrame, targets: tuple[TargetType, ...]) -> pl.LazyFrame:
    """Return events, those of some types as purchases."""
    if not targets:
        return events
    is_target = pl.col("type").is_in(list(targets))
    return events.with_columns(type=pl.when(is_target).then(pl.lit("purchase")).otherwise("type"))


def _unlisted_products(products: pl.LazyFrame, events: pl.LazyFrame) -> pl.LazyFrame:
    """Return the ids, each once, of the products that events name and a table of products does not."""
    named = events.select("product_id").drop_nulls().unique()
    return named.join(products.select("product_id"), on="product_id", how="anti")


def _derived(table: Table, given: dict[str, pl.LazyFrame]) -> pl.LazyFrame:
    """Return a table that was not given, with the ids that the given tables mention."""
    empty = _empty(table)
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


def _empty(table: Table) -> pl.LazyFrame:
    return pl.LazyFrame(schema={column.name: DTYPES[column.dtype] for column in table.columns})


def _one_per_row(column: Column) -> pl.Expr:
    value = pl.col(column.name)
    return value.explode() if column.dtype == "list" else value


def _mentions(other: Table, column: Column, table: Table) -> bool:
    # Events need not name a customer of the customers table, so that column declares no reference.
    named_alike = other.name == "events" and table.name == "customers" and column.name == table.key
    return named_alike or column.refers_to == (table.name, table.key)


def as_of(dataset: Dataset, until: datetime) -> Dataset:
    """Return the data set without the events at or after a moment or before ``EARLIEST``.

    Ids that only those events mention are left out too. Master data that were given stay whole; derived tables are
    derived from the earlier events alone.
    """
    cast = _cast_tables(dataset.given)
    if "events" in cast:
        events = cast["events"].filter((pl.col("at") < until) & (pl.col("at") >= EARLIEST))
        cast["events"] = _with_purchases(events, dataset.targets)
    return dataset._replace(**_completed(cast))
