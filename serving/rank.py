"""From candidates to a ranking.

Letters: B requests, K candidates of one, M of all, F features, O offers, N products, D dimensions.
"""

from collections.abc import Collection, Generator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings import kernel
from embeddings.arrays import Ragged
from embeddings.catalogue.eligibility import Place
from embeddings.catalogue.eligible import EligibleSet
from embeddings.customer.session import Session
from embeddings.index.base import Candidates, Plan
from embeddings.ranking.features import RANKER_FEATURES
from embeddings.ranking.popularity import Shares, popular
from embeddings.ranking.redemption import sum_of_odds
from embeddings.ranking.sources import Proposed, RankingQuery, SourceName, propose
from serving.retrieve import Offered, RankRequest, retrieve, to_search
from serving.slot import Model

Kind = Literal["product", "offer"]
Source = SourceName | Literal["eligible", "named", "popular"]
"""Offers come from what is eligible. A product that no source proposed was named by the request, or is popular."""

_NONE, _UNLIKELY = np.zeros(0, np.int64), np.zeros(0, np.float32)
_DEMOTED = 1e-3
"""What remains, at most, of the score of something that is in the basket already or was dismissed."""


_ALL, _SLICE = 2**31, 500
"""How many candidates are ranked at a time."""


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


def rank_personal(asks: Sequence[RankRequest]) -> list[list[Ranked]]:
    """The best products and offers, request by request; for somebody without a history those offers that are popular.

    Requests of one batch may have pinned different models while one is being swapped, or want more candidates.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for place, ask in enumerate(asks):
        groups.setdefault((id(ask.model), ask.candidates), []).append(place)
    answers: list[list[Ranked]] = [[]] * len(asks)
    for places in groups.values():
        for place, answer in zip(places, _finish(_rank([asks[place] for place in places], _ALL)), strict=True):
            answers[place] = answer
    return answers


def rank_in_pieces(ask: RankRequest) -> Generator[None, None, list[Ranked]]:
    """Rank one large request, yielding after every slice of candidates."""
    (answer,) = yield from _rank([ask], _SLICE)
    return answer


def _finish(pieces: Generator[None, None, list[list[Ranked]]]) -> list[list[Ranked]]:
    while True:
        try:
            next(pieces)
        except StopIteration as done:
            return done.value


def rank_popular(
    model: Model,
    place: Place,
    products: EligibleSet | None,
    offers: EligibleSet | None,
    limit: int,
    excluded: Collection[tuple[str, int]],
    session: Session | None,
) -> list[Ranked]:
    """The most popular products in a place, and the offers that cover the most popular products.

    What the customer has dismissed or put into the basket lately, if anything, comes last.
    """
    ranked: list[Ranked] = []
    if products is not None:
        demoted = frozenset[int]() if session is None else frozenset(_demoted_products(session).tolist())
        most = limit + len(excluded) + len(demoted)
        ranking = model.popular.of(products, place, most)
        ranked += [
            Ranked("product", row, share, "popular", row in demoted)
            for row, share in zip(ranking.rows_K[:most].tolist(), ranking.shares_K[:most].tolist(), strict=True)
        ]
    if offers is not None:
        ranked += _popular_offers(model, place, offers, session)
    return _best(ranked, limit, excluded)


def _popular_offers(model: Model, place: Place, offers: EligibleSet, session: Session | None) -> list[Ranked]:
    dismissed = frozenset[int]() if session is None else frozenset(session.dismissed_offers.tolist())
    catalogue = model.bundle.catalogue
    covered = np.unique(np.concatenate([_NONE, *(catalogue.offers.products[row] for row in offers.rows_N.tolist())]))
    shares_O = _through_products(popular(catalogue, covered, place), offers.rows_N, model)
    order_O = np.argsort(-shares_O, kind="stable")
    rate = 0.0 if model.bundle.redemption is None else model.bundle.redemption.base_rate
    return [
        Ranked("offer", row, share * rate, "popular", row in dismissed)
        for row, share in zip(offers.rows_N[order_O].tolist(), shares_O[order_O].tolist(), strict=True)
    ]


def _rank(asks: Sequence[RankRequest], at_a_time: int) -> Generator[None, None, list[list[Ranked]]]:
    retrieved = retrieve(asks)
    ranked: list[list[Ranked]] = [[] for _ in asks]
    found = retrieved.products
    queries_B = [_asked(ask, _NONE if found is None else found.rows_BK[request]) for request, ask in enumerate(asks)]
    if found is not None:
        ranked = yield from _rank_products(asks, queries_B, retrieved.customers_BD, found, at_a_time)
    for request, (ask, query) in enumerate(zip(asks, queries_B, strict=True)):
        if ask.offers is not None and ask.history.has_interactions:
            ranked[request] += _rank_offers(ask.offers, ask, query, retrieved.customers_BD[request])
        elif ask.offers is not None:  # the ranker of offers has learnt from customers with a history alone
            ranked[request] += _popular_offers(ask.model, ask.place, ask.offers.eligible, query.session)
    return [_best(rows, ask.limit, ask.excluded) for rows, ask in zip(ranked, asks, strict=True)]


class _Candidates(NamedTuple):
    """The candidates of one request, before they are ranked."""

    proposed: Proposed
    demoted_K: NDArray[np.bool_] | None


def _rank_products(
    asks: Sequence[RankRequest],
    queries_B: Sequence[RankingQuery],
    customers_BD: NDArray[np.float32],
    found: Candidates,
    at_a_time: int,
) -> Generator[None, None, list[list[Ranked]]]:
    """Candidates of all sources, ranked together, so many at a time."""
    model = asks[0].model
    candidates: list[_Candidates] = []
    for ask, query in zip(asks, queries_B, strict=True):
        demoted = _NONE if query.session is None else _demoted_products(query.session)
        proposed = propose(query, list(model.sources.values()), ask.most + len(demoted))
        candidates.append(_Candidates(proposed, np.isin(proposed.rows_K, demoted) if len(demoted) else None))
    ends = np.cumsum([len(one.proposed.rows_K) for one in candidates]).tolist()
    spans = list(pairwise([0, *ends]))
    scores_M, features_MF = np.empty(ends[-1], np.float32), None
    if model.ranker is None:
        for customer_D, one, (begin, end) in zip(customers_BD, candidates, spans, strict=True):
            scores_M[begin:end] = _nearness(model.bundle.vectors_ND.take(one.proposed.rows_K, axis=0), customer_D)
    else:
        features_MF = np.empty((ends[-1], len(RANKER_FEATURES)), np.float32)
        for request, (query, one, (begin, end)) in enumerate(zip(queries_B, candidates, spans, strict=True)):
            rows_K, inner_K = one.proposed.rows_K, found.scores_BK[request]
            for start in range(0, end - begin, at_a_time):
                rows = rows_K[start : start + at_a_time]
                features = features_MF[begin + start : begin + start + len(rows)]
                model.features.read(query, rows, customers_BD[request], inner_K, features)
                yield
        for start in range(0, len(features_MF), at_a_time):
            scores_M[start : start + at_a_time] = model.ranker.rank(features_MF[start : start + at_a_time])
            yield
    return [
        _shown(ask, one, scores_M[begin:end], None if features_MF is None else features_MF[begin:end], plan)
        for ask, one, (begin, end), plan in zip(asks, candidates, spans, found.plans_B, strict=True)
    ]


def _asked(ask: RankRequest, retrieved_K: NDArray[np.int64]) -> RankingQuery:
    model, situation, eligible = ask.model, ask.situation, to_search(ask.products)
    return RankingQuery.of(
        model.profile(ask.history.purchases),
        ask.history,
        model.bundle.statistics.bought_together,
        situation.location,
        situation.moment,
        eligible,
        retrieved_K,
        model.popular.of(eligible, ask.place).rows_K,
        novel=ask.novel,
        wanted=ask.most,
        rank_all=ask.rank_all,
    )


def _demoted_products(session: Session) -> NDArray[np.int64]:
    """The products that lie in the basket already or were dismissed."""
    return np.concatenate([session.cart, session.dismissed])


def _nearness(products_KD: NDArray[np.float32], customer_D: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each candidate's share under a softmax of inner products with the customer's vector."""
    inner_K = products_KD @ customer_D
    exponentials_K = np.exp(inner_K - inner_K.max(initial=-np.inf))
    return exponentials_K / exponentials_K.sum()


def _shown(
    ask: RankRequest,
    candidates: _Candidates,
    scores_K: NDArray[np.float32],
    features_KF: NDArray[np.float32] | None,
    plan: Plan,
) -> list[Ranked]:
    """As many candidates as the request can show, the best first; ties by row."""
    (rows_K, sources_K), demoted_K = candidates
    names: list[Source] = [*ask.model.sources, "named" if ask.rank_all else "popular"]
    return [
        Ranked(
            "product",
            row,
            score,
            names[source],
            demoted_K is not None and bool(demoted_K[place]),
            plan,
            features_KF[place].copy() if ask.explain and features_KF is not None else None,
        )
        for place, row, score, source in kernel.leading(scores_K, rows_K, sources_K, demoted_K, ask.most)
    ]


def _rank_offers(
    offers: Offered, ask: RankRequest, query: RankingQuery, customer_D: NDArray[np.float32]
) -> list[Ranked]:
    """Every eligible offer, by how likely it is redeemed in this visit."""
    bundle, reader, rows_O = ask.model.bundle, ask.model.offers, offers.eligible.rows_N
    if bundle.ranker is None or bundle.offer_ranker is None or bundle.redemption is None or not len(rows_O):
        return []
    covered_K, features_KF = reader.covered(query, ask.model.features, bundle.vectors_ND, customer_D)
    probabilities_K = bundle.ranker.rank(features_KF) if len(covered_K) else _UNLIKELY
    features_OF = reader.read(query, rows_O, covered_K, probabilities_K, offers.redeemed_O)
    logits_O = bundle.offer_ranker.rank(features_OF)
    shares_O = np.exp(logits_O - logits_O.max())
    features_F = ask.model.visits.read(query, features_OF, sum_of_odds(logits_O))
    scores_O = shares_O / shares_O.sum() * bundle.redemption.likely(features_F[None])[0]
    demoted_O = np.isin(rows_O, _NONE if query.session is None else query.session.dismissed_offers)
    best = np.lexsort((-scores_O, demoted_O))[: ask.most]
    columns = (column[best].tolist() for column in (rows_O, scores_O, demoted_O))
    return [
        Ranked("offer", row, score, "eligible", demoted, features=features_OF[place].copy() if ask.explain else None)
        for place, row, score, demoted in zip(best.tolist(), *columns, strict=True)
    ]


def _through_products(shares: Shares, offers_O: NDArray[np.integer], model: Model) -> NDArray[np.float32]:
    """Offers by the shares of the products they cover, as shares of one among these offers.

    The sum over the products, over the square root of their number, so that an offer on a whole department does
    not win by its size alone.
    """
    shares_N = np.zeros(len(model.bundle.catalogue.products.ids), np.float32)
    shares_N[shares.rows_R] = shares.shares_R
    covered: Ragged = model.bundle.catalogue.offers.products
    sums_O = np.array(
        [shares_N[covered[row]].sum() / max(len(covered[row]), 1) ** 0.5 for row in offers_O.tolist()],
        np.float32,
    )
    return sums_O / max(float(sums_O.sum()), 1e-30)


def _best(ranked: list[Ranked], limit: int, excluded: Collection[tuple[str, int]]) -> list[Ranked]:
    """The best of both kinds, each of which is in order; equal scores by kind and row, and what is demoted last."""
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
