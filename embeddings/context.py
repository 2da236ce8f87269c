"""Where, when and on which channel a recommendation is asked for."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

# Any text but with the character NUL, which PostgreSQL cannot hold.
Identifier = Annotated[str, Meta(min_length=1, max_length=200, pattern="^[^\\x00]*$")]
Moment = Annotated[datetime, Meta(tz=True)]


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
    """

    channel: Identifier
    location: Identifier | GeoPoint | None = None
    at: Moment | None = None
