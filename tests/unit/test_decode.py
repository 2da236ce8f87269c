from typing import TypeVar, cast

import pytest
from litestar.datastructures import MultiDict
from litestar.types import Scope

from embeddings.errors import InvalidInput
from serving.api.decode import BodyDecoder, read_query
from serving.api.events import EventsRequest
from serving.api.problems import MalformedBody, UnsupportedMediaType
from serving.api.products import SimilarQuery
from serving.engine import RecommendRequest

Decoded = TypeVar("Decoded")

EVENT = b'{"event_id": "e", "type": "view", "customer_id": "c", "at": "2025-06-01T00:00:00Z"}'


def read(kind: type[Decoded], body: bytes, content_type: str | None = "application/json") -> Decoded:
    headers = [] if content_type is None else [(b"content-type", content_type.encode())]
    decoder = BodyDecoder(kind)
    decoder.check_type(cast("Scope", {"headers": headers}))
    return decoder.decode(body)


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
        (b'"exclude": ["a", 7]', "exclude[1]"),
        (b'"exclude": [""]', "exclude[0]"),
        (b'"customer_id": 1029', "customer_id"),
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
        (b'{"channel": "web", "location": 5}', "context.location"),
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


def test_an_event_is_named_by_its_place():
    with pytest.raises(InvalidInput) as caught:
        read(EventsRequest, b'{"events": [' + EVENT + b", " + EVENT.replace(b"view", b"stare") + b"]}")
    assert caught.value.field == "events[1].type"


@pytest.mark.parametrize("count", [0, 1001])
def test_events_come_1_to_1000_at_a_time(count: int):
    with pytest.raises(InvalidInput) as caught:
        read(EventsRequest, b'{"events": [' + b", ".join([EVENT] * count) + b"]}")
    assert caught.value.field == "events"


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
    assert read(RecommendRequest, b'{"context": {"channel": "web"}}', content_type).limit == 10


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
