"""Task ``new-products``: who buys which of the products that were first sold after the cut-off.

Nobody's past holds them, so only what they are can tell. Asked once per household that buys one, on the web, at the
store and moment of its first basket after the cut-off, for the best of all new products.
"""

from datetime import datetime

from rich.progress import track

from benchmarks.quality.journey import journey
from benchmarks.quality.outcome import Comparison, Outcome, judge
from benchmarks.quality.service import Service
from embeddings.errors import InvalidInput

K = 50
LARGEST = 10_000
"""Ids in one request."""


def measure(service: Service, until: datetime) -> Outcome:
    """Ask the service; the recall of a random pick is known without asking.

    Raises:
        InvalidInput: there are more new products than one request may name.
    """
    found = journey(until)
    new = found.future.select("product_id").unique().join(found.past.select("product_id"), on="product_id", how="anti")
    names: list[str] = new["product_id"].sort().to_list()
    if len(names) > LARGEST:
        raise InvalidInput("new-products", f"expected at most {LARGEST:,} new products, found {len(names):,}")
    bought = found.future.join(new, on="product_id", how="semi").select("household_id", "product_id").unique()
    truths = {
        household: frozenset(products) for household, products in bought.group_by("household_id").all().iter_rows()
    }
    asked = [basket for basket in found.baskets if basket.household in truths]
    rankings = [
        service.recommend(basket.household, "web", basket.store, basket.at, K, items=names)
        for basket in track(asked, "asking for new products", transient=True)
    ]
    households = [basket.household for basket in asked]
    metric = f"recall@{K}"
    ours = judge(rankings, [truths[household] for household in households], K)[metric]
    return Outcome(
        households=households,
        scores={"opportune": {metric: ours}, "random": {metric: [min(1.0, K / len(names))] * len(asked)}},
        ours="opportune",
        comparisons=[Comparison("ratio", "opportune", "random", metric)],
        left_out={},
        facts={"new products": len(names)},
    )
