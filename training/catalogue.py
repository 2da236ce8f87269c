"""The catalogue: master data as columns. Products, locations, offers and the promotion plan are known at any moment."""

from datetime import datetime
from hashlib import sha256

import numpy as np
import polars as pl
from numpy.typing import NDArray

from embeddings.arrays import Ragged
from embeddings.catalogue.columns import (
    DECLARED,
    Attributes,
    Catalogue,
    ContextAttributes,
    Locations,
    Offers,
    Products,
    Promotions,
)
from embeddings.catalogue.context import LONGEST_ID
from embeddings.catalogue.tables import EVENTS, OFFER_KINDS, PRODUCTS, Table
from embeddings.vocabulary import Vocabulary
from training.config import Recipe
from training.datasets import Dataset
from training.datasets.frames import PROMOTION_ID, attribute_names


def master_catalogue(dataset: Dataset, recipe: Recipe, since: datetime) -> Catalogue:
    """Return the catalogue before anything is observed.

    A location carries only what is declared for it. Of the promotion plan only the part that is still to come or
    running at ``since`` is kept.
    """
    products, locations, offers = (frame.collect() for frame in (dataset.products, dataset.locations, dataset.offers))
    product_ids = Vocabulary.of(products["product_id"].to_list())
    location_ids = Vocabulary.of(locations["location"].to_list())
    channels = pl.DataFrame({"name": list(recipe.channels)})["name"]
    carried = _by_location(products, locations, "locations")
    # A product may be out of stock where it is withdrawn, too.
    absent = products.with_columns(
        pl.concat_list(pl.col("out_of_stock_at", "withdrawn_at").fill_null([])).list.unique()
    )
    regions, regions_M = attributes_of_column(locations["region"])
    audiences = offers["audience"].drop_nulls().unique().sort()
    # No list means everywhere; a list without entries nowhere: such an offer is never valid.
    nowhere = offers.select(
        (pl.col("channels").list.len() == 0).fill_null(value=False)
        | (pl.col("locations").list.len() == 0).fill_null(value=False)
    ).to_series()
    ends = offers.select(pl.when(nowhere).then("starts").otherwise("ends")).to_series()
    return Catalogue(
        channels=recipe.channels,
        audiences=tuple(audiences.to_list()),
        products=Products(
            ids=product_ids,
            attributes=attributes_of(products, PRODUCTS),
            price_N=products["price"].fill_null(float("nan")).to_numpy(),
            recommendable_N=products.select(
                pl.col("recommendable").fill_null(value=True) & pl.col("in_stock").fill_null(value=True)
            )
            .to_series()
            .to_numpy(),
        ),
        locations=Locations(
            ids=location_ids,
            coordinates_M2=locations.select("latitude", "longitude").fill_null(float("nan")).to_numpy(),
            regions=regions,
            regions_M=regions_M,
            assortment=carried,
            why_L=np.full(len(carried.values), DECLARED, np.uint8),
            assumed=Ragged.of([[]] * (len(regions) + 1)),
            withdrawn_M=locations["closed"].fill_null(value=False).to_numpy(),
            unavailable=_by_location(absent, locations, "out_of_stock_at"),
        ),
        offers=Offers(
            ids=Vocabulary.of(offers["offer_id"].to_list()),
            kinds_O=rows_of(offers["kind"].fill_null(OFFER_KINDS[0]), pl.Series(OFFER_KINDS)).astype(np.uint8),
            starts_O=seconds_of(offers["starts"]),
            ends_O=seconds_of(ends),
            audiences_O=rows_of(offers["audience"], audiences),
            uses_O=offers["uses"].fill_null(1).to_numpy().astype(np.int32),
            withdrawn_O=(offers["status"].fill_null("live") != "live").to_numpy(),
            products=_lists(offers["products"], products["product_id"]),
            channels=_lists(offers["channels"], channels),
            locations=_lists(offers["locations"], locations["location"]),
        ),
        promotions=_promotions(dataset, since, channels, locations["location"], products["product_id"]),
        context=_context(dataset),
        ahead=tuple(name for name in recipe.channels if name in recipe.ways.ahead_channels),
        targets=("purchase",) if recipe.targets == "auto" else recipe.targets,
    )


def still_promoted(promotions: Promotions, moment: int) -> Promotions:
    """Return the part of a promotion plan still to come or running at a moment, in seconds since 1970 UTC."""
    kept = np.flatnonzero(promotions.ends_G > moment)
    return Promotions(
        ids=Vocabulary.of(promotions.ids.ids(kept.tolist())),
        channels_G=promotions.channels_G[kept],
        locations_G=promotions.locations_G[kept],
        starts_G=promotions.starts_G[kept],
        ends_G=promotions.ends_G[kept],
        products=Ragged.of(promotions.products[row] for row in kept.tolist()),
    )


def rows_of(values: pl.Series, ids: pl.Series) -> NDArray[np.int32]:
    """Return the place of each value among distinct ids, -1 for nulls; any other value is an error."""
    physical = values.cast(pl.Enum(ids)).to_physical()
    return physical.cast(pl.Int32).fill_null(-1).to_numpy()


def seconds_of(times: pl.Series) -> NDArray[np.int64]:
    """Return times as whole seconds since 1970 UTC."""
    return times.dt.epoch("s").to_numpy().astype(np.int64)


def attributes_of(frame: pl.DataFrame, table: Table) -> Attributes:
    """Return every column that the table does not declare and that says anything, as a categorical attribute.

    They come in the order of their names: that of the columns means nothing.
    """
    declared = {column.name for column in table.columns}
    names = tuple(sorted(one for one in set(frame.columns) - declared if frame[one].null_count() < frame.height))
    coded = [attributes_of_column(frame[name]) for name in names]
    codes_NA = np.stack([codes for _, codes in coded], axis=1) if coded else np.zeros((frame.height, 0), np.int32)
    return Attributes(names, tuple(labels for labels, _ in coded), codes_NA)


def attributes_of_column(values: pl.Series) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Return the labels in alphabetical order, and each value's code: 1 + its label's place, 0 for nulls."""
    labels = values.drop_nulls().unique().sort()
    return tuple(labels.to_list()), rows_of(values, labels) + np.int32(1)


def _context(dataset: Dataset) -> ContextAttributes:
    """Return the attributes of the situations of events: every value there is, by attribute."""
    names = attribute_names(dataset.events, EVENTS)
    values = pl.collect_all([dataset.events.select(pl.col(name).drop_nulls().unique().sort()) for name in names])
    return ContextAttributes(tuple(names), tuple(tuple(one.to_series().to_list()) for one in values))


def _by_location(products: pl.DataFrame, locations: pl.DataFrame, named: str) -> Ragged:
    """Return for each location the rows of the products that name it in a column of lists."""
    pairs = products.select("product_id", named).explode(named).drop_nulls()
    return Ragged.grouped(
        rows_of(pairs[named], locations["location"]),
        rows_of(pairs["product_id"], products["product_id"]),
        locations.height,
    )


def _lists(lists: pl.Series, ids: pl.Series) -> Ragged:
    exploded = pl.DataFrame({"row": np.arange(len(lists)), "one": lists}).explode("one").drop_nulls().unique()
    exploded = exploded.with_columns(pl.Series("value", rows_of(exploded["one"], ids))).sort("row", "value")
    return Ragged.grouped(exploded["row"].to_numpy(), exploded["value"].to_numpy(), len(lists))


def _promotions(
    dataset: Dataset, since: datetime, channels: pl.Series, locations: pl.Series, products: pl.Series
) -> Promotions:
    group = ["channel", "location", "starts", "ends"]
    given = PROMOTION_ID in dataset.promotions.collect_schema()
    ids = [pl.col(PROMOTION_ID).cast(pl.Categorical)] if given else []
    plan = dataset.promotions.filter(pl.col("ends") > since).select(*group, *ids, "product_id").collect()
    # In codes before it is grouped: millions of rows of text take seconds to sort.
    coded = plan.with_columns(
        pl.Series("channel", rows_of(plan["channel"], channels)),
        pl.Series("location", rows_of(plan["location"], locations)),
        pl.Series("product_id", rows_of(plan["product_id"], products)),
    )
    each = [*group, PROMOTION_ID] if given else group
    groups = coded.group_by(each).agg(pl.col("product_id").unique().sort())
    if not given:
        named = zip(channels.gather(groups["channel"]), locations.gather(groups["location"]), strict=True)
        spans = zip(groups["starts"], groups["ends"], strict=True)
        made = [promotion_id(*names, *span) for names, span in zip(named, spans, strict=True)]
        groups = groups.with_columns(pl.Series(PROMOTION_ID, made, pl.String))
    groups = groups.cast({PROMOTION_ID: pl.String}).sort(*group, PROMOTION_ID)
    return Promotions(
        ids=Vocabulary.of(groups[PROMOTION_ID].to_list()),
        channels_G=groups["channel"].to_numpy(),
        locations_G=groups["location"].to_numpy(),
        starts_G=seconds_of(groups["starts"]),
        ends_G=seconds_of(groups["ends"]),
        products=Ragged.of(groups["product_id"]),
    )


def promotion_id(channel: str, location: str, starts: datetime, ends: datetime) -> str:
    """Return the id of what a channel promotes at a location in a span of time: another one for any other.

    It can be read as long as there is room for that.
    """
    names = [one.replace("%", "%25").replace("|", "%7C") for one in (channel, location)]
    moments = [
        f"{one:%Y%m%dT%H%M%S}" + (f".{one.microsecond:06d}" if one.microsecond else "") for one in (starts, ends)
    ]
    text = "|".join([*names, *moments])
    return text if len(text) <= LONGEST_ID else sha256(text.encode()).hexdigest()
