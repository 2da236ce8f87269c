"""The catalogue after changes: a pure function of the catalogue before them and the changes.

Rows stay what they are: what is new is put behind the last row, and what is withdrawn keeps its row. A column that a
change touches is copied; all others are shared with the catalogue before. Letters: N products, M locations, O offers.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import Ragged, among
from embeddings.catalogue.changes import (
    Change,
    Kind,
    LocationState,
    OfferState,
    PlacementState,
    ProductState,
    PromotionState,
    Withdrawal,
    checked,
)
from embeddings.catalogue.columns import (
    ASSUMED,
    DECLARED,
    Attributes,
    Catalogue,
    Locations,
    Offers,
    OfferTerms,
    Products,
    Promotions,
)
from embeddings.catalogue.context import seconds_of
from embeddings.catalogue.tables import OFFER_KINDS
from embeddings.errors import InvalidInput
from embeddings.vocabulary import Vocabulary

Value = TypeVar("Value")


def apply(catalogue: Catalogue, changes: Iterable[Change]) -> Catalogue:
    """Return the catalogue after some changes, of which the last one of each id counts.

    What the catalogue does not hold need not be withdrawn: a release may be younger than the withdrawal.

    Raises:
        InvalidInput: a value is not what the input tables would take, or names a product, location or channel that the
            catalogue does not hold; names the field. Nothing was applied.
    """
    products: dict[str, ProductState] = {}
    locations: dict[str, LocationState] = {}
    offers: dict[str, OfferState] = {}
    promotions: dict[str, PromotionState] = {}
    placements = dict(catalogue.placements)
    gone: dict[Kind, set[str]] = {"product": set(), "location": set(), "offer": set(), "promotion": set()}
    for change in map(checked, changes):
        match change:
            case ProductState():
                products[change.id] = change
                gone["product"].discard(change.id)
            case LocationState():
                locations[change.id] = change
                gone["location"].discard(change.id)
            case OfferState():
                offers[change.id] = change
                gone["offer"].discard(change.id)
            case PromotionState():
                promotions[change.id] = change
                gone["promotion"].discard(change.id)
            case PlacementState():
                placements[change.id] = change
            case Withdrawal(kind="placement"):
                placements.pop(change.id, None)
            case Withdrawal():
                gone.setdefault(change.kind, set()).add(change.id)
            case _:
                pass  # campaigns and segments have no part in what may be shown, and customers lie elsewhere
    held = len(catalogue.products.ids)
    catalogue = catalogue._replace(
        locations=_locations(catalogue.locations, [*locations.values()], [*gone["location"]]),
        products=_products(catalogue.products, [*products.values()], [*gone["product"]]),
    )
    catalogue = catalogue._replace(locations=_carrying(catalogue, [*products.values()], held, [*locations.values()]))
    catalogue = catalogue._replace(locations=_unavailable(catalogue, [*products.values()]))
    catalogue = _offers(catalogue, [*offers.values()], [*gone["offer"]])
    plan = _promotions(catalogue, [*promotions.values()], [*gone["promotion"]])
    return catalogue._replace(promotions=plan, placements=placements)


def _known(ids: Vocabulary, named: Sequence[str]) -> NDArray[np.int64]:
    """Return the rows of those named that there are."""
    rows = ids.rows(named)
    return rows[rows >= 0]


def _with(column: NDArray[Any], size: int, rows: NDArray[np.int64], values: Any) -> NDArray[Any]:
    """Return a copy of a column of so many rows, with some values at some rows; zeros at others that are new."""
    grown = np.zeros((size, *column.shape[1:]), column.dtype)
    grown[: len(column)] = column
    if len(rows):
        grown[rows] = values
    return grown


def _products(products: Products, states: Sequence[ProductState], withdrawn: Sequence[str]) -> Products:
    """Return the products with new states; one that is withdrawn is not recommendable any more."""
    if not states and not withdrawn:
        return products
    ids = products.ids.extended([one.id for one in states])
    size, rows, gone = len(ids), ids.rows([one.id for one in states]), _known(ids, withdrawn)
    recommendable_N = _with(
        products.recommendable_N, size, rows, [one.recommendable and one.in_stock for one in states]
    )
    recommendable_N[gone] = False
    prices = [np.nan if one.price is None else one.price for one in states]
    return Products(
        ids=ids,
        attributes=_attributes(products.attributes, size, rows, states),
        price_N=_with(products.price_N, size, rows, prices),
        recommendable_N=recommendable_N,
    )


def _attributes(
    attributes: Attributes, size: int, rows: NDArray[np.int64], states: Sequence[ProductState]
) -> Attributes:
    """Return the attributes with those of some products; a name or value that no product had comes last."""
    names = tuple(dict.fromkeys([*attributes.names, *(name for one in states for name in one.attributes)]))
    more = len(names) - len(attributes.names)
    labels, codes_NA = [*attributes.labels, *[()] * more], np.pad(attributes.codes_NA, ((0, 0), (0, more)))
    codes_KA = np.zeros((len(states), len(names)), np.int32)
    for place, name in enumerate(names):
        labels[place], codes_KA[:, place] = _coded(labels[place], [one.attributes.get(name) for one in states])
    return Attributes(names, tuple(labels), _with(codes_NA, size, rows, codes_KA))


def _coded(labels: tuple[str, ...], values: Sequence[str | None]) -> tuple[tuple[str, ...], list[int]]:
    """Return the labels with those that are new behind them, and the code of each value: 0 for none."""
    codes = {label: code for code, label in enumerate(labels, 1)}
    for value in values:
        if value is not None:
            codes.setdefault(value, len(codes) + 1)
    return tuple(codes), [0 if value is None else codes[value] for value in values]


def _locations(locations: Locations, states: Sequence[LocationState], withdrawn: Sequence[str]) -> Locations:
    """Return the locations with new states, which carry what they did: those that are new nothing yet."""
    if not states and not withdrawn:
        return locations
    ids = locations.ids.extended([one.id for one in states])
    size, rows, gone = len(ids), ids.rows([one.id for one in states]), _known(ids, withdrawn)
    regions, codes = _coded(locations.regions, [one.region for one in states])
    points = [
        (np.nan, np.nan) if one.latitude is None or one.longitude is None else (one.latitude, one.longitude)
        for one in states
    ]
    withdrawn_M = _with(locations.withdrawn_M, size, rows, [one.closed for one in states])
    withdrawn_M[gone] = True
    zones = dict(zip(rows.tolist(), (one.time_zone for one in states), strict=True))
    nothing = dict.fromkeys(range(len(locations.ids), size), np.zeros(0, np.int32))
    return locations._replace(
        ids=ids,
        coordinates_M2=_with(locations.coordinates_M2, size, rows, points),
        regions=regions,
        regions_M=_with(locations.regions_M, size, rows, codes),
        assortment=locations.assortment.replaced(nothing),
        withdrawn_M=withdrawn_M,
        unavailable=locations.unavailable.replaced(nothing),
        time_zones=_without_none({**locations.time_zones, **zones}),
    )


def _without_none(found: Mapping[int, Value | None]) -> dict[int, Value]:
    """Return the rows of which something is known."""
    return {row: value for row, value in found.items() if value is not None}


def _carrying(
    catalogue: Catalogue, products: Sequence[ProductState], held: int, locations: Sequence[LocationState]
) -> Locations:
    """Return the locations with what they carry after some products were declared for other ones.

    Args:
        catalogue: with the products and locations as they are now.
        products: those that changed.
        held: how many products there were before; a later one was not declared anywhere.
        locations: those that changed; one of which nothing is known carries what its region does.
    """
    where, rows_of = catalogue.locations, catalogue.products.ids.rows
    named = list({name for one in products for name in one.locations})
    known = dict(zip(named, where.ids.rows(named).tolist(), strict=True))
    declared: dict[int, set[int]] = {}
    for one, row in zip(products, rows_of([one.id for one in products]).tolist(), strict=True):
        declared[row] = {known[name] for name in one.locations}
        if -1 in declared[row]:
            _rows(where.ids, one.locations, "product.locations", f"product {one.id!r}")
    before = _listed(where.assortment, [row for row in declared if row < held], where.why_L & DECLARED > 0)
    touched = {row: (set[int](), set[int]()) for row in where.ids.rows([one.id for one in locations]).tolist()}
    for product, rows in declared.items():
        was = before.get(product, set())
        for location in rows - was:
            touched.setdefault(location, (set(), set()))[0].add(product)
        for location in was - rows:
            touched.setdefault(location, (set(), set()))[1].add(product)
    if not touched:
        return where
    assumed_M = where.assumed_M
    carried: dict[int, NDArray[np.int32]] = {}
    why: dict[int, NDArray[np.uint8]] = {}
    for location, (more, less) in touched.items():
        carried[location], why[location] = _carried(
            where, location, sorted(more), sorted(less), where.assumed[int(assumed_M[location])]
        )
    reasons = Ragged(where.assortment.offsets, where.why_L).replaced(why)  # pyright: ignore[reportArgumentType]
    return where._replace(assortment=where.assortment.replaced(carried), why_L=reasons.values)


def _unavailable(catalogue: Catalogue, products: Sequence[ProductState]) -> Locations:
    """Return the locations after some products have become available there, or are no more."""
    where = catalogue.locations
    rows = catalogue.products.ids.rows([one.id for one in products]).tolist()
    wanted = {
        row: set(
            _rows(where.ids, (*one.out_of_stock_at, *one.withdrawn_at), "product.locations", f"product {one.id!r}")
        )
        for row, one in zip(rows, products, strict=True)
    }
    before = _listed(where.unavailable, list(wanted))
    fresh: dict[int, set[int]] = {}
    for row, now in wanted.items():
        for location in now ^ before.get(row, set()):
            listed = fresh.setdefault(location, set(where.unavailable[location].tolist()))
            (listed.add if location in now else listed.discard)(row)
    lists = {location: np.array(sorted(listed), np.int32) for location, listed in fresh.items()}
    return where._replace(unavailable=where.unavailable.replaced(lists)) if lists else where


def _listed(lists: Ragged, products: Sequence[int], counted_L: NDArray[np.bool_] | None = None) -> dict[int, set[int]]:
    """Return the locations whose lists hold each of some products.

    Args:
        lists: product rows by location.
        products: rows.
        counted_L: which entries of the lists count; None for all of them.
    """
    found: dict[int, set[int]] = {}
    values, offsets = lists.values, lists.offsets
    if not products or not len(values):
        return found
    wanted_N = np.zeros(max(int(values.max(initial=0)), *products) + 1, np.bool_)
    wanted_N[list(products)] = True
    listed_L = wanted_N[values] if counted_L is None else wanted_N[values] & counted_L
    places = np.flatnonzero(listed_L)
    owners = offsets.searchsorted(places, side="right") - 1
    for product, location in zip(values[places].tolist(), owners.tolist(), strict=True):
        found.setdefault(product, set()).add(location)
    return found


def _carried(
    locations: Locations, location: int, more: Sequence[int], less: Sequence[int], assumed: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return what a location carries and why, once more products are declared for it, and others no more.

    If nothing is known of it then, it carries what is assumed.
    """
    span = slice(int(locations.assortment.offsets[location]), int(locations.assortment.offsets[location + 1]))
    rows, why = locations.assortment.values[span], locations.why_L[span] & ~np.uint8(ASSUMED)
    added = np.array(more, np.int32)
    added = added[~among(rows, added)]
    places = rows.searchsorted(added)
    rows, why = np.insert(rows, places, added), np.insert(why, places, 0)
    why[rows.searchsorted(more)] |= DECLARED
    why[rows.searchsorted(less)] &= ~np.uint8(DECLARED)
    if why.any():
        return rows[why > 0], why[why > 0]
    return assumed, np.full(len(assumed), ASSUMED, np.uint8)


def _offers(catalogue: Catalogue, states: Sequence[OfferState], withdrawn: Sequence[str]) -> Catalogue:
    """Return the catalogue with new states of offers; one that is withdrawn is not shown any more."""
    if not states and not withdrawn:
        return catalogue
    offers, channels = catalogue.offers, Vocabulary.of(list(catalogue.channels))
    ids = offers.ids.extended([one.id for one in states])
    size, rows = len(ids), ids.rows([one.id for one in states])
    audiences, codes = _coded(catalogue.audiences, [one.audience for one in states])
    lists: dict[str, dict[int, NDArray[np.int32]]] = {"products": {}, "channels": {}, "locations": {}}
    for row, one in zip(rows.tolist(), states, strict=True):
        for name, of, named in (
            ("products", catalogue.products.ids, one.products),
            ("channels", channels, one.channels or ()),
            ("locations", catalogue.locations.ids, one.locations or ()),
        ):
            found = _rows(of, named, f"offer.{name}", f"offer {one.id!r}")
            lists[name][row] = np.array(sorted(set(found)), np.int32)
    starts = [seconds_of(one.starts) for one in states]
    # A list without entries admits nobody: such an offer is never valid.
    ends = [
        start if one.channels == () or one.locations == () else seconds_of(one.ends)
        for one, start in zip(states, starts, strict=True)
    ]
    withdrawn_O = _with(offers.withdrawn_O, size, rows, [one.status != "live" for one in states])
    withdrawn_O[_known(ids, withdrawn)] = True
    terms = dict(zip(rows.tolist(), map(_terms, states), strict=True))
    fresh = Offers(
        ids=ids,
        kinds_O=_with(offers.kinds_O, size, rows, [OFFER_KINDS.index(one.kind) for one in states]),
        starts_O=_with(offers.starts_O, size, rows, starts),
        ends_O=_with(offers.ends_O, size, rows, ends),
        audiences_O=_with(offers.audiences_O, size, rows, [code - 1 for code in codes]),
        uses_O=_with(offers.uses_O, size, rows, [one.uses for one in states]),
        withdrawn_O=withdrawn_O,
        products=offers.products.replaced(lists["products"]),
        channels=offers.channels.replaced(lists["channels"]),
        locations=offers.locations.replaced(lists["locations"]),
        terms=_without_none({**offers.terms, **terms}),
    )
    return catalogue._replace(offers=fresh, audiences=audiences)


def _terms(state: OfferState) -> OfferTerms | None:
    """Return the terms of an offer; None for the usual ones."""
    terms = OfferTerms(state.value, state.priority, state.campaign, state.partner or None)
    return None if terms == OfferTerms() else terms


def _promotions(catalogue: Catalogue, states: Sequence[PromotionState], withdrawn: Sequence[str]) -> Promotions:
    """Return the promotion plan with new states of groups; one that is withdrawn promotes nothing any more."""
    plan = catalogue.promotions
    ids = plan.ids.extended([one.id for one in states])
    size, rows, gone = len(ids), ids.rows([one.id for one in states]), _known(ids, withdrawn)
    if not states and not len(gone):
        return plan
    channels = Vocabulary.of(list(catalogue.channels))
    columns: list[list[int]] = [[], []]
    lists: dict[int, NDArray[np.int32]] = {}
    for row, one in zip(rows.tolist(), states, strict=True):
        whose = f"promotion {one.id!r}"
        columns[0] += _rows(channels, [one.channel], "promotion.channel", whose)
        columns[1] += _rows(catalogue.locations.ids, [one.location], "promotion.location", whose)
        promoted = _rows(catalogue.products.ids, one.products, "promotion.products", whose)
        lists[row] = np.array(sorted(set(promoted)), np.int32)
    lists |= dict.fromkeys(gone.tolist(), np.zeros(0, np.int32))
    return Promotions(
        ids=ids,
        channels_G=_with(plan.channels_G, size, rows, columns[0]),
        locations_G=_with(plan.locations_G, size, rows, columns[1]),
        starts_G=_with(plan.starts_G, size, rows, [seconds_of(one.starts) for one in states]),
        ends_G=_with(plan.ends_G, size, rows, [seconds_of(one.ends) for one in states]),
        products=plan.products.replaced(lists),
    )


def _rows(ids: Vocabulary, named: Sequence[str], field: str, whose: str) -> list[int]:
    """Return the rows of the ids that a change names; raise InvalidInput for one that the catalogue does not hold."""
    rows = ids.rows(named).tolist()
    if -1 in rows:
        what = field.rpartition(".")[2]
        raise InvalidInput(field, f"expected {what} of the catalogue; {whose} names {named[rows.index(-1)]!r}")
    return rows
