"""Which purchases are of one visit: told by the column of that name, or by how far apart they are."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from training.datasets.cast import DTYPES
from training.datasets.visits import moments_of_purchases, usual_pause

START = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE, HOUR, DAY = 60, 3_600, 86_400


def events(rows: list[tuple[str | None, str, float, str | None]]) -> pl.DataFrame:
    """Events of (customer, type, seconds, visit)."""
    return pl.DataFrame(
        {
            "customer_id": [row[0] for row in rows],
            "type": [row[1] for row in rows],
            "at": [START + timedelta(seconds=row[2]) for row in rows],
            "product_id": [f"p{place}" for place in range(len(rows))],
            "visit": [row[3] for row in rows],
        },
        schema={
            "customer_id": pl.String,
            "type": pl.String,
            "at": DTYPES["time"],
            "product_id": pl.String,
            "visit": pl.String,
        },
    )


def pause(bought: pl.LazyFrame) -> int:
    return usual_pause(moments_of_purchases(bought).collect())


def shop(within: float, between: float, lines: int, receipts: bool = False) -> pl.LazyFrame:
    """Visits of some lines, about so many seconds between two lines and between two visits."""
    random = np.random.default_rng(3)
    rows: list[tuple[str | None, str, float, str | None]] = []
    for customer in range(60):
        at = 0.0
        for _ in range(10):
            at += between * float(random.lognormal(0, 0.6))
            for _ in range(lines):
                rows.append((f"c{customer}", "purchase", at, None))
                at += 0 if receipts else within * float(random.lognormal(0, 0.6))
    return events(rows).lazy()


@pytest.mark.parametrize(
    ("within", "between"),
    [
        (10, DAY),
        (2 * MINUTE, 3 * DAY),
        (5 * MINUTE, 7 * DAY),
        (20 * MINUTE, 7 * DAY),
        (40 * MINUTE, 7 * DAY),
        (5, 20 * MINUTE),
        (MINUTE, 4 * HOUR),
    ],
)
def test_the_pause_lies_between_the_gaps_within_and_those_between_visits(within: float, between: float) -> None:
    bought = shop(within, between, lines=4)
    found = pause(bought)
    at = bought.sort("customer_id", "at").collect()
    gaps = at.select(pl.col("at").diff().over("customer_id").dt.total_seconds()).to_series().drop_nulls()
    # Of the gaps three of four are within visits.
    assert (gaps <= found).mean() == pytest.approx(0.75, abs=0.04)


def test_a_till_whose_lines_often_share_a_second_has_visits_too() -> None:
    bought = shop(6, DAY, lines=6).with_columns(at=pl.col("at").dt.truncate("10s"))
    assert 30 < pause(bought) < DAY / 4


def test_where_lines_have_the_moment_of_their_receipt_that_is_the_visit() -> None:
    assert pause(shop(0, 3 * DAY, lines=4, receipts=True)) == 0


def test_where_nothing_follows_within_hours_each_moment_is_a_visit() -> None:
    assert pause(shop(0, 3 * DAY, lines=1)) == 0
    assert pause(events([]).lazy()) == 0
    assert pause(events([("a", "purchase", 0.0, None)]).lazy()) == 0


def test_where_gaps_are_of_one_kind_it_is_half_an_hour() -> None:
    random = np.random.default_rng(5)
    at = np.cumsum(np.exp(random.uniform(np.log(30), np.log(20 * DAY), 3_000)))
    one_kind = events([("a", "purchase", float(one), None) for one in at])
    assert pause(one_kind.lazy()) == 1_800


def test_only_purchases_of_customers_count() -> None:
    alone = shop(2 * MINUTE, 3 * DAY, lines=4)
    views = alone.with_columns(type=pl.lit("view"), at=pl.col("at") + timedelta(hours=1))
    guests = alone.with_columns(customer_id=pl.lit(None, pl.String), at=pl.col("at") + timedelta(hours=2))
    assert pause(pl.concat([alone, views, guests])) == pause(alone)


def test_an_id_that_many_share_does_not_decide() -> None:
    bought = shop(0, 3 * DAY, lines=1)
    many = events([("GUEST", "purchase", 20.0 * MINUTE * one, None) for one in range(3_000)]).lazy()
    assert pause(pl.concat([bought, many])) == pause(bought) == 0
