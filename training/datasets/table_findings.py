"""Finds data in the tables beside the events that are worth less than their owner may think."""

from collections.abc import Iterator, Mapping
from datetime import datetime

import polars as pl

from embeddings.catalogue.tables import CUSTOMERS, EVENTS, PRODUCTS
from training.datasets.finding import RARE, Counted, Finding, share, some
from training.datasets.frames import Dataset, GivenTable, attribute_names, usable_values
from training.datasets.id_findings import means_nothing

_SEVERAL, _SEEN = 10, 100_000
_AN_ID = 20
"""From so many rows on an attribute with another value in each is taken for an id."""


def find_in_tables(dataset: Dataset, counted: Counted, moment: datetime) -> Iterator[Finding]:
    """Yield the findings about customers, products, locations, offers and promotions.

    Args:
        dataset: checked.
        counted: its events.
        moment: the present one, or the data cut-off, with its zone.
    """
    given = {one.table.name: one for one in dataset.given}
    yield from _customers(dataset, counted, given)
    yield from _products(dataset, given)
    yield from _attributes(dataset, given, moment)
    yield from _offers(dataset, counted, given, moment)
    yield from _of_no_length("promotions", dataset.promotions)
    yield from _locations(dataset, counted, given)
    yield from _thousands(given, moment)


def _customers(dataset: Dataset, counted: Counted, given: Mapping[str, GivenTable]) -> Iterator[Finding]:
    meant = set(dataset.offers.select(pl.col("audience").drop_nulls().unique()).collect()["audience"].to_list())
    held = set(
        dataset.customers.select(pl.col("audiences").explode().drop_nulls().unique()).collect()["audiences"].to_list()
    )
    if nobody := sorted(meant - held):
        yield Finding(1, f"offers are meant for audiences that no customer has: {some(nobody)}; nobody will see them")
    if no_offer := sorted(held - meant):
        yield Finding(3, f"customers have audiences that no offer is meant for: {some(no_offer)}")
    if "customers" in given and counted.customers.height:
        listed = dataset.customers.select("customer_id")
        silent = listed.join(counted.customers.lazy(), on="customer_id", how="anti").select(pl.len()).collect().item()
        whole = listed.select(pl.len()).collect().item()
        if silent == whole:
            said = f"none of the {whole:,} customers of {given['customers'].file} has an event: are their ids the same?"
            yield Finding(1, said)
        elif silent > whole / 2:
            yield Finding(3, f"{share(silent, whole)} listed customers have no event")


def _attributes(dataset: Dataset, given: Mapping[str, GivenTable], moment: datetime) -> Iterator[Finding]:
    events = dataset.events.filter(pl.col("at") < moment)
    for table, frame in ((CUSTOMERS, dataset.customers), (PRODUCTS, dataset.products), (EVENTS, events)):
        if table.name not in given:
            continue
        names = attribute_names(frame, table)
        if not names:
            continue
        held = frame.select(
            pl.len().alias("rows"),
            *(means_nothing(pl.col(name)).sum().alias(f"marks {name}") for name in names),
            *(pl.col(name).drop_nulls().n_unique().alias(f"values {name}") for name in names),
            *(pl.col(name).count().alias(f"filled {name}") for name in names),
        ).collect(engine="streaming")
        rows = held["rows"][0]
        for name in names:
            values, filled = held[f"values {name}"][0], held[f"filled {name}"][0]
            what = f"attribute {name} of {table.name}"
            if marks := held[f"marks {name}"][0]:
                yield Finding(
                    2,
                    f"{what} has a text such as NULL in {share(marks, rows)} rows, which counts as a value like "
                    "any other; leave such fields empty",
                )
            if not filled:
                yield Finding(2, f"{what} has no value in any row")
            elif values == 1:
                yield Finding(2, f"{what} has one value in all rows and tells nothing")
            elif values == filled and filled >= _AN_ID:
                yield Finding(
                    2,
                    f"{what} has another value in every row, as an id has, and tells nothing; it is only "
                    "shown where a request includes attributes",
                )
            elif filled < rows * RARE:
                yield Finding(3, f"{what} has a value in {share(filled, rows)} rows")


def _offers(dataset: Dataset, counted: Counted, given: Mapping[str, GivenTable], moment: datetime) -> Iterator[Finding]:
    offers = dataset.offers.select("offer_id", "starts", "ends").collect()
    redeemed = int(counted.kinds.filter(pl.col("type") == "redemption")["events"].sum())
    if "offers" not in given:
        if not counted.offers.is_empty():
            said = f"events name {counted.offers.height:,} offers, but there is no table of offers: none can be shown"
            yield Finding(2, said)
        return
    running = offers.filter(pl.col("ends") > moment)
    if running.is_empty() and offers.height:
        yield Finding(2, f"all {offers.height:,} offers have ended: none will be shown")
    yield from _of_no_length("offers", dataset.offers)
    if not redeemed and offers.height:
        yield Finding(2, "no event redeems an offer: which of them suits whom cannot be learnt")


def _of_no_length(name: str, frame: pl.LazyFrame) -> Iterator[Finding]:
    """Yield a finding if rows of a table are valid from a moment to the same moment."""
    ended = pl.col("starts") == pl.col("ends")
    empty, whole = frame.select(ended.sum(), pl.len().alias("rows")).collect(engine="streaming").row(0)
    if empty:
        yield Finding(
            1,
            f"{share(empty, whole)} {name} end at the moment at which they start, and are never shown: ends is the "
            "first moment after them, so one of a day ends at the next midnight",
        )


def _products(dataset: Dataset, given: Mapping[str, GivenTable]) -> Iterator[Finding]:
    if "products" not in given:
        return
    withheld, whole = dataset.products.select((~pl.col("recommendable")).sum(), pl.len().alias("rows")).collect().row(0)
    if whole and withheld > whole / 2:
        yield Finding(1, f"{share(withheld, whole)} products are not recommendable, and are never shown")


def _thousands(given: Mapping[str, GivenTable], moment: datetime) -> Iterator[Finding]:
    """Yield findings about amounts as text whose points may stand between thousands.

    Of the events, only those before the moment are looked at.
    """
    for name, column in (("products", "price"), ("events", "value"), ("events", "quantity")):
        if name not in given or given[name].frame.collect_schema().get(column) != pl.String():
            continue
        known = usable_values(given[name])["at"] < moment if name == "events" else pl.lit(value=True)
        pointed = pl.col(column).filter(pl.col(column).str.contains(".", literal=True))
        grouped = pointed.str.contains(r"^-?\d{1,3}(?:\.\d{3})+$").all() & (pointed.len() >= _SEVERAL)
        found, first = (
            given[name]
            .frame.filter(known)
            .head(_SEEN)
            .select(grouped.alias("all"), pointed.first())
            .collect(engine="streaming")
            .row(0)
        )
        if found:
            yield Finding(
                1,
                f"column {column} of {given[name].file}: every value with a point has three digits after it; where "
                'points stand between thousands, leave them out or declare decimal = "," under [tables]',
                repr(first),
            )


def _locations(dataset: Dataset, counted: Counted, given: Mapping[str, GivenTable]) -> Iterator[Finding]:
    if "locations" not in given:
        return
    listed = dataset.locations.select("location").collect()
    carrying = dataset.products.select(pl.col("locations").explode().alias("location")).drop_nulls().unique().collect()
    silent = listed.join(counted.locations, on="location", how="anti").join(carrying, on="location", how="anti")
    if not silent.is_empty():
        said = (
            f"{share(silent.height, listed.height)} locations have neither an event nor a product that says it is "
            "there; they show what comparable locations carry"
        )
        yield Finding(2 if silent.height > listed.height / 2 else 3, said, f"location {silent['location'][0]}")
