"""Task ``completion``: the rest of a basket, once half of it is known.

Households whose first basket after the cut-off has at least four products. Half of them, drawn at random, is "in the
basket"; the other half is looked for at the basket's store and moment: first without a word about the known half,
then after each of it was reported as added to the cart. The known half is excluded from both answers, so that no place
is wasted on it; the first is also asked for without excluding it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from zlib import crc32

import numpy as np
from rich.progress import track

from benchmarks.quality.journey import Basket, journey
from benchmarks.quality.outcome import Comparison, Outcome, judge
from benchmarks.quality.service import Event, Service

K = 10
SMALLEST = 4
_SEED = 0
_LEAD_SECONDS = 60


class Halves(NamedTuple):
    """A basket, split."""

    known: list[str]
    missing: list[str]


def measure(service: Service, until: datetime) -> Outcome:
    """Ask without the known halves, report them, and ask again."""
    baskets = [basket for basket in journey(until).baskets if len(basket.products) >= SMALLEST]
    split = [halves(basket) for basket in baskets]
    rankings: dict[str, list[list[str]]] = {}
    # Everything is asked without events before the first one is sent.
    rankings["without"] = _ask(service, baskets, [one.known for one in split])
    rankings["without_unexcluded"] = _ask(service, baskets, [[] for _ in split])
    for basket, one in zip(baskets, split, strict=True):
        service.report(added(basket, one.known))
    rankings["with"] = _ask(service, baskets, [one.known for one in split])
    missing = [one.missing for one in split]
    return Outcome(
        households=[basket.household for basket in baskets],
        scores={name: judge(ranked, missing, K) for name, ranked in rankings.items()},
        ours="with",
        comparisons=[Comparison("gain", "with", "without", metric) for metric in (f"ndcg@{K}", f"recall@{K}")],
        left_out={},
        facts={},
    )


def halves(basket: Basket) -> Halves:
    """Split the products into a random half, rounded down, and the others; always in the same way."""
    random = np.random.default_rng((_SEED, crc32(basket.household.encode())))
    known = set(random.permutation(len(basket.products))[: len(basket.products) // 2].tolist())
    return Halves(
        [product for place, product in enumerate(basket.products) if place in known],
        [product for place, product in enumerate(basket.products) if place not in known],
    )


def added(basket: Basket, known: Sequence[str]) -> list[Event]:
    """Return one event a product, a second apart and all before the basket's moment."""
    start = basket.at - timedelta(seconds=max(_LEAD_SECONDS, len(known)))
    return [
        Event(
            event_id=f"cart-{basket.household}-{product}",
            type="add_to_cart",
            customer_id=basket.household,
            at=start + timedelta(seconds=place),
            location=basket.store,
            product_id=product,
        )
        for place, product in enumerate(known)
    ]


def _ask(service: Service, baskets: Sequence[Basket], excluded: Sequence[Sequence[str]]) -> list[list[str]]:
    asked = list(zip(baskets, excluded, strict=True))
    return [
        service.recommend(basket.household, "store", basket.store, basket.at, K, exclude=some)
        for basket, some in track(asked, "asking for the rest of baskets", transient=True)
    ]
