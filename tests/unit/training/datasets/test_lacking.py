"""What is said of data that lack purchases to judge by: whoever follows the advice can train."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from msgspec.structs import replace

from training.config import RECIPES, Recipe, read_recipe
from training.datasets.database import Source
from training.datasets.lacking import longer
from training.datasets.summary import open_and_summarise

LAST_BILL = datetime(2026, 10, 1, 12, tzinfo=UTC)
RECIPE = read_recipe(RECIPES / "default.toml")


def write_bills(folder: Path, every: int, bills: int, customers: int = 20) -> str:
    """Bills of customers, all within some hours of one day."""
    rows = [
        (f"c{customer}", LAST_BILL - timedelta(days=every * number, minutes=customer), f"p{(customer + number) % 7}")
        for customer in range(customers)
        for number in range(bills)
    ]
    frame = pl.DataFrame(rows, schema=["customer_id", "at", "product_id"], orient="row")
    frame.with_columns(type=pl.lit("purchase")).write_parquet(folder / "events.parquet")
    return str(folder)


def lacking(data: str, recipe: Recipe, until: datetime) -> str:
    return open_and_summarise(Source(data, data), recipe, until).summary.lacking


@pytest.mark.parametrize(("every", "bills", "later"), [(30, 7, 29), (28, 5, 28.5), (91, 5, 80)])
def test_bills_on_one_day_are_trained_on_once_the_days_held_out_are_as_many_as_said(
    tmp_path: Path, every: int, bills: int, later: float
) -> None:
    data, until = write_bills(tmp_path, every, bills), LAST_BILL + timedelta(days=later)
    said = lacking(data, RECIPE, until)
    assert "expected purchases of products in the last 28 days" in said
    (days,) = re.findall(r"validation_days be at least (\d+)", said)
    assert lacking(data, replace(RECIPE, validation_days=int(days)), until) == ""
    assert int(days) == int(later) + 1


def test_data_too_short_for_so_long_a_window_are_told_that_older_ones_are_needed(tmp_path: Path) -> None:
    data, until = write_bills(tmp_path, 30, 2), LAST_BILL + timedelta(days=29)
    said = lacking(data, RECIPE, until)
    assert "add older ones" in said
    (days,) = re.findall(r"validation_days be at least (\d+)", said)
    older = write_bills(tmp_path, 30, 4)
    assert lacking(older, replace(RECIPE, validation_days=int(days)), until) == ""


@pytest.mark.parametrize("customers", [1, 7, 40, 1_000])
def test_so_many_days_hold_enough_customers_and_a_day_less_too_few(customers: int) -> None:
    random, until = np.random.default_rng(customers), datetime(2026, 10, 1, tzinfo=UTC)
    moment, day = int(until.timestamp()), 86_400
    lasts_C = moment - random.integers(30 * day, 300 * day, customers)
    (days,) = re.findall(r"[Ll]ast (\d+) days|at least (\d+) in", longer(lasts_C - 900 * day, lasts_C, until, 3_000))
    length = int("".join(days))
    enough = min(customers, max(5, min(100, (customers + 1) // 2)))
    assert np.count_nonzero(lasts_C >= moment - length * day) >= enough
    assert np.count_nonzero(lasts_C >= moment - (length - 1) * day) < enough


def test_where_nobody_ever_bought_there_is_no_such_length() -> None:
    nobody = np.zeros(0, np.int64)
    assert longer(nobody, nobody, LAST_BILL, 300) == ""


def test_without_purchases_but_with_redemptions_training_finds_out_whether_offers_tell(tmp_path: Path) -> None:
    data, until = write_bills(tmp_path, 30, 7), LAST_BILL + timedelta(days=29)
    events = pl.read_parquet(tmp_path / "events.parquet").with_columns(offer_id=pl.lit(None, pl.String))
    redeemed = events.head(1).with_columns(
        type=pl.lit("redemption"), at=pl.lit(until - timedelta(days=3)), offer_id=pl.lit("o1")
    )
    pl.concat([events, redeemed]).write_parquet(tmp_path / "events.parquet")
    assert lacking(data, RECIPE, until) == ""
