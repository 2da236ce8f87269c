"""A finding about a data set, and the counts that findings are made from."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl
from msgspec import Struct

RARE = 0.05
_EXAMPLES = 3


class Finding(Struct, frozen=True):
    """Something about the data that their owner should know.

    Attributes:
        harm: 1 where the model learns or shows something wrong, 2 where a part of the data is of no use, 3 for what
            may well be meant.
        said: what it is, and what to do, in a sentence.
        example: a row that shows it, or nothing.
    """

    harm: int
    said: str
    example: str = ""


class Counted(NamedTuple):
    """Events counted in several ways.

    Attributes:
        kinds: by type, channel and whether they name no location, with the first and the last moment, and how
            many name a visit.
        products, locations, offers: by what they name; of products also purchases.
        customers: by customer, with purchases, the days on which there were any, and the first and the last of them.
        days: by day, with how many name a customer, how many of those are distinct, and how many lie at
            midnight; in the order of time.
        guests: events that name no customer: how many, how many of them are purchases, and those that name a visit.
        long_visits: visits, as their column says, whose purchases span more than a day, with customer.
        partly_named: visits some of whose purchases name a customer, the same one, and others none: how many, how many
            of their purchases name none, and one of them.
        lines: purchases that name customer and visit, distinct visits, and distinct moments of a customer.
        pause: how many seconds lie between purchases of one visit at most, as far as the data tell.
        left_out: how many events do not count, by why: those before ``EARLIEST``, then those that come too late.
    """

    kinds: pl.DataFrame
    products: pl.DataFrame
    customers: pl.DataFrame
    days: pl.DataFrame
    locations: pl.DataFrame
    offers: pl.DataFrame
    guests: tuple[int, int, int]
    long_visits: pl.DataFrame
    partly_named: tuple[int, int, str | None]
    lines: tuple[int, int, int]
    pause: int
    left_out: Mapping[str, int]


def share(part: int, whole: int) -> str:
    """Return a part of a whole in words."""
    return f"{part:,} of {whole:,} ({part / max(whole, 1):.1%})"


def some(names: Sequence[str]) -> str:
    """Return a list in words, cut short."""
    more = f" and {len(names) - _EXAMPLES:,} more" if len(names) > _EXAMPLES else ""
    return ", ".join(names[:_EXAMPLES]) + more
