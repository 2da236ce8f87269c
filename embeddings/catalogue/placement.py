"""Parts of a placement: pins, diversity, and the hours of the day in which nothing is shown."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Literal, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from msgspec import Meta, Struct

from embeddings.catalogue.context import Id, Identifier, ids_as_text
from embeddings.errors import InvalidInput

MOST_SLOTS = 100
"""Items that one placement, as one answer, may show."""

Strategy = Literal["probability", "value"]
Shown = Literal["product", "offer"]

_SPAN = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", re.ASCII)
_EXPECTED_SPAN = 'expected a span of the day such as "22:00-08:00", which ends at another time than it begins'


class Pin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An item that stands at a position whenever it may be shown; positions count from 1."""

    kind: Shown
    id: Id
    position: Annotated[int, Meta(ge=1, le=MOST_SLOTS)]

    def __post_init__(self) -> None:
        """Turn an id that came as a JSON integer into text."""
        ids_as_text(self, "id")


class Diversity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """At most so many items of one value of an attribute; an item of which the value is unknown is not counted."""

    attribute: Identifier
    at_most: Annotated[int, Meta(ge=1, le=MOST_SLOTS)] = 1


class Span(NamedTuple):
    """A span of the day: from its first moment to before its last one, over midnight if that is the earlier one."""

    begins: time
    ends: time

    def holds(self, moment: int, zone: str) -> bool:
        """Return whether the clock of a time zone is within the span at a moment, in seconds since 1970 UTC."""
        clock = datetime.fromtimestamp(moment, UTC).astimezone(ZoneInfo(zone)).time()
        if self.begins < self.ends:
            return self.begins <= clock < self.ends
        return clock >= self.begins or clock < self.ends


@cache
def span_of(text: str) -> Span:
    """Return the span that a text such as ``22:00-08:00`` means; raise ValueError if it means none."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError(_EXPECTED_SPAN)
    begin_hour, begin_minute, end_hour, end_minute = map(int, found.groups())
    span = Span(time(begin_hour, begin_minute), time(end_hour, end_minute))
    if span.begins == span.ends:
        raise ValueError(_EXPECTED_SPAN)
    return span


def faulty_span(field: str, text: str | None) -> Iterator[InvalidInput]:
    """Yield what is wrong with a span of the day."""
    if text is not None:
        try:
            span_of(text)
        except ValueError as error:
            yield InvalidInput(field, f"{error}; got {text!r}")


def faulty_zone(field: str, zone: str | None) -> Iterator[InvalidInput]:
    """Yield what is wrong with the name of a time zone."""
    if zone is not None and zone not in _zones():
        close = get_close_matches(zone, _zones(), 1)
        meant = f"; did you mean {close[0]}?" if close else ""
        yield InvalidInput(field, f"expected a time zone of the IANA's list such as Europe/Oslo; got {zone!r}{meant}")


def faulty_pins(
    pins: Sequence[Pin], slots: int, kinds: Sequence[Shown], excluded: Sequence[str]
) -> Iterator[InvalidInput]:
    """Yield what is wrong with the pins of a placement that shows so many items of some kinds."""
    positions: set[int] = set()
    items: set[tuple[Shown, str]] = set()
    for place, pin in enumerate(pins):
        path = f"pinned[{place}]"
        if pin.position > slots:
            yield InvalidInput(f"{path}.position", f"expected at most {slots}, as the placement has no more slots")
        if pin.position in positions:
            yield InvalidInput(f"{path}.position", f"expected each position once; {pin.position} is taken already")
        if pin.kind not in kinds:
            yield InvalidInput(f"{path}.kind", f"expected one of the placement's kinds: {', '.join(kinds)}")
        if (pin.kind, pin.id) in items:
            yield InvalidInput(f"{path}.id", f"expected each item once; {pin.id!r} is pinned already")
        if pin.id in excluded:
            yield InvalidInput(f"{path}.id", f"expected an item that is not excluded; {pin.id!r} is")
        positions.add(pin.position)
        items.add((pin.kind, pin.id))


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
