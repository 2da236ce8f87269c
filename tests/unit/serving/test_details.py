"""What the catalogue holds of an item: all that was asked for, nothing else, and never cut without saying so."""

from itertools import combinations

import numpy as np
import pytest
from msgspec import UNSET

from embeddings.arrays import Ragged
from embeddings.catalogue.columns import Attributes, Catalogue, Offers
from embeddings.vocabulary import Vocabulary
from serving.details import MOST_PRODUCTS, Details, Include, details_of
from serving.ranked import Kind
from tests.unit.embeddings.small import N, catalogue

ALL: tuple[Include, ...] = ("attributes", "price", "products")
JUNE, JULY = 1_748_736_000, 1_751_328_000


@pytest.fixture(scope="module")
def shop() -> Catalogue:
    """Product 1 has no brand and no price; an offer for vips covers three products, one for everybody 250."""
    many = 250
    small = catalogue()
    attributes = Attributes(("brand", "name"), (("Acme",), ("café", "tea")), np.zeros((many, 2), np.int32))
    attributes.codes_NA[0], attributes.codes_NA[1] = (1, 2), (0, 1)
    prices = np.full(many, 12_345_678.9)
    prices[:2] = 1.99, np.nan
    return small._replace(
        audiences=("vip",),
        products=small.products._replace(
            ids=Vocabulary.of([f"p{row}" for row in range(many)]), attributes=attributes, price_N=prices
        ),
        offers=Offers(
            ids=Vocabulary.of(["few", "many"]),
            kinds_O=np.array([1, 0], np.uint8),
            starts_O=np.array([JUNE, JUNE]),
            ends_O=np.array([JULY, JULY]),
            audiences_O=np.array([0, -1], np.int32),
            uses_O=np.ones(2, np.int32),
            withdrawn_O=np.zeros(2, np.bool_),
            products=Ragged.of([[3, 5, 249], range(many)]),
            channels=Ragged.of([[], []]),
            locations=Ragged.of([[], []]),
        ),
    )


def test_a_product_has_the_attributes_and_the_price_that_its_table_gave(shop: Catalogue):
    assert details_of(shop, "product", 0, ALL) == Details({"brand": "Acme", "name": "tea"}, 1.99)
    assert details_of(shop, "product", 1, ALL) == Details({"name": "café"})
    assert details_of(shop, "product", 2, ALL) == Details({}, 12_345_678.9)


def test_an_offer_has_its_kind_its_window_its_audience_and_its_products(shop: Catalogue):
    window = {"starts": "2025-06-01T00:00:00Z", "ends": "2025-07-01T00:00:00Z"}
    few, many = (details_of(shop, "offer", row, ALL) for row in range(2))
    assert few == Details({"kind": "promotion", **window, "audience": "vip"}, UNSET, ["p3", "p5", "p249"], 3)
    assert many.attributes == {"kind": "coupon", **window}


def test_of_many_products_the_first_are_named_and_all_are_counted(shop: Catalogue):
    many = details_of(shop, "offer", 1, ("products",))
    assert many.products == [f"p{row}" for row in range(MOST_PRODUCTS)]
    assert many.products_total == 250


@pytest.mark.parametrize("include", [part for size in range(4) for part in combinations(ALL, size)])
@pytest.mark.parametrize("kind", ["product", "offer"])
def test_only_what_was_asked_for_is_told(shop: Catalogue, kind: Kind, include: tuple[Include, ...]):
    everything = details_of(shop, kind, 0, ALL)._asdict()
    kept = {**everything, **{name: UNSET for name in everything if name.removesuffix("_total") not in include}}
    assert details_of(shop, kind, 0, include) == Details(**kept)


def test_nothing_is_told_unless_asked_for():
    assert details_of(catalogue(), "product", N - 1, ()) == Details()
