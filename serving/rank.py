"""From candidates to a ranking, by the documented score.

Letters: B requests, K candidates, O offers, N products.
"""

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import Ragged
from embeddings.eligibility import Place
from embeddings.eligible import EligibleSet
from embeddings.index.base import Plan
from embeddings.scoring import Scored, Shares, bought_again, nearness, popular, weigh
from serving.retrieve import Ask, Retrieved, retrieve, to_search
from serving.slot import Model

Kind = Literal["product", "offer"]
Source = Literal["buy_again", "towers", "popular"]

_NONE = np.zeros(0, np.int32)


class Ranked(NamedTuple):
    """One candidate with its score.

    Attributes:
        row: in the catalogue's products or offers.
        source: where most of the score comes from.
        again, near: the two terms of a personal score before mixing; both 0 for a popular one.
        plan: how the towers' candidates of its kind were searched; None where they were not.
    """

    kind: Kind
    row: int
    score: float
    source: Source
    again: float = 0.0
    near: float = 0.0
    plan: Plan | None = None


def rank_personal(asks: Sequence[Ask]) -> list[list[Ranked]]:
    """The best products and offers for customers with a history, request by request.

    Requests of one batch may have pinned different models while one is being swapped, or want more candidates.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for place, ask in enumerate(asks):
        groups.setdefault((id(ask.model), ask.candidates), []).append(place)
    answers: list[list[Ranked]] = [[]] * len(asks)
    for places in groups.values():
        for place, answer in zip(places, _rank([asks[place] for place in places]), strict=True):
            answers[place] = answer
    return answers


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
        catalog = model.bundle.catalog
        covered = np.unique(np.concatenate([_NONE, *(catalog.offers.products[row] for row in offers.rows_N.tolist())]))
        shares_O = _through_products(popular(catalog, covered, place), offers.rows_N, model)
        order_O = np.argsort(-shares_O, kind="stable")
        ranked += [
            Ranked("offer", row, share, "popular")
            for row, share in zip(offers.rows_N[order_O].tolist(), shares_O[order_O].tolist(), strict=True)
        ]
    return _best(ranked, limit, excluded)


def _rank(asks: Sequence[Ask]) -> list[list[Ranked]]:
    model = asks[0].model
    score = model.bundle.manifest.score
    retrieved = retrieve(asks)
    again = [bought_again(ask.history, ask.situation.location, ask.situation.moment, score) for ask in asks]
    ranked: list[list[Ranked]] = [[] for _ in asks]
    if retrieved.products is not None:
        sets = [to_search(ask.products) for ask in asks]
        most = max(ask.most for ask in asks)
        found = model.mixer.mix(again, retrieved.products, sets, retrieved.customers_BD, score.towers, most)
        for request, rows in enumerate(_personal("product", found, asks, retrieved.products.plans_B, score.towers)):
            ranked[request] += rows
    if retrieved.offers is not None:
        for request, ask in enumerate(asks):
            if ask.offers is not None:
                scored = _score_offers(ask.offers, again[request], retrieved, request, model)
                plans_1 = (retrieved.offers.plans_B[request],)
                ranked[request] += _personal("offer", scored, [ask], plans_1, score.towers)[0]
    return [_best(rows, ask.limit, ask.excluded) for rows, ask in zip(ranked, asks, strict=True)]


def _personal(
    kind: Kind, scored: Scored, asks: Sequence[Ask], plans_B: Sequence[Plan], towers: float
) -> list[list[Ranked]]:
    """As many of each request's candidates as it can show."""
    mostly_again_BK = (scored.again_BK > 0) & ((1 - towers) * scored.again_BK >= towers * scored.near_BK)
    columns = (column_BK.tolist() for column_BK in (*scored, mostly_again_BK))
    return [
        [
            Ranked(kind, row, score, "buy_again" if mostly_again else "towers", again, near, plan)
            for row, score, again, near, mostly_again in zip(*(column[: ask.most] for column in one), strict=True)
            if row >= 0
        ]
        for *one, ask, plan in zip(*columns, asks, plans_B, strict=True)
    ]


def _score_offers(offers: EligibleSet, again: Shares, retrieved: Retrieved, request: int, model: Model) -> Scored:
    rows_O = offers.rows_N.astype(np.int64)
    again_O, near_O = _through_products(again, rows_O, model), _near_offers(retrieved, request, rows_O, model)
    return weigh(rows_O[None], again_O[None], near_O[None], model.bundle.manifest.score.towers, len(rows_O))


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


def _near_offers(retrieved: Retrieved, request: int, rows_O: NDArray[np.int64], model: Model) -> NDArray[np.float32]:
    """Each offer's share under a softmax of inner products; 0 for offers that the towers did not retrieve."""
    assert retrieved.offers is not None  # noqa: S101 - the request asks for offers
    rows_K = retrieved.offers.rows_BK[request]
    found_K = rows_K[rows_K >= 0]
    near_O = np.zeros(len(rows_O), np.float32)
    customer_D = retrieved.customers_BD[request]
    near_O[rows_O.searchsorted(found_K)] = nearness(model.bundle.offer_vectors_OD[found_K], customer_D)
    return near_O


def _best(ranked: list[Ranked], limit: int, excluded: Collection[tuple[str, int]]) -> list[Ranked]:
    """The best of both kinds, each of which is in order; equal scores by kind and row."""
    if excluded:
        ranked = [one for one in ranked if (one.kind, one.row) not in excluded]
    if ranked and ranked[0].kind != ranked[-1].kind:
        ranked = sorted(ranked, key=lambda one: (-one.score, one.kind, one.row))
    return ranked[:limit]
