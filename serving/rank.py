"""Ranking of the candidates: products and offers.

Letters: B requests, K candidates of one, M of all, F features, O offers, D dimensions.
"""

from collections.abc import Generator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from embeddings import kernel
from embeddings.customer.history import DISMISSAL
from embeddings.ranking.acceptance import Acceptance
from embeddings.ranking.features import RANKER_FEATURES, is_regular
from embeddings.ranking.redemption import sum_of_odds
from embeddings.ranking.sources import RankingQuery
from serving.rank_popular import popular_offers
from serving.ranked import Ranked, Source, best
from serving.retrieve import Offered, RankRequest, Retrieved

_NONE = np.zeros(0, np.int64)
_UNLIKELY = np.zeros(0, np.float32)


def rank(
    requests: Sequence[RankRequest], retrieved: Sequence[Retrieved], at_a_time: int
) -> Generator[None, None, list[list[Ranked]]]:
    """Return the best products and offers, request by request; yield after every so many candidates.

    A customer without a history gets the popular offers, unless it was learnt from what was shown and refused: the
    ranker of offers has learnt else from customers with a history alone.

    Args:
        requests: of the same release.
        retrieved: what was found for each.
        at_a_time: how many candidates are ranked in one go.
    """
    products = yield from _rank_products(requests, retrieved, at_a_time)
    answers: list[list[Ranked]] = []
    for ranked, request, found in zip(products, requests, retrieved, strict=True):
        offers: list[Ranked] = []
        known = request.history.has_interactions or request.view.release.bundle.statistics.acceptance.known
        if request.offers is not None and known:
            offers = _rank_offers(request.offers, request, found)
        elif request.offers is not None:
            offers = popular_offers(request.view, request.place, request.offers.eligible, found.query.session)
        answers.append(best(ranked + offers, request.kept if request.arranged else request.limit, request.excluded))
    return answers


def _rank_products(
    requests: Sequence[RankRequest], retrieved: Sequence[Retrieved], at_a_time: int
) -> Generator[None, None, list[list[Ranked]]]:
    """Rank the candidates of all requests together."""
    release = requests[0].view.release
    spans = list(pairwise([0, *np.cumsum([len(one.candidates.rows_K) for one in retrieved]).tolist()]))
    scores_M, features_MF = np.empty(spans[-1][1], np.float32), None
    if release.rankers is None:
        for one, (begin, end) in zip(retrieved, spans, strict=True):
            vectors_KD = release.newest.vectors.take(one.candidates.rows_K)
            scores_M[begin:end] = _nearness(vectors_KD, one.customer_D)
    else:
        features_MF = np.empty((len(scores_M), len(RANKER_FEATURES)), np.float32)
        regular_M = np.empty(len(scores_M), np.bool_)
        for one, (begin, end) in zip(retrieved, spans, strict=True):
            for start in range(0, end - begin, at_a_time):
                rows_K = one.candidates.rows_K[start : start + at_a_time]
                features_KF = features_MF[begin + start : begin + start + len(rows_K)]
                release.newest.features.read(one.query, rows_K, one.customer_D, one.nearest_K, features_KF)
                yield
            regular_M[begin:end] = is_regular(one.query, features_MF[begin:end])
        for start in range(0, len(features_MF), at_a_time):
            some = slice(start, start + at_a_time)
            scores_M[some] = release.rankers.rank(features_MF[some], regular_M[some])
            yield
    return [
        _foremost(request, one, scores_M[begin:end], None if features_MF is None else features_MF[begin:end])
        for request, one, (begin, end) in zip(requests, retrieved, spans, strict=True)
    ]


def _nearness(products_KD: NDArray[np.float32], customer_D: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return each candidate's share under a softmax of inner products with the customer's vector."""
    inner_K = products_KD @ customer_D
    exponentials_K = np.exp(inner_K - inner_K.max(initial=-np.inf))
    return exponentials_K / exponentials_K.sum()


def _foremost(
    request: RankRequest,
    retrieved: Retrieved,
    scores_K: NDArray[np.float32],
    features_KF: NDArray[np.float32] | None,
) -> list[Ranked]:
    """Return as many products as the request can show, the best first; ties by row."""
    rows_K, sources_K = retrieved.candidates
    demoted_K = np.isin(rows_K, retrieved.demoted) if len(retrieved.demoted) else None
    names: list[Source] = [*request.view.release.sources, "named" if request.rank_all else "popular"]
    return [
        Ranked(
            "product",
            row,
            score,
            names[source],
            demoted_K is not None and bool(demoted_K[place]),
            retrieved.plan,
            features_KF[place].copy() if request.explain and features_KF is not None else None,
        )
        for place, row, score, source in kernel.leading(scores_K, rows_K, sources_K, demoted_K, request.kept)
    ]


def _dismissed(query: RankingQuery, acceptance: Acceptance) -> NDArray[np.int64]:
    """Return the offers that the customer dismissed lately, but for what the ranker of offers has learnt from."""
    if query.session is None:
        return _NONE
    if not acceptance.known:
        return query.session.dismissed_offers
    later_E = query.history.events_E[query.history.events_E["at"] >= acceptance.until[0]]
    return np.intersect1d(later_E["offer"][later_E["type"] == DISMISSAL], query.session.dismissed_offers)


def _rank_offers(offers: Offered, request: RankRequest, retrieved: Retrieved) -> list[Ranked]:
    """Return the eligible offers likeliest to be redeemed in this visit, as many as the request can show."""
    view, query, rows_O = request.view, retrieved.query, offers.eligible.rows_N
    bundle, rows = view.release.bundle, view.release.newest
    if bundle.rankers is None or bundle.offer_ranker is None or bundle.redemption is None or not len(rows_O):
        return []
    covered_K, features_KF = view.offers.covered(query, rows.features, rows.vectors, retrieved.customer_D)
    probabilities_K = bundle.rankers.regular.rank(features_KF) if len(covered_K) else _UNLIKELY  # all were bought
    features_OF = view.offers.read(query, rows_O, covered_K, probabilities_K, offers.redeemed_O)
    logits_O = bundle.offer_ranker.rank(features_OF)
    if bundle.statistics.acceptance.known:
        scores_O = 1 / (1 + np.exp(-logits_O))
    else:
        shares_O = np.exp(logits_O - logits_O.max())
        features_F = view.visits.read(query, features_OF, sum_of_odds(logits_O))
        scores_O = shares_O / shares_O.sum() * bundle.redemption.likely(features_F[None])[0]
    demoted_O = np.isin(rows_O, _dismissed(query, bundle.statistics.acceptance))
    foremost = np.lexsort((-scores_O, demoted_O))[: request.kept]
    columns = (column[foremost].tolist() for column in (rows_O, scores_O, demoted_O))
    return [
        Ranked(
            "offer", row, score, "eligible", demoted, features=features_OF[place].copy() if request.explain else None
        )
        for place, row, score, demoted in zip(foremost.tolist(), *columns, strict=True)
    ]
