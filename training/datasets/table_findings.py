"""Finds what of the tables beside the events is worth less than its owner may think."""

from collections.abc import Iterator, Mapping
from datetime import datetime

import polars as pl

from embeddings.tables import CUSTOMERS, PRODUCTS
from training.datasets.finding import RARE, Counted, Finding, share, some
from training.datasets.frames import Dataset, GivenTable, attribute_names

_AN_ID = 20
"""From so many rows on an attribute with another value in each is taken for an id."""
_ALIKE = 3
_NO_VALUES = ("\\N", "NULL", "null", "NaN", "nan", "None", "<NA>", "#N/A", "undefined")
"""What exports write for no value."""


def find_in_tables(dataset: Dataset, counted: Counted, moment: datetime) -> Iterator[Finding]:
    """Yield the findings about customers, products, locations and offers, and about the ids that events name.

    Args:
        dataset: checked.
        counted: its events.
        moment: the present one, or the data cut-off, with its zone.
    """
    given = {one.table.name: one for one in dataset.given}
    yield from _unlisted(dataset, counted, given)
    yield from _alike(dataset, counted)
    yield from _no_values(dataset, counted)
    yield from _customers(dataset, counted, given)
    yield from _attributes(dataset, given)
    yield from _offers(dataset, counted, given, moment)
    yield from _locations(dataset, counted, given)


def _unlisted(dataset: Dataset, counted: Counted, given: Mapping[str, GivenTable]) -> Iterator[Finding]:
    for name, key, listed, found, rare in (
        ("products", "product_id", dataset.products, counted.products, 1),
        ("customers", "customer_id", dataset.customers, counted.customers, 3),
    ):
        if name not in given:
            continue
        missing = found.lazy().join(listed.select(key), on=key, how="anti").collect().sort("events", descending=True)
        if not missing.is_empty():
            events, whole = int(missing["events"].sum()), int(found["events"].sum())
            said = (
                f"{missing.height:,} {name} are named by events and not listed in {given[name].file}, with "
                f"{share(events, whole)} of the events that name one; they are kept without attributes"
            )
            yield Finding(rare if events > whole * RARE else 3, said, f"{key} {missing[key][0]}")


def _alike(dataset: Dataset, counted: Counted) -> Iterator[Finding]:
    for name, key, ids in _ids(dataset, counted):
        form = pl.col(key).str.normalize("NFKC").str.strip_chars().str.to_lowercase().str.replace(r"\.0+$", "")
        form = form.str.replace_all(r"\s+", " ")
        alike = (
            ids.group_by(form.alias("form"))
            .agg(pl.col(key).sort(), pl.len().alias("forms"))
            .filter(pl.col("forms") > 1)
            .sort("form")
            .collect()
        )
        if not alike.is_empty():
            pairs = "; ".join(" and ".join(repr(one) for one in group[:2]) for group in alike[key][:_ALIKE].to_list())
            said = (
                f"{alike.height:,} ids of {name} are there in several forms that differ only by blanks, case, .0 or "
                "Unicode form, and count as different ones; write them one way"
            )
            yield Finding(1, said, pairs)


def _no_values(dataset: Dataset, counted: Counted) -> Iterator[Finding]:
    for name, key, ids in _ids(dataset, counted):
        marks = ids.filter(pl.col(key).is_in(_NO_VALUES)).sort(key).collect()[key].to_list()
        if marks:
            said = (
                f"{some([repr(one) for one in marks])} stand as ids of {name}, as if they meant no value: all "
                "that have none become one; leave such fields empty"
            )
            yield Finding(1, said, f"{key} {marks[0]}")


def _ids(dataset: Dataset, counted: Counted) -> Iterator[tuple[str, str, pl.LazyFrame]]:
    """The kinds of ids: how they are called, their column, and those that a table lists or events name, each once."""
    for name, key, listed, found in (
        ("products", "product_id", dataset.products, counted.products),
        ("customers", "customer_id", dataset.customers, counted.customers),
        ("locations", "location", dataset.locations, counted.locations),
        ("offers", "offer_id", dataset.offers, counted.offers),
    ):
        yield name, key, pl.concat([listed.select(key), found.lazy().select(key)]).unique()


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


def _attributes(dataset: Dataset, given: Mapping[str, GivenTable]) -> Iterator[Finding]:
    for table, frame in ((CUSTOMERS, dataset.customers), (PRODUCTS, dataset.products)):
        if table.name not in given:
            continue
        names = attribute_names(frame, table)
        if not names:
            continue
        held = frame.select(
            pl.len().alias("rows"),
            *(pl.col(name).drop_nulls().n_unique().alias(f"values {name}") for name in names),
            *(pl.col(name).count().alias(f"filled {name}") for name in names),
        ).collect(engine="streaming")
        rows = held["rows"][0]
        for name in names:
            values, filled = held[f"values {name}"][0], held[f"filled {name}"][0]
            what = f"attribute {name} of {table.name}"
            if not filled:
                yield Finding(2, f"{what} has no value in any row")
            elif values == 1:
                yield Finding(2, f"{what} has one value in all rows and tells nothing")
            elif values == filled and filled >= _AN_ID:
                yield Finding(
                    2, f"{what} has another value in every row, as an id has, and tells nothing; leave it out"
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
    if running.is_empty():
        yield Finding(2, f"all {offers.height:,} offers have ended: none will be shown")
    if not redeemed:
        yield Finding(2, "no event redeems an offer: which of them suits whom cannot be learnt")


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
