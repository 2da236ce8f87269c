"""Ablation: what each source of candidates and each group of features is worth, on the validation window.

A group of features is worth what NDCG falls by when its values are shuffled (permutation importance; Breiman, "Random
Forests", 2001): the ranker then reads numbers of the usual sizes that say nothing of the candidate. A source is worth
what NDCG falls by without the candidates that no other source proposes.

Letters: M candidates, F features, Q examples.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from embeddings.metrics import ndcg_at
from embeddings.ranking.features import RANKER_FEATURES
from embeddings.ranking.sources import ALL
from embeddings.ranking.statistics import GROUPINGS
from training.candidates import ExampleCandidates, QueriedExample

Scored = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Returns the score (M) of candidates with some features (M, F)."""

_K = 10
_PLACES = 4

_NAMED: Mapping[str, tuple[str, ...]] = {
    "hazards": ("own_hazard", "type_hazard"),
    "prices": ("own_price", "product_price", "product_price_lately"),
    "place": ("own_here", "visits_here", "popular_here", "month_here", "sold_here", "placed"),
    "time_of_week": ("own_hour", "visits_hour", "basket_size_hour", "hour_sine", "hour_cosine"),
    "visits": ("away", "visits", "basket_size", "visit_gap", "ahead"),
    "session": ("in_cart", "looked", "goes_with", "bought_together", "novel"),
    "also_bought": ("also_bought",),
    "towers": ("inner", "retrieved"),
    "als": ("als",),
    "promotions": ("promoted",),
    "exposures": ("product_accepted", "shown"),
}

_PLURALS = {"type": "types", "category": "categories", "maker": "makers"}


def group_of(feature: str) -> str:
    """Return the group of a feature: of those that have a name, or what it is about."""
    for group, features in _NAMED.items():
        if feature in features:
            return group
    if feature.startswith("weekday_"):
        return "time_of_week"
    for group in GROUPINGS:
        if feature.startswith(f"{group}_") or feature in (f"product_{group}_share", f"same_{group}"):
            return _PLURALS[group]
    return "own_purchases" if feature.startswith("own_") else "popularity"


def ablate(
    candidates: ExampleCandidates, queried: Sequence[QueriedExample], scored: Scored, seed: int
) -> dict[str, dict[str, float]]:
    """Return NDCG without each source and each group of features, and what each is worth.

    Args:
        candidates: of the examples.
        queried: the examples, in their order.
        scored: the rankers.
        seed: of the shuffles.
    """
    bought = [one.example.bought for one in queried]
    scores_M = scored(candidates.features_MF)
    whole = _ndcg(candidates, scores_M, bought)
    found: dict[str, float] = {}
    for name, only_M in _only(candidates, queried).items():
        found[f"without source {name}"] = _ndcg(candidates, np.where(only_M, -np.inf, scores_M), bought)
    columns: dict[str, list[int]] = {}
    for column, feature in enumerate(RANKER_FEATURES):
        columns.setdefault(group_of(feature), []).append(column)
    for name, some in columns.items():
        shuffled_MF = _shuffled(candidates, some, np.random.default_rng(seed))
        found[f"without features {name}"] = _ndcg(candidates, scored(shuffled_MF), bought)
    return {
        name: {"ndcg@10": round(value, _PLACES), "worth": round(whole - value, _PLACES)}
        for name, value in found.items()
    }


def _only(candidates: ExampleCandidates, queried: Sequence[QueriedExample]) -> dict[str, NDArray[np.bool_]]:
    """Return for each source which candidates (M) no other source proposes."""
    only = {name: np.zeros(len(candidates.rows_M), np.bool_) for name in ALL}
    for one, (begin, end) in zip(queried, candidates.spans(), strict=True):
        rows_K = candidates.rows_M[begin:end]
        proposed = {name: np.isin(rows_K, source.propose(one.query)) for name, source in ALL.items()}
        times_K = np.sum(list(proposed.values()), axis=0)
        for name, inside_K in proposed.items():
            only[name][begin:end] = inside_K & (times_K == 1)
    return only


def _shuffled(candidates: ExampleCandidates, columns: list[int], random: np.random.Generator) -> NDArray[np.float32]:
    """Return the features with some columns of other candidates; what is one for a whole list, of other lists."""
    features_MF = candidates.features_MF.copy()
    sizes_Q = np.diff(candidates.offsets_Q)
    begins_Q = candidates.offsets_Q[:-1][sizes_Q > 0]
    lists_M = np.repeat(np.arange(len(begins_Q)), sizes_Q[sizes_Q > 0])
    others_M, others_Q = random.permutation(len(features_MF)), random.permutation(len(begins_Q))
    for column in columns:
        values_M = candidates.features_MF[:, column]
        firsts_Q = values_M[begins_Q]
        shared = np.array_equal(firsts_Q[lists_M], values_M)
        features_MF[:, column] = firsts_Q[others_Q][lists_M] if shared else values_M[others_M]
    return features_MF


def _ndcg(candidates: ExampleCandidates, scores_M: NDArray[np.floating], bought: Sequence[frozenset[int]]) -> float:
    found: list[float] = []
    for (begin, end), taken in zip(candidates.spans(), bought, strict=True):
        scores_K = scores_M[begin:end]
        order = np.argsort(-scores_K, kind="stable")[:_K]
        rows = candidates.rows_M[begin:end][order[np.isfinite(scores_K[order])]]
        found.append(ndcg_at(rows.tolist(), taken, _K))
    return float(np.mean(found))
