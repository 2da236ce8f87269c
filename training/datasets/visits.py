"""Tells which purchases are of one visit: by the column of that name, or by the pauses between them."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from embeddings.customer.history import BEGINS, GOES_ON, UNSAID

_JOINED = 0.05
"""If a smaller share of purchases would be joined to the one before, there is nothing to join."""
_SHORTEST, _USUAL, _LONGEST, _FAR = 60, 1_800, 6 * 3_600, 90 * 86_400
"""Seconds: what a pause may be, what it is if the data do not tell, and the longest gap that is looked at."""
_BINS, _ADDED_UP = 60, 5
_MOST, _TIMES = 20, 2


def moments_of_purchases(events: pl.LazyFrame) -> pl.LazyFrame:
    """Return the buyer of every purchase, as a number, and its moment, in seconds.

    Args:
        events: with their declared columns, before any moment that must not be known.
    """
    bought = (pl.col("type") == "purchase") & pl.col("product_id").is_not_null() & pl.col("customer_id").is_not_null()
    return events.filter(bought).select(pl.col("customer_id").hash().alias("owner"), pl.col("at").dt.epoch("s"))


def usual_pause(bought: pl.DataFrame) -> int:
    """Return the longest pause, in seconds, between a purchase and the customer's one before in the same visit.

    It is the length between a minute and six hours at which gaps are rarest, on a logarithmic scale, and at most half
    as many as at some shorter and at some longer length: shorter gaps lie within visits, longer ones between them. It
    is half an hour where there is no such length, and 0 where hardly any purchase would be joined to the one before, as
    where lines have the very moment of their receipt. If a customer has many times as many purchases as usual, only the
    first ones count.

    Args:
        bought: from ``moments_of_purchases``.
    """
    bought = bought.sort("owner", "at")
    owners, at = bought["owner"].to_numpy(), bought["at"].to_numpy()
    begins = np.flatnonzero(np.concatenate([np.ones(1, np.bool_), owners[1:] != owners[:-1]])[: len(owners)])
    sizes = np.diff(np.append(begins, len(owners)))
    most = max(_MOST, _TIMES * int(np.median(sizes))) if len(sizes) else 0
    places = np.arange(len(owners)) - np.repeat(begins, sizes)
    gaps = np.diff(at, prepend=0)[(places > 0) & (places <= most)]
    positive = gaps[gaps > 0]
    if not len(positive):
        return 0
    pause = _rarest(positive)
    return pause if np.count_nonzero(positive <= pause) >= _JOINED * len(gaps) else 0


def _rarest(gaps: NDArray[np.int64]) -> int:
    bounds = np.geomspace(1, _FAR, _BINS + 1)
    counts, _ = np.histogram(np.minimum(gaps, _FAR), bounds)
    # Neighbouring bins are added up: few gaps would make holes anywhere.
    smooth = np.convolve(counts, np.ones(_ADDED_UP), "same")
    middles = np.sqrt(bounds[1:] * bounds[:-1])
    within, between = np.maximum.accumulate(smooth), np.maximum.accumulate(smooth[::-1])[::-1]
    depths = np.minimum(within, between) - 2 * smooth
    depths[(middles < _SHORTEST) | (middles > _LONGEST)] = -1
    if depths.max() < 0:
        return _USUAL
    deepest = np.flatnonzero(depths == depths.max())
    return round(float(middles[deepest[len(deepest) // 2]]) / 60) * 60  # of a wide valley the middle, in whole minutes


def numbers_of(visits: pl.Series) -> NDArray[np.int64]:
    """Return a number from 1 on for each name of a visit, in the order of names; 0 where there is none."""
    return visits.rank("dense").cast(pl.Int64).fill_null(0).to_numpy()


def as_they_say(owners: NDArray[np.integer], bought: NDArray[np.bool_], visits: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the code of each event's visit, as in ``history.EVENT``; only purchases have one.

    Args:
        owners: whose each event is, in the order of owners and, of one owner, of visits or of time.
        bought: whether it is a purchase.
        visits: from ``numbers_of``.
    """
    said = np.full(len(owners), UNSAID, np.uint8)
    places = np.flatnonzero(bought)
    numbers = visits[places]
    same = np.zeros(len(places), np.bool_)
    same[1:] = (owners[places][1:] == owners[places][:-1]) & (numbers[1:] == numbers[:-1])
    said[places[numbers > 0]] = np.where(same, GOES_ON, BEGINS)[numbers > 0]
    return said
