"""Histories of customers, read from the events of a data set."""

from datetime import timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from embeddings.arrays import Ragged
from embeddings.catalogue.columns import Catalogue, ContextAttributes
from embeddings.catalogue.tables import CUSTOMERS
from embeddings.customer.history import EVENT, EVENT_CODES, PURCHASE, Events, Histories
from embeddings.vocabulary import Vocabulary
from training.catalogue import attributes_of, rows_of, seconds_of
from training.datasets import Dataset
from training.datasets.visits import as_they_say, numbers_of


def read_histories(dataset: Dataset, catalogue: Catalogue, visit_pause: int) -> Histories:
    """Read every customer's events, in the rows of a catalogue.

    Customers whom only events name come after the listed ones, by id, with unknown attributes. An offer that the
    catalogue does not hold, as there may be no table of offers, is unknown.

    Args:
        dataset: checked, without what must not be known.
        catalogue: its master data.
        visit_pause: a purchase at most so many seconds after the customer's one before is of its visit.
    """
    frame = dataset.events.collect()
    guests = _of_guests(frame.filter(pl.col("customer_id").is_null()), catalogue)
    frame = frame.drop_nulls("customer_id")
    listed = dataset.customers.collect()
    others = frame.select("customer_id").unique().join(listed, on="customer_id", how="anti").sort("customer_id")
    customers = pl.concat([listed, others], how="diagonal")
    owners = rows_of(frame["customer_id"], customers["customer_id"])
    visits = numbers_of(frame["visit"])
    order = np.lexsort((visits, seconds_of(frame["at"]), owners))
    frame, owners = frame[order], owners[order]
    events = _records(frame, catalogue)
    events["visit"] = as_they_say(owners, events["type"] == PURCHASE, visits[order])
    sizes = np.bincount(owners, minlength=customers.height)
    attributes = attributes_of(customers, CUSTOMERS)
    return Histories(
        customers=Vocabulary.of(customers["customer_id"].to_list()),
        events=events,
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)]),
        attributes_CA=attributes.codes_NA,
        audiences=_audiences(customers["audiences"], catalogue.audiences),
        attribute_names=attributes.names,
        attribute_labels=attributes.labels,
        visit_pause=visit_pause,
        context_EX=_context(frame, catalogue.context),
        guests=guests,
    )


def _of_guests(frame: pl.DataFrame, catalogue: Catalogue) -> Events:
    """Return the purchases and returns of anonymous customers, visit after visit.

    The same number at another location, or half a day later, is another visit.
    """
    frame = frame.filter(pl.col("type").is_in(["purchase", "return"]) & pl.col("product_id").is_not_null()).sort("at")
    key = ["visit", "location"]
    again = (pl.col("at").diff() > timedelta(hours=12)).fill_null(value=False).cum_sum().over(key)
    named = pl.when(pl.col("visit").is_not_null()).then(pl.struct(*key, again.alias("again")).rank("dense"))
    frame = frame.with_columns(named.cast(pl.String).alias("visit"))
    begun = pl.when(pl.col("visit").is_null()).then("at").otherwise(pl.col("at").min().over("visit"))
    frame = frame.sort(begun, "visit", "at", maintain_order=True)
    events = _records(frame, catalogue)
    nobody = np.zeros(len(events), np.int64)
    events["visit"] = as_they_say(nobody, events["type"] == PURCHASE, numbers_of(frame["visit"]))
    return events


def _context(frame: pl.DataFrame, context: ContextAttributes) -> NDArray[np.int32]:
    codes = [
        rows_of(frame[name], pl.Series(labels, dtype=pl.String)) + np.int32(1)
        for name, labels in zip(context.names, context.labels, strict=True)
    ]
    return np.stack(codes, axis=1) if codes else np.zeros((0, 0), np.int32)


def _records(frame: pl.DataFrame, catalogue: Catalogue) -> Events:
    """Return events as records, in their order."""
    events = np.zeros(frame.height, EVENT)
    events["at"] = seconds_of(frame["at"])
    events["product"] = rows_of(frame["product_id"], pl.Series(catalogue.products.ids.ids(), dtype=pl.String))
    offers = pl.Series(catalogue.offers.ids.ids(), dtype=pl.String)
    events["offer"] = rows_of(frame["offer_id"].cast(pl.Enum(offers), strict=False), offers)
    events["location"] = rows_of(frame["location"], pl.Series(catalogue.locations.ids.ids(), dtype=pl.String))
    events["channel"] = rows_of(frame["channel"], pl.Series(list(catalogue.channels), dtype=pl.String))
    events["type"] = rows_of(frame["type"], pl.Series(list(EVENT_CODES))) + 1
    events["quantity"] = frame["quantity"].fill_null(1).to_numpy()
    events["value"] = frame["value"].fill_null(float("nan")).to_numpy()
    return events


def _audiences(lists: pl.Series, audiences: tuple[str, ...]) -> Ragged:
    """Return each customer's audiences, except those that no offer is meant for."""
    codes = {name: code for code, name in enumerate(audiences)}
    return Ragged.of(sorted(codes[one] for one in names or [] if one in codes) for names in lists.to_list())
