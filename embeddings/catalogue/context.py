"""The context of a request: where, when and on which channel it asks for recommendations."""

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, TypeAlias

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from embeddings.errors import InvalidInput

LONGEST_ID = 256
"""Characters that an id may have, in the tables as over HTTP."""

EXPECTED_ID = f"at most {LONGEST_ID} characters, none of them a control character"

CONTROL_CHARACTERS = "\\x00-\\x1f\\x7f-\\x9f"
"""What no id may hold, for a class of a regular expression: PostgreSQL cannot store NUL, others break lines of logs."""

# Not `$` alone: in Python it also stands before a line feed at the end.
TEXT = f"^[^{CONTROL_CHARACTERS}]*$(?!\\n)"
"""What a text without control characters matches."""

Identifier = Annotated[str, Meta(min_length=1, max_length=LONGEST_ID, pattern=TEXT)]
Moment = Annotated[datetime, Meta(tz=True)]

EXPECTED_TEXT = "Expected `str` without control characters"
"""What msgspec would say of an id with one, if it knew what its pattern means."""

_EPOCH, _SECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(seconds=1)
_CONTROL = re.compile(f"[{CONTROL_CHARACTERS}]")

if TYPE_CHECKING:
    Id: TypeAlias = str
    ListedId: TypeAlias = str
else:  # a struct that has one turns integers into text with `ids_as_text` after it is decoded
    _Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    Id = Identifier | _Integer
    # Of a list: a pattern costs more than all else of an id. A struct that has one calls `listed_ids`.
    ListedId = Annotated[str, Meta(min_length=1, max_length=LONGEST_ID)] | _Integer


def seconds_of(at: datetime) -> int:
    """Return whole seconds since 1970 UTC, as PostgreSQL's floor of the same moment gives them.

    A float of them is rounded up just before a second, and at the end of year 9999 beyond what can be written down.
    """
    return (at - _EPOCH) // _SECOND


def ids_as_text(one: Struct, *names: str) -> None:
    """Turn the JSON integers among some fields of a new struct into their decimal text."""
    for name in names:
        if type(value := getattr(one, name)) is int:
            force_setattr(one, name, str(value))


def listed_ids(name: str, ids: tuple[str, ...]) -> tuple[str, ...]:
    """Return the ids of a list, JSON integers as text.

    Raises:
        InvalidInput: one of them holds a control character; names the field and its place.
    """
    if int in map(type, ids):
        ids = tuple(map(str, ids))
    if not "".join(ids).isprintable():  # a quick look; other characters than those of control are not printable either
        for place, one in enumerate(ids):
            if _CONTROL.search(one):
                raise InvalidInput(f"{name}[{place}]", EXPECTED_TEXT)
    return ids


Said = Annotated[dict[str, Annotated[str, Meta(min_length=1)]], Meta(max_length=100)]
"""Values of attributes, by name."""


class GeoPoint(Struct, frozen=True, forbid_unknown_fields=True):
    """A point on the globe, in degrees, and how far around it a location still counts, in kilometres."""

    latitude: Annotated[float, Meta(ge=-90, le=90)]
    longitude: Annotated[float, Meta(ge=-180, le=180)]
    radius_km: Annotated[float, Meta(gt=0, le=20_038)]


class Context(Struct, frozen=True, forbid_unknown_fields=True):
    """Channel, location and moment of one request.

    Attributes:
        channel: one of the channels the catalogue declares.
        location: a location's id, or a point and radius; None where the request has no place.
        at: the moment asked about, with its time zone; None means now.
        attributes: values of context attributes, by the names that the recipe declares; a value that no event had
            before the data cut-off counts as unknown.
    """

    channel: Identifier
    location: Id | GeoPoint | None = None
    at: Moment | None = None
    attributes: Said = {}

    def __post_init__(self) -> None:
        """Turn a location id that came as a JSON integer into text."""
        ids_as_text(self, "location")
