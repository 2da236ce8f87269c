"""Days on which a household redeemed coupons, and how well they are predicted without the service.

Only the day of a redemption is known: it is placed at the household's last transaction of that day.

Shapes: E offers that are eligible on a day.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from math import sqrt
from typing import NamedTuple

import numpy as np
import polars as pl

from benchmarks.quality.journey import Coupons
from benchmarks.quality.outcome import Scores
from embeddings.metrics import ndcg_at

K = 10


class CouponDay(NamedTuple):
    """A household's last transaction of a day on which it redeemed coupons.

    Attributes:
        eligible: the offers it could redeem that day, by id: those not redeemed on an earlier one.
        redeemed: those of them that it did.
    """

    household: str
    store: str
    at: datetime
    day: date
    eligible: list[str]
    redeemed: frozenset[str]


def coupon_days(coupons: Coupons, last: pl.DataFrame, since: date) -> list[CouponDay]:
    """Return the coupon days from ``since`` on, in the order of time; leave out those without an eligible redemption.

    Args:
        coupons: offers and redemptions.
        last: as `last_transactions` has it.
        since: the first day.
    """
    first = first_redeemed(coupons)
    redeemed: dict[tuple[str, date], set[str]] = {}
    for one in coupons.redemptions:
        if one.day >= since and coupons.eligible(*one) and one.day == first[one.household, one.offer]:
            redeemed.setdefault((one.household, one.day), set()).add(one.offer)
    places = {
        (household, day): (store, at)
        for household, day, store, at in last.select("household_id", "day", "store_id", "at").iter_rows()
    }
    offers = sorted(coupons.campaign)
    days = [
        CouponDay(
            household,
            *places[household, day],
            day,
            [
                offer
                for offer in offers
                if coupons.eligible(household, offer, day) and first.get((household, offer), day) >= day
            ],
            frozenset(used),
        )
        for (household, day), used in redeemed.items()
    ]
    return sorted(days, key=lambda one: (one.at, one.household))


def first_redeemed(coupons: Coupons) -> dict[tuple[str, str], date]:
    """Return the day on which each household first redeemed each offer; afterwards it cannot any more."""
    return {(one.household, one.offer): one.day for one in reversed(coupons.redemptions)}


def judge_offers(rankings: Sequence[Sequence[str]], days: Sequence[CouponDay]) -> Scores:
    """Return the NDCG of every ranking, and whether its first offer was redeemed."""
    pairs = list(zip(rankings, days, strict=True))
    return {
        f"ndcg@{K}": [ndcg_at(ranking, day.redeemed, K) for ranking, day in pairs],
        "hit@1": [float(ranking[0] in day.redeemed) if ranking else 0.0 for ranking, day in pairs],
    }


def random_scores(days: Sequence[CouponDay]) -> Scores:
    """Return the expected scores of a random order: every place holds a redeemed offer equally often."""
    discounts_K = 1 / np.log2(np.arange(2, K + 2))
    ndcg: list[float] = []
    for day in days:
        share = len(day.redeemed) / len(day.eligible)
        ndcg.append(float(share * discounts_K[: len(day.eligible)].sum() / discounts_K[: len(day.redeemed)].sum()))
    return {f"ndcg@{K}": ndcg, "hit@1": [len(day.redeemed) / len(day.eligible) for day in days]}


def most_redeemed(coupons: Coupons, days: Sequence[CouponDay]) -> list[list[str]]:
    """Rank offers by how often everybody redeemed them on earlier days."""
    counts: Counter[str] = Counter()
    waiting = iter(coupons.redemptions)
    following = next(waiting, None)
    rankings: list[list[str]] = []
    for day in days:
        while following is not None and following.day < day.day:
            counts[following.offer] += 1
            following = next(waiting, None)
        rankings.append(_ranked(day.eligible, counts))
    return rankings


def affinity(coupons: Coupons, days: Sequence[CouponDay], lines: pl.DataFrame, *, by_size: bool) -> list[list[str]]:
    """Rank offers by the household's earlier lines of the products they cover.

    If ``by_size``, divide by the root of the number of these products.
    """
    offers_of: dict[str, list[str]] = {}
    for offer, products in coupons.products.items():
        for product in products:
            offers_of.setdefault(product, []).append(offer)
    theirs = lines.filter(pl.col("household_id").is_in(list({day.household for day in days})))
    bought = {
        household: list(zip(ats, products, strict=True))
        for household, ats, products in theirs.group_by("household_id").agg("at", "product_id").iter_rows()
    }
    rankings: list[list[str]] = []
    for day in days:
        scores: Counter[str] = Counter()
        for at, product in bought.get(day.household, ()):
            if at < day.at:
                scores.update(offers_of.get(product, ()))
        sized = {offer: count / sqrt(len(coupons.products[offer])) for offer, count in scores.items()}
        rankings.append(_ranked(day.eligible, sized if by_size else scores))
    return rankings


def violations(rankings: Sequence[Collection[str]], days: Sequence[CouponDay]) -> int:
    """Count answered offers that are not for this household, do not run on this day or were redeemed before."""
    return sum(len(set(ranking).difference(day.eligible)) for ranking, day in zip(rankings, days, strict=True))


def _ranked(offers: Sequence[str], scores: Mapping[str, float]) -> list[str]:
    """Return the best ``K`` offers, the highest score first, ties by id."""
    return sorted(offers, key=lambda offer: (-scores.get(offer, 0), offer))[:K]
