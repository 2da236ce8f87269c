"""Customer histories: the events of one customer, and of every customer as of a data cut-off.

A history is one array of records, oldest first, so that a snapshot of all of them is one file, a customer's
past is a slice of it, and a new event is one insertion. Letters: C customers, E events, A attributes, X context
attributes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from embeddings import kernel
from embeddings.arrays import Ragged, load_arrays, save_arrays
from embeddings.catalogue.tables import EVENT_TYPES
from embeddings.errors import InvalidInput
from embeddings.vocabulary import Vocabulary

EVENT = np.dtype(
    [
        ("at", "<i8"),  # seconds since 1970 UTC
        ("product", "<i4"),  # row in the catalogue, -1 if the event has no product
        ("offer", "<i4"),  # row in the catalogue, -1 if the event has no offer
        ("location", "<i4"),  # row in the catalogue, -1 if unknown
        ("quantity", "<f4"),
        ("value", "<f4"),  # NaN if unknown
        ("type", "<u2"),  # 1 + place in tables.EVENT_TYPES; 0 is padding
        ("channel", "<i1"),  # code in the catalogue, -1 if unknown
        (
            "visit",
            "<u1",
        ),  # of a purchase: whether it BEGINS a visit or GOES_ON with that of the one before; 0 if unsaid
    ]
)
"""One event as it lies in memory and on disk; 32 bytes, every field aligned and nothing between them."""

UNSAID, BEGINS, GOES_ON = range(3)

Events: TypeAlias = NDArray[np.void]

EVENT_CODES = {name: code for code, name in enumerate(EVENT_TYPES, start=1)}
PURCHASE, REDEMPTION, RETURN, IMPRESSION, DISMISSAL = (
    EVENT_CODES[name] for name in ("purchase", "redemption", "return", "impression", "dismissal")
)

LONGEST_HISTORY = 5_000
"""How many events of a history count in an answer, the newest. No household of the demonstration data has as many in a
year; an id that many share, such as a guest's at a till, may have them in an hour."""

VISIT_SECONDS = 1_800
"""For offers, what a customer does within so many seconds of the last thing done is of the same visit."""

SLOW_DECAY = 0.995
"""What remains after a day of the weight of a purchase that is to count for long."""

_WHERE_DECAY = 0.97
"""The same of a visit, to find where a customer usually is: customers move on."""


def of_types(*names: str) -> list[bool]:
    """Return for each code of an event type whether its name is among these; False for the code of padding."""
    return [False, *(name in names for name in EVENT_TYPES)]


TOLD_APART = EVENT_CODES["dismissal"] + 1
"""How many codes of event types the customer tower has room for, that of padding included; later types tell nothing."""

_NO_INTERACTIONS = ("impression", "dismissal")
INTERACTION_TYPES = of_types(*(name for name in EVENT_TYPES[: TOLD_APART - 1] if name not in _NO_INTERACTIONS))
"""What the customer tower reads: what a customer did with a product, not what they were shown. A dismissal says
something too, as does what is taken out of a basket or back, but not that more of the kind is wanted. A check-in, a
play or a rating counts where it is what a release predicts, and then as a purchase."""

_ACTED = of_types("view", "click", "add_to_cart", "dismissal")
_SHOWN = of_types("impression")


@dataclass(frozen=True, eq=False)
class Purchases:
    """Purchases of one customer that were not taken back. Histories with the same purchases share one object.

    Attributes:
        rows_R: int64, the distinct products, ascending.
        times_R: how often each was bought: several lines of one product in one visit are one purchase.
        by_visit: the purchases, visit after visit.
        newest: the moment of the newest visit, 0 if there are none.
    """

    rows_R: NDArray[np.int64]
    times_R: NDArray[np.int64]
    by_visit: kernel.ByVisit
    newest: int

    def times(self, rows: Sequence[int]) -> list[int]:
        """Return how often the customer bought each of some products."""
        return kernel.times_bought(self.rows_R, self.times_R, rows)

    def usual_location(self, among: Sequence[int] | None = None) -> int:
        """Return the row of the location that the customer visits most, lately more than long ago; -1 for none.

        Args:
            among: only these locations are looked at, if given.
        """
        if among is None:
            return self._usual_location
        return self.by_visit.usual_location(_WHERE_DECAY, np.array(sorted(among), np.int64))

    @cached_property
    def _usual_location(self) -> int:
        return self.by_visit.usual_location(_WHERE_DECAY)


@dataclass(frozen=True, eq=False)
class History:
    """One customer's history; immutable, so a value computed from it holds as long as the history does.

    Attributes:
        events_E: records of ``EVENT``, oldest first.
        attributes_A: int32 codes of the customer's attributes, 0 for unknown.
        audiences: codes of the catalogue's audiences that the customer belongs to.
        visit_pause: a purchase that names no visit belongs to the visit of the purchase before it if it comes at most
            so many seconds after that. No visit lasts a day.
    """

    events_E: Events
    attributes_A: NDArray[np.int32]
    audiences: tuple[int, ...]
    visit_pause: int = 0

    def append(self, events_E: Events) -> "History":
        """Return the history with further events, each at its place in time, after older events of the same second."""
        if not len(events_E):
            return self
        grown = replace(self, events_E=kernel.inserted(self.events_E, events_E))
        if not (np.isin(events_E["type"], (PURCHASE, RETURN)) & (events_E["product"] >= 0)).any():
            vars(grown)["purchases"] = self.purchases  # where the cached property looks for it
        return grown

    def described(self, attributes_A: NDArray[np.int32], audiences: tuple[int, ...]) -> "History":
        """Return the same history of a customer with these attributes and audiences."""
        described = replace(self, attributes_A=attributes_A, audiences=audiences)
        vars(described)["purchases"] = self.purchases
        return described

    def before(self, moment: int) -> "History":
        """Return the history with only the events before a moment, in seconds since 1970 UTC."""
        return replace(self, events_E=self.events_E[: int(self.events_E["at"].searchsorted(moment))])

    def newest(self, most: int) -> "History":
        """Return the history with at most so many events, the newest ones."""
        return self if len(self.events_E) <= most else replace(self, events_E=self.events_E[-most:])

    @cached_property
    def has_interactions(self) -> bool:
        """Return whether the history has interactions, the events that the customer tower reads."""
        return kernel.any_interaction(self.events_E, INTERACTION_TYPES)

    @cached_property
    def purchases(self) -> Purchases:
        """Return the purchases of known products, without those that were taken back."""
        return Purchases(*kernel.purchases(self.events_E, SLOW_DECAY, self.visit_pause))

    @cached_property
    def redemptions(self) -> Events:
        """Return the redemptions of known offers, oldest first."""
        return self.events_E[(self.events_E["type"] == REDEMPTION) & (self.events_E["offer"] >= 0)]

    @property
    def redeemed_R(self) -> NDArray[np.int32]:
        """Return the catalogue rows of the offers redeemed, one row for each redemption."""
        return self.redemptions["offer"]

    @cached_property
    def acted(self) -> int:
        """Return the moment of the newest view, click, add to cart or dismissal; 0 if there is none."""
        return kernel.newest_of(self.events_E, _ACTED)

    @cached_property
    def shown(self) -> int:
        """Return the moment of the newest impression; 0 if there is none."""
        return kernel.newest_of(self.events_E, _SHOWN)


def _no_events() -> Events:
    return np.zeros(0, EVENT)


def _no_context() -> NDArray[np.int32]:
    return np.zeros((0, 0), np.int32)


class Bought(NamedTuple):
    """Purchases; letter: P.

    Attributes:
        places_P: int64, their places among all events.
        visits_P: int64, ascending numbers of their visits; not every number is there.
    """

    places_P: NDArray[np.int64]
    visits_P: NDArray[np.int64]


class _Words(msgspec.Struct, frozen=True):
    attribute_names: tuple[str, ...]
    attribute_labels: tuple[tuple[str, ...], ...]
    visit_pause: int = 0


@dataclass(frozen=True, eq=False)
class Histories:
    """Every customer's history as of a data cut-off.

    Attributes:
        customers: the customers' ids.
        events: records of ``EVENT``, customer after customer, each one's oldest first.
        offsets: int64; customer ``c`` owns ``events[offsets[c]:offsets[c + 1]]``.
        attributes_CA: int32 codes, 0 for unknown.
        audiences: codes of the catalogue's audiences, by customer.
        attribute_names, attribute_labels: the words of the customers' attributes.
        visit_pause: as in ``History``.
        context_EX: int32 codes of each event's context attributes, as in ``Catalogue.context``; not saved.
            Without rows where no such attribute is declared.
        guests: purchases and returns of anonymous customers, visit after visit. They are counted, and not saved.
    """

    customers: Vocabulary
    events: Events
    offsets: NDArray[np.int64]
    attributes_CA: NDArray[np.int32]
    audiences: Ragged
    attribute_names: tuple[str, ...]
    attribute_labels: tuple[tuple[str, ...], ...]
    visit_pause: int = 0
    context_EX: NDArray[np.int32] = field(default_factory=_no_context)
    guests: Events = field(default_factory=_no_events)

    def __getitem__(self, row: int) -> History:
        return History(
            events_E=self.events[self.offsets[row] : self.offsets[row + 1]],
            attributes_A=self.attributes_CA[row],
            audiences=tuple(self.audiences[row].tolist()),
            visit_pause=self.visit_pause,
        )

    def bought(self) -> "Bought":
        """Return the purchases of known products that were not taken back; per visit only the first of each product.

        A return takes back the newest of the earlier purchases of its product, wholly or in part: as many pieces as its
        quantity. A purchase still counts if a part of it is left.
        """
        return self._bought

    @cached_property
    def _bought(self) -> "Bought":
        return Bought(*kernel.bought(self.events, self.offsets, self.visit_pause))

    def context_of(self, places_P: NDArray[np.integer]) -> list[tuple[int, ...]]:
        """Return the codes of the context attributes of some events, given by their places among all events."""
        if not len(self.context_EX):
            return [()] * len(places_P)
        return [tuple(codes) for codes in self.context_EX[places_P].tolist()]

    def sold(self) -> Events:
        """Return the purchases of known customers that were not taken back."""
        return self.events[self.bought().places_P]

    def sold_to_guests(self) -> Events:
        """Return the purchases of anonymous customers that were not taken back."""
        return self.guests[self.bought_by_guests().places_P]

    def bought_by_guests(self) -> "Bought":
        """Return the same for anonymous customers, with places among ``guests``.

        A return takes back what any of them bought last.
        """
        guests = self.guests.copy()
        guests["visit"][guests["visit"] == UNSAID] = BEGINS  # who says nothing of a visit is alone in it
        return Bought(*kernel.bought(guests, np.array([0, len(guests)], np.int64), 0))

    @property
    def attribute_sizes(self) -> tuple[int, ...]:
        """Return the number of codes of each attribute, including the code for unknown."""
        return tuple(len(labels) + 1 for labels in self.attribute_labels)

    def of(self, customer_id: str | None) -> History:
        """Return a customer's history; an empty one for an unknown or anonymous customer."""
        row = None if customer_id is None else self.customers.row(customer_id)
        if row is not None:
            return self[row]
        return History(_no_events(), np.zeros(len(self.attribute_names), np.int32), (), self.visit_pause)

    def described(self, history: History, attributes: Mapping[str, str]) -> History:
        """Return a history with these customer attributes; attributes that are not named stay as before.

        A value that no listed customer has counts as unknown.

        Raises:
            InvalidInput: there is no such attribute.
        """
        codes_A = history.attributes_A.copy()
        for name, value in attributes.items():
            if name not in self.attribute_names:
                known = f"one of {', '.join(self.attribute_names)}" if self.attribute_names else "none"
                raise InvalidInput(f"attributes.{name}", f"expected {known}: the customers have no other attributes")
            place = self.attribute_names.index(name)
            labels = self.attribute_labels[place]
            codes_A[place] = labels.index(value) + 1 if value in labels else 0
        return history.described(codes_A, history.audiences)

    def told(self, history: History, attributes: Mapping[str, str], audiences: tuple[int, ...]) -> History:
        """Return a history of whose customer these attributes and audiences are known, and no others.

        What no listed customer has, attributes as well as values, counts as unknown.
        """
        known = {name: value for name, value in attributes.items() if name in self.attribute_names}
        nothing = history.described(np.zeros(len(self.attribute_names), np.int32), audiences)
        return self.described(nothing, known)

    def before(self, moment: int) -> Self:
        """Return the same customers with only the events before a moment, in seconds since 1970 UTC."""
        kept = np.asarray(self.events["at"] < moment)
        return replace(self._kept(kept), guests=self.guests[self.guests["at"] < moment])

    def without_impressions(self, moment: int) -> Self:
        """Return the same customers without what they were shown before a moment, in seconds since 1970 UTC."""
        kept = (self.events["type"] != IMPRESSION) | (self.events["at"] >= moment)
        return self if kept.all() else self._kept(kept)

    def _kept(self, kept: NDArray[np.bool_]) -> Self:
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept, dtype=np.int64)])
        return replace(
            self,
            events=self.events[kept],
            context_EX=self.context_EX[kept] if len(self.context_EX) else self.context_EX,
            offsets=ends[self.offsets],
        )

    def save(self, folder: Path) -> None:
        """Write the histories into a folder."""
        arrays: dict[str, NDArray[Any]] = {
            "events": self.events,
            "offsets": self.offsets,
            "attributes": self.attributes_CA,
            "audiences-offsets": self.audiences.offsets,
            "audiences-values": self.audiences.values,
        }
        save_arrays(folder, arrays | {f"ids-{name}": array for name, array in self.customers.arrays().items()})
        words = _Words(self.attribute_names, self.attribute_labels, self.visit_pause)
        (folder / "words.json").write_bytes(msgspec.json.encode(words))

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map the histories that ``save`` wrote into memory."""
        words = msgspec.json.decode((folder / "words.json").read_bytes(), type=_Words)
        arrays = load_arrays(folder)
        ids = {name.removeprefix("ids-"): array for name, array in arrays.items() if name.startswith("ids-")}
        return cls(
            customers=Vocabulary(ids),
            events=arrays["events"],
            offsets=arrays["offsets"],
            attributes_CA=arrays["attributes"],
            audiences=Ragged(arrays["audiences-offsets"], arrays["audiences-values"]),
            attribute_names=words.attribute_names,
            attribute_labels=words.attribute_labels,
            visit_pause=words.visit_pause,
        )
