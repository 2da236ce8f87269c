"""Changes of a catalogue: the new state of one product, location or offer, or its withdrawal.

A change holds the whole state, as a row of the input tables does. So changes of different things commute, of one thing
the last one counts, and an id that the catalogue does not hold yet is added to it.
"""

import math
from datetime import UTC
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct

from embeddings.catalogue.context import Identifier, Moment
from embeddings.catalogue.tables import LARGEST_USES
from embeddings.errors import InvalidInput
from embeddings.explained import explained

Kind = Literal["product", "location", "offer"]


class ProductState(Struct, frozen=True, kw_only=True, tag="product", forbid_unknown_fields=True):
    """A product as it is from now on; see ``tables.PRODUCTS``.

    Attributes:
        attributes: values by name; an attribute that is not named is unknown.
        price: None where unknown.
        locations: those for which it is declared; besides them it is carried where it was sold.
    """

    id: Identifier
    attributes: dict[Identifier, Annotated[str, Meta(min_length=1)]] = {}
    price: Annotated[float, Meta(ge=0)] | None = None
    recommendable: bool = True
    locations: tuple[Identifier, ...] = ()


class LocationState(Struct, frozen=True, kw_only=True, tag="location", forbid_unknown_fields=True):
    """A location as it is from now on; see ``tables.LOCATIONS``."""

    id: Identifier
    latitude: Annotated[float, Meta(ge=-90, le=90)] | None = None
    longitude: Annotated[float, Meta(ge=-180, le=180)] | None = None
    region: Identifier | None = None


class OfferState(Struct, frozen=True, kw_only=True, tag="offer", forbid_unknown_fields=True):
    """An offer as it is from now on; see ``tables.OFFERS``.

    Attributes:
        channels, locations: None for all of them.
        audience: None for everybody.
    """

    id: Identifier
    products: tuple[Identifier, ...]
    starts: Moment
    ends: Moment
    kind: Literal["coupon", "promotion", "content"] = "coupon"
    channels: tuple[Identifier, ...] | None = None
    locations: tuple[Identifier, ...] | None = None
    audience: Identifier | None = None
    uses: Annotated[int, Meta(ge=1, le=LARGEST_USES)] = 1


class Withdrawal(Struct, frozen=True, kw_only=True, tag="withdrawal", forbid_unknown_fields=True):
    """The end of a product, location or offer: it is not shown any more, and no request can name the location.

    A later state of the same id brings it back.
    """

    kind: Kind
    id: Identifier


Change: TypeAlias = ProductState | LocationState | OfferState | Withdrawal


def checked(change: Change) -> Change:
    """Return a change if its values are what the input tables would take.

    Raises:
        InvalidInput: naming the field, and what was expected.
    """
    kind = change.kind if isinstance(change, Withdrawal) else type(change).__name__.removesuffix("State").lower()
    try:
        _check_numbers(change, kind)
        msgspec.json.decode(msgspec.json.encode(change), type=type(change))
        if isinstance(change, OfferState) and change.starts.astimezone(UTC) > change.ends.astimezone(UTC):
            raise InvalidInput("offer.ends", f"expected no moment before starts; got it of offer {change.id!r}")
    except msgspec.ValidationError as error:
        refused = explained(error, type(change))
        raise InvalidInput(f"{kind}.{refused.path}", f"{refused.expected}; got it of {kind} {change.id!r}") from None
    except (OverflowError, UnicodeEncodeError) as error:
        raise InvalidInput(
            kind, f"expected values that can be written down: {error}; got them of {change.id!r}"
        ) from None
    return change


def _check_numbers(change: Change, kind: str) -> None:
    """Raise InvalidInput for a number that is none, which JSON would write as nothing."""
    for name in ("price", "latitude", "longitude"):
        number: float | None = getattr(change, name, None)
        if number is not None and not math.isfinite(number):
            raise InvalidInput(f"{kind}.{name}", f"expected a finite number; got {number} of {kind} {change.id!r}")
