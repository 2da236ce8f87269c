"""``POST /v1/events``: what customers did."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from embeddings.catalog import Catalog
from embeddings.errors import InvalidInput, UnknownReference
from serving.api.post import Post
from serving.api.problems import Problem, problem_of
from serving.clock import Clock
from serving.metrics import Metrics
from serving.slot import BundleSlot
from serving.state.events import Event, EventStore


class EventsRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Events in any order."""

    events: Annotated[tuple[Event, ...], Meta(min_length=1, max_length=1000)]


class Rejected(Struct, frozen=True):
    """An event that was not stored, by its place in the request."""

    index: int
    error: Problem


class EventsResponse(Struct, frozen=True):
    """What became of the events; every one is accepted, a duplicate or rejected."""

    accepted: int
    duplicates: int
    rejected: list[Rejected]


_NEEDS_PRODUCT = frozenset({"view", "add_to_cart", "purchase"})


def events(slot: BundleSlot, store: EventStore, clock: Clock, metrics: Metrics) -> Post[EventsRequest, EventsResponse]:
    """The route."""

    async def taken(valid: Sequence[Event]) -> Sequence[Event]:
        """Store events, and note whether the store took them; returns the new ones."""
        if not valid:
            return []
        try:
            new = await store.add(valid)
        except Exception:
            metrics.refuse_events(len(valid))
            raise
        metrics.refusing = None
        return new

    async def answer(request: EventsRequest) -> EventsResponse:
        """Accepted events are durable, and visible in the very next recommendation for their customer.

        A malformed event refuses the whole request; one that names something unknown is rejected by itself.
        """
        valid: list[Event] = []
        rejected: list[Rejected] = []
        for index, event in enumerate(request.events):
            try:
                _check(event, f"events[{index}]", slot.current.bundle.catalog)
                clock.happened(f"events[{index}].at", event.at)
            except InvalidInput as error:
                rejected.append(Rejected(index, problem_of(error)))
            else:
                valid.append(event)
        new = await taken(valid)
        # The model may have been swapped while the store was writing: histories of the one that answers now matter.
        live = slot.current.live
        live.apply(new)
        # A duplicate may be the repetition of an event whose first answer was lost on the way, before it was applied.
        stored = {event.event_id for event in new}
        live.reread({event.customer_id for event in valid if event.event_id not in stored})
        for outcome, count in (
            ("accepted", len(new)),
            ("duplicate", len(valid) - len(new)),
            ("rejected", len(rejected)),
        ):
            metrics.events.labels(outcome).inc(count)
        return EventsResponse(accepted=len(new), duplicates=len(valid) - len(new), rejected=rejected)

    return Post("/v1/events", EventsRequest, EventsResponse, answer, 202, "Report what customers did")


def _check(event: Event, field: str, catalog: Catalog) -> None:
    """Raise InvalidInput if an event names something unknown, or too little."""
    for name, value, known in (
        ("product_id", event.product_id, catalog.products.ids),
        ("offer_id", event.offer_id, catalog.offers.ids),
        ("location", event.location, catalog.locations.ids),
        ("channel", event.channel, catalog.channels),
    ):
        if value is not None and value not in known:
            raise UnknownReference(f"{field}.{name}", f"expected one that the catalogue knows, got {value!r}")
    if event.type in _NEEDS_PRODUCT and event.product_id is None:
        raise InvalidInput(f"{field}.product_id", f"expected the product of this {event.type}")
    if event.type == "redemption" and event.offer_id is None:
        raise InvalidInput(f"{field}.offer_id", "expected the offer of this redemption")
    if event.product_id is None and event.offer_id is None:
        raise InvalidInput(f"{field}.product_id", f"expected the product or the offer of this {event.type}")
