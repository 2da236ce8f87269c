"""What a release knows of products that came later."""

import dataclasses
from datetime import timedelta

import numpy as np
import pytest
from msgspec.structs import replace

from embeddings.catalogue.changes import LocationState, ProductState, PromotionState
from embeddings.catalogue.snapshot import apply
from embeddings.customer.tower_input import Situation, encode
from embeddings.release.bundle import Manifest, ModelBundle, open_histories
from embeddings.release.rows import Rows
from embeddings.release.store import BundleStore
from tests.world import UNTIL

NEW = ProductState(id="new", attributes={"department": "d1", "brand": "b2"}, price=2.0)


@pytest.fixture(scope="module")
def bundle(published: tuple[BundleStore, Manifest]) -> ModelBundle:
    store, manifest = published
    return ModelBundle.open(store.bundle(manifest.version), "cpu", 2**20)


def test_a_vector_is_encoded_again_once_an_attribute_or_the_price_changes(bundle: ModelBundle):
    rows, catalogue = Rows.of(bundle), bundle.catalogue
    seen = set[bytes]()
    for change in (
        NEW,
        replace(NEW, attributes={"department": "d2"}),
        replace(NEW, price=9.0),
        replace(NEW, price=None),
    ):
        catalogue = apply(catalogue, [change, replace(NEW, id="other")])
        rows = rows.following(bundle, catalogue)
        at_once = Rows.of(bundle).following(bundle, catalogue)
        np.testing.assert_allclose(rows.vectors.tail, at_once.vectors.tail, atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(rows.units.tail, axis=1), 1, rtol=1e-5)
        seen.add(rows.vectors.tail[0].tobytes())
    assert len(seen) == 4


def test_rows_stay_while_nothing_changes_that_they_hold(bundle: ModelBundle):
    known = bundle.catalogue.products.ids.id(0)
    edited = apply(bundle.catalogue, [ProductState(id=known, price=77.0, in_stock=False)])
    rows = Rows.of(bundle)
    assert rows.following(bundle, edited) is rows
    added = rows.following(bundle, apply(edited, [NEW]))
    assert added is not rows
    edited = apply(edited, [NEW, ProductState(id=known, price=78.0)])
    assert added.following(bundle, edited) is added
    for change in (
        replace(NEW, price=3.0),
        LocationState(id="elsewhere", region="r"),
        PromotionState(
            id="p", channel="mailer", location="north", products=("new",), starts=UNTIL, ends=UNTIL + timedelta(days=7)
        ),
    ):
        assert added.following(bundle, apply(edited, [change])) is not added


def test_a_price_says_nothing_where_training_saw_none(bundle: ModelBundle):
    products = bundle.catalogue.products
    unpriced = products._replace(price_N=np.full(len(products.ids), np.nan))
    blind = dataclasses.replace(bundle, catalogue=bundle.catalogue._replace(products=unpriced))
    for one, other, alike in ((bundle, bundle, False), (blind, blind, True)):
        first, second = (
            Rows.of(part).following(part, apply(part.catalogue, [replace(NEW, price=price)])).vectors.tail
            for part, price in ((one, 1.0), (other, 90.0))
        )
        assert np.allclose(first, second, atol=1e-6) == alike


def test_a_value_or_an_attribute_that_training_never_saw_is_unknown_to_the_tower(bundle: ModelBundle):
    rows, vectors = Rows.of(bundle), list[np.ndarray]()
    for attributes in (
        {"department": "d1"},
        {"department": "d1", "brand": "b77"},
        {"department": "d1", "colour": "red"},
    ):
        catalogue = apply(bundle.catalogue, [replace(NEW, attributes=attributes)])
        vectors.append(rows.following(bundle, catalogue).vectors.tail[0])
    for vector in vectors[1:]:
        np.testing.assert_allclose(vector, vectors[0], atol=1e-6)


def test_a_location_that_came_later_is_unknown_to_the_customer_tower(
    bundle: ModelBundle, published: tuple[BundleStore, Manifest]
):
    store, manifest = published
    _, histories = open_histories(store.histories(manifest.version))
    catalogue = apply(bundle.catalogue, [LocationState(id=f"later{number}") for number in range(40)])
    late = range(len(bundle.catalogue.locations.ids), len(catalogue.locations.ids))
    situations = [Situation(0, location, 0) for location in (-1, *late)]
    tower_input = encode([histories.of("c017")] * len(situations), situations, manifest.history_length)
    vectors_BD = bundle.customer_encoder.encode(tower_input, bundle.vectors_ND)
    np.testing.assert_allclose(vectors_BD, np.repeat(vectors_BD[:1], len(vectors_BD), axis=0), atol=1e-6)


def test_a_bundle_without_a_product_encoder_gives_later_products_no_place(bundle: ModelBundle):
    blind = dataclasses.replace(bundle, product_encoder=None)
    rows = Rows.of(blind).following(blind, apply(blind.catalogue, [NEW]))
    assert not rows.vectors.tail.any()
    assert not rows.units.tail.any()
