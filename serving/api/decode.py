"""Requests as typed values: strict, unknown fields refused, every error naming its field."""

import re
from typing import Any, Generic, TypeVar

import msgspec
from litestar import Request
from litestar.datastructures import MultiDict

from embeddings.errors import InvalidInput
from serving.api.problems import MalformedBody, UnsupportedMediaType

Decoded = TypeVar("Decoded")

_JSON = "application/json"
_NAMED = re.compile(r"(?:unknown|missing required) field `(?P<name>[^`]*)`")


class BodyDecoder(Generic[Decoded]):
    """Decodes JSON bodies into one type."""

    def __init__(self, kind: type[Decoded]) -> None:
        self._decoder = msgspec.json.Decoder(kind, strict=True)

    async def read(self, request: Request[Any, Any, Any]) -> Decoded:
        """Read and decode a request's body.

        Raises:
            UnsupportedMediaType: it is not declared as JSON.
            MalformedBody: it is not JSON.
            InvalidInput: it is JSON of another shape.
        """
        declared = request.headers.get("content-type", "")
        if declared.partition(";")[0].strip().lower() != _JSON:
            raise UnsupportedMediaType(f"expected Content-Type {_JSON}, got {declared or 'none'}")
        try:
            return self._decoder.decode(await request.body())
        except msgspec.ValidationError as error:
            raise _invalid(error) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise MalformedBody(f"expected JSON in UTF-8: {error}") from None


def read_query(query: MultiDict[str], kind: type[Decoded]) -> Decoded:
    """A query string as a typed value; InvalidInput names the parameter that is wrong, unknown or repeated."""
    for name in query:
        if len(query.getall(name)) > 1:
            raise InvalidInput(name, "expected it once")
    try:
        return msgspec.convert(dict(query), kind, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid(error) from None


def _invalid(error: msgspec.ValidationError) -> InvalidInput:
    expected, _, path = str(error).partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    named = _NAMED.search(expected)
    if named is not None:
        field = f"{field}.{named['name']}" if field else named["name"]
    return InvalidInput(field or "body", expected)
