"""Evaluation of a model and the baselines on the validation window, in every way in which requests ask.

The example is each customer's first basket in the window: ten products, with assortments as known before the window.
It is asked for at that moment and location, and once more in each other way. Letters: B examples, M candidates, N
products.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import Table
from embeddings.catalogue.columns import Catalogue
from embeddings.catalogue.eligible import EligibleSet
from embeddings.customer.history import History
from embeddings.index.planned import PlannedIndex
from embeddings.metrics import ndcg_at, recall_at
from embeddings.ranking.features import FeatureReader
from embeddings.ranking.sources import ALL
from embeddings.ranking.statistics import Statistics
from training.ablation import ablate
from training.candidates import PopularRows, QueriedExample, gather, popular_rows, query_examples
from training.comparison import Questions
from training.examples import Example, customer_vectors
from training.fit import Factors, Towers
from training.fit_ranker import calibration_error, rank
from training.ranker import Rankers
from training.ways import Way

K = 10
JUDGED_BY = f"ndcg@{K}"
"""The metric that the gate judges by."""

_CACHE_BYTES = 2**28
_AT_ONCE = 256
FEW = 100
"""Examples; of fewer the metrics are hardly more than chance."""

_EASY = 0.9
"""NDCG of popularity from which on there is nothing left for a model to know."""

_NONE = np.zeros(0, np.int64)

Metrics = Mapping[str, Mapping[str, float]]


class Evaluation(NamedTuple):
    """What was measured on the validation window.

    Attributes:
        metrics: by way.
        asked: what is served beside what is popular, question by question, by NDCG.
    """

    metrics: Mapping[Way, Metrics]
    asked: Mapping[Way, Questions]


class Fitted(NamedTuple):
    """Fitted towers, and the catalogue and statistics that they are used with.

    Attributes:
        catalogue, statistics: as observed before what is to be predicted.
        vectors_ND: the towers' product vectors.
    """

    catalogue: Catalogue
    statistics: Statistics
    towers: Towers
    vectors_ND: NDArray[np.float32]


def evaluate(
    asked: Mapping[Way, Sequence[Example]], fitted: Fitted, rankers: Rankers, als: Factors, length: int
) -> Evaluation:
    """Answer every example by every method and measure the answers, by way, by method, then by metric.

    ``served`` is the answer that the service would give, with the expected calibration error of its scores and the
    number of the examples. At the place alone ``source NAME`` is the contribution of one source of candidates, and
    ``without …`` what is served without a source or a group of features. A way in which nothing can be asked is left
    out.

    Args:
        asked: from ``Ways.each``.
        fitted: towers and statistics of what came before the window.
        rankers: fitted on what came before the window.
        als: the factors that the towers started from, a baseline of its own.
        length: how many events the customer tower reads.
    """
    found = {
        way: _measure_all(some, fitted, rankers, als, length, parts=way == Way.AT_PLACE)
        for way, some in asked.items()
        if some
    }
    return Evaluation({way: one for way, (one, _) in found.items()}, {way: one for way, (_, one) in found.items()})


def cautions(asked: Mapping[Way, Sequence[Example]], judged: Mapping[Way, Metrics]) -> list[str]:
    """Return a sentence for each reason not to trust the metrics.

    Args:
        asked: what is asked in each way.
        judged: what was measured in each.
    """
    found: list[str] = []
    at_place = asked[Way.AT_PLACE]
    if not at_place:
        return [
            "nothing that could be recommended was bought in the validation window: the metrics say nothing of products"
        ]
    if len(at_place) < FEW:
        found.append(
            f"the metrics are means of {len(at_place):,} examples: of so few chance decides as much as the model does"
        )
    told = sum(one.place.rows is not None and one.eligible.size <= K for one in at_place)
    easy = judged[Way.AT_PLACE]["popular"]["ndcg@10"]
    if told <= len(at_place) / 2 and easy > _EASY:
        found.append(
            f"a list of what is popular reaches ndcg@10 {easy:.3f} at the place, which tells the product nearly by "
            "itself: metrics at the place say little of the model, those of the other ways do"
        )
    if told > len(at_place) / 2:
        found.append(
            f"in {told:,} of {len(at_place):,} examples the place shows at most {K} products, so that it tells the "
            "product by itself: metrics at the place say nothing of the model, those of the other ways do"
        )
    return found


def by_method(metrics: Mapping[Way, Metrics]) -> Metrics:
    """Return the metrics of all ways by name of the method, followed by the way unless that is at the place."""
    return {
        method if way == Way.AT_PLACE else f"{method} {way}": dict(values)
        for way, of_way in metrics.items()
        for method, values in of_way.items()
    }


def _measure_all(
    examples: Sequence[Example], fitted: Fitted, rankers: Rankers, als: Factors, length: int, *, parts: bool
) -> tuple[Metrics, Questions]:
    rankings: dict[str, list[NDArray[np.int64]]] = {name: [] for name in ("popular", "personal_top_frequency", "als")}
    observed = fitted.statistics.observed
    remembered: PopularRows = {}
    als_index = PlannedIndex(als.products_ND, "cpu", cache_bytes=_CACHE_BYTES)
    for start in range(0, len(examples), _AT_ONCE):
        some = examples[start : start + _AT_ONCE]
        sets = [one.eligible for one in some]
        factors_BD = als.customers_CD[[one.customer for one in some]]
        factored = als_index.search(factors_BD, K, sets).rows_BK
        common = [popular_rows(remembered, observed, one)[:K] for one in some]
        rankings["popular"] += common
        # Of a customer who bought nothing before, the factors say nothing.
        rankings["als"] += [
            _fill(rows_K[rows_K >= 0] if len(one.past.purchases.rows_R) else _NONE, rest)
            for one, rows_K, rest in zip(some, factored, common, strict=True)
        ]
        rankings["personal_top_frequency"] += [
            _fill(_frequency(one.past, one.eligible), rest) for one, rest in zip(some, common, strict=True)
        ]
    metrics = {name: _measure(ranking, examples) for name, ranking in rankings.items()}
    queried = list(query_examples(examples, fitted.statistics, fitted.towers, fitted.vectors_ND, length))
    reader = FeatureReader(fitted.catalogue.promotions, fitted.statistics, Table.of(fitted.vectors_ND))
    candidates = gather(queried, reader)
    scores_M = rank(rankers, candidates.features_MF, candidates.regular_M)
    served = [
        candidates.rows_M[begin:end][np.argsort(-scores_M[begin:end], kind="stable")[:K]]
        for begin, end in candidates.spans()
    ]
    error = round(calibration_error(scores_M, candidates.taken_M), 5)
    metrics["towers"] = measure_towers(examples, fitted.towers, fitted.vectors_ND, length)
    if parts:
        metrics |= _measure_sources(queried)
        metrics |= ablate(candidates, queried, lambda features_MF: rank(rankers, features_MF, candidates.regular_M), 0)
    metrics["served"] = _measure(served, examples) | {"calibration_error": error, "examples": float(len(examples))}
    return metrics, Questions(
        np.array([one.customer for one in examples]),
        _ndcg(served, examples),
        _ndcg(rankings["popular"], examples),
        np.array([one.eligible.size > K for one in examples]),
    )


def _measure_sources(queried: Sequence[QueriedExample]) -> dict[str, dict[str, float]]:
    """Return the share of the baskets that each source of candidates proposes, and how many products it proposes."""
    hits = dict.fromkeys(ALL, 0.0)
    proposed = dict.fromkeys(ALL, 0)
    for one in queried:
        bought = list(one.example.bought)
        for name, source in ALL.items():
            rows = source.propose(one.query)
            hits[name] += float(np.isin(bought, rows).mean())
            proposed[name] += len(rows)
    count = len(queried)
    return {
        f"source {name}": {
            "recall": round(hits[name] / count, 4),
            "candidates": round(proposed[name] / count, 1),
        }
        for name in ALL
    }


def measure_towers(
    examples: Sequence[Example], towers: Towers, vectors_ND: NDArray[np.float32], length: int
) -> dict[str, float]:
    """Measure the products nearest to the customers' vectors as answers to the examples.

    The arguments are those of ``evaluate``.
    """
    index = PlannedIndex(vectors_ND, "cpu", cache_bytes=_CACHE_BYTES)
    rankings: list[NDArray[np.int64]] = []
    for start in range(0, len(examples), _AT_ONCE):
        some = examples[start : start + _AT_ONCE]
        customers_BD = customer_vectors(some, towers, vectors_ND, length)
        rankings += list(index.search(customers_BD, K, [one.eligible for one in some]).rows_BK)
    return _measure(rankings, examples)


def _frequency(past: History, eligible: EligibleSet) -> NDArray[np.int64]:
    """Return the eligible products that the customer bought, the most often bought first."""
    rows, counts = past.purchases.rows_R, past.purchases.times_R
    kept = eligible.contains(rows)
    return rows[kept][np.lexsort((rows[kept], -counts[kept]))][:K]


def _fill(first: NDArray[np.int64], then: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([first, then[~np.isin(then, first)]])[:K]


def _measure(rankings: Sequence[NDArray[np.int64]], examples: Sequence[Example]) -> dict[str, float]:
    answered = [(ranking.tolist(), example.bought) for ranking, example in zip(rankings, examples, strict=True)]
    return {
        JUDGED_BY: round(float(np.mean(_ndcg(rankings, examples))), 4),
        "recall@10": round(float(np.mean([recall_at(ranking, bought, K) for ranking, bought in answered])), 4),
    }


def _ndcg(rankings: Sequence[NDArray[np.int64]], examples: Sequence[Example]) -> NDArray[np.float64]:
    """Return the NDCG of each answer (B)."""
    pairs = zip(rankings, examples, strict=True)
    return np.array([ndcg_at(ranking.tolist(), example.bought, K) for ranking, example in pairs])
