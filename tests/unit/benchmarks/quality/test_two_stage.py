"""The two-stage baseline: what it learns from, which is never later than the week that it learns to predict."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from benchmarks.quality import two_stage

MONDAY = datetime(2017, 3, 6, tzinfo=UTC)


def lines() -> pl.DataFrame:
    """Two households; days relative to a Monday, each line a basket of its own but for the last two."""
    bought = [
        ("1", "10", 1, -10.0),
        ("1", "10", 2, -4.0),
        ("1", "11", 3, -2.0),
        ("2", "12", 4, -1.0),
        ("1", "12", 5, 1.0),
        ("1", "10", 6, 2.0),
        ("2", "12", 7, 8.0),
        ("2", "13", 7, 8.0),
    ]
    return pl.DataFrame(
        [(household, product, basket, MONDAY + timedelta(days=day)) for household, product, basket, day in bought],
        schema=["household_id", "product_id", "basket_id", "at"],
        orient="row",
    )


def test_it_is_left_out_without_lightgbm(monkeypatch: pytest.MonkeyPatch):
    def nowhere(_name: str) -> None:
        return None

    monkeypatch.setattr(two_stage, "find_spec", nowhere)
    assert two_stage.two_stage(lines(), MONDAY, ["1"], 10) is None


def test_only_the_first_basket_of_the_week_counts_as_bought():
    taught = two_stage.labelled(lines(), MONDAY)
    columns = taught.select("household_id", "product_id", "bought")
    bought = {(household, product): one for household, product, one in columns.iter_rows()}
    assert bought == {("1", "10"): 0, ("1", "11"): 0, ("1", "12"): 1}, "household 2 does not buy that week"


def test_features_see_what_came_before_the_week_alone():
    taught = two_stage.labelled(lines(), MONDAY).filter(pl.col("product_id") == "10").row(0, named=True)
    expected = {"lines": 2, "days_since": 4, "days_between": 6, "baskets": 3, "days_away": 2, "sold": 2}
    assert {name: taught[name] for name in expected} == pytest.approx(expected)
    assert taught["decayed"] == pytest.approx(0.99**10 + 0.99**4)
    assert taught["lines_per_basket"] == pytest.approx(2 / 3)
