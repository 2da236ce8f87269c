"""What rules may speak of: names with their types and values, segments, consents, and aggregates of histories."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, TypeAlias

Path: TypeAlias = tuple[str, ...]
"""The parts of a name, such as ``("customer", "age_group")``."""


class Type(StrEnum):
    """What a name, a value or a condition is, in words for messages."""

    TEXT = "a text"
    NUMBER = "a number"
    BOOLEAN = "true or false"


@dataclass(frozen=True)
class Kind:
    """What one name stands for.

    Attributes:
        type: its type.
        values: the texts it may have, as far as they are known; None if nothing is known of them.
        closed: whether it can never have another value: one is a mistake then, and else worth a warning.
        words: what it is called in a sentence; its name if empty.
    """

    type: Type
    values: Collection[str] | None = None
    closed: bool = False
    words: str = ""


@dataclass(frozen=True)
class Aggregated:
    """A figure of a customer's history.

    Attributes:
        event: the type of the events it is about.
        measure: whether it counts them, or adds their values up.
        subject: what an argument without a name is the id of.
        words: the verb in a sentence.
    """

    event: str
    measure: Literal["count", "value"]
    subject: Literal["product", "offer"]
    words: str


AGGREGATES: Mapping[str, Aggregated] = {
    "bought": Aggregated("purchase", "count", "product", "bought"),
    "spend": Aggregated("purchase", "value", "product", "spent"),
    "viewed": Aggregated("view", "count", "product", "viewed"),
    "clicked": Aggregated("click", "count", "product", "clicked"),
    "added_to_cart": Aggregated("add_to_cart", "count", "product", "added to the cart"),
    "shown": Aggregated("impression", "count", "offer", "been shown"),
    "dismissed": Aggregated("dismissal", "count", "offer", "dismissed"),
    "redeemed": Aggregated("redemption", "count", "offer", "redeemed"),
}
"""The aggregates by the name of their function."""

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
"""The values of ``at.weekday``."""

LONGEST_SPAN = 3_650
"""How many days an aggregate may look back, at most."""


@dataclass(frozen=True)
class Schema:
    """Everything that a rule may speak of.

    Attributes:
        names: what each name stands for.
        filters: what an aggregate can be narrowed to, such as category, product or offer. All of them are texts.
        segments: the segments there are.
        consents: what a customer may consent to, such as a channel.
        barred: names that other rules may use and this one may not, such as the offer in a segment's rule.
    """

    names: Mapping[Path, Kind]
    filters: Mapping[str, Kind] = field(default_factory=dict[str, Kind])
    segments: Collection[str] = ()
    consents: Collection[str] = ()
    barred: Collection[Path] = ()

    def only(self, *heads: str) -> "Schema":
        """Return this schema for rules that may use just the names that begin with one of these words."""
        kept = {path: kind for path, kind in self.names.items() if path[0] in heads}
        return replace(self, names=kept, barred=(*self.barred, *(path for path in self.names if path not in kept)))


def context_names(channels: Collection[str], locations: Collection[str], regions: Collection[str]) -> dict[Path, Kind]:
    """Return the names of where and when a request is, all in the location's local time."""
    return {
        ("channel",): Kind(Type.TEXT, channels, closed=True, words="the channel"),
        ("location",): Kind(Type.TEXT, locations, closed=True, words="the location"),
        ("region",): Kind(Type.TEXT, regions, closed=True, words="the region"),
        ("distance_km",): Kind(Type.NUMBER, words="the distance in kilometres"),
        ("at", "hour"): Kind(Type.NUMBER, words="the hour"),
        ("at", "weekday"): Kind(Type.TEXT, WEEKDAYS, closed=True, words="the day of the week"),
    }
