"""Tells which purchases are of one visit: by the column of that name, or by how far apart they are."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

_OF_VISITS = "purchase", "redemption"
_RECEIPTS = 0.25
"""If so large a share of purchases has the very moment of the one before, moments are those of receipts."""
_WORTH = 0.05
"""If a smaller share follows another one within ``_LONGEST``, there is nothing to join."""
_SHORTEST, _USUAL, _LONGEST = 60, 1_800, 6 * 3_600
_BINS = 24


def usual_gap(events: pl.LazyFrame) -> int:
    """Return how many seconds after the customer's purchase before it a purchase is of the same visit at most.

    0 where moments are those of receipts, or hardly any purchase follows another one within hours. Else the place
    between a minute and six hours at which gaps are rarest, on a logarithmic scale, with more of them on both sides:
    shorter ones lie within visits, longer ones between them. Half an hour where there is no such place.

    Args:
        events: with their declared columns, before any moment that must not be known.
    """
    bought = (
        events.filter((pl.col("type") == "purchase") & pl.col("product_id").is_not_null())
        .drop_nulls("customer_id")
        .select(pl.col("customer_id").hash().alias("owner"), pl.col("at").dt.epoch("s"))
        .collect(engine="streaming")
        .sort("owner", "at")
    )
    owners, at = bought["owner"].to_numpy(), bought["at"].to_numpy()
    gaps = np.diff(at)[owners[1:] == owners[:-1]]
    positive = gaps[gaps > 0]
    if len(positive) == 0 or len(positive) < (1 - _RECEIPTS) * len(gaps):
        return 0
    if np.count_nonzero(positive <= _LONGEST) < _WORTH * len(positive):
        return 0
    return _rarest(positive)


def _rarest(gaps: NDArray[np.int64]) -> int:
    bounds = np.geomspace(_SHORTEST, _LONGEST, _BINS + 1)
    counts, _ = np.histogram(gaps, bounds)
    # Neighbouring bins are added up: few gaps would make holes anywhere.
    smooth = np.convolve(counts, np.ones(5), "same")[2:-2]
    place = int(smooth.argmin())
    shorter, longer = np.count_nonzero(gaps < bounds[place + 2]), np.count_nonzero(gaps > bounds[place + 3])
    inside = smooth[place] < min(smooth[: place + 1].max(), smooth[place:].max()) / 2
    if inside and min(shorter, longer) >= _WORTH * len(gaps):
        return round(float(np.sqrt(bounds[place + 2] * bounds[place + 3])))
    return _USUAL


def with_one_moment(events: pl.DataFrame) -> pl.DataFrame:
    """Return the events, what was bought and redeemed in a visit, as the column of that name says, at its first moment.

    Where two visits of a customer begin in the same second, as where only days are known, the earlier one in the order
    of their names is put a second before the other.

    Args:
        events: with their declared columns.
    """
    of_visit = pl.col("type").is_in(_OF_VISITS) & pl.col("visit").is_not_null()
    begun = (
        events.filter(of_visit)
        .group_by("customer_id", "visit")
        .agg(pl.col("at").min().dt.truncate("1s").alias("begun"))
        .sort("customer_id", "begun", "visit")
        .with_columns(pl.int_range(pl.len()).over("customer_id").alias("place"))
    )
    if begun.is_empty():
        return events
    second, place = pl.col("begun").dt.epoch("s"), pl.col("place")
    apart = (second - place).cum_min(reverse=True).over("customer_id") + place
    # Guests are nobody: their visits need not be told apart by their moment.
    moment = pl.when(pl.col("customer_id").is_null()).then(second).otherwise(apart)
    moments = begun.select(
        "customer_id", "visit", pl.from_epoch(moment).dt.replace_time_zone("UTC").dt.cast_time_unit("us").alias("begun")
    )
    joined = events.join(moments, on=["customer_id", "visit"], how="left", nulls_equal=True, maintain_order="left")
    at = pl.when(of_visit).then(pl.coalesce("begun", "at")).otherwise("at")
    return joined.with_columns(at.alias("at")).drop("begun")
