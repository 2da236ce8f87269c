"""Generated shops of any size, with what makes purchases predictable: tastes, favourites, popularity, places, days.

Letters: C customers, N products, T types, L locations, F favourites, V visits, E lines.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

BEGIN, DAYS = datetime(2025, 1, 1, tzinfo=UTC), 364
UNTIL = BEGIN + timedelta(days=DAYS)

_LINES_A_VISIT = 5
_PRODUCTS_A_TYPE, _TYPES_A_CATEGORY, _CUSTOMERS_A_LOCATION = 60, 20, 2_000
_LIKED, _FAVOURITES = 12, 25
_SHARES = (0.55, 0.3, 0.15)
"""How often a line is one of the customer's favourites, something popular of a type they like, or anything popular."""
_STEEP = 0.8
"""How fast popularity falls with the rank: the exponent of Zipf's law."""


class Size(NamedTuple):
    """How large a shop is."""

    events: int
    customers: int
    products: int


def locations_of(size: Size) -> int:
    """Return how many locations a shop has."""
    return max(2, size.customers // _CUSTOMERS_A_LOCATION)


def write_shop(size: Size, folder: Path, seed: int = 0) -> None:
    """Write the tables of a shop into a new folder: products, locations, and a year of purchases."""
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    types, locations = max(8, size.products // _PRODUCTS_A_TYPE), locations_of(size)
    type_N = np.sort(random.integers(types, size=size.products))
    weight_N = random.permutation(np.arange(1, size.products + 1) ** -_STEEP)
    products = pl.DataFrame({"product": np.arange(size.products), "type": type_N}).select(
        product_id=_named("p", "product"),
        type=_named("t", "type"),
        category=_named("g", pl.col("type") // _TYPES_A_CATEGORY),
        manufacturer=_named("m", pl.lit(pl.Series(random.zipf(1.5, size.products) % 1_000))),
        price=pl.Series(np.round(random.lognormal(1, 0.7, size.products), 2)),
    )
    products.write_parquet(folder / "products.parquet")
    points = random.uniform((47, 7), (54, 14), (locations, 2))
    pl.DataFrame({"latitude": points[:, 0], "longitude": points[:, 1]}).with_row_index("row").select(
        "latitude", "longitude", location=_named("s", "row"), region=_named("r", pl.col("row") % 10)
    ).write_parquet(folder / "locations.parquet")
    _events(size, type_N, weight_N, types, locations, random).write_parquet(folder / "events.parquet")


def _events(
    size: Size,
    type_N: NDArray[np.int64],
    weight_N: NDArray[np.float64],
    types: int,
    locations: int,
    random: np.random.Generator,
) -> pl.DataFrame:
    ends_N, begins_T = np.cumsum(weight_N), type_N.searchsorted(np.arange(types + 1))
    sums_T = np.append(0, ends_N)[begins_T]

    def of_types(types_E: NDArray[np.int64]) -> NDArray[np.int64]:
        spans_E = sums_T[types_E + 1] - sums_T[types_E]
        return _found(ends_N, sums_T[types_E] + random.random(len(types_E)) * spans_E)

    liked_CT = random.integers(types, size=(size.customers, _LIKED))
    favourites_CF = of_types(liked_CT[:, np.arange(_FAVOURITES) % _LIKED].ravel()).reshape(size.customers, -1)
    home_C = random.integers(locations, size=size.customers)

    busy_C = np.cumsum(random.gamma(1.0, size=size.customers))
    visits = size.events // _LINES_A_VISIT
    customers_V = _found(busy_C, random.random(visits) * busy_C[-1])
    days_V = random.integers(DAYS, size=visits)
    hours_V = np.clip(random.normal(14, 3, visits), 6, 22)
    at_V = (days_V * 86_400 + hours_V * 3_600).astype(np.int64)
    elsewhere_V = random.random(visits) < 0.15
    places_V = np.where(elsewhere_V, random.integers(locations, size=visits), home_C[customers_V])

    visits_E = np.repeat(np.arange(visits), random.poisson(_LINES_A_VISIT - 1, visits) + 1)
    customers_E, lines = customers_V[visits_E], len(visits_E)
    kinds_E = random.choice(len(_SHARES), lines, p=_SHARES)
    # Some favourites are bought much oftener than others.
    places_E = (random.random(lines) ** 2 * _FAVOURITES).astype(np.int64)
    bought_E = favourites_CF[customers_E, places_E]
    liked_E, popular_E = np.flatnonzero(kinds_E == 1), np.flatnonzero(kinds_E == 2)
    bought_E[liked_E] = of_types(liked_CT[customers_E[liked_E], random.integers(_LIKED, size=len(liked_E))])
    bought_E[popular_E] = _found(ends_N, random.random(len(popular_E)) * ends_N[-1])
    return pl.DataFrame(
        {"customer": customers_E, "product": bought_E, "at": at_V[visits_E], "place": places_V[visits_E]}
    ).select(
        customer_id=_named("c", "customer"),
        product_id=_named("p", "product"),
        type=pl.lit("purchase"),
        at=pl.lit(BEGIN) + pl.duration(seconds="at"),
        location=_named("s", "place"),
        channel=pl.lit("store"),
        quantity=pl.lit(1.0),
    )


def _found(ends: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.minimum(ends.searchsorted(values, side="right"), len(ends) - 1)


def _named(letter: str, numbers: str | pl.Expr) -> pl.Expr:
    """Return ids: a letter and a number each."""
    column = pl.col(numbers) if isinstance(numbers, str) else numbers
    return pl.lit(letter) + column.cast(pl.String)
