"""Task ``cold-start``: the first basket of somebody nobody knows.

Households' first baskets after the cut-off with at least six products, asked for as if the household were unknown, at
the basket's store and moment: by nobody in particular, by somebody described by the household's attributes, and by a
new customer whose first one, three and five products of the receipt were reported as bought. What was reported is
looked for no more and excluded; each answer is held against what is popular at the store, less the same products.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.progress import track

from benchmarks.quality.journey import Basket, household_attributes, journey
from benchmarks.quality.outcome import Comparison, Outcome, Scores, judge
from benchmarks.quality.service import Event, Service
from embeddings.catalogue.columns import Catalogue
from embeddings.catalogue.context import Context
from embeddings.catalogue.eligibility import Eligibility
from embeddings.ranking.observed import Observed
from embeddings.ranking.popularity import most_popular, popular
from embeddings.ranking.statistics import Statistics
from embeddings.release.bundle import CATALOG, STATISTICS

K = 10
FIRST = (1, 3, 5)
_LEAD_SECONDS = 60


def measure(service: Service, until: datetime) -> Outcome:
    """Ask before and after newcomers' first purchases are reported."""
    baskets = [basket for basket in journey(until).baskets if len(basket.products) > max(FIRST)]
    attributes = household_attributes()
    observed = Statistics.load(service.bundle / STATISTICS).observed
    usual = popular_here(Catalogue.load(service.bundle / CATALOG), observed, baskets)
    whole = [basket.products for basket in baskets]
    described = [attributes.get(basket.household, {}) for basket in baskets]
    scores: dict[str, Scores] = {
        "popular here": judge(usual, whole, K),
        "context": judge(_ask(service, baskets, [{} for _ in baskets]), whole, K),
        "context and attributes": judge(_ask(service, baskets, [{"attributes": one} for one in described]), whole, K),
    }
    metric = f"ndcg@{K}"
    comparisons = [
        Comparison("gain", "context", "popular here", metric),
        Comparison("gain", "context and attributes", "context", metric),
    ]
    for count in FIRST:
        for basket in baskets:
            service.report(bought(basket, count))
        known = [basket.products[:count] for basket in baskets]
        rest = [basket.products[count:] for basket in baskets]
        less = [[one for one in row if one not in some] for row, some in zip(usual, known, strict=True)]
        options = [
            {"customer_id": newcomer(basket, count), "exclude": some}
            for basket, some in zip(baskets, known, strict=True)
        ]
        before, after = f"popular here, {count} known", f"after {count}"
        scores |= {before: judge(less, rest, K), after: judge(_ask(service, baskets, options), rest, K)}
        comparisons.append(Comparison("gain", after, before, metric))
    return Outcome(
        households=[basket.household for basket in baskets],
        scores=scores,
        ours=None,
        comparisons=comparisons,
        left_out={},
        facts={"households with attributes": sum(bool(one) for one in described)},
    )


def popular_here(catalogue: Catalogue, observed: Observed, baskets: Sequence[Basket]) -> list[list[str]]:
    """Rank the products each store carries by recent purchases there, smoothed with those everywhere.

    A ranking has ``K`` products and some to be left out.

    The service answers the same where it has no ranker.
    """
    eligibility, ids = Eligibility(catalogue), catalogue.products.ids
    found: list[list[str]] = []
    for basket in baskets:
        context = Context("store", basket.store, basket.at)
        place = eligibility.place(context.location)
        eligible = eligibility.products(context, place, int(basket.at.timestamp()))
        most = most_popular(popular(observed, eligible.rows_N, observed.lists_of(place.rows)), K + max(FIRST))
        found.append(list(ids.ids(most.rows_R.tolist())))
    return found


def newcomer(basket: Basket, count: int) -> str:
    """Return the id of a customer nobody knows."""
    return f"newcomer-{count}-{basket.household}"


def bought(basket: Basket, count: int) -> list[Event]:
    """Return the events of a newcomer who buys the first products of a receipt.

    They are a second apart, and all before the basket's moment.
    """
    start = basket.at - timedelta(seconds=_LEAD_SECONDS)
    return [
        Event(
            event_id=f"{newcomer(basket, count)}-{product}",
            type="purchase",
            customer_id=newcomer(basket, count),
            at=start + timedelta(seconds=place),
            location=basket.store,
            product_id=product,
        )
        for place, product in enumerate(basket.products[:count])
    ]


def _ask(service: Service, baskets: Sequence[Basket], options: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    asked = list(zip(baskets, options, strict=True))
    return [
        service.recommend(None, "store", basket.store, basket.at, K, **some)
        for basket, some in track(asked, "asking as a newcomer", transient=True)
    ]
