"""Finds the reasons why a data set cannot be trained on."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from embeddings.errors import InvalidInput
from training.config import Recipe, fit_to_span, longest_window
from training.datasets.finding import Counted

LEAST_BUYERS = 5
"""So many customers must have bought something before the validation window."""

_ENOUGH = 100
"""So many customers who buy in the validation window, or half of all, are enough to judge by."""

_DAY = 86_400


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
    redeemed = counted.kinds.filter(pl.col("type") == "redemption", pl.col("last") >= window).height
    # Where nothing was bought, offers may tell: training finds out whether enough of them were redeemed.
    for some, when in ((earlier, "before"), (redeemed or buyers.filter(pl.col("last") >= window).height, "in")):
        if not some:
            firsts_C, lasts_C = (buyers[name].dt.epoch("s").to_numpy() for name in ("first", "last"))
            advice = longer(firsts_C, lasts_C, until, (until - first).days) if when == "in" else ""
            yield f"expected purchases of products {when} the last {days} days until {until}; found none{advice}"
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


def longer(firsts_C: NDArray[np.int64], lasts_C: NDArray[np.int64], until: datetime, span: int) -> str:
    """Return the end of a sentence that says how long a validation window would hold enough purchases; empty if none.

    Args:
        firsts_C: when each customer who bought anything did so for the first time, in seconds since 1970 UTC.
        lasts_C: for the last time.
        until: the data cut-off.
        span: over how many days the data reach.
    """
    if not len(lasts_C):
        return ""
    enough = min(_ENOUGH, max(LEAST_BUYERS, -(-len(lasts_C) // 2)), len(lasts_C))
    moment = int(until.timestamp())
    days = (moment - int(np.sort(lasts_C)[-enough])) // _DAY + 1
    if longest_window(span) < days:
        return (
            f". The last {days} days would hold enough, if the events spanned three times as many; they span {span}: "
            f"add older ones, and let validation_days be at least {days} in the recipe"
        )
    if np.count_nonzero(firsts_C < moment - days * _DAY) < LEAST_BUYERS:
        return f". The last {days} days would hold enough, but too little was bought before them: add older events"
    return f". Let validation_days be at least {days} in the recipe: so many days hold enough"
