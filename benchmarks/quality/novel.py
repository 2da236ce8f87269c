"""Task ``novel``: which products a household buys for the first time in the 28 days after the cut-off.

Asked once per household that does so, on the web, at the store and moment of its first basket after the cut-off,
with ``novel``: only what it never bought. Baselines leave out what it bought, too.
"""

from collections.abc import Sequence
from datetime import datetime

from rich.progress import track

from benchmarks.quality.baselines import Als, Popular, answers
from benchmarks.quality.journey import Basket, Journey, journey
from benchmarks.quality.outcome import Comparison, Outcome, judge
from benchmarks.quality.past import Past
from benchmarks.quality.service import Service

K = 10


def measure(service: Service, until: datetime) -> Outcome:
    """Ask the service and the baselines."""
    found = journey(until)
    truths = first_bought(found)
    asked = [basket for basket in found.baskets if basket.household in truths]
    households = [basket.household for basket in asked]
    rankings = {"opportune": _ask(service, asked)}
    past = Past.of(found.past)
    for name, baseline in {"popular": Popular(past), "implicit ALS": Als(past)}.items():
        answered = answers(baseline, past, households, K, novel=True)
        rankings[name] = [answered[household] for household in households]
    theirs_Q = [truths[household] for household in households]
    return Outcome(
        households=households,
        scores={name: judge(ranked, theirs_Q, K) for name, ranked in rankings.items()},
        ours="opportune",
        comparisons=[Comparison("ratio", "opportune", "implicit ALS", one) for one in (f"ndcg@{K}", f"recall@{K}")],
        left_out={},
        facts={},
    )


def first_bought(found: Journey) -> dict[str, frozenset[str]]:
    """Return by household the products bought from the cut-off on and never before.

    Households without any are absent.
    """
    pair = ("household_id", "product_id")
    new = found.future.select(pair).unique().join(found.past.select(pair).unique(), on=pair, how="anti")
    return {household: frozenset(products) for household, products in new.group_by(pair[0]).all().iter_rows()}


def _ask(service: Service, baskets: Sequence[Basket]) -> list[list[str]]:
    return [
        service.recommend(basket.household, "web", basket.store, basket.at, K, filter_already_bought=True)
        for basket in track(baskets, "asking for what is new to them", transient=True)
    ]
