"""Correctness of the answers: recall and filter violations, measured over HTTP.

Every answer is held against the oracle: all eligible rows scored and sorted in NumPy, for the very query vector that
the server used. A returned row counts if its score reaches the k-th best, so equal scores are worth the same.
"""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec
import numpy as np
from msgspec import Struct

from benchmarks.harness.server import Served
from benchmarks.latency.traffic import RECOMMEND, K, TrafficRequest, recommend_call
from benchmarks.peers.stack import Past
from embeddings.catalogue.context import Context
from embeddings.catalogue.eligible import EligibleSet
from embeddings.index.base import F32

_SCORE_TOLERANCE = 1e-5
"""Relative; sums in float32 differ by their order."""


class Fidelity(Struct, frozen=True):
    """Correctness of some answers.

    Attributes:
        recall: share of the true ten, or of all eligible ones where they are fewer; mean over the answers.
        violations: items returned that the context forbids.
        short: answers with fewer items than were asked for and eligible.
    """

    asked: int
    recall: float
    violations: int
    short: int


class _Item(Struct, frozen=True):
    id: str


class _Answer(Struct, frozen=True):
    items: list[_Item]


class _Judged(NamedTuple):
    """One answer: its recall (None where nothing was eligible), how many items were forbidden, whether too few came."""

    recall: float | None
    violations: int
    short: bool


def peer_fidelity(served: Served, past: Past, asked: Sequence[TrafficRequest]) -> Fidelity:
    """Measure recall and filter violations of a peer's recommendations."""
    judged: list[_Judged] = []
    for one in asked:
        answer = _items(served.post(RECOMMEND, recommend_call(one).body))
        query_D = past.customers_CD[past.customer(one.customer)]
        judged.append(_judge(past, answer, query_D, past.vectors_ND, past.eligible(_context(one)), None))
    return _summed(judged)


def service_fidelity(served: Served, past: Past, units_ND: F32, asked: Sequence[TrafficRequest]) -> Fidelity:
    """Measure recall and filter violations of the service.

    Its recommendations mix several sources, so they show violations and short answers only. ``/similar`` runs the
    search and its filter alone, with a query vector that is known: recall is measured there.

    Args:
        served: a running service.
        past: the same release.
        units_ND: its vectors of length one by which products are similar.
        asked: what to ask. Recall is measured on the channels whose filter does not change with time.
    """
    judged: list[_Judged] = []
    popular_N = np.argsort(-past.observed.popularity_N)
    for place, one in enumerate(asked):
        answer = _items(served.post(RECOMMEND, recommend_call(one).body))
        eligible = past.eligible(_context(one))
        filtered = _judge(past, answer, None, units_ND, eligible, None)
        recall = None
        if one.channel != "mailer":
            row = int(popular_N[place])
            query = urlencode({"limit": K, "channel": one.channel, "location": one.location})
            similar = _items(served.get(f"/v1/products/{past.catalogue.products.ids.id(row)}/similar?{query}"))
            near = _judge(past, similar, units_ND[row], units_ND, eligible, row)
            recall = near.recall
            filtered = _Judged(None, filtered.violations + near.violations, filtered.short or near.short)
        judged.append(filtered._replace(recall=recall))
    return _summed(judged)


def _judge(
    past: Past, answer: Sequence[str], query_D: F32 | None, vectors_ND: F32, eligible: EligibleSet, without: int | None
) -> _Judged:
    """Judge one answer of ids; without a query vector there is no recall, and ``without`` is a row left out."""
    allowed_N = eligible.rows_N if without is None else eligible.rows_N[eligible.rows_N != without]
    rows_K = np.array([_known(past, one) for one in answer], np.int64)
    inside_K = np.isin(rows_K, allowed_N)
    wanted = min(K, len(allowed_N))
    recall = None
    if query_D is not None and wanted:
        scores_N = vectors_ND[allowed_N] @ query_D
        border = np.partition(scores_N, -wanted)[-wanted]
        border -= abs(border) * _SCORE_TOLERANCE
        found_K = np.unique(rows_K[inside_K])
        recall = min(1.0, float((vectors_ND[found_K] @ query_D >= border).sum()) / wanted)
    return _Judged(recall, int((~inside_K).sum()), len(answer) < wanted)


def _known(past: Past, product: str) -> int:
    row = past.catalogue.products.ids.row(product)
    return -1 if row is None else row


def _summed(judged: Sequence[_Judged]) -> Fidelity:
    recalls = [one.recall for one in judged if one.recall is not None]
    return Fidelity(
        asked=len(judged),
        recall=round(float(np.mean(recalls)), 5) if recalls else 0.0,
        violations=sum(one.violations for one in judged),
        short=sum(one.short for one in judged),
    )


def _context(one: TrafficRequest) -> Context:
    return Context(one.channel, one.location, one.at)


def _items(body: bytes) -> list[str]:
    return [item.id for item in msgspec.json.decode(body, type=_Answer).items]
