"""An event in three forms: as the HTTP contract has it, as it is stored, and as a history needs it."""

from datetime import UTC, datetime
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from embeddings.catalogue.context import Id, Identifier, Moment, ids_as_text, seconds_of
from embeddings.catalogue.tables import LARGEST_QUANTITY, LARGEST_VALUE, EventType


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something a customer did, as the HTTP contract has it.

    Attributes:
        event_id: chosen by the sender; a second event with the same id changes nothing.
        recommendation_id: the recommendation that led to it, if one did.
        context: what is said of the situation, by the names that the recipe declares.
    """

    event_id: Id
    type: EventType
    customer_id: Id
    at: Moment
    product_id: Id | None = None
    offer_id: Id | None = None
    location: Id | None = None
    channel: Identifier | None = None
    quantity: Annotated[float, Meta(gt=0, le=LARGEST_QUANTITY)] = 1
    value: Annotated[float, Meta(ge=0, le=LARGEST_VALUE)] | None = None
    recommendation_id: Identifier | None = None
    context: Annotated[dict[str, Identifier], Meta(max_length=100)] = {}

    def __post_init__(self) -> None:
        """Convert ids that came as JSON integers to text."""
        ids = self.event_id, self.customer_id, self.product_id, self.offer_id, self.location
        if int in map(type, ids):
            ids_as_text(self, "event_id", "customer_id", "product_id", "offer_id", "location")


class Row(NamedTuple):
    """The fields of an event that a history needs.

    Attributes:
        seq: its place in the order of arrival.
        arrived: when it arrived, where its own moment lies ahead of that; else 0. Both in seconds since 1970 UTC.
    """

    seq: int
    arrived: int
    at: int
    type: str
    product_id: str | None
    offer_id: str | None
    location: str | None
    channel: str | None
    quantity: float
    value: float | None


class Stored(NamedTuple):
    """An event that was stored just now."""

    event: Event
    seq: int
    arrived: int

    @property
    def row(self) -> Row:
        """Return the fields that a history needs."""
        one = self.event
        named = one.type, one.product_id, one.offer_id, one.location, one.channel, one.quantity, one.value
        return Row(self.seq, self.arrived, seconds_of(one.at), *named)

    @property
    def values(self) -> tuple[object, ...]:
        """Return the values to be stored, in the order of the columns that are written."""
        one = self.event
        return (
            one.event_id,
            one.customer_id,
            one.type,
            one.at,
            one.product_id,
            one.offer_id,
            one.location,
            one.channel,
            one.quantity,
            one.value,
            one.recommendation_id,
            datetime.fromtimestamp(self.arrived, UTC) if self.arrived else None,
            self.seq,
            msgspec.json.encode(one.context).decode() if one.context else None,
        )
