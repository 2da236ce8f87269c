"""Which purchases are of one visit: told by the column of that name, or by how far apart they are."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from training.datasets.frames import DTYPES
from training.datasets.visits import usual_gap, with_one_moment

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


def seconds(found: pl.DataFrame) -> list[float]:
    return [(at - START).total_seconds() for at in found["at"].to_list()]


def test_what_is_bought_in_a_visit_is_bought_at_its_first_moment() -> None:
    found = with_one_moment(
        events(
            [
                ("a", "purchase", 500.5, "v1"),
                ("a", "view", 300, "v1"),
                ("a", "purchase", 200.7, "v1"),
                ("a", "redemption", 900, "v1"),
                ("a", "purchase", 9_000, "v2"),
                ("b", "purchase", 700, "v1"),
                ("a", "purchase", 800, None),
            ]
        )
    )
    assert seconds(found) == [200, 300, 200, 200, 9_000, 700, 800]
    assert found["product_id"].to_list() == [f"p{place}" for place in range(7)]
    assert found.columns == events([]).columns


def test_visits_of_one_day_are_told_apart_where_only_days_are_known() -> None:
    days = [("a", "purchase", float(day * DAY), f"v{day}-{visit}") for day in range(3) for visit in (2, 1, 3)]
    found = with_one_moment(events([*days, *days]))
    moments = dict(zip(found["visit"].to_list(), seconds(found), strict=True))
    assert len(set(moments.values())) == 9
    for day in range(3):
        assert [moments[f"v{day}-{visit}"] - day * DAY for visit in (1, 2, 3)] == [-2, -1, 0]


def test_visits_of_guests_keep_their_moment() -> None:
    assert seconds(with_one_moment(events([(None, "purchase", 100.0, f"v{one}") for one in range(50)]))) == [100.0] * 50


def test_without_visits_nothing_moves() -> None:
    given = events([("a", "purchase", 1.5, None), ("a", "purchase", 2.5, None)])
    assert with_one_moment(given).equals(given)
    assert with_one_moment(events([])).is_empty()


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


@pytest.mark.parametrize(("within", "between"), [(2 * MINUTE, 3 * DAY), (10, DAY), (5 * MINUTE, 7 * DAY)])
def test_the_gap_lies_between_those_within_and_those_between_visits(within: float, between: float) -> None:
    gap = usual_gap(shop(within, between, lines=4))
    assert 3 * within < gap < between / 3


def test_where_lines_have_the_moment_of_their_receipt_that_is_the_visit() -> None:
    assert usual_gap(shop(0, 3 * DAY, lines=4, receipts=True)) == 0


def test_where_nothing_follows_within_hours_each_moment_is_a_visit() -> None:
    assert usual_gap(shop(0, 3 * DAY, lines=1)) == 0
    assert usual_gap(events([]).lazy()) == 0
    assert usual_gap(events([("a", "purchase", 0.0, None)]).lazy()) == 0


def test_where_gaps_are_of_one_kind_it_is_half_an_hour() -> None:
    random = np.random.default_rng(5)
    at = np.cumsum(np.exp(random.uniform(np.log(30), np.log(20 * DAY), 3_000)))
    one_kind = events([("a", "purchase", float(one), None) for one in at])
    assert usual_gap(one_kind.lazy()) == 1_800


def test_only_purchases_of_customers_count() -> None:
    alone = shop(2 * MINUTE, 3 * DAY, lines=4)
    views = alone.with_columns(type=pl.lit("view"), at=pl.col("at") + timedelta(hours=1))
    guests = alone.with_columns(customer_id=pl.lit(None, pl.String), at=pl.col("at") + timedelta(hours=2))
    assert usual_gap(pl.concat([alone, views, guests])) == usual_gap(alone)
