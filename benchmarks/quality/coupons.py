"""Task ``coupons``: which coupons a household redeems today.

Every purchase and redemption from the cut-off on is reported in the order of time. On each day on which a household
redeems a coupon that is for it, the service is asked at its last transaction of that day, just before that is
reported: by then it has heard of everything earlier, and of nothing later.
"""

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import polars as pl
from rich.progress import track

from benchmarks.quality import coupon_days as days_of
from benchmarks.quality.coupon_days import CouponDay, coupon_days, judge_offers
from benchmarks.quality.journey import ZONE, Coupons, last_transactions, purchase_lines, read_coupons
from benchmarks.quality.outcome import Outcome
from benchmarks.quality.service import Event, Service


def measure(service: Service, until: datetime) -> Outcome:
    """Replay, asking in between, and rank the same offers without the service."""
    coupons, lines, last = read_coupons(), purchase_lines(), last_transactions()
    days = coupon_days(coupons, last, until.astimezone(ZoneInfo(ZONE)).date())
    history = happened(lines, coupons, last).filter(pl.col("at") >= until)
    rankings = {
        "opportune": _replay(service, history, days),
        "most redeemed": days_of.most_redeemed(coupons, days),
        "affinity": days_of.affinity(coupons, days, lines, by_size=False),
        "affinity over sqrt(size)": days_of.affinity(coupons, days, lines, by_size=True),
    }
    scores = {name: judge_offers(ranked, days) for name, ranked in rankings.items()}
    return Outcome(
        households=[day.household for day in days],
        scores=scores | {"random": days_of.random_scores(days)},
        ours="opportune",
        comparisons=[],
        left_out={},
        facts={
            "events reported before the last question": int((history["at"] < days[-1].at).sum()),
            "eligible offers, mean": round(sum(len(day.eligible) for day in days) / len(days)),
            "violations of audience, dates or use": days_of.violations(rankings["opportune"], days),
        },
    )


def happened(lines: pl.DataFrame, coupons: Coupons, last: pl.DataFrame) -> pl.DataFrame:
    """Return all purchases and redemptions in the order of time, as the fields of events."""
    purchases = lines.with_row_index("number").select(
        event_id=pl.format("line-{}", "number"),
        type=pl.lit("purchase"),
        customer_id="household_id",
        at="at",
        location="store_id",
        product_id="product_id",
        quantity=pl.col("quantity").cast(pl.Float64),
        value="value",
    )
    redemptions = (
        pl.DataFrame(coupons.redemptions, schema=["household_id", "offer_id", "day"], orient="row")
        .with_row_index("number")
        .join(last, on=["household_id", "day"], how="inner", maintain_order="left")
        .select(
            event_id=pl.format("redemption-{}", "number"),
            type=pl.lit("redemption"),
            customer_id="household_id",
            at="at",
            offer_id="offer_id",
            quantity=pl.lit(1.0),
        )
    )
    return pl.concat([purchases, redemptions], how="diagonal").sort("at", maintain_order=True)


def _replay(service: Service, history: pl.DataFrame, days: Sequence[CouponDay]) -> list[list[str]]:
    """Report the history in between, and return the service's offers on every day."""
    rankings: list[list[str]] = []
    sent = 0
    for day in track(days, "replaying a year's last months", transient=True):
        earlier = int(history["at"].search_sorted(day.at, side="left"))
        rows = history.slice(sent, earlier - sent).iter_rows(named=True)
        service.report([Event(**row) for row in rows])
        sent = earlier
        rankings.append(service.recommend(day.household, "store", day.store, day.at, days_of.K, kind="offer"))
    return rankings
