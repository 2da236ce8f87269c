"""Master data of tables as states of the catalogue, in the order of their rows."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import polars as pl
from msgspec.structs import fields, replace

from embeddings.catalogue.changes import (
    AnyState,
    CampaignState,
    CustomerState,
    Kind,
    LocationState,
    OfferState,
    ProductState,
    PromotionState,
    SegmentState,
)
from embeddings.catalogue.tables import CUSTOMERS, PRODUCTS, PROMOTIONS, Table
from training.catalogue import promotion_id
from training.datasets import Dataset
from training.datasets.frames import GivenTable, attribute_names

_SLICE = 10_000
"""Rows that are made into states at a time."""


class Source(NamedTuple):
    """Where the states of one kind come from.

    Attributes:
        rows: how many states there are.
        states: makes them, a slice after the other.
        given: whether there is a table of them, which lists all there are.
        named: the ids that other given tables name, not counting events; empty where there is a table of them.
        held: the fields and attributes that the table has columns for. The others are for the database to say.
    """

    kind: Kind
    rows: int
    states: Callable[[], Iterator[Sequence[AnyState]]]
    given: bool
    named: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()

    def brings_back(self, one: str) -> bool:
        """Return whether a thing that was withdrawn is there again: events alone say nothing about that."""
        return self.given or one in self.named


def completed(state: AnyState, now: AnyState, held: frozenset[str]) -> AnyState:
    """Return a state with what its table does not hold as the database has it.

    Args:
        state: of a row.
        now: the state of the same thing in the database.
        held: the fields and attributes that the table holds.
    """
    kept = {one.name: getattr(now, one.name) for one in fields(state) if one.name not in held}
    if isinstance(state, ProductState | CustomerState) and isinstance(now, ProductState | CustomerState):
        others = {name: value for name, value in now.attributes.items() if name not in held}
        kept["attributes"] = others | state.attributes
    return replace(state, **kept)


def sources(dataset: Dataset) -> list[Source]:
    """Return where all master data of a checked data set come from, in an order in which names lie before their use.

    Products that only events name are left out, as training finds them in the events. Tables that were not given are
    those that training derives.
    """
    given = {one.table.name: one for one in dataset.given}
    offers = dataset.offers.collect()
    customers = dataset.customers.collect()
    products = dataset.products.collect()
    if PRODUCTS.name in given:
        products = products.head(given[PRODUCTS.name].frame.select(pl.len()).collect().item())
    audiences = pl.concat([customers["audiences"].explode(), offers["audience"]]).drop_nulls().unique().sort()
    campaigns = offers["campaign"].drop_nulls().unique().sort()
    plan = dataset.promotions.select("channel", "location", "starts", "ends").unique()
    plan = plan.sort("starts", "ends", "channel", "location").collect(engine="streaming")

    def of_frame(frame: pl.DataFrame, make: Callable[[dict[str, Any]], AnyState]) -> Callable[[], Iterator[Any]]:
        return lambda: ([make(row) for row in some.iter_rows(named=True)] for some in frame.iter_slices(_SLICE))

    def of_table(kind: Kind, rows: int, states: Callable[[], Iterator[Sequence[AnyState]]]) -> Source:
        table = given.get(f"{kind}s")
        named = frozenset[str]() if table is not None else _named(dataset, kind)
        return Source(kind, rows, states, table is not None, named, _held(table))

    def of_names(kind: Kind, names: pl.Series, make: Callable[[str], AnyState]) -> Source:
        return Source(kind, len(names), lambda: iter([[make(one) for one in names]]), False, frozenset(names))

    locations = dataset.locations.collect()
    return [
        of_names("segment", audiences, lambda one: SegmentState(id=one)),
        of_names("campaign", campaigns, lambda one: CampaignState(id=one)),
        of_table("location", locations.height, of_frame(locations, _location)),
        of_table("product", products.height, of_frame(products, _product(products))),
        of_table("customer", customers.height, of_frame(customers, _customer(customers))),
        of_table("offer", offers.height, of_frame(offers, _offer)),
        of_table("promotion", plan.height, lambda: _promotions(dataset, plan)),
    ]


def _named(dataset: Dataset, kind: Kind) -> frozenset[str]:
    """Return the ids of things of a kind that products, offers and promotions name."""
    columns: list[pl.LazyFrame] = []
    if kind == "location":
        lists = [dataset.products.select(one) for one in ("locations", "out_of_stock_at", "withdrawn_at")]
        lists.append(dataset.offers.select("locations"))
        columns = [*(one.select(pl.all().explode()) for one in lists), dataset.promotions.select("location")]
    elif kind == "product":
        columns = [dataset.offers.select(pl.col("products").explode()), dataset.promotions.select("product_id")]
    found = [one.select(pl.all().drop_nulls().unique()).collect(engine="streaming").to_series() for one in columns]
    return frozenset(one for names in found for one in names)


def _held(given: GivenTable | None) -> frozenset[str]:
    """Return the fields and attributes that a table has columns for; they are called alike."""
    if given is None:
        return frozenset()
    of_rows = ("products",) if given.table is PROMOTIONS else ()
    return frozenset([*given.frame.collect_schema().names(), *of_rows])


def _location(row: dict[str, Any]) -> LocationState:
    return LocationState(
        id=row["location"],
        latitude=row["latitude"],
        longitude=row["longitude"],
        region=row["region"],
        closed=bool(row["closed"]),
    )


def _product(frame: pl.DataFrame) -> Callable[[dict[str, Any]], ProductState]:
    names = _attributes(frame, PRODUCTS)

    def make(row: dict[str, Any]) -> ProductState:
        return ProductState(
            id=row["product_id"],
            attributes={name: row[name] for name in names if row[name] is not None},
            price=row["price"],
            recommendable=row["recommendable"] is not False,
            locations=_unique(row["locations"]),
            in_stock=row["in_stock"] is not False,
            out_of_stock_at=_unique(row["out_of_stock_at"]),
            withdrawn_at=_unique(row["withdrawn_at"]),
        )

    return make


def _customer(frame: pl.DataFrame) -> Callable[[dict[str, Any]], CustomerState]:
    names = _attributes(frame, CUSTOMERS)

    def make(row: dict[str, Any]) -> CustomerState:
        attributes = {name: row[name] for name in names if row[name] is not None}
        return CustomerState(id=row["customer_id"], attributes=attributes, audiences=_unique(row["audiences"]))

    return make


def _offer(row: dict[str, Any]) -> OfferState:
    channels, locations = row["channels"], row["locations"]
    return OfferState(
        id=row["offer_id"],
        products=_unique(row["products"]),
        starts=row["starts"],
        ends=row["ends"],
        name=row["name"] or "",
        kind=row["kind"] or "coupon",
        channels=None if channels is None else _unique(channels),
        locations=None if locations is None else _unique(locations),
        audience=row["audience"],
        uses=int(row["uses"] or 1),
        campaign=row["campaign"],
        status=row["status"] or "live",
    )


def _promotions(dataset: Dataset, plan: pl.DataFrame) -> Iterator[Sequence[PromotionState]]:
    """Yield the promotions of each span of time: all rows of text at once could be more than memory holds."""
    for starts, ends in plan.select("starts", "ends").unique(maintain_order=True).iter_rows():
        of_span = (pl.col("starts") == starts) & (pl.col("ends") == ends)
        rows = dataset.promotions.filter(of_span).select("channel", "location", "product_id")
        groups = rows.group_by("channel", "location").agg(pl.col("product_id").unique().sort())
        yield [
            PromotionState(
                id=promotion_id(channel, location, starts, ends),
                channel=channel,
                location=location,
                products=tuple(products),
                starts=starts,
                ends=ends,
            )
            for channel, location, products in groups.sort("channel", "location")
            .collect(engine="streaming")
            .iter_rows()
        ]


def _attributes(frame: pl.DataFrame, table: Table) -> list[str]:
    return sorted(attribute_names(frame.lazy(), table))


def _unique(values: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values or ()))
