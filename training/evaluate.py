"""How good a model is on the validation window, beside the baselines, in the contexts as they were.

The question is each customer's first basket in the window: ten products, at that moment and location, on that
channel, with assortments as known before the window. Letters: B questions, K candidates, N products, D
dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from embeddings.catalog import Catalog
from embeddings.context import Context
from embeddings.eligibility import Eligibility, Place
from embeddings.eligible import FOREVER, EligibleSet
from embeddings.features import Situation, encode, gather
from embeddings.history import Histories, History
from embeddings.index.planned import PlannedIndex
from embeddings.metrics import ndcg_at, recall_at
from embeddings.scoring import RETRIEVED, Mixer, ScoreParameters, bought_again, most_popular, popular
from training.batches import Baskets
from training.fit import Factors, Towers, customer_tensors

K = 10
_CACHE_BYTES = 2**28
_AT_ONCE = 256
TOWER_SHARES = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
"""The towers' shares of the score that are tried on the validation window."""

Metrics = Mapping[str, Mapping[str, float]]


class Question(NamedTuple):
    """One basket to be foretold.

    Attributes:
        customer: row of the customer.
        past: what the customer had done before the window.
        bought: the product rows of the basket.
    """

    customer: int
    past: History
    situation: Situation
    place: Place
    eligible: EligibleSet
    bought: frozenset[int]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the validation window says.

    Attributes:
        metrics: by method, then by metric; ``served`` is what the service would answer.
        score: the parameters of the score, with the towers' share that served best.
    """

    metrics: Metrics
    score: ScoreParameters


def ask(histories: Histories, catalog: Catalog, since: int) -> list[Question]:
    """Each customer's first basket at or after a moment, in seconds since 1970 UTC.

    Args:
        histories: including the window.
        catalog: as observed before the window.
        since: where the window begins.
    """
    baskets = Baskets.of(histories)
    inside = np.flatnonzero(baskets.moments_S >= since)
    _, first = np.unique(baskets.customers_S[inside], return_index=True)
    before = histories.before(since)
    eligibility = Eligibility(catalog)
    channels = list(catalog.channels)
    everything = EligibleSet.of(np.arange(len(catalog.products.ids), dtype=np.int32), FOREVER)
    questions: list[Question] = []
    for row in inside[first].tolist():
        channel, location = int(baskets.channels_S[row]), int(baskets.locations_S[row])
        moment = int(baskets.moments_S[row])
        place = Place((location,) if location >= 0 else None)
        questions.append(
            Question(
                customer=int(baskets.customers_S[row]),
                past=before[int(baskets.customers_S[row])],
                situation=Situation(channel, location, moment),
                place=place,
                eligible=eligibility.products(Context(channels[channel]), place, moment)
                if channel >= 0
                else everything,
                bought=frozenset(baskets.products[row].tolist()),
            )
        )
    return questions


def evaluate(
    questions: Sequence[Question],
    catalog: Catalog,
    towers: Towers,
    vectors_ND: NDArray[np.float32],
    als: Factors,
    length: int,
    score: ScoreParameters,
) -> Evaluation:
    """Answer every question by every method and measure the answers.

    Args:
        questions: from ``ask``.
        catalog: as observed before the window.
        towers: fitted on what came before the window.
        vectors_ND: their product vectors.
        als: the factors they started from, a baseline of its own.
        length: how many events the customer tower reads.
        score: the parameters of the score; its towers' share is replaced by the one that serves best.
    """
    rankings: dict[str, list[NDArray[np.int64]]] = {
        name: [] for name in ("popular", "personal_top_frequency", "als", "towers")
    }
    mixed: dict[float, list[NDArray[np.int64]]] = {share: [] for share in TOWER_SHARES}
    index = PlannedIndex(vectors_ND, "cpu", cache_bytes=_CACHE_BYTES)
    als_index = PlannedIndex(als.products_ND, "cpu", cache_bytes=_CACHE_BYTES)
    mixer = Mixer(vectors_ND)
    for start in range(0, len(questions), _AT_ONCE):
        some = questions[start : start + _AT_ONCE]
        sets = [one.eligible for one in some]
        customers_BD = _customers(some, towers, vectors_ND, length)
        retrieved = index.search(customers_BD, RETRIEVED, sets)
        rankings["towers"] += list(retrieved.rows_BK[:, :K])
        factors_BD = als.customers_CD[[one.customer for one in some]]
        rankings["als"] += list(als_index.search(factors_BD, K, sets).rows_BK)
        common = [most_popular(popular(catalog, one.eligible.rows_N, one.place), K).rows_R for one in some]
        rankings["popular"] += common
        rankings["personal_top_frequency"] += [
            _fill(_frequency(one.past, one.eligible), rest) for one, rest in zip(some, common, strict=True)
        ]
        again = [bought_again(one.past, one.situation.location, one.situation.moment, score) for one in some]
        for share, ranking in mixed.items():
            rows_BK = mixer.mix(again, retrieved, sets, customers_BD, share, K).rows_BK
            ranking += [
                rows_K if one.past.latest.shape[1] else rest
                for one, rows_K, rest in zip(some, rows_BK, common, strict=True)
            ]
    tried = {share: _measure(ranking, questions) for share, ranking in mixed.items()}
    best = max(tried, key=lambda share: (tried[share]["ndcg@10"], -share))
    metrics = {name: _measure(ranking, questions) for name, ranking in rankings.items()} | {"served": tried[best]}
    return Evaluation(metrics, ScoreParameters(score.daily_decay, score.same_location, best))


def _customers(
    questions: Sequence[Question], towers: Towers, vectors_ND: NDArray[np.float32], length: int
) -> NDArray[np.float32]:
    """The customers' vectors (B, D)."""
    device = next(towers.parameters()).device
    tower_input = encode([one.past for one in questions], [one.situation for one in questions], length)
    history_BLD = torch.as_tensor(gather(vectors_ND, tower_input.products_BL), device=device)
    with torch.inference_mode():
        return towers.customer(history_BLD, *customer_tensors(tower_input, device)).cpu().numpy()


def _frequency(past: History, eligible: EligibleSet) -> NDArray[np.int64]:
    """Eligible products by how often the customer bought them."""
    rows, counts = past.purchases.rows_R, past.purchases.times_R
    kept = eligible.contains(rows)
    return rows[kept][np.lexsort((rows[kept], -counts[kept]))][:K]


def _fill(first: NDArray[np.int64], then: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([first, then[~np.isin(then, first)]])[:K]


def _measure(rankings: Sequence[NDArray[np.int64]], questions: Sequence[Question]) -> dict[str, float]:
    answered = [(ranking.tolist(), question.bought) for ranking, question in zip(rankings, questions, strict=True)]
    return {
        "ndcg@10": round(float(np.mean([ndcg_at(ranking, bought, K) for ranking, bought in answered])), 4),
        "recall@10": round(float(np.mean([recall_at(ranking, bought, K) for ranking, bought in answered])), 4),
    }
