import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from embeddings.catalogue.eligibility import Place
from embeddings.customer.history import EVENT, EVENT_CODES, PURCHASE, Events, History
from embeddings.customer.tower_input import Situation, TowerInput, encode, gather

NOON = int(datetime(2025, 6, 4, 12, 59, 59, tzinfo=UTC).timestamp())  # a Wednesday
SOMEWHERE = Situation(2, 5, NOON)


def past(count: int, attributes: tuple[int, ...] = (1, 0), seed: int = 0) -> History:
    """Some random events, the newest before noon; one in four without a product."""
    random = np.random.default_rng(seed)
    events_E = np.zeros(count, EVENT)
    events_E["at"] = np.sort(NOON - random.integers(0, 9_000_000, count))
    events_E["product"] = np.where(random.random(count) < 0.25, -1, random.integers(0, 50, count))
    events_E["type"] = random.integers(1, 8, count)
    return History(events_E, np.array(attributes, np.int32), ())


def slowly(history: History, situation: Situation, length: int) -> list[tuple[int, int, float]]:
    """The tower input's events of one customer, event by event."""
    found: list[tuple[int, int, float]] = []
    for event in reversed(history.events_E):
        shown_or_refused = int(event["type"]) in {EVENT_CODES["impression"], EVENT_CODES["dismissal"]}
        if event["product"] >= 0 and not shown_or_refused and len(found) < length:
            days = max(0.0, (situation.moment - int(event["at"])) / 86_400)
            found.append((int(event["product"]), int(event["type"]), math.log2(1 + days)))
    return found


def row_of(encoded: TowerInput, row: int) -> list[tuple[int, int, float]]:
    columns = (encoded.products_BL[row], encoded.types_BL[row], encoded.ages_BL[row])
    return [(int(product), int(kind), float(age)) for product, kind, age in zip(*columns, strict=True)]


@pytest.mark.parametrize("length", [1, 8, 1000])
def test_a_batch_is_what_a_loop_over_its_events_says(length: int):
    histories = [past(count, seed=count) for count in (40, 0, 3, 8, 200)]
    situations = [Situation(0, row - 1, NOON - 3_000_000 * row) for row in range(5)]
    encoded = encode(histories, situations, length)
    expected = [slowly(history, situation, length) for history, situation in zip(histories, situations, strict=True)]
    width = max(1, *map(len, expected))
    assert encoded.products_BL.shape == encoded.types_BL.shape == encoded.ages_BL.shape == (5, width)
    for row, one in enumerate(expected):
        padded = one + [(-1, 0, 0.0)] * (width - len(one))
        assert [event[:2] for event in row_of(encoded, row)] == [event[:2] for event in padded]
        np.testing.assert_allclose(encoded.ages_BL[row], [event[2] for event in padded], rtol=1e-6)


def test_the_dtypes_are_those_the_tower_declares():
    encoded = encode([past(3)], [SOMEWHERE], 8)
    assert [array.dtype for array in encoded] == [np.int64, np.int64, np.float32, np.int64, np.int64]


def test_events_without_a_product_do_not_take_the_place_of_others():
    history = past(0)
    events_E = np.zeros(4, EVENT)
    events_E["at"] = NOON
    events_E["product"] = [11, 12, -1, -1]
    events_E["type"] = PURCHASE
    encoded = encode([replace(history, events_E=events_E)], [SOMEWHERE], 2)
    assert encoded.products_BL.tolist() == [[12, 11]]


def test_an_empty_history_is_one_place_of_padding():
    encoded = encode([past(0, ())], [SOMEWHERE], 8)
    assert row_of(encoded, 0) == [(-1, 0, 0.0)]
    assert encoded.attributes_BA.shape == (1, 0)


def test_an_event_that_is_still_to_come_has_no_age():
    later = past(1, seed=2)
    later.events_E["at"] = NOON + 86_400
    later.events_E["product"] = 3
    assert encode([later], [SOMEWHERE], 8).ages_BL.tolist() == [[0.0]]


def test_attributes_are_passed_on():
    encoded = encode([past(1, (3, 0)), past(0, (0, 9))], [SOMEWHERE, SOMEWHERE], 8)
    assert encoded.attributes_BA.tolist() == [[3, 0], [0, 9]]


@pytest.mark.parametrize(
    "moment", ["1969-12-31T23:59:59", "1970-01-01T00:00:00", "2025-06-01T23:59:59", "2025-06-02T00:00:00"]
)
def test_weekday_and_hour_are_those_of_the_calendar(moment: str):
    at = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    encoded = encode([past(0)], [Situation(4, 6, int(at.timestamp()))], 8)
    assert encoded.context_BC.tolist() == [[5, 7, at.isoweekday(), at.hour + 1]]


def test_unknown_channel_and_location_are_code_0():
    assert encode([past(0)], [Situation(-1, -1, NOON)], 8).context_BC[0, :2].tolist() == [0, 0]


def test_a_customer_is_encoded_alone_as_in_any_batch():
    histories = [past(count, seed=count) for count in (12, 0, 5)]
    situations = [Situation(row, row, NOON - row) for row in range(3)]
    together = encode(histories, situations, 6)
    for row in range(3):
        alone = encode(histories[row : row + 1], situations[row : row + 1], 6)
        width = alone.products_BL.shape[1]
        assert row_of(alone, 0) == row_of(together, row)[:width]
        assert set(row_of(together, row)[width:]) <= {(-1, 0, 0.0)}
        assert alone.context_BC.tolist() == together.context_BC[row : row + 1].tolist()


def test_encoding_changes_no_history():
    history = past(20)
    events_E: Events = history.events_E.copy()
    encode([history], [SOMEWHERE], 5)
    np.testing.assert_array_equal(history.events_E, events_E)


def test_gather_gives_zeros_for_minus_one_and_changes_no_vector():
    vectors_ND: NDArray[np.float32] = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
    vectors_ND.flags.writeable = False
    gathered_BLD = gather(vectors_ND, np.array([[2, -1, 0], [-1, -1, -1]]))
    assert gathered_BLD.tolist() == [[[5, 6], [0, 0], [1, 2]], [[0, 0]] * 3]
    assert gathered_BLD.dtype == np.float32
    assert vectors_ND.tolist() == [[1, 2], [3, 4], [5, 6]]


def bought_at(*locations: int) -> History:
    """A history with a purchase a day, the last one the newest."""
    events = np.zeros(len(locations), EVENT)
    events["type"], events["at"] = PURCHASE, NOON - 86_400 * np.arange(len(locations), 0, -1)
    events["location"] = locations
    return History(events, np.zeros(0, np.int32), ())


@pytest.mark.parametrize(
    ("rows", "location", "placed"),
    [
        ((7,), 7, True),  # said, though the customer was never there
        (None, 2, False),
        ((9, 3), 3, False),  # of several the usual one
        ((9, 8), 9, False),  # or the nearest
        ((), -1, False),
    ],
)
def test_models_read_the_location_that_is_named_or_the_usual_one(
    rows: tuple[int, ...] | None, location: int, placed: bool
):
    purchases = bought_at(2, 2, 2, 3, -1).purchases
    found = Situation(1, -1, NOON, (4,), ahead=True).at(Place(rows), purchases)
    assert found == Situation(1, location, NOON, (4,), placed=placed, ahead=True)


def test_of_nobody_no_location_is_usual():
    assert Situation(1, 5, NOON).at(Place(None), bought_at().purchases).location == -1
