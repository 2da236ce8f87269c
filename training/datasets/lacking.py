"""Finds the reasons why a data set cannot be trained on."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import polars as pl

from embeddings.errors import InvalidInput
from training.config import Recipe, fit_to_span
from training.datasets.finding import Counted

LEAST_BUYERS = 5
"""So many customers must have bought something before the validation window."""


def lacking(counted: Counted, recipe: Recipe, until: datetime | None) -> Iterator[str]:
    """Yield a sentence for each reason why events cannot be trained on; the first one is to be mended first.

    Purchases that returns take back still count here: only training works out the purchases that remain.

    Args:
        counted: the events.
        recipe: the settings.
        until: the data cut-off; None for just after the newest event.
    """
    first, last = min(counted.kinds["first"], default=None), max(counted.kinds["last"], default=None)
    if first is None or last is None:
        when = "" if until is None else f" before {until}"
        left_out = "".join(f"; {count:,} lie {why}" for why, count in counted.left_out.items() if count)
        yield f"expected events{when}; found none that counts{left_out}"
        return
    until = cut_off(until, last)
    try:
        days = fit_to_span(recipe, max((until - first).days, 0)).validation_days
    except InvalidInput as error:
        yield error.expected
        return
    buyers = counted.customers.filter(pl.col("bought") > 0)
    _, of_guests, _ = counted.guests
    if buyers.is_empty() and of_guests:
        yield "expected purchases that name a customer_id; all are of guests, who teach no ranking"
        return
    window = until - timedelta(days=days)
    earlier = buyers.filter(pl.col("first") < window).height
    for some, when in ((earlier, "before"), (buyers.filter(pl.col("last") >= window).height, "in")):
        if not some:
            yield f"expected purchases of products {when} the last {days} days until {until}; found none"
            return
    if earlier < LEAST_BUYERS:
        yield too_few(earlier, days, until)


def cut_off(until: datetime | None, last: datetime) -> datetime:
    """Return the data cut-off in whole seconds, as every moment in a bundle; by default just after the newest event."""
    return (until or last + timedelta(seconds=1)).astimezone(UTC).replace(microsecond=0)


def too_few(buyers: int, days: int, until: datetime) -> str:
    """Return the sentence for fewer customers than there must be."""
    return (
        f"expected at least {LEAST_BUYERS} customers who bought something before the last {days} days until {until}; "
        f"found {buyers}. Figures mean something from some hundred on"
    )
