"""Ranked candidates, and the merge of the rankings of both kinds into one."""

from collections.abc import Collection
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.index.base import Plan
from embeddings.ranking.sources import SourceName

Kind = Literal["product", "offer"]
Source = SourceName | Literal["eligible", "named", "popular"]
"""Offers come from what is eligible. A product that no source proposed was named by the request, or is popular."""

_DEMOTED = 1e-3
"""What remains, at most, of the score of something that is in the basket already or was dismissed."""


class Ranked(NamedTuple):
    """One candidate with its score.

    Attributes:
        row: in the catalogue's products or offers.
        score: the ranker's probability that the customer takes it; of an offer, its share among those eligible times
            the probability that any of them is redeemed; of a popular product, its share of recent purchases.
        source: what proposed it, the most telling if several did.
        demoted: whether it lies in the basket already or was dismissed, and so comes last.
        plan: how the towers' candidates of its kind were searched; None where they were not.
        features: what the ranker read, where an explanation was asked for; a copy, as answers are remembered, and a
            view would keep what was read of all candidates of the batch.
    """

    kind: Kind
    row: int
    score: float
    source: Source
    demoted: bool = False
    plan: Plan | None = None
    features: NDArray[np.float32] | None = None


def best(ranked: list[Ranked], limit: int, excluded: Collection[tuple[str, int]]) -> list[Ranked]:
    """Return the best of both kinds, each of which is in order; ties by kind and row, demoted items last."""
    if excluded:
        ranked = [one for one in ranked if (one.kind, one.row) not in excluded]
    demoted = any(one.demoted for one in ranked)
    if demoted:  # it comes last, however unlikely the others are: an answer is as long as it can be
        least = min((one.score for one in ranked if not one.demoted), default=_DEMOTED)
        factor = min(least, _DEMOTED)
        ranked = [one._replace(score=one.score * factor) if one.demoted else one for one in ranked]
    if demoted or (ranked and ranked[0].kind != ranked[-1].kind):
        ranked = sorted(ranked, key=lambda one: (one.demoted, -one.score, one.kind, one.row))
    return ranked[:limit]
