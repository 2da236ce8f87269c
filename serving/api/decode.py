"""Requests as typed values: strict, unknown fields refused, every error naming its field."""

import re
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar, get_origin

import msgspec
from litestar.datastructures import MultiDict
from litestar.types import Scope
from msgspec import Raw, Struct
from msgspec.structs import fields

from embeddings.catalogue.context import EXPECTED_TEXT
from embeddings.errors import InvalidInput
from embeddings.explained import explained, unknown_field
from serving.api.problems import MalformedBody, UnsupportedMediaType

Decoded = TypeVar("Decoded")
Query = TypeVar("Query", bound=Struct)

JSON = b"application/json"
_NAMED_UNKNOWN, _LETTERS = 10, 80
"""How many unknown fields of an object are named, and how much of a name: an answer must not outgrow its request."""
_NAMED = re.compile(r"(?:unknown|missing required) field `(?P<name>[^`]*)`")


def check_type(scope: Scope, accepted: Collection[bytes] = (JSON,)) -> bytes:
    """Return the media type that a request's body is declared as.

    Raises:
        UnsupportedMediaType: it is none of those accepted, or the body is declared as compressed.
    """
    declared = b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            declared = value
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise UnsupportedMediaType(f"expected no Content-Encoding, got {value.decode('latin-1')}")
    found = declared if declared in accepted else declared.partition(b";")[0].strip().lower()
    if found not in accepted:
        choices = " or ".join(one.decode() for one in accepted)
        raise UnsupportedMediaType(f"expected Content-Type {choices}, got {declared.decode('latin-1') or 'none'}")
    return found


class BodyDecoder(Generic[Decoded]):
    """Decodes JSON bodies into one type."""

    def __init__(self, kind: type[Decoded]) -> None:
        self._kind = kind
        self._decoder = msgspec.json.Decoder(kind, strict=True)

    def decode(self, body: bytes) -> Decoded:
        """Return a request's body as a typed value.

        Raises:
            MalformedBody: it is not JSON.
            InvalidInput: it is JSON of another shape.
        """
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise _invalid(error, self._kind) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise malformed(error) from None


def malformed(error: Exception) -> MalformedBody:
    """Return the error for a body that is not JSON, or is nested deeper than can be read."""
    return MalformedBody(f"expected JSON in UTF-8: {error}")


class Fields(NamedTuple):
    """The fields of a faulty JSON object that can be read, and all that is wrong with it.

    Attributes:
        values: the fields that are right, by name.
        problems: one for each field that is wrong or missing; of those that are unknown, the first few by name.
    """

    values: Mapping[str, Any]
    problems: list[InvalidInput]


def read_fields(kind: type[Struct], given: Raw, path: str) -> Fields:
    """Decode a JSON object field by field, to name every problem; slow, so only for what a decoder has refused.

    Args:
        kind: the type that it should have.
        given: the object.
        path: how problems name it, such as ``events[3]``.
    """
    try:
        raw = _objects().decode(given)
    except msgspec.ValidationError as error:
        return Fields({}, [InvalidInput(path, str(error))])
    declared = {field.encode_name: field for field in fields(kind)}
    values: dict[str, Any] = {}
    unknown = [name for name in raw if name not in declared]
    problems = [
        InvalidInput(f"{path}.{name[:_LETTERS]}", unknown_field(name[:_LETTERS], kind))
        for name in unknown[:_NAMED_UNKNOWN]
    ]
    if len(unknown) > _NAMED_UNKNOWN:
        problems.append(InvalidInput(path, f"Object contains {len(unknown) - _NAMED_UNKNOWN} more unknown fields"))
    for name, field in declared.items():
        if name in raw:
            try:
                values[name] = _decoder(field.type).decode(raw[name])
            except msgspec.ValidationError as error:
                problem = _invalid(error, field.type)
                inner = "" if problem.field == "body" else f".{problem.field}".replace(".[", "[")
                problems.append(InvalidInput(f"{path}.{name}{inner}", problem.expected))
        elif field.required:
            problems.append(InvalidInput(f"{path}.{name}", f"Object missing required field `{name}`"))
    return Fields(values, problems)


@cache
def _objects() -> msgspec.json.Decoder[dict[str, Raw]]:
    return msgspec.json.Decoder(dict[str, Raw])


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, strict=True)


def read_query(query: MultiDict[str], kind: type[Query]) -> Query:
    """Return a query string as a typed value.

    Several values of one parameter are separated by commas.

    Raises:
        InvalidInput: naming the parameter that is wrong, unknown or repeated.
    """
    for name in query:
        if len(query.getall(name)) > 1:
            raise InvalidInput(name, "expected it once")
    try:
        given = {name: value.split(",") if name in _lists(kind) else value for name, value in query.items()}
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid(error, kind) from None


@cache
def _lists(kind: type[Struct]) -> frozenset[str]:
    return frozenset(field.name for field in fields(kind) if get_origin(field.type) is tuple)


def _invalid(error: msgspec.ValidationError, kind: Any) -> InvalidInput:
    field, expected = explained(error, kind)
    if "matching regex" in expected:  # only ids and texts that are sought have a pattern
        expected = EXPECTED_TEXT
    named = _NAMED.search(expected)
    if named is not None:
        field = f"{field}.{named['name']}" if field else named["name"]
    return InvalidInput(field or "body", expected)
