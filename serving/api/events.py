"""``POST /v1/events``: checks events of customers, and stores them."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from embeddings.catalogue.columns import Catalogue
from embeddings.errors import InvalidInput, UnknownReference
from serving.api.decode import BodyDecoder, malformed, read_fields
from serving.api.post import Post
from serving.api.problems import Problem, problem_of
from serving.clock import Clock
from serving.metrics import Metrics
from serving.slot import ViewSlot
from serving.state.event import Event, Stored
from serving.state.events import EventStore

_AT_ONCE = Meta(min_length=1, max_length=1000)


class EventsRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Events in any order."""

    events: Annotated[tuple[Event, ...], _AT_ONCE]


class _Undecoded(Struct, frozen=True, forbid_unknown_fields=True):
    """The same, of which some may be no events at all."""

    events: Annotated[tuple[Raw, ...], _AT_ONCE]


class Faulty(Struct, frozen=True):
    """What stands in the place of an event that cannot be decoded: the fields that can, and what is wrong."""

    values: Mapping[str, Any]
    problems: list[InvalidInput]


class Rejected(Struct, frozen=True):
    """An event that was not stored.

    Attributes:
        index: its place in the request.
        error: the first of its problems.
        errors: all of them.
    """

    index: int
    error: Problem
    errors: list[Problem]


class EventsResponse(Struct, frozen=True):
    """What became of the events; every one is accepted, a duplicate or rejected.

    Attributes:
        unknown: how many of the accepted ones name a product that the catalogue does not hold. They count as soon as
            it is in the live catalogue, or in a release that is served.
    """

    accepted: int
    duplicates: int
    unknown: int
    rejected: list[Rejected]


_NEEDS_PRODUCT = frozenset(
    {"view", "add_to_cart", "remove_from_cart", "purchase", "return", "check_in", "play", "rating"}
)


class EventsDecoder:
    """Decodes all events at once, and one by one only where that fails."""

    def __init__(self) -> None:
        self._whole = BodyDecoder(EventsRequest)
        self._parts = BodyDecoder(_Undecoded)
        self._event = msgspec.json.Decoder(Event, strict=True)

    def decode(self, body: bytes) -> Sequence[Event | Faulty]:
        """Return the events of a body, in its order.

        Raises:
            MalformedBody: it is not JSON.
            InvalidInput: it is no list of 1 to 1,000 events.
        """
        try:
            return self._whole.decode(body).events
        except InvalidInput:
            return self._each(body)

    def _each(self, body: bytes) -> list[Event | Faulty]:
        try:
            body.decode()  # what is taken apart is not looked into
            parts = self._parts.decode(body).events
            return [self._one(part, f"events[{index}]") for index, part in enumerate(parts)]
        except (UnicodeDecodeError, RecursionError) as error:
            raise malformed(error) from None

    def _one(self, part: Raw, path: str) -> Event | Faulty:
        try:
            return self._event.decode(part)
        except msgspec.ValidationError as error:
            fields = read_fields(Event, part, path)
            # Of a field that is given twice only the last is among them.
            return Faulty(fields.values, fields.problems or [InvalidInput(path, str(error))])


def events(
    slot: ViewSlot, store: EventStore, clock: Clock, metrics: Metrics
) -> Post[Sequence[Event | Faulty], EventsResponse]:
    """Return the route that takes events."""

    async def taken(valid: Sequence[Event]) -> Sequence[Stored]:
        """Store events, and note whether the store took them; return the new ones."""
        if not valid:
            return []
        try:
            new = await store.add(valid, clock.now())
        except Exception:
            metrics.refuse_events(len(valid))
            raise
        metrics.refusing = None
        return new

    async def answer(request: Sequence[Event | Faulty]) -> EventsResponse:
        """Accepted events are durable, and visible in the very next recommendation for their customer.

        A faulty event is rejected by itself, with its index and all its problems; the others are stored.
        """
        catalogue = slot.current.catalogue
        valid: list[Event] = []
        rejected: list[Rejected] = []
        for index, event in enumerate(request):
            problems = _problems(event, f"events[{index}]", catalogue, clock)
            if problems or isinstance(event, Faulty):
                errors = [problem_of(problem) for problem in problems]
                rejected.append(Rejected(index, errors[0], errors))
            else:
                clock.moment(event.at)
                valid.append(event)
        new = await taken(valid)
        # The model may have been swapped while the store was writing: histories of the one that answers now matter.
        live = slot.current.release.live
        live.apply(new)
        # A duplicate may be the repetition of an event whose first answer was lost on the way, before it was applied.
        stored = {one.event.event_id for one in new}
        live.reread({one.customer_id for one in valid if one.event_id not in stored and one.type != "impression"})
        for outcome, count in (
            ("accepted", len(new)),
            ("duplicate", len(valid) - len(new)),
            ("rejected", len(rejected)),
        ):
            metrics.events.labels(outcome).inc(count)
        named = (one.event.product_id for one in new)
        unknown = sum(one is not None and one not in catalogue.products.ids for one in named)
        return EventsResponse(len(new), len(valid) - len(new), unknown, rejected)

    return Post(
        "/v1/events", EventsRequest, (EventsResponse,), EventsDecoder().decode, answer, 202, "Report what customers did"
    )


def _problems(event: Event | Faulty, path: str, catalogue: Catalogue, clock: Clock) -> list[InvalidInput]:
    """Return all problems that keep an event from being stored; none if it can be."""
    if isinstance(event, Event):
        named = event.product_id, event.offer_id, event.location, event.channel
        return [*_unfit(event.type, event.at, named, event.context, path, catalogue, clock)]
    given = event.values
    ids = (
        None if (value := given.get(name)) is None else str(value) for name in ("product_id", "offer_id", "location")
    )
    unfit = _unfit(
        given.get("type"),
        given.get("at"),
        (*ids, given.get("channel")),
        given.get("context", {}),
        path,
        catalogue,
        clock,
    )
    wrong = {problem.field for problem in event.problems}
    return [*event.problems, *(problem for problem in unfit if problem.field not in wrong)]


def _unfit(
    kind: str | None,
    at: datetime | None,
    named: tuple[str | None, ...],
    context: Mapping[str, str],
    path: str,
    catalogue: Catalogue,
    clock: Clock,
) -> Iterator[InvalidInput]:
    """Yield the problems of an event whose fields are of the right types, as far as its fields are known.

    A product may be one that only a later release knows.
    """
    product_id, offer_id, location, channel = named
    for name, value, known in (
        ("offer_id", offer_id, catalogue.offers.ids),
        ("location", location, catalogue.locations.ids),
        ("channel", channel, catalogue.channels),
    ):
        if value is not None and value not in known:
            yield UnknownReference(f"{path}.{name}", f"expected one that the catalogue knows, got {value!r}")
    try:
        catalogue.context.check(context, f"{path}.context")
    except InvalidInput as error:
        yield error
    if kind in _NEEDS_PRODUCT and product_id is None:
        yield InvalidInput(f"{path}.product_id", f"expected the product of this {kind}")
    elif kind == "redemption" and offer_id is None:
        yield InvalidInput(f"{path}.offer_id", "expected the offer of this redemption")
    elif kind is not None and product_id is None and offer_id is None:
        yield InvalidInput(f"{path}.product_id", f"expected the product or the offer of this {kind}")
    if at is not None:
        try:
            clock.check(f"{path}.at", at)
        except InvalidInput as error:
            yield error
