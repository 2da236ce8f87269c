"""Task ``next-basket``: what is in each household's first basket after the cut-off, repeats allowed.

Asked for at the basket's store and moment. Baselines see the same past and are not filtered by the store.
"""

from datetime import datetime

from rich.progress import track

from benchmarks.quality.baselines import answers, next_basket_baselines
from benchmarks.quality.journey import journey
from benchmarks.quality.outcome import Outcome, judge
from benchmarks.quality.past import Past
from benchmarks.quality.service import Service
from benchmarks.quality.two_stage import MISSING, two_stage

K = 10


def measure(service: Service, until: datetime) -> Outcome:
    """Ask the service and the baselines."""
    found = journey(until)
    past = Past.of(found.past)
    households = [basket.household for basket in found.baskets]
    truths = [basket.products for basket in found.baskets]
    rankings = {
        "opportune": [
            service.recommend(basket.household, "store", basket.store, basket.at, K)
            for basket in track(found.baskets, "asking for next baskets", transient=True)
        ]
    }
    for name, baseline in next_basket_baselines(past).items():
        answered = answers(baseline, past, households, K)
        rankings[name] = [answered[household] for household in households]
    left_out: dict[str, str] = {}
    staged = two_stage(found.past, until, households, K)
    if staged is None:
        left_out["two-stage LightGBM"] = MISSING
    else:
        rankings["two-stage LightGBM"] = [staged[household] for household in households]
    return Outcome(
        households=households,
        scores={name: judge(ranked, truths, K) for name, ranked in rankings.items()},
        ours="opportune",
        comparisons=[],
        left_out=left_out,
        facts={},
    )
