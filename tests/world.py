"""A small world with a known answer, for every test that needs data.

Four tastes, one a department of thirty products. Customer ``c017`` has taste 17 % 4, shops once a week at one of
two stores, and buys there one favourite every time and two more products of the same department at random. So the
right answer is known: the favourite first, then the department, and at ``north`` only even products, at ``south``
only odd ones.

What must stay unseen: product ``late`` is sold only after ``UNTIL``, at ``north``, to everybody, every day.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from embeddings.catalogue.tables import TABLES
from training.datasets.frames import Dataset, GivenTable, as_of, assemble

UNTIL = datetime(2025, 6, 1, tzinfo=UTC)
WEEKS = 16
CUSTOMERS, PRODUCTS, TASTES = 120, 120, 4
STORES = ("north", "south")
HOUR = timedelta(hours=1)


def taste(customer: int) -> int:
    """The department a customer buys from."""
    return customer % TASTES


def store(customer: int) -> str:
    """Where a customer shops."""
    return STORES[customer // TASTES % 2]


def favourite(customer: int) -> str:
    """What a customer buys every week."""
    return f"p{_range(customer)[customer // 8 % 15]:03d}"


def department(product_id: str) -> int:
    """The taste a product belongs to."""
    return int(product_id[1:]) % TASTES


def carries(location: str, product_id: str) -> bool:
    """Whether one of the two stores sells a product."""
    return int(product_id[1:]) // TASTES % 2 == STORES.index(location)


def visit(customer: int, until: datetime = UNTIL) -> datetime:
    """When a customer shops for the first time after the cut-off, a whole number of weeks after every time before."""
    return until + timedelta(days=customer % 7, hours=8 + customer % 12, seconds=customer)


def write_world(folder: Path, until: datetime = UNTIL) -> Path:
    """Write the six tables as Parquet and return the folder."""
    return write_tables(tables(until), folder)


def write_tables(frames: Mapping[str, pl.DataFrame], folder: Path) -> Path:
    """Write tables as Parquet and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in frames.items():
        frame.write_parquet(folder / f"{name}.parquet")
    return folder


def tables(until: datetime = UNTIL) -> dict[str, pl.DataFrame]:
    """The six tables, whose cut-off is at ``until``."""
    customers = range(CUSTOMERS)
    products = [f"p{number:03d}" for number in range(PRODUCTS)]
    far = until + timedelta(days=365)
    return {
        "customers": pl.DataFrame(
            {
                "customer_id": [f"c{number:03d}" for number in customers],
                "audiences": [["vip"] if number % 10 == 0 else [] for number in customers],
                "segment": [f"s{taste(number)}" if number % 5 else None for number in customers],
            },
            schema_overrides={"audiences": pl.List(pl.String)},
        ),
        "products": pl.DataFrame(
            {
                "product_id": [*products, "late", "unsold"],
                "price": [1.0 + number % 7 for number in range(PRODUCTS)] + [None, 3.0],
                "locations": [None] * (PRODUCTS + 1) + [["south"]],
                "department": [f"d{department(one)}" for one in products] + ["d0", "d1"],
                "brand": [f"b{number % 5}" for number in range(PRODUCTS)] + [None, "b1"],
            },
            schema_overrides={"locations": pl.List(pl.String)},
        ),
        "locations": pl.DataFrame(
            {
                "location": ["north", "south", "dateline", "pole", "unopened", "nowhere"],
                "latitude": [60.0, 52.5, -17.0, 90.0, 59.0, None],
                "longitude": [10.0, 13.4, 179.9, 0.0, 10.0, None],
                "region": ["cold", "warm", "warm", "cold", "cold", None],
            }
        ),
        "offers": pl.DataFrame(
            [
                ("everyone", products[0::4], until - timedelta(days=9), far, None, None, None, 2),
                ("vips", products[1::4], until - timedelta(days=9), far, None, None, "vip", None),
                ("expired", products[2::4], until - timedelta(days=99), until - timedelta(days=1), *[None] * 4),
                ("coming", products[3::4], until + timedelta(days=30), far, *[None] * 4),
                ("by-email", products[3::4], until - timedelta(days=9), far, ["email"], None, None, None),
                ("at-north", products[2::4], until - timedelta(days=9), far, None, ["north"], None, 1),
            ],
            schema={
                "offer_id": pl.String,
                "products": pl.List(pl.String),
                "starts": pl.Datetime("us", "UTC"),
                "ends": pl.Datetime("us", "UTC"),
                "channels": pl.List(pl.String),
                "locations": pl.List(pl.String),
                "audience": pl.String,
                "uses": pl.Int64,
            },
            orient="row",
        ),
        "promotions": pl.DataFrame(
            [
                ("mailer", location, product, until + timedelta(weeks=week), until + timedelta(weeks=week + 1))
                for week in (-2, -1, 0, 1)
                for location in STORES
                for product in products[week + 2 :: 5]
            ],
            schema={
                "channel": pl.String,
                "location": pl.String,
                "product_id": pl.String,
                "starts": pl.Datetime("us", "UTC"),
                "ends": pl.Datetime("us", "UTC"),
            },
            orient="row",
        ),
        "events": _events(until),
    }


def dataset_of(frames: Mapping[str, pl.DataFrame]) -> Dataset:
    """The data set of tables like those of `tables`, as it was at ``UNTIL``."""
    given = (GivenTable(table, table.name, frames[table.name].lazy()) for table in TABLES)
    return as_of(assemble("world", given), UNTIL)


def _range(customer: int) -> list[int]:
    """The products of a customer's taste that their store carries."""
    return [
        number
        for number in range(PRODUCTS)
        if number % TASTES == taste(customer) and carries(store(customer), f"p{number:03d}")
    ]


def _events(until: datetime) -> pl.DataFrame:
    random = np.random.default_rng(7)
    rows: list[tuple[str, str, datetime, str, str, str, float, float]] = []
    for customer in range(CUSTOMERS):
        for week in range(-WEEKS, 2):
            at = visit(customer, until) + timedelta(weeks=week)
            others = [f"p{number:03d}" for number in random.choice(_range(customer), 2, replace=False)]
            rows += [
                (f"c{customer:03d}", "purchase", at, product, store(customer), "store", 1.0, 2.5)
                for product in sorted({favourite(customer), *others})
            ]
        for day in range(14):
            at = until + timedelta(days=day, seconds=customer + 1)
            rows.append((f"c{customer:03d}", "purchase", at, "late", "north", "store", 1.0, 1.0))
    return pl.DataFrame(
        rows,
        schema={
            "customer_id": pl.String,
            "type": pl.String,
            "at": pl.Datetime("us", "UTC"),
            "product_id": pl.String,
            "location": pl.String,
            "channel": pl.String,
            "quantity": pl.Float64,
            "value": pl.Float64,
        },
        orient="row",
    )
