"""Retrieval for a whole batch: one encoder run, then one search per eligible set.

Letters: B requests, D dimensions, K candidates.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.eligible import EligibleSet
from embeddings.features import Situation, encode
from embeddings.history import History
from embeddings.index.base import CandidateIndex
from serving.slot import Model


class Ask(NamedTuple):
    """What retrieval needs to know of one request.

    Attributes:
        products, offers: what may be shown; None where that kind was not asked for.
        candidates: how many to retrieve of each kind.
    """

    model: Model
    history: History
    situation: Situation
    products: EligibleSet | None
    offers: EligibleSet | None
    candidates: int


class Retrieved(NamedTuple):
    """What the towers propose for one request, the nearest first, padded with -1.

    Attributes:
        customer_D: the customer's vector.
    """

    customer_D: NDArray[np.float32]
    products_K: NDArray[np.int64]
    offers_K: NDArray[np.int64]


_NOTHING = np.zeros(0, np.int64)


def retrieve(asks: Sequence[Ask]) -> list[Retrieved]:
    """Answer a batch, whose requests may have pinned different models while one is being swapped."""
    answers: list[Retrieved | None] = [None] * len(asks)
    for model in {id(ask.model): ask.model for ask in asks}.values():
        places = [place for place, ask in enumerate(asks) if ask.model is model]
        for place, answer in zip(places, _retrieve(model, [asks[place] for place in places]), strict=True):
            answers[place] = answer
    return [answer for answer in answers if answer is not None]


def _retrieve(model: Model, asks: list[Ask]) -> list[Retrieved]:
    bundle = model.bundle
    tower_input = encode([ask.history for ask in asks], [ask.situation for ask in asks], bundle.manifest.history_length)
    customers_BD = bundle.customer_encoder.encode(tower_input, bundle.vectors_ND)
    candidates = [ask.candidates for ask in asks]
    products = _search(bundle.products, customers_BD, [ask.products for ask in asks], candidates)
    offers = _search(bundle.offers, customers_BD, [ask.offers for ask in asks], candidates)
    return [Retrieved(*one) for one in zip(customers_BD, products, offers, strict=True)]


def _search(
    index: CandidateIndex,
    customers_BD: NDArray[np.float32],
    sets: list[EligibleSet | None],
    candidates: list[int],
) -> list[NDArray[np.int64]]:
    """One search per distinct eligible set."""
    found = [_NOTHING] * len(sets)
    groups: dict[bytes, list[int]] = {}
    for place, eligible in enumerate(sets):
        if eligible is not None and len(eligible.rows_N):
            groups.setdefault(eligible.fingerprint, []).append(place)
    for places in groups.values():
        eligible = sets[places[0]]
        k = max(candidates[place] for place in places)
        rows_BK = index.search(np.ascontiguousarray(customers_BD[places]), k, eligible).rows_BK
        for place, rows_K in zip(places, rows_BK, strict=True):
            # Not more than this request would have got alone: an answer does not depend on its batch.
            found[place] = rows_K[: candidates[place]]
    return found
