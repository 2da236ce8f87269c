"""Changes of a catalogue; that a release answers by them is the affair of the property tests."""

from datetime import UTC, datetime

import numpy as np
import pytest

from embeddings.catalogue.changes import Change, LocationState, OfferState, ProductState, Withdrawal
from embeddings.catalogue.snapshot import apply
from embeddings.errors import InvalidInput
from tests.arrays import arrays_of
from tests.unit.embeddings.small import N, catalogue

THEN, LATER = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (ProductState(id="p1", locations=("l0", "nowhere")), "product.locations"),
        (OfferState(id="o", products=("p1", "nothing"), starts=THEN, ends=LATER), "offer.products"),
        (OfferState(id="o", products=(), starts=THEN, ends=LATER, channels=("fax",)), "offer.channels"),
        (OfferState(id="o", products=(), starts=THEN, ends=LATER, locations=("nowhere",)), "offer.locations"),
    ],
)
def test_a_change_that_names_what_is_not_there_is_refused(change: Change, field: str):
    with pytest.raises(InvalidInput) as refused:
        apply(catalogue(), [ProductState(id="new"), change])
    assert refused.value.field == field
    assert change.id in refused.value.expected


def test_a_change_leaves_the_catalogue_before_it_as_it_was():
    before, expected = catalogue(), catalogue()
    for part in arrays_of(tuple(before)):
        part.flags.writeable = False
    after = apply(
        before,
        [
            ProductState(id="p1", attributes={"type": "c", "colour": "red"}, locations=("l1", "l2")),
            ProductState(id="new", price=3.0),
            LocationState(id="l3", region="far"),
            Withdrawal(kind="product", id="p2"),
            Withdrawal(kind="location", id="l0"),
        ],
    )
    for one, other in zip(arrays_of(tuple(before)), arrays_of(tuple(expected)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert after.products.ids.ids() == [*before.products.ids.ids(), "new"]
    assert after.products.attributes.names == ("type", "category", "colour")
    assert after.products.recommendable_N.tolist() == [row != 2 for row in range(N + 1)]
    assert after.locations.assortment[2].tolist() == [1]


def test_what_is_not_there_need_not_be_withdrawn():
    gone: list[Change] = [Withdrawal(kind=kind, id="nothing") for kind in ("product", "location", "offer")]
    for one, other in zip(arrays_of(tuple(apply(catalogue(), gone))), arrays_of(tuple(catalogue())), strict=True):
        np.testing.assert_array_equal(one, other)
