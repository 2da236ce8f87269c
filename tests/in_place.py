"""A release as if it had been published with a catalogue, made of tables row by row and of the code of training.

Towers and rankers are those of a published release: what comes later has not taught them anything.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from embeddings.arrays import Ragged, Table
from embeddings.catalogue.changes import (
    Change,
    LocationState,
    OfferState,
    PlacementState,
    ProductState,
    PromotionState,
    Withdrawal,
)
from embeddings.catalogue.columns import (
    ASSUMED,
    DECLARED,
    SOLD,
    Attributes,
    Catalogue,
    Locations,
    Offers,
    OfferTerms,
    Products,
    Promotions,
)
from embeddings.catalogue.eligibility import Eligibility
from embeddings.catalogue.tables import OFFER_KINDS
from embeddings.customer.history import Histories
from embeddings.index.planned import PlannedIndex
from embeddings.ranking.statistics import PRODUCT_STATISTICS, Neighbours
from embeddings.release.bundle import ModelBundle
from embeddings.release.rows import Rows
from embeddings.vocabulary import Vocabulary
from serving.popular import PopularRankings
from serving.view import View
from tests.world import UNTIL
from training.config import RankerConfig
from training.similar import similar_vectors
from training.statistics import Nearby, count

_BUYERS = PRODUCT_STATISTICS.index("buyers")


class Published:
    """A release, and what its statistics were counted from. No data class: a failing test would show all of it."""

    def __init__(self, view: View, histories: Histories, ranker: RankerConfig) -> None:
        self.view = view
        self.histories = histories
        self.ranker = ranker


class Tables(NamedTuple):
    """The tables after changes, by id, in the order of their rows; and what was withdrawn."""

    products: dict[str, ProductState]
    locations: dict[str, LocationState]
    offers: dict[str, OfferState]
    promotions: dict[str, PromotionState]
    withdrawn: set[tuple[str, str]]
    placements: dict[str, PlacementState]


def tables_of(catalogue: Catalogue) -> Tables:
    """The tables that a release was published with."""
    products, locations, offers = catalogue.products, catalogue.locations, catalogue.offers
    declared: dict[int, list[str]] = {}
    for row, carrier in enumerate(locations.ids.ids()):
        for carried, why in carried_by(locations, row).items():
            if why & DECLARED:
                declared.setdefault(carried, []).append(carrier)
    names, labels, codes_NA = products.attributes

    def product(row: int, one: str) -> ProductState:
        codes = codes_NA[row].tolist()
        said = {name: labels[place][codes[place] - 1] for place, name in enumerate(names) if codes[place]}
        price = float(products.price_N[row])
        return ProductState(
            id=one,
            attributes=said,
            price=None if np.isnan(price) else price,
            recommendable=bool(products.recommendable_N[row]),
            locations=tuple(declared.get(row, ())),
        )

    def location(row: int, one: str) -> LocationState:
        latitude, longitude = (None if np.isnan(value) else value for value in locations.coordinates_M2[row].tolist())
        code = int(locations.regions_M[row])
        return LocationState(
            id=one,
            latitude=latitude,
            longitude=longitude,
            region=locations.regions[code - 1] if code else None,
            time_zone=locations.time_zones.get(row),
        )

    def offer(row: int, one: str) -> OfferState:
        channels, places = (
            tuple(ids[at] for at in lists[row].tolist()) or None
            for ids, lists in ((list(catalogue.channels), offers.channels), (locations.ids.ids(), offers.locations))
        )
        audience = int(offers.audiences_O[row])
        return OfferState(
            id=one,
            products=tuple(products.ids.ids(offers.products[row].tolist())),
            starts=datetime.fromtimestamp(int(offers.starts_O[row]), UTC),
            ends=datetime.fromtimestamp(int(offers.ends_O[row]), UTC),
            kind=OFFER_KINDS[offers.kinds_O[row]],  # pyright: ignore[reportArgumentType]
            channels=channels,
            locations=places,
            audience=None if audience < 0 else catalogue.audiences[audience],
            uses=int(offers.uses_O[row]),
            value=offers.terms.get(row, OfferTerms()).value,
            priority=offers.terms.get(row, OfferTerms()).priority,
            campaign=offers.terms.get(row, OfferTerms()).campaign,
            partner=offers.terms.get(row, OfferTerms()).partner or "",
        )

    plan = catalogue.promotions

    def promotion(row: int, one: str) -> PromotionState:
        return PromotionState(
            id=one,
            channel=list(catalogue.channels)[plan.channels_G[row]],
            location=locations.ids.id(int(plan.locations_G[row])),
            products=tuple(products.ids.ids(plan.products[row].tolist())),
            starts=datetime.fromtimestamp(int(plan.starts_G[row]), UTC),
            ends=datetime.fromtimestamp(int(plan.ends_G[row]), UTC),
        )

    return Tables(
        {one: product(row, one) for row, one in enumerate(products.ids.ids())},
        {one: location(row, one) for row, one in enumerate(locations.ids.ids())},
        {one: offer(row, one) for row, one in enumerate(offers.ids.ids())},
        {one: promotion(row, one) for row, one in enumerate(plan.ids.ids())},
        set(),
        dict(catalogue.placements),
    )


def carried_by(locations: Locations, row: int) -> dict[int, int]:
    """The products that a location carries, and why."""
    span = slice(*locations.assortment.offsets[row : row + 2].tolist())
    return dict(zip(locations.assortment.values[span].tolist(), locations.why_L[span].tolist(), strict=True))


def changed(tables: Tables, changes: Sequence[Change]) -> Tables:
    """The tables after changes, one after the other."""
    after = Tables(*(copy(part) for part in cast("tuple[Any, ...]", tables)))
    for one in changes:
        match one:
            case PromotionState():
                after.promotions[one.id] = one
            case PlacementState():
                after.placements[one.id] = one
            case Withdrawal():
                _withdraw(after, one)
            case ProductState():
                after.products[one.id] = one
                after.withdrawn.discard(("product", one.id))
            case LocationState():
                after.locations[one.id] = one
                after.withdrawn.discard(("location", one.id))
            case OfferState():
                after.offers[one.id] = one
                after.withdrawn.discard(("offer", one.id))
            case _:
                pass
    return after


def _withdraw(tables: Tables, one: Withdrawal) -> None:
    match one.kind:
        case "placement":
            tables.placements.pop(one.id, None)
        case "promotion":
            if one.id in tables.promotions:
                tables.promotions[one.id] = structs.replace(tables.promotions[one.id], products=())
        case kind:
            if one.id in {"product": tables.products, "location": tables.locations, "offer": tables.offers}[kind]:
                tables.withdrawn.add((kind, one.id))


def catalogue_of(tables: Tables, published: Catalogue) -> Catalogue:
    """The catalogue of some tables, row by row; what was sold, and what is assumed, is what the release says."""
    products, locations, offers, promotions = (
        list(tables.products.values()),
        list(tables.locations.values()),
        list(tables.offers.values()),
        list(tables.promotions.values()),
    )
    product_ids, location_ids, offer_ids = list(tables.products), list(tables.locations), list(tables.offers)
    names, labels, _ = published.products.attributes
    words = [_extended(labels[at], [one.attributes.get(name) for one in products]) for at, name in enumerate(names)]
    codes = [[_code(words[at], one.attributes.get(name)) for at, name in enumerate(names)] for one in products]
    regions = _extended(published.locations.regions, [one.region for one in locations])
    lists: list[list[int]] = []
    reasons: list[list[int]] = []
    was = published.locations
    for row, one in enumerate(locations):
        why = {place: DECLARED for place, product in enumerate(products) if one.id in product.locations}
        if row < len(was.ids):
            for product, bits in carried_by(was, row).items():
                if bits & SOLD:
                    why[product] = why.get(product, 0) | SOLD
        if not why:
            carried = was.assumed[_code(was.regions, one.region)].tolist() or was.assumed[0].tolist()
            why = dict.fromkeys(carried, ASSUMED)
        lists.append(sorted(why))
        reasons.append([why[product] for product in sorted(why)])
    channels = list(published.channels)
    audiences = _extended(published.audiences, [one.audience for one in offers])

    def valid(one: OfferState) -> bool:
        return one.channels != () and one.locations != ()

    return published._replace(
        audiences=tuple(audiences),
        products=Products(
            ids=Vocabulary.of(product_ids),
            attributes=Attributes(names, tuple(map(tuple, words)), np.array(codes, np.int32)),
            price_N=np.array([np.nan if one.price is None else one.price for one in products]),
            recommendable_N=np.array(
                [one.recommendable and one.in_stock and ("product", one.id) not in tables.withdrawn for one in products]
            ),
        ),
        locations=Locations(
            ids=Vocabulary.of(location_ids),
            coordinates_M2=np.array(
                [
                    (np.nan, np.nan) if one.latitude is None or one.longitude is None else (one.latitude, one.longitude)
                    for one in locations
                ]
            ),
            regions=tuple(regions),
            regions_M=np.array([_code(regions, one.region) for one in locations], np.int32),
            assortment=Ragged.of(lists),
            why_L=np.array([why for some in reasons for why in some], np.uint8),
            assumed=was.assumed,
            withdrawn_M=np.array([one.closed or ("location", one.id) in tables.withdrawn for one in locations]),
            unavailable=Ragged.of(
                [place for place, one in enumerate(products) if at in (*one.out_of_stock_at, *one.withdrawn_at)]
                for at in location_ids
            ),
            time_zones={row: one.time_zone for row, one in enumerate(locations) if one.time_zone is not None},
        ),
        offers=Offers(
            ids=Vocabulary.of(offer_ids),
            kinds_O=np.array([OFFER_KINDS.index(one.kind) for one in offers], np.uint8),
            starts_O=np.array([int(one.starts.timestamp()) for one in offers]),
            ends_O=np.array([int((one.ends if valid(one) else one.starts).timestamp()) for one in offers]),
            audiences_O=np.array([_code(audiences, one.audience) - 1 for one in offers], np.int32),
            uses_O=np.array([one.uses for one in offers], np.int32),
            withdrawn_O=np.array(
                [one.status != "live" or ("offer", one.id) in tables.withdrawn for one in offers], np.bool_
            ),
            products=Ragged.of(sorted(product_ids.index(product) for product in one.products) for one in offers),
            channels=Ragged.of(sorted(channels.index(channel) for channel in one.channels or ()) for one in offers),
            locations=Ragged.of(sorted(location_ids.index(at) for at in one.locations or ()) for one in offers),
            terms={
                row: OfferTerms(one.value, one.priority, one.campaign, one.partner or None)
                for row, one in enumerate(offers)
                if one.value is not None or one.priority != 1 or one.campaign is not None or one.partner
            },
        ),
        promotions=Promotions(
            ids=Vocabulary.of(list(tables.promotions)),
            channels_G=np.array([channels.index(one.channel) for one in promotions], np.int32),
            locations_G=np.array([location_ids.index(one.location) for one in promotions], np.int32),
            starts_G=np.array([int(one.starts.timestamp()) for one in promotions]),
            ends_G=np.array([int(one.ends.timestamp()) for one in promotions]),
            products=Ragged.of(sorted(map(product_ids.index, one.products)) for one in promotions),
        ),
        placements=tables.placements,
    )


def _extended(words: Sequence[str], said: Sequence[str | None]) -> list[str]:
    return [*words, *sorted({one for one in said if one is not None} - {*words})]


def _code(words: Sequence[str], said: str | None) -> int:
    return 0 if said is None or said not in words else [*words].index(said) + 1


def in_place(release: Published, catalogue: Catalogue) -> View:
    """The view of a release that was published with a catalogue, its statistics counted by training."""
    was, bundle = release.view.release, release.view.release.bundle
    held = len(bundle.catalogue.products.ids)
    late = len(catalogue.products.ids) - held
    vectors_ND = bundle.vectors_ND
    if late:
        encoder, codes_MA = bundle.product_encoder, catalogue.products.attributes.codes_NA[held:].astype(np.int64)
        assert encoder is not None
        price_M = catalogue.products.price_N[held:].astype(np.float32)
        vectors_ND = np.concatenate([vectors_ND, encoder.encode(np.full(late, -1), codes_MA, price_M)])
    lists: list[int] = []
    for row, one in enumerate(
        zip(catalogue.locations.why_M.tolist(), catalogue.locations.regions_M.tolist(), strict=True)
    ):
        why, code = one
        region = code if code < len(catalogue.locations.assumed) and len(catalogue.locations.assumed[code]) else 0
        lists.append(row if why & SOLD else len(bundle.catalogue.locations.ids) + region if why & ASSUMED else -1)
    seen = bundle.statistics.observed
    observed = seen._replace(
        popularity_N=np.pad(seen.popularity_N, (0, late)),
        trained_N=np.pad(seen.trained_N, (0, late)),
        lists_M=np.array(lists),
    )
    # Products that the release knows keep their groups until the next one.
    products = catalogue.products
    codes_NA = np.concatenate([bundle.catalogue.products.attributes.codes_NA, products.attributes.codes_NA[held:]])
    counted = products._replace(attributes=products.attributes._replace(codes_NA=codes_NA))

    def padded(near: Neighbours) -> Neighbours:
        rows_NT, weights_NT = near.rows_NT.base, near.weights_NT.base
        more = (0, late), (0, 0)
        return Neighbours.of(np.pad(rows_NT, more, constant_values=-1), np.pad(weights_NT, more))

    nearby = Nearby.of(bundle.statistics)
    factors = Table.of(np.pad(nearby.als.products_ND.base, ((0, late), (0, 0))))
    nearby = Nearby(
        padded(nearby.also_bought),
        padded(nearby.bought_together),
        padded(nearby.complements),
        Table.of(np.pad(nearby.together_NT.base, ((0, late), (0, 0)))),
        nearby.als._replace(products_ND=factors),
        nearby.lifts_GG,
    )
    moment = int(UNTIL.timestamp())
    catalogue_then = catalogue._replace(products=counted)
    statistics = count(release.histories, catalogue_then, observed, moment, nearby, release.ranker)
    buyers_N = statistics.products_NP.base[:, _BUYERS]
    units_ND = similar_vectors(vectors_ND, _described(bundle, vectors_ND), buyers_N).units_ND
    whole = replace(
        bundle,
        catalogue=catalogue,
        statistics=statistics,
        vectors_ND=vectors_ND,
        units_ND=units_ND,
        products=PlannedIndex(vectors_ND, "cpu"),
        similar=PlannedIndex(units_ND, "cpu"),
    )
    fresh = {"published": Eligibility(catalogue), "popular": PopularRankings(), "newest": Rows.of(whole)}
    return View.of(replace(was, bundle=whole, **fresh))


def _described(bundle: ModelBundle, vectors_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors of all products without their ids, as published; those that came later have no other."""
    products = bundle.catalogue.products
    assert bundle.product_encoder is not None
    described_ND = bundle.product_encoder.encode(
        np.full(len(products.ids), -1, np.int64),
        products.attributes.codes_NA.astype(np.int64),
        products.price_N.astype(np.float32),
    )
    return np.concatenate([described_ND, vectors_ND[len(described_ND) :]])
