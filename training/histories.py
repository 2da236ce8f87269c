"""Events as every customer's past."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from embeddings.arrays import Ragged
from embeddings.catalog import Catalog, ContextAttributes
from embeddings.history import EVENT, EVENT_CODES, Events, Histories
from embeddings.tables import CUSTOMERS
from embeddings.vocabulary import Vocabulary
from training.catalogue import attributes_of, rows_of, seconds_of
from training.datasets import Dataset
from training.datasets.visits import with_one_moment


def read_histories(dataset: Dataset, catalog: Catalog, visit_gap: int) -> Histories:
    """Every customer's events, in the rows of a catalogue.

    Customers whom only events name come after the listed ones, by id, with unknown attributes. An offer that the
    catalogue does not hold, as there may be no table of offers, is unknown.

    Args:
        dataset: checked, without what must not be known.
        catalog: its master data.
        visit_gap: a purchase at most so many seconds after the customer's one before is of its visit.
    """
    frame = with_one_moment(dataset.events.collect())
    guests = frame.filter(pl.col("customer_id").is_null() & (pl.col("type") == "purchase")).sort("at")
    frame = frame.drop_nulls("customer_id")
    listed = dataset.customers.collect()
    others = frame.select("customer_id").unique().join(listed, on="customer_id", how="anti").sort("customer_id")
    customers = pl.concat([listed, others], how="diagonal")
    owners = rows_of(frame["customer_id"], customers["customer_id"])
    frame = frame[np.lexsort((seconds_of(frame["at"]), owners))]
    events, bought = _records(frame, catalog), _records(guests, catalog)
    known = bought["product"] >= 0
    sizes = np.bincount(owners, minlength=customers.height)
    attributes = attributes_of(customers, CUSTOMERS)
    return Histories(
        customers=Vocabulary.of(customers["customer_id"].to_list()),
        events=events,
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)]),
        attributes_CA=attributes.codes_NA,
        audiences=_audiences(customers["audiences"], catalog.audiences),
        attribute_names=attributes.names,
        attribute_labels=attributes.labels,
        visit_gap=visit_gap,
        context_EX=_context(frame, catalog.context),
        guests=bought[known],
        guest_visits=_numbers(guests["visit"])[known],
    )


def _context(frame: pl.DataFrame, context: ContextAttributes) -> NDArray[np.int32]:
    codes = [
        rows_of(frame[name], pl.Series(labels, dtype=pl.String)) + np.int32(1)
        for name, labels in zip(context.names, context.labels, strict=True)
    ]
    return np.stack(codes, axis=1) if codes else np.zeros((0, 0), np.int32)


def _numbers(visits: pl.Series) -> NDArray[np.int64]:
    """A number for each name of a visit; -1 for none."""
    return visits.rank("dense").cast(pl.Int64).fill_null(-1).to_numpy()


def _records(frame: pl.DataFrame, catalog: Catalog) -> Events:
    """Events as records, in their order."""
    events = np.zeros(frame.height, EVENT)
    events["at"] = seconds_of(frame["at"])
    events["product"] = rows_of(frame["product_id"], pl.Series(catalog.products.ids.ids(), dtype=pl.String))
    offers = pl.Series(catalog.offers.ids.ids(), dtype=pl.String)
    events["offer"] = rows_of(frame["offer_id"].cast(pl.Enum(offers), strict=False), offers)
    events["location"] = rows_of(frame["location"], pl.Series(catalog.locations.ids.ids(), dtype=pl.String))
    events["channel"] = rows_of(frame["channel"], pl.Series(list(catalog.channels), dtype=pl.String))
    events["type"] = rows_of(frame["type"], pl.Series(list(EVENT_CODES))) + 1
    events["quantity"] = frame["quantity"].fill_null(1).to_numpy()
    events["value"] = frame["value"].fill_null(float("nan")).to_numpy()
    return events


def _audiences(lists: pl.Series, audiences: tuple[str, ...]) -> Ragged:
    """Each customer's audiences, but for those no offer is meant for."""
    codes = {name: code for code, name in enumerate(audiences)}
    return Ragged.of(sorted(codes[one] for one in names or [] if one in codes) for names in lists.to_list())
