from typing import TypeVar, cast

import msgspec
import numpy as np
import pytest
from litestar.datastructures import MultiDict
from litestar.types import Scope

from embeddings.catalogue.tables import LARGEST_QUANTITY, LARGEST_VALUE
from embeddings.errors import InvalidInput
from serving.api.decode import BodyDecoder, check_type, read_query
from serving.api.events import EventsDecoder, Faulty
from serving.api.problems import MalformedBody, UnsupportedMediaType
from serving.api.products import SimilarQuery
from serving.recommendation import RecommendRequest
from serving.state.event import Event

Decoded = TypeVar("Decoded")

EVENT = b'{"event_id": "e", "type": "view", "customer_id": "c", "at": "2025-06-01T00:00:00Z"}'


def read(kind: type[Decoded], body: bytes, content_type: str | None = "application/json") -> Decoded:
    headers = [] if content_type is None else [(b"content-type", content_type.encode())]
    check_type(cast("Scope", {"headers": headers}))
    return BodyDecoder(kind).decode(body)


def recommend(rest: bytes, context: bytes = b'{"channel": "web"}') -> RecommendRequest:
    return read(RecommendRequest, b'{"context": ' + context + (b", " + rest if rest else b"") + b"}")


@pytest.mark.parametrize(
    ("rest", "field"),
    [
        (b'"limit": 0', "limit"),
        (b'"limit": 101', "limit"),
        (b'"limit": "10"', "limit"),
        (b'"limit": 10.5', "limit"),
        (b'"limit": true', "limit"),
        (b'"limit": null', "limit"),
        (b'"colour": 1', "colour"),
        (b'"kinds": []', "kinds"),
        (b'"kinds": ["product", "coupon"]', "kinds[1]"),
        (b'"exclude": ["a", 7.5]', "exclude[1]"),
        (b'"exclude": ["a", 7.0]', "exclude[1]"),
        (b'"items": [true]', "items[0]"),
        (b'"exclude": [""]', "exclude[0]"),
        (b'"customer_id": 1029.0', "customer_id"),
        (b'"customer_id": false', "customer_id"),
        (b'"customer_id": 99999999999999999999', "customer_id"),
        (b'"customer_id": ""', "customer_id"),
        (b'"customer_id": "a\\u0000b"', "customer_id"),
        (b'"exclude": ["a", "\\u0000"]', "exclude[1]"),
        (b'"explain": 1', "explain"),
    ],
)
def test_a_wrong_field_is_named(rest: bytes, field: str):
    with pytest.raises(InvalidInput) as caught:
        recommend(rest)
    assert caught.value.field == field
    assert caught.value.expected


@pytest.mark.parametrize(
    ("context", "field"),
    [
        (b"{}", "context.channel"),
        (b'"web"', "context"),
        (b'{"channel": "web", "colour": 1}', "context.colour"),
        (b'{"channel": "web", "location": 5.5}', "context.location"),
        (b'{"channel": "web", "location": {"latitude": 1, "longitude": 1}}', "context.location.radius_km"),
        (
            b'{"channel": "web", "location": {"latitude": 91, "longitude": 1, "radius_km": 1}}',
            "context.location.latitude",
        ),
        (
            b'{"channel": "web", "location": {"latitude": 1e999, "longitude": 1, "radius_km": 1}}',
            "context.location.latitude",
        ),
        (
            b'{"channel": "web", "location": {"latitude": 1, "longitude": -181, "radius_km": 1}}',
            "context.location.longitude",
        ),
        (
            b'{"channel": "web", "location": {"latitude": 1, "longitude": 1, "radius_km": 0}}',
            "context.location.radius_km",
        ),
        (b'{"channel": "web", "at": "yesterday"}', "context.at"),
        (b'{"channel": "web", "at": "2025-06-01T00:00:00"}', "context.at"),
        (b'{"channel": "web", "at": "2025-06-01"}', "context.at"),
        (b'{"channel": "web", "at": 1748736000}', "context.at"),
    ],
)
def test_a_wrong_field_is_named_by_its_whole_path(context: bytes, field: str):
    with pytest.raises(InvalidInput) as caught:
        recommend(b"", context)
    assert caught.value.field == field


def test_ids_may_be_integers_and_become_their_decimal_text():
    given = recommend(
        b'"customer_id": -7, "exclude": ["a", 0], "items": [18, "19"]', b'{"channel": "web", "location": 329}'
    )
    assert (given.customer_id, given.exclude, given.items) == ("-7", ("a", "0"), ("18", "19"))
    assert given.context.location == "329"


def read_events(*events: bytes) -> list[Event | Faulty]:
    return list(EventsDecoder().decode(b'{"events": [' + b", ".join(events) + b"]}"))


def changed(**fields: object) -> bytes:
    """The event with other fields; one that is None is left out."""
    event = {**msgspec.json.decode(EVENT), **fields}
    return msgspec.json.encode({name: value for name, value in event.items() if value is not None})


def test_each_event_that_cannot_be_decoded_stands_in_its_place():
    events = read_events(EVENT, changed(type="stare"), EVENT)
    assert [isinstance(event, Event) for event in events] == [True, False, True]
    assert read_events(EVENT, EVENT) == [events[0], events[2]], "as if there had been no other"


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (changed(type="stare"), {"type"}),
        (changed(type="stare", at="yesterday", quantity=-1), {"type", "at", "quantity"}),
        (changed(at=None, customer_id=None), {"at", "customer_id"}),
        (changed(colour="red", shade=1, value=-0.5), {"colour", "shade", "value"}),
        (changed(customer_id=1.0, event_id=True, product_id=[]), {"customer_id", "event_id", "product_id"}),
        (changed(quantity=0), {"quantity"}),
        (changed(quantity=LARGEST_QUANTITY * 1.01, value=LARGEST_VALUE * 1.01), {"quantity", "value"}),
        (changed(quantity="2"), {"quantity"}),
        (EVENT[:-1] + b', "quantity": 1e999}', {"quantity"}),
        (changed(customer_id="a" * 257), {"customer_id"}),
        (b"7", {""}),
        (b"null", {""}),
        (b"[]", {""}),
        (b'{"type": "stare", ' + EVENT[1:], {""}),
    ],
)
def test_all_that_is_wrong_with_an_event_is_named(event: bytes, fields: set[str]):
    _, faulty = read_events(EVENT, event)
    assert isinstance(faulty, Faulty)
    assert sorted(problem.field for problem in faulty.problems) == sorted(
        f"events[1].{field}" if field else "events[1]" for field in fields
    )
    assert all(problem.expected for problem in faulty.problems)


def test_of_a_faulty_event_the_rest_is_known():
    (faulty,) = read_events(changed(type="stare", product_id=7))
    assert isinstance(faulty, Faulty)
    assert set(faulty.values) == {"event_id", "customer_id", "at", "product_id"}


def test_the_ids_of_an_event_may_be_integers():
    given = {"event_id": 1, "customer_id": 2, "product_id": 3, "offer_id": 4, "location": 5}
    (event,) = read_events(changed(**given))
    assert {name: getattr(event, name) for name in given} == {name: str(value) for name, value in given.items()}


def test_quantity_and_value_may_be_as_large_as_is_declared():
    (event,) = read_events(changed(quantity=LARGEST_QUANTITY, value=LARGEST_VALUE))
    assert isinstance(event, Event)
    assert np.isfinite(np.full(10**6, event.value, np.float32).sum())


@pytest.mark.parametrize("count", [0, 1001])
def test_events_come_1_to_1000_at_a_time(count: int):
    with pytest.raises(InvalidInput) as caught:
        read_events(*[EVENT] * count)
    assert caught.value.field == "events"


@pytest.mark.parametrize(
    ("body", "field"),
    [(b"[]", "body"), (b"{}", "events"), (b'{"events": {}}', "events"), (b'{"events": [], "x": 1}', "events")],
)
def test_what_is_no_list_of_events_is_refused_as_a_whole(body: bytes, field: str):
    with pytest.raises(InvalidInput) as caught:
        EventsDecoder().decode(body)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "event", [b'{"quantity": NaN}', b"{", b'{"event_id": "\xff"}', EVENT[:-1] + b', "value": Infinity}']
)
def test_events_that_are_no_json_are_malformed(event: bytes):
    with pytest.raises(MalformedBody, match="expected JSON"):
        read_events(EVENT, event)


def test_a_body_of_another_shape_is_named_body():
    with pytest.raises(InvalidInput) as caught:
        read(RecommendRequest, b"[]")
    assert caught.value.field == "body"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"limit": NaN}',
        b'{"limit": Infinity}',
        b"\xff",
        b'{"placement": "\xff"}',
        b"{'limit': 1}",
        b'{"context": {"channel": "web"}} {}',
    ],
)
def test_what_is_no_json_is_malformed(body: bytes):
    with pytest.raises(MalformedBody, match="expected JSON"):
        read(RecommendRequest, body)


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "text/json"])
def test_a_body_must_be_declared_as_json(content_type: str | None):
    with pytest.raises(UnsupportedMediaType, match="application/json"):
        read(RecommendRequest, b'{"context": {"channel": "web"}}', content_type)


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_may_be_declared_with_parameters(content_type: str):
    assert read(RecommendRequest, b'{"context": {"channel": "web"}}', content_type).context.channel == "web"


def test_text_that_only_looks_like_nul_is_taken():
    assert recommend(b'"customer_id": "\\\\u0000"').customer_id == "\\u0000"


def query(*pairs: tuple[str, str]) -> SimilarQuery:
    return read_query(MultiDict(pairs), SimilarQuery)


def test_a_query_is_read_by_its_types():
    assert query(("limit", "5"), ("channel", "web")) == SimilarQuery(limit=5, channel="web")
    assert query() == SimilarQuery()


@pytest.mark.parametrize(
    ("pairs", "field"),
    [
        ([("limit", "0")], "limit"),
        ([("limit", "101")], "limit"),
        ([("limit", "x")], "limit"),
        ([("limit", "")], "limit"),
        ([("limit", "3"), ("limit", "4")], "limit"),
        ([("colour", "red")], "colour"),
        ([("channel", "")], "channel"),
    ],
)
def test_a_wrong_parameter_is_named(pairs: list[tuple[str, str]], field: str):
    with pytest.raises(InvalidInput) as caught:
        query(*pairs)
    assert caught.value.field == field


def test_of_many_unknown_fields_a_few_are_named_and_the_others_counted():
    fields = b", ".join(b'"x%d%s": 1' % (place, b"y" * 200) for place in range(50_000))
    (faulty,) = read_events(b"{" + fields + b"}")
    assert isinstance(faulty, Faulty)
    unknown = [problem for problem in faulty.problems if "unknown" in problem.expected]
    assert len(unknown) == 11
    assert "49990 more" in unknown[-1].expected
    assert all(len(problem.field) < 100 for problem in unknown)
