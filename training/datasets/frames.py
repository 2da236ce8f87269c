"""The input tables as lazy Polars frames in one set of types, whatever they were read from."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import IO, Any, NamedTuple

import polars as pl

from embeddings.tables import EVENTS, TABLES, Column, Dtype, Table
from training.config import TablesConfig

DTYPES: dict[Dtype, pl.DataType] = {
    "text": pl.String(),
    "number": pl.Float64(),
    "time": pl.Datetime("us", "UTC"),
    "list": pl.List(pl.String()),
    "flag": pl.Boolean(),
}
"""The Polars type of every declared type. Attributes are text."""

TEXTUAL = (pl.String, pl.Categorical, pl.Enum)
_YEARS = -62_135_596_800, 253_402_300_800
"""The first second of the year 1 and that of the year 10000, counted from 1970 in UTC: Python has no others."""
_UNITS = {"ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

EARLIEST = datetime(1971, 1, 1, tzinfo=UTC)
"""Events before this moment count nowhere: what writes 1970 or 1900 means that it does not know when."""

LIST_SEPARATOR = "|"
RFC_3339 = "%+"
_SPELLINGS = (
    (r"^(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d) ?([Zz]|UTC|[+-])", "${1}:00${2}"),
    (r"^(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d(?:\.\d+)?) ?", "${1}T${2}"),
    (r"(?:[Zz]|UTC)$", "+00:00"),
    (r"([+-]\d\d)$", "${1}:00"),
    (r"([+-]\d\d)(\d\d)$", "${1}:${2}"),
)
"""What makes RFC 3339 of a moment as PostgreSQL and others write it: 2026-11-15 15:36:20+00."""
_NAIVE = "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d"


class Part(NamedTuple):
    """A file of a table, and how many rows lie in it."""

    file: str
    rows: int


class GivenTable(NamedTuple):
    """A table as its owner gave it: nothing renamed, cast or dropped yet.

    Attributes:
        table: what the columns are meant to be.
        file: how messages name it, such as ``events.csv``.
        frame: the rows, in the order in which messages number them.
        config: how the values are written.
        parts: the files that it lies in, in the order of its rows; none where it lies in no file of its owner.
        texts: decoded copies of files, open as long as the frame is to be read.
    """

    table: Table
    file: str
    frame: pl.LazyFrame
    config: TablesConfig = TablesConfig()
    parts: tuple[Part, ...] = ()
    texts: tuple[IO[bytes], ...] = ()

    def place(self, row: int) -> str:
        """The file and row, counted from 1 in that file, of a row counted from 1 in the table."""
        for part in self.parts:
            if row <= part.rows:
                return f"{part.file}, row {row:,}"
            row -= part.rows
        return f"{self.file}, row {row:,}"


class Dataset(NamedTuple):
    """Every input table, with all declared columns in the types of ``DTYPES``.

    Columns that were not given are null. Tables that were not given are derived from the ids that others
    mention, but offers and promotions, which are empty then. Products that events name and the table of products does
    not come after those listed, without attributes. Customers and products keep further columns of
    text as attributes. Until ``training.datasets.checks.validate`` has passed, nothing is promised of the
    values: what could not be understood is null.

    Attributes:
        name: where the data come from.
        notes: one sentence for each thing that was left out, filled in or moved, with its count.
        given: the tables before they were cast, for the checks.
        unused: a sentence for each file that looks like a table and is none.
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
        **_completed(_cast_tables(given)),
    )


def cast_column(name: str, to: Dtype, given: pl.DataType, config: TablesConfig) -> pl.Expr | None:
    """The column in its declared type, what cannot be understood as null; None where the type is unsuitable.

    Empty text is null. Text is read as a number, a moment with its zone, or a list separated by ``|``; whole numbers
    and truth values as text. A moment without a zone is one of the zone that the recipe declares for such; without
    that it is unsuitable, as is a floating-point number as text.
    """
    value = pl.col(name)
    if given == DTYPES["time"] and to == "time":
        return value  # as it is, so that a filter on it can move on to where the rows come from
    if given == pl.Null():
        return value.cast(DTYPES[to])
    if isinstance(given, TEXTUAL):
        return _from_text(_filled(value.cast(pl.String)), to, config)
    return _from_typed(value, to, given, config)


def given_value(name: str, given: pl.DataType) -> pl.Expr:
    """The column as it was given, empty text as null."""
    return _filled(pl.col(name).cast(pl.String)) if isinstance(given, TEXTUAL) else pl.col(name)


def shown_value(name: str, given: pl.DataType) -> pl.Expr:
    """The column as a message can show it: moments as text, those of years that Python does not know as a count."""
    if isinstance(given, pl.Datetime | pl.Date):
        moment = pl.col(name)
        written = pl.when(lies_in_years(moment, given)).then(moment).dt.to_string("iso:strict")
        return pl.coalesce(written, moment.to_physical().cast(pl.String))
    return given_value(name, given)


def usable_values(given: GivenTable) -> dict[str, pl.Expr]:
    """The declared columns that are there with a suitable type, each cast to it.

    Purchases and returns of a negative quantity, or value where there is no quantity, are returns of a positive one if
    the recipe says so.
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
    """Yield the first rows for which something holds, each its number, counted from 1, and some values.

    Args:
        given: the table.
        chosen: true in those rows; null counts as false.
        values: of its columns, with names of their own.
        most: how many.
    """
    # Selected first: a column of the owner's may be called row.
    found = given.frame.select(chosen.alias("chosen"), *values).with_row_index("row", offset=1)
    yield from found.filter("chosen").head(most).drop("chosen").collect(engine="streaming").iter_rows()


def _from_typed(value: pl.Expr, to: Dtype, given: pl.DataType, config: TablesConfig) -> pl.Expr | None:
    cast: pl.Expr | None = None
    match to:
        case "text" if given.is_integer() or given == pl.Boolean():
            cast = value.cast(pl.String)
        case "text" if isinstance(given, pl.Decimal):
            written = value.cast(pl.String).str.replace(r"\.0+$", "")
            cast = pl.when(~written.str.contains(".", literal=True)).then(written)
        case "flag" if given == pl.Boolean():
            cast = value
        case "number" if given.is_numeric():
            cast = value.cast(pl.Float64)
        case "time" if isinstance(given, pl.Datetime) and given.time_zone is not None:
            cast = _of_years(value, given).dt.convert_time_zone("UTC").dt.cast_time_unit("us")
        case "time" if isinstance(given, pl.Datetime | pl.Date) and config.time_zone:
            cast = _in_zone(_of_years(value, given).cast(pl.Datetime("us")), config.time_zone)
        case "list" if isinstance(given, pl.List) and (
            isinstance(given.inner, (*TEXTUAL, pl.Null)) or given.inner.is_integer()
        ):
            cast = value.cast(pl.List(pl.String))
        case _:
            pass
    return cast


def _filled(text: pl.Expr) -> pl.Expr:
    return pl.when(text != "").then(text)


def _from_text(text: pl.Expr, to: Dtype, config: TablesConfig) -> pl.Expr:
    match to:
        case "text":
            return text
        case "number" if config.decimal == ",":
            # A point may only group thousands there: what holds one could be either.
            plain = pl.when(~text.str.contains(".", literal=True)).then(text)
            return plain.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False)
        case "number":
            return text.cast(pl.Float64, strict=False)
        case "time":
            return _moment(text, config)
        case "list":
            return text.str.split(LIST_SEPARATOR)
        case "flag":
            lower = text.str.to_lowercase()
            return pl.when(lower.is_in(["true", "false"])).then(lower == "true")


def _moment(text: pl.Expr, config: TablesConfig) -> pl.Expr:
    spelt = text
    for written, meant in _SPELLINGS:
        spelt = spelt.str.replace(written, meant)
    forms = text, spelt
    moments = [one.str.to_datetime(RFC_3339, time_unit="us", time_zone="UTC", strict=False) for one in forms]
    if config.time_zone:
        blank = text.str.replace("T", " ", literal=True)
        naive = [blank.str.to_datetime(form, time_unit="us", strict=False) for form in _NAIVE]
        moments.append(_in_zone(pl.coalesce(naive), config.time_zone))
    return pl.coalesce(moments)


def _of_years(moment: pl.Expr, given: pl.DataType) -> pl.Expr:
    """Typed moments, null where they lie outside of ``_YEARS``."""
    return pl.when(lies_in_years(moment, given)).then(moment)


def lies_in_years(moment: pl.Expr, given: pl.DataType) -> pl.Expr:
    """Whether typed moments lie in the years that Python knows, 1 to 9999: databases also write infinity."""
    begin, end = _YEARS
    if isinstance(given, pl.Datetime):
        begin, end = begin * _UNITS[given.time_unit], end * _UNITS[given.time_unit]
    else:
        begin, end = begin // 86_400, end // 86_400
    count = moment.to_physical()
    # Nanoseconds since 1970 reach from 1677 to 2262.
    return (count >= max(begin, -(2**63))) & (count <= min(end - 1, 2**63 - 1))


def _in_zone(naive: pl.Expr, zone: str) -> pl.Expr:
    """Moments of a zone's clock in UTC: of an hour that the clock shows twice the first, of one that it skips none.

    A midnight stands for a day; where the clock skips it, the day begins an hour later.
    """
    midnight = naive.dt.time() == pl.time(0)
    later = pl.when(midnight).then(naive + pl.duration(hours=1))
    read = [
        one.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")
        for one in (naive, later)
    ]
    return pl.coalesce(read)


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
    """The columns that are attributes: of customers and products all that are not declared, of events those named."""
    names = attribute_names(given.frame, given.table)
    if given.table.attributes:
        return names
    return [name for name in names if given.table is EVENTS and name in given.config.context_attributes]


def attribute_names(frame: pl.LazyFrame, table: Table) -> list[str]:
    """The columns that a table does not declare."""
    declared = {column.name for column in table.columns}
    return [name for name in frame.collect_schema().names() if name not in declared]


def _completed(cast: dict[str, pl.LazyFrame]) -> dict[str, pl.LazyFrame]:
    """All tables: those given, with the products that events alone name, and others derived from what they mention."""
    frames = {table.name: cast[table.name] if table.name in cast else _derived(table, cast) for table in TABLES}
    if "products" in cast and "events" in cast:
        unlisted = _unlisted_products(cast["products"], cast["events"])
        frames["products"] = pl.concat([cast["products"], unlisted.sort("product_id")], how="diagonal")
    return frames


def as_given(dataset: Dataset) -> Dataset:
    """The data set with nothing derived: tables that were not given are empty, and products are those listed."""
    cast = _cast_tables(dataset.given)
    return dataset._replace(**{table.name: cast.get(table.name, _empty(table)) for table in TABLES})


def _unlisted_products(products: pl.LazyFrame, events: pl.LazyFrame) -> pl.LazyFrame:
    """The ids, each once, of the products that events name and a table of products does not."""
    named = events.select("product_id").drop_nulls().unique()
    return named.join(products.select("product_id"), on="product_id", how="anti")


def _derived(table: Table, given: dict[str, pl.LazyFrame]) -> pl.LazyFrame:
    """The ids of a table that was not given, from the tables that mention them."""
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
    """The data set without the events at or after a moment or before ``EARLIEST``, and without what only those mention.

    Master data that were given stay whole; derived tables are derived from the earlier events alone.
    """
    cast = _cast_tables(dataset.given)
    cast["events"] = cast["events"].filter((pl.col("at") < until) & (pl.col("at") >= EARLIEST))
    return dataset._replace(**_completed(cast))
