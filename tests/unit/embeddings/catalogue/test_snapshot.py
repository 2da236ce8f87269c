"""Changes of a catalogue; that a release answers by them is the affair of the property tests."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from embeddings.catalogue.changes import Change, LocationState, OfferState, ProductState, Withdrawal
from embeddings.catalogue.context import Context
from embeddings.catalogue.eligibility import Eligibility, Place
from embeddings.catalogue.snapshot import apply
from embeddings.errors import InvalidInput
from tests.arrays import arrays_of
from tests.unit.embeddings.small import N, catalogue

WEST = timezone(-timedelta(hours=1))
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


def test_the_last_moment_there_is_ends_an_offer_in_the_year_9999():
    last = datetime.max.replace(tzinfo=UTC)
    after = apply(catalogue(), [OfferState(id="o", products=("p1",), starts=THEN, ends=last)])
    assert datetime.fromtimestamp(int(after.offers.ends_O[-1]), UTC) == last.replace(microsecond=0)


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


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (LocationState(id="l", latitude=91.0, longitude=0.0), "location.latitude"),
        (LocationState(id="l", latitude=0.0, longitude=float("nan")), "location.longitude"),
        (ProductState(id="p", price=-1.0), "product.price"),
        (ProductState(id="p", price=float("inf")), "product.price"),
        (ProductState(id=""), "product.id"),
        (ProductState(id="a\nb"), "product.id"),
        (ProductState(id="p", attributes={"type": ""}), "product.attributes"),
        (OfferState(id="o", products=(), starts=LATER, ends=THEN), "offer.ends"),
        (OfferState(id="o", products=(), starts=THEN, ends=LATER.replace(tzinfo=None)), "offer.ends"),
        (OfferState(id="o", products=(), starts=THEN, ends=datetime.max.replace(tzinfo=WEST)), "offer"),
        (OfferState(id="o", products=(), starts=THEN, ends=LATER, uses=2**31), "offer.uses"),
        (OfferState(id="o", products=(), starts=THEN, ends=LATER, kind="gift"), "offer.kind"),  # pyright: ignore
        (Withdrawal(kind="shop", id="x"), "shop.kind"),  # pyright: ignore
    ],
)
def test_a_value_that_the_tables_would_not_take_is_refused(change: Change, field: str):
    with pytest.raises(InvalidInput) as refused:
        apply(catalogue(), [ProductState(id="new"), change])
    assert refused.value.field.startswith(field)


def test_an_id_that_cannot_be_encoded_is_refused():
    with pytest.raises(InvalidInput):
        apply(catalogue(), [ProductState(id="\ud800")])


def test_an_offer_that_is_withdrawn_keeps_the_time_in_which_it_ran():
    offer = OfferState(id="o", products=("p1",), starts=THEN, ends=LATER)
    after = apply(apply(catalogue(), [offer]), [Withdrawal(kind="offer", id="o")])
    assert (after.offers.starts_O.tolist(), after.offers.ends_O.tolist()) == ([THEN.timestamp()], [LATER.timestamp()])
    place, moment = Place(None), int(THEN.timestamp())
    found = Eligibility(after).offers(Context("web"), place, moment, (), np.zeros(0, np.int32))
    assert found.size == 0


def test_an_offer_of_a_withdrawn_location_alone_is_shown_nowhere():
    offers = [
        OfferState(id=one, products=("p1",), starts=THEN, ends=LATER, locations=where)
        for one, where in (("here", ("l0",)), ("there", ("l0", "l1")))
    ]
    after = apply(catalogue(), [*offers, Withdrawal(kind="location", id="l0")])
    found = Eligibility(after).offers(Context("web"), Place(None), int(THEN.timestamp()), (), np.zeros(0, np.int32))
    assert after.offers.ids.ids(found.rows_N.tolist()) == ["there"]
