"""Changes of a catalogue: the new state of one thing in it, or its withdrawal.

A change holds the whole state, as a row of the input tables does. So changes of different things commute, of one thing
the last one counts, and an id that the catalogue does not hold yet is added to it.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import fields, force_setattr, replace

from embeddings.catalogue.context import Id, Identifier, ListedId, Moment, ids_as_text, listed_ids
from embeddings.catalogue.placement import (
    MOST_SLOTS,
    Diversity,
    Pin,
    Shown,
    Strategy,
    faulty_pins,
    faulty_span,
    faulty_zone,
)
from embeddings.catalogue.tables import CUSTOMERS, LARGEST_USES, PRODUCTS, OfferStatus
from embeddings.errors import InvalidInput
from embeddings.explained import explained

Kind = Literal["segment", "campaign", "location", "product", "customer", "offer", "promotion", "placement"]

Ids = tuple[ListedId, ...]
Attributes = dict[Identifier, Annotated[str, Meta(min_length=1)]]


_USUAL_PRIORITY = 1.0


class State(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The state of one thing; integers among its ids stand for their decimal text.

    Raises:
        InvalidInput: an id of a list holds a control character.
    """

    id: Id

    def __post_init__(self) -> None:
        """Turn ids that came as JSON integers into text."""
        single, listed = _ID_FIELDS[type(self)]
        ids_as_text(self, *single)
        for name in listed:
            given: tuple[str, ...] | None = getattr(self, name)
            if given:
                force_setattr(self, name, listed_ids(name, given))


class ProductState(State, frozen=True, kw_only=True):
    """A product as it is from now on; see ``tables.PRODUCTS``.

    Attributes:
        attributes: values by name; an attribute that is not named is unknown.
        price: None where unknown.
        locations: those for which it is declared; besides them it is carried where it was sold.
        in_stock: whether there is any of it anywhere.
        out_of_stock_at, withdrawn_at: locations that do not show it, though they carry it.
    """

    attributes: Attributes = {}
    price: Annotated[float, Meta(ge=0)] | None = None
    recommendable: bool = True
    locations: Ids = ()
    in_stock: bool = True
    out_of_stock_at: Ids = ()
    withdrawn_at: Ids = ()


class LocationState(State, frozen=True, kw_only=True):
    """A location as it is from now on; see ``tables.LOCATIONS``.

    Attributes:
        time_zone: the IANA's name of it; None where unknown.
    """

    latitude: Annotated[float, Meta(ge=-90, le=90)] | None = None
    longitude: Annotated[float, Meta(ge=-180, le=180)] | None = None
    region: Identifier | None = None
    closed: bool = False
    time_zone: str | None = None


class CustomerState(State, frozen=True, kw_only=True):
    """A customer as known from now on; see ``tables.CUSTOMERS``."""

    attributes: Attributes = {}
    audiences: Ids = ()


class OfferState(State, frozen=True, kw_only=True):
    """An offer as it is from now on; see ``tables.OFFERS``.

    Attributes:
        channels, locations: None for all of them.
        audience: None for everybody.
        value: what a redemption is worth, in the currency of prices.
        priority: how much its chance weighs beside that of others.
        content: what a page shows of it; nothing here reads it.
        status: only a live one is shown.
    """

    products: Ids
    starts: Moment
    ends: Moment
    name: str = ""
    kind: Literal["coupon", "promotion", "content"] = "coupon"
    channels: tuple[Identifier, ...] | None = None
    locations: Ids | None = None
    audience: Id | None = None
    uses: Annotated[int, Meta(ge=1, le=LARGEST_USES)] = 1
    campaign: Id | None = None
    partner: str = ""
    value: Annotated[float, Meta(ge=0)] | None = None
    priority: Annotated[float, Meta(gt=0)] = _USUAL_PRIORITY
    content: dict[str, Any] = {}
    status: OfferStatus = "live"

    def __post_init__(self) -> None:
        """Leave out a priority that was said to be the usual one, as one that was not said: one state, one text."""
        State.__post_init__(self)
        if self.priority == _USUAL_PRIORITY:
            force_setattr(self, "priority", _USUAL_PRIORITY)


class CampaignState(State, frozen=True, kw_only=True):
    """A campaign as it is from now on: offers that were planned together."""

    name: str = ""
    starts: Moment | None = None
    ends: Moment | None = None


class SegmentState(State, frozen=True, kw_only=True):
    """A segment as it is from now on: an audience that customers belong to and offers are meant for."""

    name: str = ""


class PromotionState(State, frozen=True, kw_only=True):
    """What a channel promotes at a location in a span of time; see ``tables.PROMOTIONS``."""

    channel: Identifier
    location: Id
    products: Ids
    starts: Moment
    ends: Moment


class PlacementState(State, frozen=True, kw_only=True):
    """A placement as it is from now on: a named slot, or a row of them, in which items are shown.

    Attributes:
        channels: on which it may be asked for; None for all of them.
        kinds: what it shows.
        slots: how many items, at most.
        strategy: what is first: what is likeliest taken, or what is worth most, by probability x value x priority.
        diversity: None where items may all be alike.
        pinned: items that stand at a position whenever they may be shown.
        excluded: ids of products and offers that it never shows.
        quiet_hours: a span of the day, such as ``22:00-08:00``, in which it shows nothing.
        time_zone: of the quiet hours where the request's location has none; None for UTC.
        fallback: offers that are shown, in this order, where nothing else is left.
        exploration: the share of slots whose item is drawn, each that may stand there as likely as any other.
    """

    name: str = ""
    channels: tuple[Identifier, ...] | None = None
    kinds: Annotated[tuple[Shown, ...], Meta(min_length=1, max_length=2)] = ("product",)
    slots: Annotated[int, Meta(ge=1, le=MOST_SLOTS)] = 10
    strategy: Strategy = "probability"
    diversity: Diversity | None = None
    pinned: Annotated[tuple[Pin, ...], Meta(max_length=MOST_SLOTS)] = ()
    excluded: Annotated[Ids, Meta(max_length=1_000)] = ()
    quiet_hours: str | None = None
    time_zone: str | None = None
    fallback: Annotated[Ids, Meta(max_length=MOST_SLOTS)] = ()
    exploration: Annotated[float, Meta(ge=0, le=1)] = 0.0


class Withdrawal(Struct, frozen=True, kw_only=True):
    """The end of a thing: it is not shown any more, and no request can name the location.

    A later state of the same id brings it back.
    """

    kind: Kind
    id: Identifier


AnyState: TypeAlias = (
    ProductState
    | LocationState
    | CustomerState
    | OfferState
    | CampaignState
    | SegmentState
    | PromotionState
    | PlacementState
)
Change: TypeAlias = AnyState | Withdrawal

STATES: Mapping[Kind, type[AnyState]] = {
    "segment": SegmentState,
    "campaign": CampaignState,
    "location": LocationState,
    "product": ProductState,
    "customer": CustomerState,
    "offer": OfferState,
    "promotion": PromotionState,
    "placement": PlacementState,
}
_KINDS: Mapping[type, Kind] = {state: kind for kind, state in STATES.items()}

LARGEST_CONTENT, LARGEST_STATE = 2**16, 2**22
"""Bytes that the content of an offer, and any whole state, may have as JSON: 100,000 products named by UUIDs fit."""

_FEW = 20
_TOO_LARGE = "expected {} of at most {:,} bytes as JSON; got {:,} of {!r}"
_LARGEST_OFFSET = timedelta(hours=15)
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""A NUL in JSON, and no backslash that was escaped before it."""

_SINGLE = {"id", "audience", "campaign", "location"}
_LISTED = {"products", "locations", "audiences", "out_of_stock_at", "withdrawn_at", "excluded", "fallback"}
_ID_FIELDS: Mapping[type, tuple[tuple[str, ...], tuple[str, ...]]] = {
    state: (
        tuple(one.name for one in fields(state) if one.name in _SINGLE),
        tuple(one.name for one in fields(state) if one.name in _LISTED),
    )
    for state in STATES.values()
}


def withdrawn(state: AnyState) -> AnyState:
    """Return what a state becomes once the thing is withdrawn: known still, as its past is, and not shown any more."""
    match state:
        case ProductState():
            return replace(state, recommendable=False)
        case LocationState():
            return replace(state, closed=True)
        case OfferState():
            return replace(state, status="paused")
        case PromotionState():
            return replace(state, products=())
        case _:
            return state


def kind_of(change: Change) -> Kind:
    """Return the kind of thing that a change is of."""
    return change.kind if isinstance(change, Withdrawal) else _KINDS[type(change)]


def checked(change: Change) -> Change:
    """Return a change if its values are what the input tables would take.

    Raises:
        InvalidInput: naming the field, and what was expected.
    """
    kind = kind_of(change)
    try:
        _check_numbers(change, kind)
        msgspec.json.decode(msgspec.json.encode(change), type=type(change))
        for fault in faults_of(change):
            raise InvalidInput(f"{kind}.{fault.field}", fault.expected)
    except msgspec.ValidationError as error:
        refused = explained(error, type(change))
        raise InvalidInput(f"{kind}.{refused.path}", f"{refused.expected}; got it of {kind} {change.id!r}") from None
    except (OverflowError, UnicodeEncodeError) as error:
        raise InvalidInput(
            kind, f"expected values that can be written down: {error}; got them of {change.id!r}"
        ) from None
    return change


def faults_of(change: Change) -> list[InvalidInput]:
    """Return what is wrong with the values of a change that are of the right types; fields as in the change.

    Nothing may end before it starts. PostgreSQL keeps no NUL and takes no zone further than 15 hours from UTC; the
    service takes no moment before year 1 or after 9999 in UTC.
    """
    faults = [*_faulty_moments(change), *_faulty_places(change)]
    if _NUL.search(msgspec.json.encode(change)):
        faults += [
            InvalidInput(one.name, f"expected text without NUL; got it of {change.id!r}")
            for one in fields(change)
            if _NUL.search(msgspec.json.encode(getattr(change, one.name)))
        ]
    return faults


def misnamed(state: AnyState) -> list[InvalidInput]:
    """Return a fault for each of the first attributes whose name no further column of the input table can have.

    Such an attribute is shown, but training reads a table. What the catalogue holds already is let be.
    """
    if not isinstance(state, ProductState | CustomerState):
        return []
    table = PRODUCTS if isinstance(state, ProductState) else CUSTOMERS
    declared = ", ".join(column.name for column in table.columns)
    return first_few(
        InvalidInput(f"attributes.{name}", f"expected a name of letters and digits, and none of {declared}")
        for name in state.attributes
        if not table.takes_attribute(name)
    )


def first_few(faults: Iterable[InvalidInput]) -> list[InvalidInput]:
    """Return the first faults of a state, and one that counts the others: an answer must not outgrow its request."""
    others = iter(faults)
    found = [*islice(others, _FEW)]
    count = sum(1 for _ in others)
    if count:
        whole = re.split(r"[.\[]", found[-1].field)[0]
        found.append(InvalidInput(whole, f"{count:,} more faults are not named"))
    return found


def oversized(state: AnyState) -> list[InvalidInput]:
    """Return a fault if a state is larger than one may be, of its largest field.

    What the catalogue holds already is let be.
    """
    if isinstance(state, OfferState) and state.content:
        length = _length(state.content)
        if length > LARGEST_CONTENT:
            return [InvalidInput("content", _TOO_LARGE.format("content", LARGEST_CONTENT, length, state.id))]
    length = _length(state)
    if length <= LARGEST_STATE:
        return []
    largest = max((one.name for one in fields(state)), key=lambda name: _length(getattr(state, name)))
    return [InvalidInput(largest, _TOO_LARGE.format(f"a {kind_of(state)}", LARGEST_STATE, length, state.id))]


def _length(value: object) -> int:
    return len(msgspec.json.encode(value))


def _faulty_moments(change: Change) -> Iterator[InvalidInput]:
    if not isinstance(change, (OfferState, PromotionState, CampaignState)):
        return
    in_utc: dict[str, datetime] = {}
    for name, moment in (("starts", change.starts), ("ends", change.ends)):
        if moment is None:
            continue
        offset = moment.utcoffset() or timedelta()
        if abs(offset) > _LARGEST_OFFSET:
            yield InvalidInput(name, f"expected a zone within 15 hours of UTC; got it of {change.id!r}")
        try:
            in_utc[name] = moment.astimezone(UTC)
        except OverflowError:
            yield InvalidInput(name, f"expected a moment from year 1 to 9999 in UTC; got it of {change.id!r}")
    if len(in_utc) == 2 and in_utc["starts"] > in_utc["ends"]:
        yield InvalidInput("ends", f"expected no moment before starts; got it of {change.id!r}")


def _faulty_places(change: Change) -> Iterator[InvalidInput]:
    match change:
        case LocationState():
            yield from faulty_zone("time_zone", change.time_zone)
        case PlacementState():
            yield from faulty_pins(change.pinned, change.slots, change.kinds, change.excluded)
            yield from faulty_span("quiet_hours", change.quiet_hours)
            yield from faulty_zone("time_zone", change.time_zone)
        case _:
            return


def _check_numbers(change: Change, kind: str) -> None:
    """Raise InvalidInput for a number that is none, which JSON would write as nothing."""
    for name in ("price", "latitude", "longitude", "value", "priority", "exploration"):
        number: float | None = getattr(change, name, None)
        if number is not None and not math.isfinite(number):
            raise InvalidInput(f"{kind}.{name}", f"expected a finite number; got {number} of {kind} {change.id!r}")
