"""The usual two-stage recommender as a baseline: candidates from history and ALS, ordered by LightGBM.

It learns from earlier weeks as if each of them were the future: a household's first basket in the week is the truth,
what came before the week is all that candidates and features see. It knows nothing of the store or the moment.

Shapes: B households at once, C candidates, P products.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import polars as pl

from benchmarks.quality.baselines import Als, most_popular, top
from benchmarks.quality.past import Past

MISSING = "lightgbm is not installed: pip install 'opportune[lightgbm]'"
WEEKS = 6
_OWN, _FROM_ALS = 100, 50
_DAILY_DECAY = 0.99
_AT_ONCE = 128
_SETTINGS = {
    "objective": "lambdarank",
    "lambdarank_truncation_level": 20,
    "learning_rate": 0.05,
    "num_leaves": 63,
    "min_data_in_leaf": 50,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
    "seed": 0,
}
_ROUNDS = 250
_PAIR = ["household_id", "product_id"]
_FEATURES = [
    "lines",
    "decayed",
    "lines_per_basket",
    "days_since",
    "days_between",
    "als",
    "sold",
    "sold_recently",
    "baskets",
    "days_away",
]


class _Week(NamedTuple):
    """Candidates with their features, one household's after the other's, and the past that they come from."""

    candidates: pl.DataFrame
    past: Past


def two_stage(lines: pl.DataFrame, until: datetime, households: Sequence[str], k: int) -> dict[str, list[str]] | None:
    """Return the best ``k`` products for each household; None if LightGBM is not installed.

    Args:
        lines: what is known, all of it before the cut-off; columns as in `purchase_lines`.
        until: the cut-off.
        households: those asked for; one without a past is answered with what is popular.
        k: how many.
    """
    if find_spec("lightgbm") is None:
        return None
    lightgbm = import_module("lightgbm")
    taught = pl.concat(labelled(lines, until - timedelta(weeks=back)) for back in range(WEEKS, 0, -1))
    groups = taught.group_by("week", "household_id", maintain_order=True).len()["len"].to_numpy()
    data = lightgbm.Dataset(taught.select(_FEATURES).to_numpy(), taught["bought"].to_numpy(), group=groups)
    model = lightgbm.train(_SETTINGS, data, num_boost_round=_ROUNDS)
    week = _week(lines, until, households)
    scored = week.candidates.with_columns(score=model.predict(week.candidates.select(_FEATURES).to_numpy()))
    best = scored.sort("score", descending=True, maintain_order=True).group_by("household_id", maintain_order=True)
    found: dict[str, list[str]] = dict(best.agg(pl.col("product_id").head(k)).iter_rows())
    usual = most_popular(week.past, k)
    return {household: found.get(household, usual) for household in households}


def labelled(lines: pl.DataFrame, start: datetime) -> pl.DataFrame:
    """Return candidates as of the start of a week for everybody who then buys, and whether they were bought."""
    week = lines.filter(pl.col("at").is_between(start, start + timedelta(weeks=1), closed="left"))
    first = week.sort("at", "basket_id").group_by("household_id", maintain_order=True).agg(pl.first("basket_id"))
    truth = week.join(first, on=["household_id", "basket_id"], how="semi").select(_PAIR).unique()
    candidates = _week(lines.filter(pl.col("at") < start), start, first["household_id"].to_list()).candidates
    return candidates.join(
        truth.with_columns(bought=pl.lit(1)), on=_PAIR, how="left", maintain_order="left"
    ).with_columns(pl.col("bought").fill_null(0), week=pl.lit(start))


def _week(lines: pl.DataFrame, start: datetime, households: Sequence[str]) -> _Week:
    """Return candidates with features as of a moment.

    They are the products that each household bought most of late, and the best that ALS finds for it.
    """
    past = Past.of(lines)
    known = [household for household in households if household in past.household_rows]
    days = (pl.lit(start) - pl.col("at")).dt.total_seconds() / 86_400
    pairs = (
        lines.filter(pl.col("household_id").is_in(known))
        .with_columns(days=days)
        .group_by(_PAIR)
        .agg(
            lines=pl.len(),
            decayed=(_DAILY_DECAY ** pl.col("days")).sum(),
            days_since=pl.min("days"),
            first=pl.max("days"),
            visits=pl.n_unique("basket_id"),
        )
        .with_columns(days_between=(pl.col("first") - pl.col("days_since")) / (pl.col("visits") - 1))
    )
    visits = lines.group_by("household_id").agg(
        baskets=pl.n_unique("basket_id"), days_away=(pl.lit(start) - pl.max("at")).dt.total_seconds() / 86_400
    )
    sold = lines.group_by("product_id").agg(
        sold=pl.len(), sold_recently=(pl.col("at") >= start - timedelta(weeks=4)).sum()
    )
    own = pairs.sort("decayed", "product_id", descending=True).group_by("household_id", maintain_order=True).head(_OWN)
    candidates = (
        _candidates(past, own)
        .join(pairs, on=_PAIR, how="left")
        .join(visits, on="household_id")
        .join(sold, on="product_id")
        .with_columns(lines_per_basket=pl.col("lines") / pl.col("baskets"))
        .sort(_PAIR)
    )
    return _Week(candidates.select(*_PAIR, *(pl.col(feature).cast(pl.Float32) for feature in _FEATURES)), past)


def _candidates(past: Past, own: pl.DataFrame) -> pl.DataFrame:
    """Return each household's own candidates and the best that ALS finds.

    The columns are household_id, product_id and als.
    """
    als = Als(past)
    columns = pl.col("product_id").replace_strict(past.product_columns, return_dtype=pl.Int64)
    owned = list(own.group_by("household_id", maintain_order=True).agg(columns).iter_rows())
    frames: list[pl.DataFrame] = []
    for start in range(0, len(owned), _AT_ONCE):
        some = owned[start : start + _AT_ONCE]
        scores_BP = als.scores(np.array([past.household_rows[household] for household, _ in some], np.int64))
        for (household, own_C), scores_P in zip(some, scores_BP, strict=True):
            columns_C = np.union1d(np.array(own_C, np.int64), top(scores_P, _FROM_ALS))
            products = [past.products[column] for column in columns_C.tolist()]
            frames.append(
                pl.DataFrame({"product_id": products, "als": scores_P[columns_C]}).with_columns(
                    household_id=pl.lit(household)
                )
            )
    return pl.concat(frames)
