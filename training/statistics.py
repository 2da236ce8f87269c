"""Statistics of each product, counted from events before a moment.

Letters: N products, O offers, E events, H pairs of a customer and a product, or spans of days, G groups.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
from implicit import nearest_neighbours
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from embeddings import kernel
from embeddings.arrays import Table
from embeddings.catalogue.columns import Catalogue
from embeddings.customer.history import REDEMPTION, UNSAID, Events, Histories
from embeddings.ranking.observed import Observed
from embeddings.ranking.statistics import GROUPINGS, HAZARD_DAYS, AlsFactors, Neighbours, Statistics, groups_of
from training.acceptance import exposures_of, is_enough, smoothed
from training.config import RankerConfig

_DAY = 86_400
_KEPT = 20
"""How many neighbours a product keeps."""

_COUNTED = 100
"""Of how many products that lie in most of its baskets the complements of a product are chosen."""

_LEAST_TOGETHER, _LEAST_LIFT = 2, 1.2
"""In how many baskets at least, and how much oftener than by chance, what is a complement lay with a product."""

_PRIOR_BUYERS, _PRIOR_REPEATED = 2.0, 0.2
_PRIOR_MET = 10.0
_MOST_GROUPS = 4_000
_PRIOR_GAPS, _PRIOR_GAP_DAYS = 3.0, 30.0
_PRIOR_PURCHASES = 10.0
_PRIOR_OF_TYPE, _PRIOR_OF_PRODUCT = 50.0, 20.0


_bm25: Any = nearest_neighbours.bm25_weight


class Nearby(NamedTuple):
    """Relations between products: neighbours, factors and lifts.

    They are fitted less often than figures are counted.
    """

    also_bought: Neighbours
    bought_together: Neighbours
    complements: Neighbours
    together_NT: Table[np.int32]
    als: AlsFactors
    lifts_GG: NDArray[np.float32]

    @classmethod
    def of(cls, statistics: Statistics) -> "Nearby":
        """Return the relations that statistics were counted with."""
        return cls(
            statistics.also_bought,
            statistics.bought_together,
            statistics.complements,
            statistics.together_NT,
            statistics.als,
            statistics.lifts_GG,
        )


class _Bought(NamedTuple):
    """Purchases of known products: the customer, the product, the moment, the location and the visit."""

    owners_E: NDArray[np.int64]
    products_E: NDArray[np.int64]
    at_E: NDArray[np.int64]
    locations_E: NDArray[np.int64]
    visits_E: NDArray[np.int64]


def find_nearby(
    past: Histories, catalogue: Catalogue, products_ND: NDArray[np.float32], regularisation: float, config: RankerConfig
) -> Nearby:
    """Find the neighbours of products by the cosine of who buys them, and of the baskets they lie in.

    Counts of who buys them are weighed by BM25.

    Args:
        past: what customers bought.
        catalogue: holds the products.
        products_ND: the products' factors, from alternating least squares over the same purchases.
        regularisation: what they were fitted with.
        config: names the groups.
    """
    products = len(products_ND)
    bought = _bought(past)
    _, in_visits = _with_guests(bought, past)
    pairs_H, lines_H = np.unique(bought.owners_E * products + bought.products_E, return_counts=True)
    customers = csr_matrix(
        (np.log1p(lines_H), (pairs_H // products, pairs_H % products)), shape=(len(past.customers), products)
    )
    visits_E = _visits(in_visits)
    lines = _distinct(visits_E * products + in_visits.products_E)
    baskets = csr_matrix(
        (np.ones(len(lines)), (lines // products, lines % products)),
        shape=(int(visits_E.max(initial=-1)) + 1, products),
    )
    gram_DD = products_ND.T @ products_ND + regularisation * np.eye(products_ND.shape[1], dtype=np.float32)
    return Nearby(
        _neighbours(_weighed(customers)),
        _neighbours(baskets),
        *_complements(baskets),
        AlsFactors(Table.of(products_ND), gram_DD.astype(np.float32)),
        _lifts(baskets, groups_of(catalogue.products.attributes, grouping(config))[:, GROUPINGS.index("category")]),
    )


def _weighed(customers: csr_matrix) -> csr_matrix:
    """Weigh the counts of who buys what by BM25, and leave out products that nearly all customers buy.

    Such a product says nothing of any customer. Its weight would be zero or less, and its cosine no number.
    """
    weighed: csr_matrix = _bm25(customers, K1=1.2, B=0.75).tocsr()
    weighed.data = np.maximum(weighed.data, 0)
    weighed.eliminate_zeros()
    return weighed


def count(
    past: Histories, catalogue: Catalogue, observed: Observed, moment: int, nearby: Nearby, config: RankerConfig
) -> Statistics:
    """Return the figures as of a moment, in seconds since 1970 UTC, from histories that end before it.

    Shares of buyers and gaps are smoothed towards a prior, as if a few more buyers and gaps had been seen. Sizes of
    visits are smoothed towards those of all purchases.
    """
    bought = _bought(past)
    everybody, in_visits = _with_guests(bought, past)
    size = len(catalogue.products.ids) + 1  # the last of them is never sold
    days_E = (moment - everybody.at_E) / _DAY
    week_N, month_N = (np.bincount(everybody.products_E[days_E < days], minlength=size) for days in (7, 28))
    pair_days = _distinct((bought.owners_E * size + bought.products_E) * 100_000 + bought.at_E // _DAY)
    pairs_H, first_H, days_H = np.unique(pair_days // 100_000, return_index=True, return_counts=True)
    products_H = pairs_H % size
    spans_H = pair_days[first_H + days_H - 1] - pair_days[first_H]
    buyers_N = np.bincount(products_H, minlength=size)
    repeated_N = np.bincount(products_H, days_H > 1, size)
    gaps_N = np.bincount(products_H, days_H - 1, size)
    gap_days_N = np.bincount(products_H, spans_H, size)
    visits_E = _visits(in_visits)
    lines_E = np.bincount(visits_E)[visits_E]
    usual_lines = lines_E.mean() if len(lines_E) else 0.0
    lines_N, times_N = (np.bincount(in_visits.products_E, weights, size) for weights in (lines_E, None))
    share_N = np.append(observed.popularity_N / max(float(observed.popularity_N.sum()), 1e-30), np.float32(0))
    groups_NQ = np.pad(groups_of(catalogue.products.attributes, grouping(config)), ((0, 1), (0, 0)))
    products_NP = np.stack(
        [
            share_N,
            week_N,
            month_N,
            (repeated_N + _PRIOR_BUYERS * _PRIOR_REPEATED) / (buyers_N + _PRIOR_BUYERS),
            buyers_N,
            (gap_days_N + _PRIOR_GAPS * _PRIOR_GAP_DAYS) / (gaps_N + _PRIOR_GAPS),
            (lines_N + _PRIOR_PURCHASES * usual_lines) / (times_N + _PRIOR_PURCHASES),
            *_prices(past, moment, size),
            _accepted(past, moment, size),
            *(_mean_share(share_N, codes_N) for codes_N in groups_NQ.T),
        ],
        axis=1,
    ).astype(np.float32)
    redeemed_O = times_redeemed(redeemed_offers(past), catalogue)
    return Statistics(
        Table.of(products_NP[:-1]),
        products_NP[-1],
        observed,
        _month(everybody, observed, days_E < 28),
        *_hazards(bought, groups_NQ[:-1, GROUPINGS.index("type")]),
        Table.of(groups_NQ[:-1]),
        grouping(config),
        *nearby,
        redeemed_O,
    )


def _hazards(bought: _Bought, types_N: NDArray[np.int32]) -> tuple[Table[np.float32], NDArray[np.float32]]:
    """Return how likely who bought a product so many days ago buys it in a visit: by product, and by type.

    A type is smoothed towards all products, as if some more of their visits had been seen, a product towards its type.
    """
    came_NH, bought_NH = kernel.repurchases(
        bought.owners_E, bought.visits_E, bought.products_E, bought.at_E, len(types_N), HAZARD_DAYS
    )
    types = int(types_N.max(initial=0)) + 1
    by_type = csr_matrix((np.ones(len(types_N)), (types_N, np.arange(len(types_N)))), shape=(types, len(types_N)))
    everywhere_H = bought_NH.sum(axis=0, dtype=np.float64) / np.maximum(came_NH.sum(axis=0, dtype=np.float64), 1)
    hazards_GH = (by_type @ bought_NH + _PRIOR_OF_TYPE * everywhere_H) / (by_type @ came_NH + _PRIOR_OF_TYPE)
    hazards_GH[0] = everywhere_H
    hazards_NH = (bought_NH + _PRIOR_OF_PRODUCT * hazards_GH[types_N]) / (came_NH + _PRIOR_OF_PRODUCT)
    return Table.of(hazards_NH.astype(np.float32)), hazards_GH.astype(np.float32)


def _prices(past: Histories, moment: int, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what a piece of each product has cost on average, and what it cost in the 28 days before a moment.

    That is the former where nothing was bought in those days, and 0 where no purchase says what was paid.
    """
    sold = np.concatenate([past.sold(), past.sold_to_guests()])
    sold = sold[(sold["value"] > 0) & (sold["quantity"] > 0)]  # a value that is no number is not

    def mean(some: Events) -> NDArray[np.float64]:
        costs_N = np.bincount(some["product"], some["value"], size)
        return costs_N / np.maximum(np.bincount(some["product"], some["quantity"], size), 1e-30)

    usual_N, lately_N = mean(sold), mean(sold[sold["at"] > moment - 28 * _DAY])
    return usual_N, np.where(lately_N > 0, lately_N, usual_N)


def _accepted(past: Histories, moment: int, size: int) -> NDArray[np.float64]:
    """Return a hundred times the odds that each product is bought after it was shown; zeros where too few were."""
    found = exposures_of(past, "product").ripe(moment)
    if not is_enough(found):
        return np.zeros(size)
    shown_N, accepted_N = np.bincount(found.rows_X, minlength=size), np.bincount(found.rows_X, found.accepted_X, size)
    chance_N = smoothed(accepted_N, shown_N, float(found.accepted_X.mean()))
    return 100 * chance_N / (1 - chance_N)


def grouping(config: RankerConfig) -> tuple[str, ...]:
    """Return the attributes whose codes are the groups, in the order of ``GROUPINGS``."""
    return config.type_attribute, config.category_attribute, config.maker_attribute


def redeemed_offers(past: Histories) -> Events:
    """Return everybody's redemptions of known offers, oldest first."""
    redeemed_E = past.events[(past.events["type"] == REDEMPTION) & (past.events["offer"] >= 0)]
    return redeemed_E[np.argsort(redeemed_E["at"], kind="stable")]


def times_redeemed(redeemed_E: Events, catalogue: Catalogue) -> NDArray[np.float32]:
    """Return how often each offer of the catalogue (O) was redeemed."""
    return np.bincount(redeemed_E["offer"], minlength=len(catalogue.offers.ids)).astype(np.float32)


def _month(bought: _Bought, observed: Observed, recent_E: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Count the recent purchases of each product at each location, aligned with the lists of what is sold there."""
    sold, size = observed.sold, len(observed.popularity_N)
    keys_L = np.repeat(np.arange(len(sold)), np.diff(sold.offsets)) * size + sold.values
    placed_E = recent_E & (bought.locations_E >= 0)
    keys_E = bought.locations_E[placed_E] * size + bought.products_E[placed_E]
    places_E = keys_L.searchsorted(keys_E)  # whatever was bought at a location stands in its list
    return np.bincount(places_E, minlength=len(keys_L)).astype(np.float32)


def _lifts(baskets: csr_matrix, codes_N: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return the smoothed log of how much oftener than by chance two groups meet in a basket.

    It is 0 for the unknown group, and 0 everywhere where groups are too many for a square of them.
    """
    groups = int(codes_N.max(initial=0)) + 1
    if groups > _MOST_GROUPS:
        return np.zeros((groups, groups), np.float32)
    members = csr_matrix((np.ones(len(codes_N)), (np.arange(len(codes_N)), codes_N)), shape=(len(codes_N), groups))
    in_basket: Any = csr_matrix(baskets @ members)
    in_basket.data[:] = 1
    met_GG = np.asarray((in_basket.T @ in_basket).todense())
    seen_G = met_GG.diagonal()
    expected_GG = np.outer(seen_G, seen_G) / max(in_basket.shape[0], 1)
    lifts_GG = np.log((met_GG + _PRIOR_MET) / (expected_GG + _PRIOR_MET))
    lifts_GG[0, :] = lifts_GG[:, 0] = 0
    return np.ascontiguousarray(lifts_GG, np.float32)


def _mean_share(share_N: NDArray[np.float32], codes_N: NDArray[np.int32]) -> NDArray[np.float64]:
    """Return, for each product, the mean share of the products of its group that are sold at all.

    It is 0 for an unknown group.
    """
    sold_N = share_N > 0
    sums, counts = np.bincount(codes_N, share_N), np.bincount(codes_N, sold_N)
    means = sums / np.maximum(counts, 1)
    means[0] = 0
    return means[codes_N]


def _neighbours(bought: csr_matrix) -> Neighbours:
    similar = _similarity(nearest_neighbours.CosineRecommender(K=_KEPT + 1, num_threads=0), bought)
    similar.setdiag(0)
    similar.eliminate_zeros()
    owners = np.repeat(np.arange(similar.shape[0]), np.diff(similar.indptr))
    rows_NT, weights_NT = _nearest(owners, similar.indices, similar.data, similar.shape[0])
    return Neighbours.of(rows_NT, weights_NT.astype(np.float32))


def _similarity(model: nearest_neighbours.ItemItemRecommender, taken: csr_matrix) -> Any:
    """Return what a model of implicit's finds of each product's nearest ones, as a sparse matrix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # implicit converts a matrix of its own making and warns of it
        model.fit(taken.astype(np.float64), show_progress=False)
    return csr_matrix(model.similarity)


def _nearest(
    owners: NDArray[np.int64], others: NDArray[np.int32], weights: NDArray[np.float64], size: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return the others of the largest weights for each of so many products, and the weights; ties by row.

    Owners ascend.
    """
    order = np.lexsort((others, -weights, owners))
    places = np.arange(len(order)) - owners.searchsorted(owners)
    kept = places < _KEPT
    rows_NT, weights_NT = np.full((size, _KEPT), -1, np.int32), np.zeros((size, _KEPT))
    rows_NT[owners[kept], places[kept]] = others[order][kept]
    weights_NT[owners[kept], places[kept]] = weights[order][kept]
    return rows_NT, weights_NT


def _complements(baskets: Any) -> tuple[Neighbours, Table[np.int32]]:
    """Return what lies in most of a product's baskets, oftener than by chance, and in how many baskets both lay.

    The weight is the share of the product's baskets. Cosines, by which candidates are found, prefer what is as rare.
    """
    met = _similarity(nearest_neighbours.ItemItemRecommender(K=_COUNTED, num_threads=0), baskets)
    size, baskets_N = met.shape[0], np.asarray(baskets.sum(axis=0), np.float64).ravel()
    owners = np.repeat(np.arange(size), np.diff(met.indptr))
    chance = baskets_N[owners] * baskets_N[met.indices] / max(baskets.shape[0], 1)
    kept = (owners != met.indices) & (met.data >= _LEAST_TOGETHER) & (met.data >= _LEAST_LIFT * chance)
    rows_NT, times_NT = _nearest(owners[kept], met.indices[kept], met.data[kept], size)
    shares_NT = times_NT / np.maximum(baskets_N, 1)[:, None]
    return Neighbours.of(rows_NT, shares_NT.astype(np.float32)), Table.of(times_NT.astype(np.int32))


def _visits(bought: _Bought) -> NDArray[np.int64]:
    """Return the number of each purchase's visit, counted from 0 without holes."""
    return np.unique(bought.visits_E, return_inverse=True)[1]


def _distinct(keys_E: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the keys in ascending order, each once."""
    # Asked for places too, NumPy sorts; else it hashes, which takes ten times as long.
    return np.unique(keys_E, return_index=True)[0]


def _bought(past: Histories) -> _Bought:
    places, visits = past.bought()
    owners = np.repeat(np.arange(len(past.customers), dtype=np.int64), np.diff(past.offsets))
    return _Bought(owners[places], *_columns(past.events[places]), visits)


def _with_guests(known: _Bought, past: Histories) -> tuple[_Bought, _Bought]:
    """Return everybody's purchases, and those of them whose visit is known; guests have no owner."""
    places, visits = past.bought_by_guests()
    guests = past.guests[places]
    more = _Bought(np.full(len(guests), -1), *_columns(guests), visits + (known.visits_E.max(initial=-1) + 1))
    told = guests["visit"] != UNSAID
    of_visits = _Bought(*(column[told] for column in more))
    return _joined(known, more), _joined(known, of_visits)


def _columns(events: Events) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    products, at, locations = (events[name].astype(np.int64) for name in ("product", "at", "location"))
    return products, at, locations


def _joined(one: _Bought, other: _Bought) -> _Bought:
    return _Bought(*(np.concatenate(both) for both in zip(one, other, strict=True)))
