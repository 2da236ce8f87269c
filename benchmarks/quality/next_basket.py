"""Tasks ``next-basket``, ``web`` and ``push``: what is in each household's first basket after the cut-off.

Repeats are allowed. ``next-basket`` asks at the basket's store and moment. ``web`` asks at the same moment without a
store, as web and app do, for the households that have a past. ``push`` asks for everybody at the cut-off, as a message
goes out ahead of a visit whose place and time nobody knows. Baselines see the same past and are not filtered by the
store.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

import polars as pl
from rich.progress import track

from benchmarks.quality.baselines import answers, next_basket_baselines
from benchmarks.quality.journey import Basket, journey
from benchmarks.quality.outcome import Outcome, judge
from benchmarks.quality.past import Past
from benchmarks.quality.service import Service
from benchmarks.quality.two_stage import MISSING, two_stage

K = 10


def measure(service: Service, until: datetime) -> Outcome:
    """Ask the service for the next basket, at its store and moment, and the baselines."""
    found = journey(until)
    outcome = _measure(
        found.past,
        found.baskets,
        lambda basket: service.recommend(basket.household, "store", basket.store, basket.at, K),
    )
    households = list(outcome.households)
    staged = two_stage(found.past, until, households, K)
    if staged is None:
        return outcome._replace(left_out={"two-stage LightGBM": MISSING})
    truths = [basket.products for basket in found.baskets]
    scores = judge([staged[household] for household in households], truths, K)
    return outcome._replace(scores={**outcome.scores, "two-stage LightGBM": scores})


def measure_web(service: Service, until: datetime) -> Outcome:
    """Ask the service for the next basket of the households with a past, without a store, and the baselines."""
    found = journey(until)
    known = set(found.past["household_id"])
    return _measure(
        found.past,
        [basket for basket in found.baskets if basket.household in known],
        lambda basket: service.recommend(basket.household, "web", None, basket.at, K),
    )


def measure_push(service: Service, until: datetime) -> Outcome:
    """Ask the service at the cut-off for everybody's next basket, whenever and wherever it is, and the baselines."""
    found = journey(until)
    return _measure(
        found.past,
        found.baskets,
        lambda basket: service.recommend(basket.household, "email", None, until, K),
    )


def _measure(past_lines: pl.DataFrame, baskets: Sequence[Basket], ask: Callable[[Basket], list[str]]) -> Outcome:
    past = Past.of(past_lines)
    households = [basket.household for basket in baskets]
    truths = [basket.products for basket in baskets]
    rankings = {"opportune": [ask(basket) for basket in track(baskets, "asking for next baskets", transient=True)]}
    for name, baseline in next_basket_baselines(past).items():
        answered = answers(baseline, past, households, K)
        rankings[name] = [answered[household] for household in households]
    return Outcome(
        households=households,
        scores={name: judge(ranked, truths, K) for name, ranked in rankings.items()},
        ours="opportune",
        comparisons=[],
        left_out={},
        facts={},
    )
