"""The input tables: their columns, types and rules, declared once for readers, checks and documentation."""

from datetime import UTC, datetime
from typing import Literal, get_args

from msgspec import Struct

from embeddings.catalogue.context import LONGEST_ID

Dtype = Literal["text", "number", "time", "list", "flag"]

EventType = Literal[
    "impression",
    "click",
    "view",
    "add_to_cart",
    "purchase",
    "redemption",
    "dismissal",
    "remove_from_cart",
    "return",
    "check_in",
    "play",
    "rating",
]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
"""Event types in the order of their codes: code 0 is padding, the first type has code 1."""

TargetType = Literal["purchase", "check_in", "play", "rating", "add_to_cart", "click", "view"]
TARGET_TYPES: tuple[TargetType, ...] = get_args(TargetType)
"""The types that a recipe may name as what is to be predicted, the weightiest first. They count as purchases."""

LARGEST_QUANTITY, LARGEST_VALUE = 1e9, 1e12
"""What one event may hold at most: sums over all events anybody can have stay far from the largest float32."""

LARGEST_USES = 100_000
"""How many times one customer may redeem an offer, at most."""

EARLIEST = datetime(1971, 1, 1, tzinfo=UTC)
"""Events before this moment count nowhere: what writes 1970 or 1900 means that it does not know when."""

OFFER_KINDS = ("coupon", "promotion", "content")

OfferStatus = Literal["draft", "pending", "live", "paused"]
OFFER_STATUSES: tuple[OfferStatus, ...] = get_args(OfferStatus)


class Column(Struct, frozen=True, kw_only=True):
    """One column of an input table.

    Attributes:
        dtype: text, number (a finite float), time (UTC) or list (of texts; in CSV separated by ``|``)
            or flag (true or false).
        required: whether the column must exist.
        filled: whether a required column must hold a value in every row.
        one_of: the accepted texts, or empty for any.
        at_least, at_most, above: bounds on a number.
        whole: whether a number must have no fraction.
        refers_to: (table, column) in which every value must occur, where that table was given.
        means: one line for the documentation.
    """

    name: str
    dtype: Dtype = "text"
    required: bool = False
    filled: bool = True
    one_of: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    whole: bool = False
    refers_to: tuple[str, str] | None = None
    means: str


class Table(Struct, frozen=True, kw_only=True):
    """One input table.

    Attributes:
        key: the column whose values must be unique, or None.
        attributes: whether any further text column is taken as an attribute; otherwise it is refused.
        ordered: pairs of time columns, the first of which must not lie after the second.
        any_of: columns of which every row must fill at least one.
    """

    name: str
    columns: tuple[Column, ...]
    key: str | None = None
    required: bool = False
    attributes: bool = False
    ordered: tuple[tuple[str, str], ...] = ()
    any_of: tuple[str, ...] = ()

    def column(self, name: str) -> Column:
        """Return the declared column of that name; raise KeyError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def takes_attribute(self, name: str) -> bool:
        """Return whether a further column can be called so: no other is, it shows, and it is taken for no pattern."""
        is_declared = any(column.name == name for column in self.columns)
        is_pattern = name == "*" or (name.startswith("^") and name.endswith("$"))
        return (
            not is_declared and not is_pattern and bool(name.strip()) and name.isprintable() and len(name) <= LONGEST_ID
        )


CUSTOMERS = Table(
    name="customers",
    key="customer_id",
    attributes=True,
    columns=(
        Column(name="customer_id", required=True, means="the customer's id in your systems"),
        Column(
            name="audiences",
            dtype="list",
            means="the audiences this customer belongs to, as offers name them",
        ),
    ),
)

PRODUCTS = Table(
    name="products",
    key="product_id",
    attributes=True,
    columns=(
        Column(name="product_id", required=True, means="the product's id in your systems"),
        Column(name="price", dtype="number", at_least=0, means="list price, in one currency for all products"),
        Column(
            name="recommendable",
            dtype="flag",
            means="false for what is never shown, such as postage, fees or what is no longer sold; true if absent",
        ),
        Column(
            name="locations",
            dtype="list",
            refers_to=("locations", "location"),
            means="where the product is carried, besides the locations that sold it before the cut-off",
        ),
        Column(name="in_stock", dtype="flag", means="false while there is none of it anywhere; true if absent"),
        Column(
            name="out_of_stock_at",
            dtype="list",
            refers_to=("locations", "location"),
            means="where there is none of it at present: it is not shown there",
        ),
        Column(
            name="withdrawn_at",
            dtype="list",
            refers_to=("locations", "location"),
            means="where it is not shown any more, though it was sold there",
        ),
    ),
)

LOCATIONS = Table(
    name="locations",
    key="location",
    columns=(
        Column(name="location", required=True, means="the location's id in your systems"),
        Column(name="latitude", dtype="number", at_least=-90, at_most=90, means="degrees north"),
        Column(name="longitude", dtype="number", at_least=-180, at_most=180, means="degrees east"),
        Column(name="region", means="locations of one region are comparable with each other"),
        Column(name="closed", dtype="flag", means="true where it is closed for good: no request can name it"),
    ),
)

OFFERS = Table(
    name="offers",
    key="offer_id",
    ordered=(("starts", "ends"),),
    columns=(
        Column(name="offer_id", required=True, means="the offer's id in your systems"),
        Column(name="kind", one_of=OFFER_KINDS, means="what sort of reason to act it is; coupon if absent"),
        Column(
            name="products",
            dtype="list",
            required=True,
            refers_to=("products", "product_id"),
            means="the products the offer covers",
        ),
        Column(name="starts", dtype="time", required=True, means="first moment of validity"),
        Column(name="ends", dtype="time", required=True, means="first moment after validity"),
        Column(name="channels", dtype="list", means="channels it may be shown on; every channel if absent"),
        Column(
            name="locations",
            dtype="list",
            refers_to=("locations", "location"),
            means="locations it is valid at; every location if absent",
        ),
        Column(name="audience", means="the audience it is meant for; everybody if absent"),
        Column(
            name="uses",
            dtype="number",
            at_least=1,
            at_most=LARGEST_USES,
            whole=True,
            means="how many times one customer may redeem it: redeemed as often, it is not shown to them any more; "
            "1 if absent",
        ),
        Column(name="name", means="what people call it"),
        Column(name="campaign", means="the campaign that it is a part of"),
        Column(name="status", one_of=OFFER_STATUSES, means="only a live offer is shown; live if absent"),
    ),
)

PROMOTIONS = Table(
    name="promotions",
    ordered=(("starts", "ends"),),
    columns=(
        Column(name="channel", required=True, means="the channel that promotes the product, such as mailer"),
        Column(
            name="location",
            required=True,
            refers_to=("locations", "location"),
            means="the location it applies to",
        ),
        Column(
            name="product_id",
            required=True,
            refers_to=("products", "product_id"),
            means="the promoted product",
        ),
        Column(name="starts", dtype="time", required=True, means="first moment of the promotion"),
        Column(name="ends", dtype="time", required=True, means="first moment after the promotion"),
    ),
)

EVENTS = Table(
    name="events",
    required=True,
    any_of=("product_id", "offer_id"),
    columns=(
        Column(
            name="customer_id", required=True, filled=False, means="who acted; nobody known, such as a guest, if empty"
        ),
        Column(name="type", required=True, one_of=EVENT_TYPES, means="what happened"),
        Column(name="at", dtype="time", required=True, means="when it happened"),
        Column(name="product_id", refers_to=("products", "product_id"), means="the product it happened to"),
        Column(name="offer_id", refers_to=("offers", "offer_id"), means="the offer it happened to"),
        Column(name="location", refers_to=("locations", "location"), means="where it happened"),
        Column(name="channel", means="the channel it came through"),
        Column(
            name="visit",
            means="the visit it is of, such as the number of a receipt: what is bought in it is one basket",
        ),
        Column(
            name="quantity",
            dtype="number",
            above=0,
            at_most=LARGEST_QUANTITY,
            means="pieces bought, or taken back by a return; 1 if absent",
        ),
        Column(
            name="value",
            dtype="number",
            at_least=0,
            at_most=LARGEST_VALUE,
            means="what was paid, in the products' currency",
        ),
    ),
)

TABLES: tuple[Table, ...] = (CUSTOMERS, PRODUCTS, LOCATIONS, OFFERS, EVENTS, PROMOTIONS)
