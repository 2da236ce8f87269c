"""Tasks ``substitutes`` and ``complements``: what ``/v1/products/{id}/similar`` answers of products.

``substitutes`` asks for five of 200 products of each tenth of those sold before the cut-off, by how many lines of
receipts they stand on, the best sellers first, and of 200 that nobody had bought by then. A substitute should be of the
same category. ``substitutes-bare`` asks the same of a release whose data say nothing of products: who buys what is all
that it knows, and of new products nothing. ``complements`` asks for
ten of the first product of each household's first basket after the cut-off: the rest of the basket should be among
them.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
from rich.progress import track

from benchmarks.quality.baselines import most_popular
from benchmarks.quality.journey import categories, journey
from benchmarks.quality.outcome import Outcome, judge
from benchmarks.quality.past import Past
from benchmarks.quality.service import Service

FIVE, TEN = 5, 10
PRODUCTS, TENTHS = 200, 10


def measure_substitutes(service: Service, until: datetime) -> Outcome:
    """Ask for substitutes of products of each tenth and of new ones, and count those of the same category."""
    past = Past.of(journey(until).past)
    of = categories()
    new = sorted(one for one, category in of.items() if category is not None and one not in past.product_columns)
    return _substitutes(service, past, {"new": new})


def measure_bare_substitutes(service: Service, until: datetime) -> Outcome:
    """Ask the same of a release that knows no attributes."""
    return _substitutes(service, Past.of(journey(until).past), {})


def write_bare(folder: Path, until: datetime) -> None:
    """Write the purchases before a cut-off as a table, and nothing that is known of products."""
    folder.mkdir(parents=True, exist_ok=True)
    journey(until).past.select(
        customer_id="household_id",
        product_id="product_id",
        type=pl.lit("purchase"),
        at="at",
        location="store_id",
        channel=pl.lit("store"),
        visit=pl.col("basket_id").cast(pl.String),
    ).write_parquet(folder / "events.parquet")


def _substitutes(service: Service, past: Past, more: Mapping[str, Sequence[str]]) -> Outcome:
    of = categories()
    lines_P = np.asarray(past.lines_HP.sum(axis=0)).ravel()
    order = np.argsort(-lines_P, kind="stable")
    random = np.random.default_rng(0)
    scores: dict[str, dict[str, list[float]]] = {}
    groups = {
        f"tenth {number}": [past.products[column] for column in tenth.tolist()]
        for number, tenth in enumerate(np.array_split(order, TENTHS), start=1)
    }
    for name, group in {**groups, **more}.items():
        asked = [str(one) for one in random.choice(group, PRODUCTS, replace=False)]
        answered = [
            service.similar(one, FIVE) for one in track(asked, f"asking for substitutes, {name}", transient=True)
        ]
        same = [
            float(np.mean([of[one] == of[other] for other in found]))
            for one, found in zip(asked, answered, strict=True)
        ]
        scores[name] = {f"same category@{FIVE}": same}
    return Outcome(
        households=[str(number) for number in range(PRODUCTS)],
        scores=scores,
        ours=None,
        comparisons=[],
        left_out={},
        facts={"products": len(order)},
    )


def measure_complements(service: Service, until: datetime) -> Outcome:
    """Ask for complements of the first product of each basket, and hold them against what is popular."""
    found = journey(until)
    past = Past.of(found.past)
    popular = most_popular(past, TEN + 1)
    baskets = [one for one in found.baskets if len(one.products) > 1 and one.products[0] in past.product_columns]
    truths = [one.products[1:] for one in baskets]
    rankings = {
        "opportune": [
            service.similar(one.products[0], TEN, relation="complements")
            for one in track(baskets, "asking for complements", transient=True)
        ],
        "popular": [[product for product in popular if product != one.products[0]][:TEN] for one in baskets],
    }
    return Outcome(
        households=[one.household for one in baskets],
        scores={name: judge(ranked, truths, TEN) for name, ranked in rankings.items()},
        ours="opportune",
        comparisons=[],
        left_out={},
        facts={},
    )
