"""Task ``mixed``: products and offers in one answer, and how far scores of both are from what happened.

Visits from the cut-off on, drawn at random of those of households that could redeem something, each asked for just
before it is reported; everything earlier has been. Asked for are products, offers, and both: the first place of an
answer is taken if the product is bought or the offer redeemed in that visit.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
from rich.progress import track

from benchmarks.quality.coupon_days import first_redeemed
from benchmarks.quality.coupons import happened
from benchmarks.quality.journey import ZONE, Coupons, last_transactions, purchase_lines, read_coupons
from benchmarks.quality.outcome import Comparison, Outcome, Scored
from benchmarks.quality.service import Event, Item, Service

VISITS = 3_000
K, MOST = 10, 100
_SEED = 0
KINDS: Mapping[str, tuple[list[str], int]] = {
    "products": (["product"], K),
    "offers": (["offer"], MOST),
    "products and offers": (["product", "offer"], K),
}
"""By method, what is asked for and how much of it."""


class Visit(NamedTuple):
    """All that a household buys and redeems at one moment.

    Attributes:
        taken: kinds and ids.
    """

    household: str
    store: str
    at: datetime
    taken: frozenset[tuple[str, str]]


def measure(service: Service, until: datetime) -> Outcome:
    """Replay the history, and ask for each visit in between."""
    coupons = read_coupons()
    history = happened(purchase_lines(), coupons, last_transactions()).filter(pl.col("at") >= until)
    visits = some_visits(history, coupons)
    answers = _replay(service, history, visits)
    scored = {method: _scored(items, visits) for method, items in answers.items()}
    any_redeemed = [float(any(kind == "offer" for kind, _ in visit.taken)) for visit in visits]
    sums = [sum(item.score for item in items) for items in answers["offers"]]
    return Outcome(
        households=[visit.household for visit in visits],
        scores={method: {"first_taken": _first_taken(items, visits)} for method, items in answers.items()}
        | {"any offer": {"first_taken": any_redeemed}},
        ours=None,
        comparisons=[Comparison("difference", "products and offers", "products", "first_taken")],
        left_out={},
        facts={
            "answers led by an offer": sum(
                bool(items) and items[0].kind == "offer" for items in answers["products and offers"]
            )
        },
        scored=scored | {"any offer": Scored(sums, [bool(one) for one in any_redeemed], range(len(visits)))},
    )


def some_visits(history: pl.DataFrame, coupons: Coupons) -> list[Visit]:
    """Draw visits at random, of households that could redeem something then; return them in the order of time.

    Args:
        history: as ``happened`` has it.
        coupons: says who could.
    """
    id_, kind = pl.coalesce("product_id", "offer_id"), pl.when(pl.col("type") == "purchase").then(pl.lit("product"))
    grouped = (
        history.with_columns(id=id_, kind=kind.otherwise(pl.lit("offer")))
        .group_by("at", "customer_id", maintain_order=True)
        .agg(pl.col("location").drop_nulls().first(), "kind", "id")
        .drop_nulls("location")
    )
    first = first_redeemed(coupons)
    found = [
        Visit(household, store, at, frozenset(zip(kinds, ids, strict=True)))
        for at, household, store, kinds, ids in grouped.iter_rows()
        if _could_redeem(household, at.astimezone(ZoneInfo(ZONE)).date(), coupons, first)
    ]
    drawn = np.random.default_rng(_SEED).permutation(len(found))[:VISITS]
    return [found[place] for place in sorted(drawn.tolist())]


def _could_redeem(household: str, day: date, coupons: Coupons, first: Mapping[tuple[str, str], date]) -> bool:
    campaigns = {
        campaign
        for campaign in coupons.campaigns.get(household, ())
        if coupons.days[campaign][0] <= day <= coupons.days[campaign][1]
    }
    return bool(campaigns) and any(
        campaign in campaigns and first.get((household, offer), day) >= day
        for offer, campaign in coupons.campaign.items()
    )


def _replay(service: Service, history: pl.DataFrame, visits: Sequence[Visit]) -> dict[str, list[list[Item]]]:
    """Report the history in between, and return the answers to every visit, by method."""
    answers: dict[str, list[list[Item]]] = {method: [] for method in KINDS}
    sent = 0
    for visit in track(visits, "replaying a year's last months", transient=True):
        earlier = int(history["at"].search_sorted(visit.at, side="left"))
        service.report([Event(**row) for row in history.slice(sent, earlier - sent).iter_rows(named=True)])
        sent = earlier
        for method, (kinds, limit) in KINDS.items():
            answers[method].append(service.items(visit.household, "store", visit.store, visit.at, limit, kinds))
    return answers


def _first_taken(answers: Sequence[Sequence[Item]], visits: Sequence[Visit]) -> list[float]:
    return [
        float(bool(items) and (items[0].kind, items[0].id) in visit.taken)
        for items, visit in zip(answers, visits, strict=True)
    ]


def _scored(answers: Sequence[Sequence[Item]], visits: Sequence[Visit]) -> Scored:
    rows = [
        (item.score, (item.kind, item.id) in visit.taken, number)
        for number, (items, visit) in enumerate(zip(answers, visits, strict=True))
        for item in items
    ]
    return Scored(*(list(column) for column in zip(*rows, strict=True)))
