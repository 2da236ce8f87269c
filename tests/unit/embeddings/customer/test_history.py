from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embeddings.arrays import Ragged
from embeddings.customer.history import EVENT, EVENT_CODES, PURCHASE, Histories, History
from embeddings.errors import InvalidInput
from embeddings.vocabulary import Vocabulary


@pytest.fixture
def histories() -> Histories:
    """Anna did two things, Bert nothing, Čeněk one."""
    events = np.zeros(3, EVENT)
    events["at"] = [10, 20, 15]
    events["product"] = [7, -1, 8]
    events["offer"] = [-1, 4, -1]
    events["location"] = [1, -1, 2]
    events["quantity"] = [1, 1, 2.5]
    events["value"] = [2.5, np.nan, 0]
    events["type"] = [PURCHASE, EVENT_CODES["redemption"], EVENT_CODES["view"]]
    events["channel"] = [0, -1, 3]
    return Histories(
        customers=Vocabulary.of(["anna", "bert", "čeněk"]),
        events=events,
        offsets=np.array([0, 2, 2, 3]),
        attributes_CA=np.array([[1, 0], [0, 0], [2, 1]], np.int32),
        audiences=Ragged.of([[], [0, 2], [1]]),
        attribute_names=("segment", "colour"),
        attribute_labels=(("s1", "s2"), ("red",)),
    )


def assert_equal(found: History, expected: History) -> None:
    assert found.events_E.dtype == EVENT
    for field in EVENT.names or ():
        np.testing.assert_array_equal(found.events_E[field], expected.events_E[field])
    assert found.attributes_A.tolist() == expected.attributes_A.tolist()
    assert found.audiences == expected.audiences


def test_an_event_takes_32_bytes_and_code_0_is_padding():
    assert EVENT.itemsize == 32
    assert min(EVENT_CODES.values()) == 1
    assert max(EVENT_CODES.values()) < 256


def test_a_known_customer_has_their_own_past(histories: Histories):
    anna, bert, cenek = (histories.of(one) for one in ("anna", "bert", "čeněk"))
    assert [one.events_E["at"].tolist() for one in (anna, bert, cenek)] == [[10, 20], [], [15]]
    assert [one.attributes_A.tolist() for one in (anna, bert, cenek)] == [[1, 0], [0, 0], [2, 1]]
    assert [one.audiences for one in (anna, bert, cenek)] == [(), (0, 2), (1,)]


@pytest.mark.parametrize("customer_id", [None, "", "Anna", "dora"])
def test_somebody_unknown_has_an_empty_past_of_the_right_shape(customer_id: str | None, histories: Histories):
    stranger = histories.of(customer_id)
    assert stranger.events_E.dtype == EVENT
    assert len(stranger.events_E) == 0
    assert stranger.attributes_A.tolist() == [0, 0]
    assert stranger.audiences == ()


def test_a_stranger_becomes_known_by_what_they_do(histories: Histories):
    event = histories.of("anna").events_E[:1]
    np.testing.assert_array_equal(histories.of(None).append(event).events_E, event)
    assert len(histories.of(None).events_E) == 0


def test_histories_that_differ_in_nothing_bought_share_what_is_worked_out_of_that(histories: Histories):
    anna = histories.of("anna")
    viewed, bought, unknown = (anna.events_E[:1].copy() for _ in range(3))
    viewed["type"], unknown["product"] = EVENT_CODES["view"], -1
    assert anna.append(viewed).purchases is anna.append(unknown).purchases is anna.purchases
    assert histories.described(anna, {"colour": "red"}).purchases is anna.purchases
    bought["at"] += 1
    assert anna.append(bought).purchases is not anna.purchases
    assert anna.append(np.concatenate([viewed, bought])).purchases.times_R.tolist() == [2]


def test_attribute_sizes_count_the_unknown_code(histories: Histories):
    assert histories.attribute_sizes == (3, 2)


def test_histories_come_back_as_they_were_saved(histories: Histories, tmp_path: Path):
    histories.save(tmp_path / "histories")
    again = Histories.load(tmp_path / "histories")
    assert again.customers.ids() == histories.customers.ids()
    assert (again.attribute_names, again.attribute_labels) == (histories.attribute_names, histories.attribute_labels)
    for customer_id in ("anna", "bert", "čeněk", None):
        assert_equal(again.of(customer_id), histories.of(customer_id))


def test_loaded_histories_are_mapped_and_read_only_and_still_take_events(histories: Histories, tmp_path: Path):
    histories.save(tmp_path)
    again = Histories.load(tmp_path)
    for array in (again.events, again.offsets, again.attributes_CA, again.audiences.values):
        assert isinstance(array.base, np.memmap)
        assert not array.flags.writeable
    anna = again.of("anna")
    longer = anna.append(histories.of("čeněk").events_E)
    assert longer.events_E["at"].tolist() == [10, 15, 20]
    assert anna.events_E["at"].tolist() == [10, 20]


def test_nobody_at_all_can_be_saved_too(tmp_path: Path):
    nobody = Histories(
        customers=Vocabulary.of([]),
        events=np.zeros(0, EVENT),
        offsets=np.zeros(1, np.int64),
        attributes_CA=np.zeros((0, 0), np.int32),
        audiences=Ragged.of([]),
        attribute_names=(),
        attribute_labels=(),
    )
    nobody.save(tmp_path)
    assert len(Histories.load(tmp_path).of("anna").events_E) == 0


def test_attributes_that_are_given_replace_what_is_known_and_the_others_stay(histories: Histories):
    cenek = histories.of("čeněk")
    assert histories.described(cenek, {"segment": "s1"}).attributes_A.tolist() == [1, 1]
    assert histories.described(histories.of(None), {"colour": "red", "segment": "s2"}).attributes_A.tolist() == [2, 1]
    assert histories.described(cenek, {"colour": "mauve"}).attributes_A.tolist() == [2, 0], "no customer has it"
    assert cenek.attributes_A.tolist() == [2, 1], "the history itself is left alone"
    assert histories.described(cenek, {"segment": "s1"}).events_E["at"].tolist() == [15]


def test_an_attribute_that_no_customer_has_is_refused_by_name(histories: Histories):
    with pytest.raises(InvalidInput, match="expected one of segment, colour") as refused:
        histories.described(histories.of(None), {"shoe_size": "42"})
    assert refused.value.field == "attributes.shoe_size"
    bare = replace(histories, attribute_names=(), attribute_labels=())
    with pytest.raises(InvalidInput, match="expected none"):
        bare.described(histories.of(None), {"segment": "s1"})
