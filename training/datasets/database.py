"""The input tables as the database holds them, written as files: from there on they are tables like any others.

All of them are of one moment: one transaction reads what is true at its start.
"""

import asyncio
from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec
import polars as pl

from embeddings.catalogue.changes import (
    STATES,
    AnyState,
    CustomerState,
    Kind,
    LocationState,
    OfferState,
    ProductState,
    PromotionState,
    withdrawn,
)
from embeddings.catalogue.tables import CUSTOMERS, EVENTS, LOCATIONS, OFFERS, PRODUCTS, PROMOTIONS, Table
from embeddings.database.changelog import last
from embeddings.database.connection import DATABASE_VARIABLE, Connection, connected
from embeddings.database.migrate import prepare
from embeddings.database.numbering import number, seen
from embeddings.errors import InvalidInput
from embeddings.release.bundle import DatabaseMark
from training.config import Recipe
from training.datasets.cast import DTYPES

POSTGRES = "postgres"
"""The name that means the tables of a database."""

_ROWS, _STATES = 100_000, 5_000
"""Rows of events, and states, in one file."""

# What was withdrawn stays known by what happened to it, but for customers: those are to be forgotten.
_KIND = """
SELECT withdrawn, body::text FROM catalogue WHERE kind = $1 AND (NOT withdrawn OR kind <> 'customer') ORDER BY since
"""

_EVENTS = """
SELECT customer_id, type, at, product_id, offer_id, location, channel, visit, quantity, value, context::text
FROM events
WHERE NOT EXISTS (SELECT FROM customers WHERE customers.id = events.customer_id AND customers.withdrawn)
ORDER BY seq
"""


class Marks(NamedTuple):
    """How far the database was read.

    Attributes:
        catalogue_seq: the newest change of the catalogue.
        events: which events.
    """

    catalogue_seq: int
    events: DatabaseMark


class Source(NamedTuple):
    """Tables to be opened.

    Attributes:
        data: a known data set's name or a directory.
        name: what people call them.
        marks: how far a database was read, if they are its.
    """

    data: str
    name: str
    marks: Marks | None


@contextmanager
def tables_of(data: str, recipe: Recipe, database: str | None) -> Generator[Source]:
    """Yield the tables that a name means; those of a database lie in files as long as the block lasts.

    Args:
        data: a known data set's name, a directory, or ``postgres``.
        recipe: declares the context attributes of events.
        database: the URL of the PostgreSQL that ``postgres`` means.

    Raises:
        InvalidInput: there is no URL, or it is no URL of a PostgreSQL with a schema that this version knows.
        EventStoreUnavailable: PostgreSQL does not answer.
    """
    if data != POSTGRES:
        yield Source(data, data, None)
        return
    if database is None:
        raise InvalidInput("--database", f"expected a URL for --data {POSTGRES}, there or in {DATABASE_VARIABLE}")
    with TemporaryDirectory(prefix="opportune-tables-") as folder:  # closed to other users: it holds personal data
        marks = write_tables(database, Path(folder), recipe.tables.context_attributes)
        yield Source(folder, POSTGRES, marks)


def write_tables(url: str, folder: Path, context_attributes: Sequence[str]) -> Marks:
    """Write the tables that a database holds into an empty folder as Parquet, and return how far it was read.

    Args:
        url: of PostgreSQL; its schema is migrated first.
        folder: where to; it holds personal data.
        context_attributes: columns of events that the recipe declares.

    Raises:
        EventStoreUnavailable: PostgreSQL does not answer.
        InvalidInput: it is no URL of a PostgreSQL, or its schema is of another version.
    """
    (folder / EVENTS.name).mkdir()
    return asyncio.run(_write_tables(url, folder, context_attributes))


async def _write_tables(url: str, folder: Path, context_attributes: Sequence[str]) -> Marks:
    await prepare(url)
    async with connected(url, refuses="to be read") as connection:
        await number(connection)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            marks = Marks(await last(connection), await seen(connection))
            for kind, table in _TABLES.items():
                await _write_kind(connection, kind, table, folder / f"{table.name}.parquet")
            await _write_events(connection, folder / EVENTS.name, context_attributes)
    return marks


async def _write_kind(connection: Connection, kind: Kind, table: Table, path: Path) -> None:
    """Write the states of a kind as one table; nothing if there are none."""
    names: dict[str, None] = {}
    frames: list[pl.DataFrame] = []
    async for records in _slices(connection, _KIND, _STATES, kind):
        states = [(gone, msgspec.json.decode(body, type=STATES[kind])) for gone, body in records]
        rows = [row for gone, state in states for row in _rows(withdrawn(state) if gone else state)]
        for row in rows:
            names |= dict.fromkeys(row)
        schema = {column.name: DTYPES[column.dtype] for column in table.columns}
        more = sorted(names.keys() - schema.keys())
        frames.append(pl.DataFrame(rows, schema=schema | dict.fromkeys(more, pl.String())))
    if frames:
        pl.concat(frames, how="diagonal").write_parquet(path)


def _rows(state: AnyState) -> list[dict[str, Any]]:
    """Return a state as rows of its table."""
    match state:
        case ProductState():
            return [
                {
                    **state.attributes,
                    "product_id": state.id,
                    "price": state.price,
                    "recommendable": state.recommendable,
                    "locations": state.locations or None,
                    "in_stock": state.in_stock,
                    "out_of_stock_at": state.out_of_stock_at or None,
                    "withdrawn_at": state.withdrawn_at or None,
                }
            ]
        case CustomerState():
            return [{**state.attributes, "customer_id": state.id, "audiences": state.audiences or None}]
        case LocationState():
            return [{"location": state.id, **{name: getattr(state, name) for name in _OF_LOCATIONS}}]
        case OfferState():
            return [
                {
                    "offer_id": state.id,
                    **{name: getattr(state, name) for name in _OF_OFFERS},
                    "name": state.name or None,
                    "uses": float(state.uses),
                }
            ]
        case PromotionState():
            whole = {"channel": state.channel, "location": state.location, "starts": state.starts, "ends": state.ends}
            return [{**whole, "product_id": one} for one in state.products]
        case _:
            return []


async def _write_events(connection: Connection, folder: Path, context_attributes: Sequence[str]) -> None:
    """Write the events as the parts of a table, in the order in which they arrived."""
    declared = {column.name: DTYPES[column.dtype] for column in EVENTS.columns}
    schema = declared | dict.fromkeys(context_attributes, pl.String())
    part = 0
    async for records in _slices(connection, _EVENTS, _ROWS):
        columns = dict(zip([*_READ, "context"], zip(*records, strict=True), strict=True))
        said = [{} if one is None else msgspec.json.decode(one) for one in columns.pop("context")]
        columns |= {name: [one.get(name) for one in said] for name in context_attributes}
        frame = pl.DataFrame(columns, schema_overrides=schema).select(*schema)
        frame.write_parquet(folder / f"part-{part:05d}.parquet")
        part += 1
    if not part:
        pl.DataFrame(schema=schema).write_parquet(folder / "part-00000.parquet")


async def _slices(connection: Connection, query: str, size: int, *arguments: object) -> AsyncIterator[list[Any]]:
    """Yield the rows of a query, so many at a time."""
    cursor = await connection.cursor(query, *arguments)
    while records := await cursor.fetch(size):
        yield records


_TABLES: dict[Kind, Table] = {
    "location": LOCATIONS,
    "product": PRODUCTS,
    "customer": CUSTOMERS,
    "offer": OFFERS,
    "promotion": PROMOTIONS,
}
_OF_LOCATIONS = ("latitude", "longitude", "region", "closed")
_OF_OFFERS = ("kind", "products", "starts", "ends", "channels", "locations", "audience", "campaign", "status")
_READ = (*("customer_id", "type", "at", "product_id", "offer_id", "location", "channel", "visit", "quantity", "value"),)
