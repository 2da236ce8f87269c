"""From candidates to a ranking.

Letters: B requests, K candidates of one, M of all, F facts, O offers, N products, D dimensions.
"""

from collections.abc import Collection, Generator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings import kernel
from embeddings.arrays import Ragged
from embeddings.eligibility import Place
from embeddings.eligible import EligibleSet
from embeddings.facts import FACTS
from embeddings.index.base import Candidates, Plan
from embeddings.popularity import Shares, popular
from embeddings.sources import Asked, Proposed, SourceName, propose
from serving.retrieve import Ask, Offered, retrieve, to_search
from serving.slot import Model

Kind = Literal["product", "offer"]
Source = SourceName | Literal["eligible", "named", "popular"]
"""Offers come from what is eligible. A product that no source proposed was named by the request, or is popular."""

_NONE, _UNLIKELY = np.zeros(0, np.int64), np.zeros(0, np.float32)
_HELD_BACK = 1e-3
"""What remains, at most, of the score of something that is in the basket already or was dismissed."""


_ALL, _SLICE = 2**31, 500
"""How many candidates are ranked at a time."""


class Ranked(NamedTuple):
    """One candidate with its score.

    Attributes:
        row: in the catalogue's products or offers.
        score: the ranker's probability that the customer takes it; of an offer, its share in the redemption of one of
            those eligible; of a popular one, its share of recent purchases.
        source: what proposed it, the most telling if several did.
        plan: how the towers' candidates of its kind were searched; None where they were not.
        facts: what the ranker read, where an explanation was asked for.
    """

    kind: Kind
    row: int
    score: float
    source: Source
    plan: Plan | None = None
    facts: NDArray[np.float32] | None = None


def rank_personal(asks: Sequence[Ask]) -> list[list[Ranked]]:
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


def rank_in_pieces(ask: Ask) -> Generator[None, None, list[Ranked]]:
    """The same for one request whose candidates are many, a slice of them at a time."""
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
) -> list[Ranked]:
    """The most popular products in a place, and the offers that cover the most popular products."""
    ranked: list[Ranked] = []
    if products is not None:
        ranking = model.popular.of(products, place)
        most = limit + len(excluded)
        ranked += [
            Ranked("product", row, share, "popular")
            for row, share in zip(ranking.rows_K[:most].tolist(), ranking.shares_K[:most].tolist(), strict=True)
        ]
    if offers is not None:
        ranked += _popular_offers(model, place, offers)
    return _best(ranked, limit, excluded)


def _popular_offers(model: Model, place: Place, offers: EligibleSet) -> list[Ranked]:
    catalog = model.bundle.catalog
    covered = np.unique(np.concatenate([_NONE, *(catalog.offers.products[row] for row in offers.rows_N.tolist())]))
    shares_O = _through_products(popular(catalog, covered, place), offers.rows_N, model)
    order_O = np.argsort(-shares_O, kind="stable")
    return [
        Ranked("offer", row, share, "popular")
        for row, share in zip(offers.rows_N[order_O].tolist(), shares_O[order_O].tolist(), strict=True)
    ]


def _rank(asks: Sequence[Ask], at_a_time: int) -> Generator[None, None, list[list[Ranked]]]:
    retrieved = retrieve(asks)
    ranked: list[list[Ranked]] = [[] for _ in asks]
    if retrieved.products is not None:
        ranked = yield from _rank_products(asks, retrieved.customers_BD, retrieved.products, at_a_time)
    for request, ask in enumerate(asks):
        if ask.offers is not None and ask.history.tells:
            ranked[request] += _rank_offers(ask.offers, ask, retrieved.customers_BD[request])
        elif ask.offers is not None:  # the ranker of offers has learnt from customers with a history alone
            ranked[request] += _popular_offers(ask.model, ask.place, ask.offers.eligible)
    return [_best(rows, ask.limit, ask.excluded) for rows, ask in zip(ranked, asks, strict=True)]


class _Candidates(NamedTuple):
    """The candidates of one request, before they are ranked."""

    proposed: Proposed
    held_back_K: NDArray[np.bool_] | None


def _rank_products(
    asks: Sequence[Ask], customers_BD: NDArray[np.float32], found: Candidates, at_a_time: int
) -> Generator[None, None, list[list[Ranked]]]:
    """Candidates of all sources, ranked together, so many at a time."""
    model = asks[0].model
    candidates: list[_Candidates] = []
    asked_B: list[Asked] = []
    for request, ask in enumerate(asks):
        asked = _asked(ask, found.rows_BK[request])
        held_back = 0 if asked.session is None else len(asked.session.cart) + len(asked.session.dismissed)
        proposed = propose(asked, list(model.sources.values()), ask.most + held_back)
        candidates.append(_Candidates(proposed, _held_back(asked, proposed.rows_K)))
        asked_B.append(asked)
    ends = np.cumsum([len(one.proposed.rows_K) for one in candidates]).tolist()
    spans = list(pairwise([0, *ends]))
    scores_M, facts_MF = np.empty(ends[-1], np.float32), None
    if model.ranker is None:
        for customer_D, one, (begin, end) in zip(customers_BD, candidates, spans, strict=True):
            scores_M[begin:end] = _nearness(model.bundle.vectors_ND.take(one.proposed.rows_K, axis=0), customer_D)
    else:
        facts_MF = np.empty((ends[-1], len(FACTS)), np.float32)
        for request, (asked, one, (begin, end)) in enumerate(zip(asked_B, candidates, spans, strict=True)):
            rows_K, inner_K = one.proposed.rows_K, found.scores_BK[request]
            for start in range(0, end - begin, at_a_time):
                rows = rows_K[start : start + at_a_time]
                facts = facts_MF[begin + start : begin + start + len(rows)]
                model.facts.read(asked, rows, customers_BD[request], inner_K, facts)
                yield
        for start in range(0, len(facts_MF), at_a_time):
            scores_M[start : start + at_a_time] = model.ranker.rank(facts_MF[start : start + at_a_time])
            yield
    return [
        _shown(ask, one, scores_M[begin:end], None if facts_MF is None else facts_MF[begin:end], plan)
        for ask, one, (begin, end), plan in zip(asks, candidates, spans, found.plans_B, strict=True)
    ]


def _asked(ask: Ask, retrieved_K: NDArray[np.int64]) -> Asked:
    model, situation, eligible = ask.model, ask.situation, to_search(ask.products)
    # Ranked once for what the context allows, not for every part of it that somebody asks for.
    popular_K = model.popular.of(eligible if ask.allowed is None else ask.allowed, ask.place).rows_K
    return Asked.of(
        model.profile(ask.history.purchases),
        ask.history,
        model.bundle.statistics.together,
        situation.location,
        situation.moment,
        eligible,
        retrieved_K,
        popular_K if ask.allowed is None else popular_K[eligible.contains(popular_K)],
        novel=ask.novel,
        wanted=ask.most,
        every=ask.every,
    )


def _held_back(asked: Asked, rows_K: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    """Which candidates lie in the basket already or were dismissed; None if there can be none."""
    if asked.session is None:
        return None
    return np.isin(rows_K, np.concatenate([asked.session.cart, asked.session.dismissed]))


def _nearness(products_KD: NDArray[np.float32], customer_D: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each candidate's share under a softmax of inner products with the customer's vector."""
    inner_K = products_KD @ customer_D
    exponentials_K = np.exp(inner_K - inner_K.max(initial=-np.inf))
    return exponentials_K / exponentials_K.sum()


def _shown(
    ask: Ask,
    candidates: _Candidates,
    scores_K: NDArray[np.float32],
    facts_KF: NDArray[np.float32] | None,
    plan: Plan,
) -> list[Ranked]:
    """As many candidates as the request can show, the best first; ties by row."""
    (rows_K, sources_K), held_back_K = candidates
    if held_back_K is not None:  # they come last, however unlikely the others are: an answer is as long as it can be
        least = float(scores_K[~held_back_K].min(initial=_HELD_BACK))
        scores_K = np.where(held_back_K, scores_K * np.float32(least), scores_K)
    names: list[Source] = [*ask.model.sources, "named" if ask.every else "popular"]
    return [
        Ranked(
            "product",
            row,
            score,
            names[source],
            plan,
            facts_KF[place] if ask.explain and facts_KF is not None else None,
        )
        for place, row, score, source in kernel.leading(scores_K, rows_K, sources_K, held_back_K, ask.most)
    ]


def _rank_offers(offers: Offered, ask: Ask, customer_D: NDArray[np.float32]) -> list[Ranked]:
    """Every eligible offer, by how likely it is the one that is redeemed if one is."""
    bundle, reader, rows_O = ask.model.bundle, ask.model.offers, offers.eligible.rows_N
    if bundle.ranker is None or bundle.offer_ranker is None or not len(rows_O):
        return []
    asked = _asked(ask, _NONE)
    covered_K, facts_KF = reader.covered(asked, ask.model.facts, bundle.vectors_ND, customer_D)
    probabilities_K = bundle.ranker.rank(facts_KF) if len(covered_K) else _UNLIKELY
    facts_OF = reader.read(asked, rows_O, covered_K, probabilities_K, offers.redeemed_O)
    logits_O = bundle.offer_ranker.rank(facts_OF)
    shares_O = np.exp(logits_O - logits_O.max())
    shares_O /= shares_O.sum()
    best = np.argsort(-shares_O, kind="stable")[: ask.most]
    return [
        Ranked("offer", row, share, "eligible", facts=facts_OF[place] if ask.explain else None)
        for place, row, share in zip(best.tolist(), rows_O[best].tolist(), shares_O[best].tolist(), strict=True)
    ]


def _through_products(shares: Shares, offers_O: NDArray[np.integer], model: Model) -> NDArray[np.float32]:
    """Offers by the shares of the products they cover, as shares of one among these offers.

    The sum over the products, over the square root of their number, so that an offer on a whole department does
    not win by its size alone.
    """
    shares_N = np.zeros(len(model.bundle.catalog.products.ids), np.float32)
    shares_N[shares.rows_R] = shares.shares_R
    covered: Ragged = model.bundle.catalog.offers.products
    sums_O = np.array(
        [shares_N[covered[row]].sum() / max(len(covered[row]), 1) ** 0.5 for row in offers_O.tolist()],
        np.float32,
    )
    return sums_O / max(float(sums_O.sum()), 1e-30)


def _best(ranked: list[Ranked], limit: int, excluded: Collection[tuple[str, int]]) -> list[Ranked]:
    """The best of both kinds, each of which is in order; equal scores by kind and row."""
    if excluded:
        ranked = [one for one in ranked if (one.kind, one.row) not in excluded]
    if ranked and ranked[0].kind != ranked[-1].kind:
        ranked = sorted(ranked, key=lambda one: (-one.score, one.kind, one.row))
    return ranked[:limit]
