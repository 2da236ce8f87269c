"""How good the answers are: real baskets of Complete Journey, foretold over HTTP.

Protocol. The model is trained on what happened before ``UNTIL``, 28 days before the data end. For every household
that buys again, the service is asked for ten products at the moment and store of its first basket after that time
(kinds product, channel store), and the answer is held against that basket. Lines without a positive quantity do
not count. Baselines see the same past and are not filtered by the store.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl
from rich.progress import track

from benchmarks import machine
from benchmarks.release import UNTIL, purchase_lines, release
from benchmarks.report import Table, write_report
from benchmarks.server import serve
from embeddings.bundle import read_manifest
from embeddings.metrics import ndcg_at, recall_at
from embeddings.store import BundleStore

K = 10


class Basket(NamedTuple):
    """A household's first basket after the cut-off."""

    household: str
    store: str
    at: datetime
    products: frozenset[str]


class Purchases(NamedTuple):
    """Complete Journey around the cut-off, read without the training code: a second opinion.

    Attributes:
        bought: before the cut-off, by household: each product and on how many lines.
        popular: the ten products that were on most lines before the cut-off.
    """

    baskets: list[Basket]
    bought: Mapping[str, Counter[str]]
    popular: list[str]


def run(store: Path, json_file: Path) -> Mapping[str, Mapping[str, float]]:
    """Train if the store holds no such release, serve, ask, print and write the result; returns the figures.

    Args:
        store: a store of its own for this benchmark; a release with the cut-off ``UNTIL`` in it is used as it is.
        json_file: where to write everything that was measured.
    """
    version = release(store)
    purchases = _purchases()
    with serve(store, "--clock", "replay") as served:
        answers = _ask(served.port, purchases.baskets)
        resident_mib = served.resident_mib()
    results = {
        "popular": _measure(purchases, lambda _: purchases.popular),
        "personal top frequency": _measure(purchases, lambda basket: _often(purchases, basket)),
        "opportune": _measure(purchases, lambda basket: answers[basket.household]),
    }
    report = {
        "suite": "quality",
        "dataset": "complete-journey",
        "until": UNTIL,
        "households": len(purchases.baskets),
        "version": version,
        "manifest_metrics": read_manifest(BundleStore(store).bundle(version)).metrics,
        "results": results,
        "server": {"ready_seconds": round(served.ready_seconds, 2), "resident_mib": round(resident_mib)},
        "machine": machine.describe(),
    }
    write_report(json_file, report)
    table = Table("next basket, first after the cut-off", ["method", f"NDCG@{K}", f"Recall@{K}"])
    for method, figures in results.items():
        table.add(method, f"{figures['ndcg@10']:.4f}", f"{figures['recall@10']:.4f}")
    table.print()
    return results


def _purchases() -> Purchases:
    lines = purchase_lines()
    past, future = lines.filter(pl.col("at") < UNTIL), lines.filter(pl.col("at") >= UNTIL)
    first = future.sort("at", "basket_id").group_by("household_id", maintain_order=True).agg(pl.first("basket_id"))
    baskets = (
        future.join(first, on=["household_id", "basket_id"], how="semi")
        .group_by("household_id")
        .agg(pl.first("store_id"), pl.first("at"), pl.col("product_id").unique())
        .sort("at", "household_id")
    )
    bought: dict[str, Counter[str]] = {}
    counts = past.group_by("household_id", "product_id").len()
    for household, product, count in counts.iter_rows():
        bought.setdefault(household, Counter())[product] = count
    popular = _top(Counter(dict(past.group_by("product_id").len().iter_rows())))
    return Purchases(
        [Basket(household, at_store, at, frozenset(some)) for household, at_store, at, some in baskets.iter_rows()],
        bought,
        popular,
    )


def _ask(port: int, baskets: Sequence[Basket]) -> dict[str, list[str]]:
    """The service's ten products for every basket, in the order of time."""
    connection = HTTPConnection("127.0.0.1", port)
    answers: dict[str, list[str]] = {}
    for basket in track(baskets, "asking", transient=True):
        body = {
            "customer_id": basket.household,
            "kinds": ["product"],
            "context": {"channel": "store", "location": basket.store, "at": basket.at},
            "limit": K,
        }
        connection.request("POST", "/v1/recommend", msgspec.json.encode(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = msgspec.json.decode(response.read())
        if response.status != 200:
            raise RuntimeError(f"the service answered {response.status}: {answer}")
        answers[basket.household] = [item["id"] for item in answer["items"]]
    connection.close()
    return answers


def _measure(purchases: Purchases, recommend: Callable[[Basket], Sequence[str]]) -> dict[str, float]:
    answered = [(recommend(basket), basket.products) for basket in purchases.baskets]
    return {
        "ndcg@10": float(np.mean([ndcg_at(ranking, bought, K) for ranking, bought in answered])),
        "recall@10": float(np.mean([recall_at(ranking, bought, K) for ranking, bought in answered])),
    }


def _top(counts: Counter[str]) -> list[str]:
    """The ten most frequent, ties by the lower id."""
    return sorted(counts, key=lambda product: (-counts[product], int(product)))[:K]


def _often(purchases: Purchases, basket: Basket) -> list[str]:
    """What the household bought most often, then what everybody did."""
    own = _top(purchases.bought.get(basket.household, Counter()))
    return (own + [product for product in purchases.popular if product not in own])[:K]
