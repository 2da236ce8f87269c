"""The catalogue: master data as columns, and what is observed of them in the events before a moment.

Products, locations, offers and the promotion plan are known whatever the moment. Assortments and popularity are
observed, and only from events before the moment given. Letters: N products, M locations, O offers.
"""

from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from embeddings.arrays import Ragged
from embeddings.catalogue.columns import (
    Attributes,
    Catalogue,
    ContextAttributes,
    Locations,
    Offers,
    Products,
    Promotions,
)
from embeddings.catalogue.tables import EVENTS, OFFER_KINDS, PRODUCTS, Table
from embeddings.customer.history import PURCHASE, Events
from embeddings.vocabulary import Vocabulary
from training.config import AssortmentConfig, Recipe
from training.datasets import Dataset
from training.datasets.frames import attribute_names

_DAY = 86_400


def master_catalogue(dataset: Dataset, recipe: Recipe, since: datetime) -> Catalogue:
    """Return the catalogue before anything is observed: nothing is popular or trained yet.

    A location carries only what is declared for it. Of the promotion plan only the part that is still to come or
    running at ``since`` is kept.
    """
    products, locations, offers = (frame.collect() for frame in (dataset.products, dataset.locations, dataset.offers))
    product_ids = Vocabulary.of(products["product_id"].to_list())
    location_ids = Vocabulary.of(locations["location"].to_list())
    channels = pl.DataFrame({"name": list(recipe.channels)})["name"]
    declared = products.select("product_id", "locations").explode("locations").drop_nulls()
    carried = Ragged.grouped(
        rows_of(declared["locations"], locations["location"]),
        rows_of(declared["product_id"], products["product_id"]),
        len(location_ids),
    )
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
            popularity_N=np.zeros(len(product_ids), np.float32),
            trained_N=np.zeros(len(product_ids), np.bool_),
            recommendable_N=products["recommendable"].fill_null(value=True).to_numpy(),
        ),
        locations=Locations(
            ids=location_ids,
            coordinates_M2=locations.select("latitude", "longitude").fill_null(float("nan")).to_numpy(),
            regions_M=attributes_of_column(locations["region"])[1],
            assortment=carried,
            popularity=np.zeros(len(carried.values), np.float32),
            known_M=np.diff(carried.offsets) > 0,
        ),
        offers=Offers(
            ids=Vocabulary.of(offers["offer_id"].to_list()),
            kinds_O=rows_of(offers["kind"].fill_null(OFFER_KINDS[0]), pl.Series(OFFER_KINDS)).astype(np.uint8),
            starts_O=seconds_of(offers["starts"]),
            ends_O=seconds_of(ends),
            audiences_O=rows_of(offers["audience"], audiences),
            uses_O=offers["uses"].fill_null(1).to_numpy().astype(np.int32),
            products=_lists(offers["products"], products["product_id"]),
            channels=_lists(offers["channels"], channels),
            locations=_lists(offers["locations"], locations["location"]),
        ),
        promotions=_promotions(dataset, since, channels, locations["location"], products["product_id"]),
        context=_context(dataset),
    )


def observe(
    catalogue: Catalogue, events: Events, moment: int, config: AssortmentConfig, guests: Events | None = None
) -> Catalogue:
    """Return the catalogue with assortments and popularity as events before a moment show them.

    A location carries what was declared for it and what was bought there. A location with neither is taken to carry
    what comparable locations carry: those of its region whose assortment is at least ``comparable_size`` of the widest
    (of all regions, if it has no region or there are none), and of their products those that at least
    ``comparable_share`` of them carry.

    Args:
        catalogue: from ``master_catalogue``.
        events: events of any customers, in any order, without purchases that were taken back; those at or after the
            moment are left out.
        moment: seconds since 1970 UTC.
        config: how popularity decays and what comparable means.
        guests: further purchases of products, by customers of whom nothing is learnt.
    """
    products, locations = catalogue.products, catalogue.locations
    sold = events[(events["type"] == PURCHASE) & (events["product"] >= 0) & (events["at"] < moment)]
    trained_N = np.bincount(sold["product"], minlength=len(products.ids)) > 0
    if guests is not None:
        sold = np.concatenate([sold, guests[guests["at"] < moment]])
    weights = config.popularity_daily_decay ** ((moment - sold["at"]) / _DAY)
    placed = sold["location"] >= 0
    size, count = len(products.ids), len(locations.ids)
    # One key a (location, product) pair, ascending: exactly the order in which assortments lie.
    sold_keys = sold["location"][placed].astype(np.int64) * size + sold["product"][placed]
    declared = np.repeat(np.arange(count, dtype=np.int64), np.diff(locations.assortment.offsets))
    keys, inverse = np.unique(
        np.concatenate([sold_keys, declared * size + locations.assortment.values]), return_inverse=True
    )
    popularity = np.bincount(inverse[: len(sold_keys)], weights[placed], len(keys)).astype(np.float32)
    assortment = Ragged.grouped(keys // size, keys % size, count)
    known_M = np.diff(assortment.offsets) > 0
    if not known_M.all():
        assortment, popularity = _assume(assortment, popularity, known_M, locations.regions_M, size, config)
    return catalogue._replace(
        products=products._replace(
            popularity_N=np.bincount(sold["product"], weights, size).astype(np.float32), trained_N=trained_N
        ),
        locations=locations._replace(assortment=assortment, popularity=popularity, known_M=known_M),
    )


def still_promoted(promotions: Promotions, moment: int) -> Promotions:
    """Return the part of a promotion plan still to come or running at a moment, in seconds since 1970 UTC."""
    kept = np.flatnonzero(promotions.ends_G > moment)
    return Promotions(
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
    """Return every column that the table does not declare, as a categorical attribute."""
    declared = {column.name for column in table.columns}
    names = tuple(name for name in frame.columns if name not in declared)
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


def _lists(lists: pl.Series, ids: pl.Series) -> Ragged:
    exploded = pl.DataFrame({"row": np.arange(len(lists)), "one": lists}).explode("one").drop_nulls().unique()
    exploded = exploded.with_columns(pl.Series("value", rows_of(exploded["one"], ids))).sort("row", "value")
    return Ragged.grouped(exploded["row"].to_numpy(), exploded["value"].to_numpy(), len(lists))


def _promotions(
    dataset: Dataset, since: datetime, channels: pl.Series, locations: pl.Series, products: pl.Series
) -> Promotions:
    group = ["channel", "location", "starts", "ends"]
    plan = dataset.promotions.filter(pl.col("ends") > since).select(*group, "product_id").collect()
    # In codes before it is grouped: millions of rows of text take seconds to sort.
    coded = pl.DataFrame(
        {
            "channel": rows_of(plan["channel"], channels),
            "location": rows_of(plan["location"], locations),
            "starts": seconds_of(plan["starts"]),
            "ends": seconds_of(plan["ends"]),
            "product": rows_of(plan["product_id"], products),
        }
    )
    groups = coded.group_by(group).agg(pl.col("product").unique().sort()).sort(group)
    return Promotions(
        channels_G=groups["channel"].to_numpy(),
        locations_G=groups["location"].to_numpy(),
        starts_G=groups["starts"].to_numpy(),
        ends_G=groups["ends"].to_numpy(),
        products=Ragged.of(groups["product"]),
    )


def _assume(
    assortment: Ragged,
    popularity: NDArray[np.float32],
    known_M: NDArray[np.bool_],
    regions_M: NDArray[np.int32],
    size: int,
    config: AssortmentConfig,
) -> tuple[Ragged, NDArray[np.float32]]:
    """Fill the assortments of locations nothing is known about from comparable ones."""
    widths_M = np.diff(assortment.offsets)
    wide_M = known_M & (widths_M >= config.comparable_size * widths_M.max(initial=0))
    parts: list[NDArray[np.int32]] = []
    counts: list[NDArray[np.float32]] = []
    assumed: dict[int, tuple[NDArray[np.int32], NDArray[np.float32]]] = {}
    for row, known in enumerate(known_M.tolist()):
        if known:
            parts.append(assortment[row])
            counts.append(popularity[assortment.offsets[row] : assortment.offsets[row + 1]])
            continue
        region = int(regions_M[row])
        if region not in assumed:
            comparable = np.flatnonzero(wide_M & (regions_M == region) & (region > 0))
            assumed[region] = _core(
                assortment,
                popularity,
                comparable if len(comparable) else np.flatnonzero(wide_M),
                size,
                config,
            )
        parts.append(assumed[region][0])
        counts.append(assumed[region][1])
    return Ragged.of(parts), np.concatenate(counts)


def _core(
    assortment: Ragged,
    popularity: NDArray[np.float32],
    comparable: NDArray[np.intp],
    size: int,
    config: AssortmentConfig,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the products that a share of comparable locations carries, and their mean popularity there."""
    carriers_N = np.zeros(size, np.int64)
    popularity_N = np.zeros(size, np.float64)
    for row in comparable.tolist():
        carriers_N[assortment[row]] += 1
        popularity_N[assortment[row]] += popularity[assortment.offsets[row] : assortment.offsets[row + 1]]
    core = np.flatnonzero((carriers_N > 0) & (carriers_N >= config.comparable_share * len(comparable)))
    return core.astype(np.int32), (popularity_N[core] / max(len(comparable), 1)).astype(np.float32)
