"""What the events before a moment show of a catalogue: what is bought, where it is bought, and what locations carry.

Letters: N products, M locations, L products carried or sold at locations.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import Ragged, among
from embeddings.catalogue.columns import ASSUMED, DECLARED, SOLD, Catalogue
from embeddings.customer.history import PURCHASE, Events
from embeddings.ranking.observed import Observed, lists_of
from training.config import AssortmentConfig

_DAY = 86_400


class Observation(NamedTuple):
    """A catalogue whose locations carry what was seen to be bought there, and what else was observed."""

    catalogue: Catalogue
    observed: Observed


class _Sold(NamedTuple):
    """Products by list, ascending, and the decayed count of purchases of each."""

    rows: Ragged
    popularity_L: NDArray[np.float32]


def observe(
    catalogue: Catalogue, events: Events, moment: int, config: AssortmentConfig, guests: Events | None = None
) -> Observation:
    """Return the catalogue with assortments, and popularity, as events before a moment show them.

    A location carries what was declared for it and what was bought there. A location with neither is assumed to carry
    what comparable locations carry: those of its region whose assortment is at least ``comparable_size`` of the widest,
    and of their products those that at least ``comparable_share`` of them carry. Where that is nothing, the locations
    of all regions are compared.

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
    # One key a (location, product) pair, ascending: exactly the order in which lists lie.
    sold_keys, inverse = np.unique(
        sold["location"][placed].astype(np.int64) * size + sold["product"][placed], return_inverse=True
    )
    own = _Sold(
        Ragged.grouped(sold_keys // size, sold_keys % size, count),
        np.bincount(inverse, weights[placed], len(sold_keys)).astype(np.float32),
    )
    declared_keys = np.repeat(np.arange(count), np.diff(locations.assortment.offsets)) * size
    declared_keys += locations.assortment.values
    keys = np.union1d(sold_keys, declared_keys) if len(declared_keys) else sold_keys
    why_L = (among(sold_keys, keys) * SOLD + among(np.sort(declared_keys), keys) * DECLARED).astype(np.uint8)
    carried = Ragged.grouped(keys // size, keys % size, count)
    assumed = _assumed(carried, own, locations.regions_M, len(locations.regions), config)
    locations = locations._replace(assortment=carried, why_L=why_L, assumed=assumed.rows)
    regions = locations.assumed_M.tolist()
    unknown = {row: assumed.rows[regions[row]] for row in np.flatnonzero(~locations.known_M).tolist()}
    assortment = carried.replaced(unknown)
    if len(assortment.values) > len(carried.values):  # what stands in them was assumed
        is_known_L = np.repeat(locations.known_M, np.diff(assortment.offsets))
        filled_L = np.full(len(assortment.values), ASSUMED, np.uint8)
        filled_L[is_known_L] = why_L
        locations = locations._replace(assortment=assortment, why_L=filled_L)
    observed = Observed(
        np.bincount(sold["product"], weights, size).astype(np.float32),
        trained_N,
        Ragged(
            np.concatenate([own.rows.offsets, own.rows.offsets[-1] + assumed.rows.offsets[1:]]),
            np.concatenate([own.rows.values, assumed.rows.values]),
        ),
        np.concatenate([own.popularity_L, assumed.popularity_L]),
        lists_of(locations, count),
    )
    return Observation(catalogue._replace(locations=locations), observed)


def _assumed(
    carried: Ragged, sold: _Sold, regions_M: NDArray[np.int32], regions: int, config: AssortmentConfig
) -> _Sold:
    """Return what a location of each region is assumed to carry, and how popular it is there; of any region, first."""
    widths_M = np.diff(carried.offsets)
    wide_M = (widths_M > 0) & (widths_M >= config.comparable_size * widths_M.max(initial=0))
    comparable = Ragged.grouped(
        np.concatenate([np.zeros(wide_M.sum(), np.int64), regions_M[wide_M & (regions_M > 0)]]),
        np.concatenate([np.flatnonzero(wide_M), np.flatnonzero(wide_M & (regions_M > 0))]),
        regions + 1,
    )
    parts = [_core(carried, sold, comparable[region].tolist(), config) for region in range(regions + 1)]
    return _Sold(Ragged.of(rows for rows, _ in parts), np.concatenate([popularity for _, popularity in parts]))


def _core(
    carried: Ragged, sold: _Sold, comparable: list[int], config: AssortmentConfig
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the products that a share of comparable locations carries, and their mean popularity there."""
    if not comparable:
        return np.zeros(0, np.int32), np.zeros(0, np.float32)
    carriers_N = np.bincount(np.concatenate([carried[row] for row in comparable]))
    core = np.flatnonzero(carriers_N >= max(config.comparable_share * len(comparable), 1)).astype(np.int32)
    popularity = np.zeros(len(core), np.float64)
    for row in comparable:
        begin, end = sold.rows.offsets[row : row + 2].tolist()
        inside = among(core, sold.rows[row])
        popularity[core.searchsorted(sold.rows[row][inside])] += sold.popularity_L[begin:end][inside]
    return core, (popularity / len(comparable)).astype(np.float32)
