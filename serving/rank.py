"""From candidates to a ranking, by the documented score. Letters: K candidates, O offers, N products."""

from collections.abc import Collection
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import Ragged
from embeddings.eligibility import Place
from embeddings.eligible import EligibleSet
from embeddings.scoring import Scored, Shares, bought_again, mix, nearness, popular, weigh
from serving.retrieve import Ask, Retrieved
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
    """

    kind: Kind
    row: int
    score: float
    source: Source
    again: float = 0.0
    near: float = 0.0


def rank_personal(ask: Ask, retrieved: Retrieved, limit: int, excluded: Collection[tuple[Kind, int]]) -> list[Ranked]:
    """The best products and offers for a customer with a history."""
    model, situation = ask.model, ask.situation
    score = model.bundle.manifest.score
    again = bought_again(ask.history, situation.location, situation.moment, score)
    most = limit + len(excluded)
    ranked: list[Ranked] = []
    if ask.products is not None:
        found = mix(
            again, retrieved.products_K, ask.products, retrieved.customer_D, model.bundle.vectors_ND, score.towers
        )
        ranked += _personal("product", found, score.towers, most)
    if ask.offers is not None:
        rows_O = ask.offers.rows_N.astype(np.int64)
        again_O, near_O = _through_products(again, rows_O, model), _near_offers(retrieved, rows_O, model)
        ranked += _personal("offer", weigh(rows_O, again_O, near_O, score.towers), score.towers, most)
    return _best(ranked, limit, excluded)


def rank_popular(
    model: Model,
    place: Place,
    products: EligibleSet | None,
    offers: EligibleSet | None,
    limit: int,
    excluded: Collection[tuple[Kind, int]],
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
        ranked += [
            Ranked("offer", row, share, "popular")
            for row, share in zip(offers.rows_N.tolist(), shares_O.tolist(), strict=True)
        ]
    return _best(ranked, limit, excluded)


def _personal(kind: Kind, scored: Scored, towers: float, most: int) -> list[Ranked]:
    ranked: list[Ranked] = []
    for row, score, again, near in zip(*(column[:most].tolist() for column in scored), strict=True):
        mostly_again = again > 0 and (1 - towers) * again >= towers * near
        ranked.append(Ranked(kind, row, score, "buy_again" if mostly_again else "towers", again, near))
    return ranked


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


def _near_offers(retrieved: Retrieved, rows_O: NDArray[np.int64], model: Model) -> NDArray[np.float32]:
    """Each offer's share under a softmax of inner products; 0 for offers that the towers did not retrieve."""
    found_K = retrieved.offers_K[retrieved.offers_K >= 0]
    near_O = np.zeros(len(rows_O), np.float32)
    near_O[rows_O.searchsorted(found_K)] = nearness(model.bundle.offer_vectors_OD[found_K], retrieved.customer_D)
    return near_O


def _best(ranked: list[Ranked], limit: int, excluded: Collection[tuple[Kind, int]]) -> list[Ranked]:
    allowed = [one for one in ranked if (one.kind, one.row) not in excluded]
    return sorted(allowed, key=lambda one: (-one.score, one.kind, one.row))[:limit]
