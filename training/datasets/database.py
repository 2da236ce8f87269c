"""The input tables as the database holds them, written as files: from there on they are tables like any others.

All of them are of one moment: one transaction reads what is true at its start.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator
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
    withdrawn,
)
from embeddings.catalogue.tables import CUSTOMERS, LOCATIONS, OFFERS, PRODUCTS, Table
from embeddings.database.changelog import Position, newest
from embeddings.database.connection import DATABASE_VARIABLE, Connection, connected
from embeddings.database.migrate import prepare
from embeddings.database.numbering import number, seen
from embeddings.database.postgres import database
from embeddings.errors import InvalidInput
from embeddings.release.bundle import DatabaseMark
from embeddings.release.store import BundleStore
from training.config import Recipe
from training.datasets.cast import DTYPES
from training.datasets.stored import write_events, write_promotions
from training.passing import passing

POSTGRES = "postgres"
"""The name that means the tables of a database."""

_STATES = 5_000
"""States that are decoded at a time."""

# What was withdrawn stays known by what happened to it, but for customers: those are to be forgotten.
_KIND = """
SELECT withdrawn, body::text FROM catalogue WHERE kind = $1 AND (NOT withdrawn OR kind <> 'customer') ORDER BY since
"""


class Marks(NamedTuple):
    """How far the database was read.

    Attributes:
        catalogue: the newest change of the catalogue.
        events: which events.
    """

    catalogue: Position
    events: DatabaseMark


class Source(NamedTuple):
    """Tables to be opened.

    Attributes:
        data: a known data set's name or a directory.
        name: what people call them.
        marks: how far a database was read, if they are its.
        notes: a sentence for each thing of a database that was left out.
    """

    data: str
    name: str
    marks: Marks | None = None
    notes: tuple[str, ...] = ()


@contextmanager
def tables_of(data: str, recipe: Recipe, url: str | None, store: Path | None = None) -> Generator[Source]:
    """Yield the tables that a name means; those of a database lie in files as long as the block lasts.

    Args:
        data: a known data set's name, a directory, or ``postgres``.
        recipe: declares the channels and the context attributes of events.
        url: of the PostgreSQL that ``postgres`` means.
        store: where the files lie, and beside which that PostgreSQL is embedded, where there is no URL; None for files
            in the folder for temporary ones.

    Raises:
        InvalidInput: there is no database, or it is no URL of a PostgreSQL with a schema that this version knows.
        EventStoreUnavailable: PostgreSQL does not answer.
    """
    if data != POSTGRES:
        yield Source(data, data)
        return
    home = _home(url, store)
    with _folder(store) as folder, passing(folder):
        with database(url, home) as found:
            marks, notes = write_tables(found.url, folder, recipe)
        yield Source(str(folder), POSTGRES, marks, notes)


@contextmanager
def _folder(store: Path | None) -> Generator[Path]:
    """Yield an empty folder that only its owner can read, as it is to hold personal data; it goes with the block."""
    if store is not None:
        with BundleStore(store).tables() as folder:
            yield folder
        return
    with TemporaryDirectory(prefix="opportune-tables-") as name:
        yield Path(name)


def _home(url: str | None, store: Path | None) -> Path:
    """Return the store of an embedded PostgreSQL, which must be there unless a URL names another one."""
    if url is None and (store is None or not (store / "state" / "postgres").is_dir()):
        beside = "--store of a PostgreSQL that is embedded" if store is None else f"a PostgreSQL beside {store}"
        raise InvalidInput(
            "--database", f"expected a URL for --data {POSTGRES}, there or in {DATABASE_VARIABLE}, or {beside}"
        )
    return store or Path()


def write_tables(url: str, folder: Path, recipe: Recipe) -> tuple[Marks, tuple[str, ...]]:
    """Write the tables that a database holds into an empty folder as Parquet.

    Returns how far it was read, and a note for each thing that was left out.

    Args:
        url: of PostgreSQL; its schema is migrated first.
        folder: where to; it holds personal data.
        recipe: declares the channels and the context attributes of events.

    Raises:
        EventStoreUnavailable: PostgreSQL does not answer.
        InvalidInput: it is no URL of a PostgreSQL, or its schema is of another version.
    """
    return asyncio.run(_write_tables(url, folder, recipe))


async def _write_tables(url: str, folder: Path, recipe: Recipe) -> tuple[Marks, tuple[str, ...]]:
    await prepare(url)
    async with connected(url, refuses="to be read") as connection:
        await number(connection)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            marks = Marks(await newest(connection), await seen(connection))
            notes: list[str] = []
            for kind, table in _TABLES.items():
                notes += await _write_kind(connection, kind, table, folder / f"{table.name}.parquet")
            await write_promotions(connection, folder)
            known = dict(_known(folder, recipe))
            notes += await write_events(connection, folder, recipe.tables.context_attributes, recipe.channels, known)
    return marks, tuple(notes)


def _known(folder: Path, recipe: Recipe) -> Iterator[tuple[str, pl.Series]]:
    """Yield the columns of events that name what a table lists, with the ids of that table.

    Of a table that is not there training takes whatever events name; of products it does so beside a table, too.
    """
    for table in (LOCATIONS, OFFERS, PRODUCTS):
        path = folder / f"{table.name}.parquet"
        if table.key and path.exists() and (table is not PRODUCTS or recipe.tables.unlisted_products == "refuse"):
            yield table.key, pl.read_parquet(path, columns=[table.key], glob=False).to_series()


async def _write_kind(connection: Connection, kind: Kind, table: Table, path: Path) -> list[str]:
    """Write the states of a kind as one table, nothing if there are none; return a note of attributes left out."""
    names: dict[str, None] = {}
    frames: list[pl.DataFrame] = []
    unfit = Counter[str]()
    declared = {column.name: DTYPES[column.dtype] for column in table.columns}
    async for records in _slices(connection, _KIND, _STATES, kind):
        states = [(gone, msgspec.json.decode(body, type=STATES[kind])) for gone, body in records]
        attributes = [_attributes(state, table, unfit) for _, state in states]
        for one in attributes:
            names |= dict.fromkeys(one)
        rows = [
            {**said, **_row(withdrawn(state) if gone else state)}
            for (gone, state), said in zip(states, attributes, strict=True)
        ]
        frames.append(pl.DataFrame(rows, schema=declared | dict.fromkeys(sorted(names), pl.String())))
    if frames:
        pl.concat(frames, how="diagonal").write_parquet(path)
    return [
        f"attribute {name!r} of {count:,} {table.name} is not read: it is called as no further column of that table "
        "can be; give it another name"
        for name, count in sorted(unfit.items())
    ]


def _attributes(state: AnyState, table: Table, unfit: Counter[str]) -> dict[str, str]:
    """Return the attributes of a state that can be columns of its table, and count the others."""
    if not isinstance(state, ProductState | CustomerState):
        return {}
    fit = {name: value for name, value in state.attributes.items() if table.takes_attribute(name)}
    unfit.update(state.attributes.keys() - fit.keys())
    return fit


def _row(state: AnyState) -> dict[str, Any]:
    """Return the declared columns of a state's row."""
    match state:
        case ProductState():
            return {
                "product_id": state.id,
                "price": state.price,
                "recommendable": state.recommendable,
                "locations": state.locations or None,
                "in_stock": state.in_stock,
                "out_of_stock_at": state.out_of_stock_at or None,
                "withdrawn_at": state.withdrawn_at or None,
            }
        case CustomerState():
            return {"customer_id": state.id, "audiences": state.audiences or None}
        case LocationState():
            return {"location": state.id, **{name: getattr(state, name) for name in _OF_LOCATIONS}}
        case OfferState():
            return {
                "offer_id": state.id,
                **{name: getattr(state, name) for name in _OF_OFFERS},
                "name": state.name or None,
                "uses": float(state.uses),
            }
        case _:
            raise TypeError(type(state))


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
}
_OF_LOCATIONS = ("latitude", "longitude", "region", "closed")
_OF_OFFERS = ("kind", "products", "starts", "ends", "channels", "locations", "audience", "campaign", "status")
