"""Changes of a catalogue: the new state of one product, location or offer, or its withdrawal.

A change holds the whole state, as a row of the input tables does. So changes of different things commute, of one thing
the last one counts, and an id that the catalogue does not hold yet is added to it.
"""

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

Kind = Literal["product", "location", "offer"]


class ProductState(Struct, frozen=True, kw_only=True, tag="product"):
    """A product as it is from now on; see ``tables.PRODUCTS``.

    Attributes:
        attributes: values by name; an attribute that is not named is unknown.
        price: None where unknown.
        locations: those for which it is declared; besides them it is carried where it was sold.
    """

    id: str
    attributes: dict[str, str] = {}
    price: Annotated[float, Meta(ge=0)] | None = None
    recommendable: bool = True
    locations: tuple[str, ...] = ()


class LocationState(Struct, frozen=True, kw_only=True, tag="location"):
    """A location as it is from now on; see ``tables.LOCATIONS``."""

    id: str
    latitude: float | None = None
    longitude: float | None = None
    region: str | None = None


class OfferState(Struct, frozen=True, kw_only=True, tag="offer"):
    """An offer as it is from now on; see ``tables.OFFERS``.

    Attributes:
        channels, locations: None for all of them.
        audience: None for everybody.
    """

    id: str
    products: tuple[str, ...]
    starts: datetime
    ends: datetime
    kind: Literal["coupon", "promotion", "content"] = "coupon"
    channels: tuple[str, ...] | None = None
    locations: tuple[str, ...] | None = None
    audience: str | None = None
    uses: Annotated[int, Meta(ge=1)] = 1


class Withdrawal(Struct, frozen=True, kw_only=True, tag="withdrawal"):
    """The end of a product, location or offer: it is not shown any more, and no request can name the location.

    A later state of the same id brings it back.
    """

    kind: Kind
    id: str


Change: TypeAlias = ProductState | LocationState | OfferState | Withdrawal
