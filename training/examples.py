"""Baskets to be predicted, with what went before them. Letters: B examples, N products, D dimensions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from embeddings.catalogue.columns import Catalogue
from embeddings.catalogue.context import Context
from embeddings.catalogue.eligibility import Eligibility, Place
from embeddings.catalogue.eligible import EligibleSet
from embeddings.customer.history import Histories, History
from embeddings.customer.tower_input import Situation, encode, gather
from training.batches import Baskets
from training.fit import Towers, customer_tensors


class Example(NamedTuple):
    """One basket to be predicted.

    Attributes:
        customer: row of the customer.
        past: what the customer had done before the window.
        bought: the product rows of the basket.
        allowed: what the context allows, where only a part of it is asked for; None where all of it is.
        novel: whether only products that the customer has never bought are asked for.
        rank_all: whether the whole set is to be ranked.
    """

    customer: int
    past: History
    situation: Situation
    place: Place
    eligible: EligibleSet
    bought: frozenset[int]
    allowed: EligibleSet | None = None
    novel: bool = False
    rank_all: bool = False


def first_baskets(
    before: Histories, baskets: Baskets, catalogue: Catalogue, most: int, random: np.random.Generator
) -> list[Example]:
    """Return an example for each customer's first basket in a window.

    It asks for the products of the basket that can be recommended. A basket without such products gives no example.

    Args:
        before: what customers had done when the window began.
        baskets: those of the window, by the same customers.
        catalogue: as observed when it began.
        most: how many customers; of more so many are drawn.
        random: draws.
    """
    _, first = np.unique(baskets.customers_S, return_index=True)
    if len(first) > most:
        first = first[np.sort(random.permutation(len(first))[:most])]
    eligibility = Eligibility(catalogue)
    examples: list[Example] = []
    for row in first.tolist():
        rows = baskets.products[row]
        bought = rows[catalogue.products.recommendable_N[rows]]
        if not len(bought):
            continue
        customer, visit = int(baskets.customers_S[row]), baskets.situation(row)
        past = before[customer]
        place = Place((visit.location,) if visit.location >= 0 else None)
        examples.append(
            Example(
                customer=customer,
                past=past,
                situation=visit.at(place, past.purchases),
                place=place,
                eligible=allowed_in(visit, place, eligibility),
                bought=frozenset(bought.tolist()),
            )
        )
    return examples


def allowed_in(situation: Situation, place: Place, eligibility: Eligibility) -> EligibleSet:
    """Return what may be shown at a place in a situation; where no channel is known, whatever may be shown at all."""
    if situation.channel < 0:
        return eligibility.recommendable
    channel = list(eligibility.catalogue.channels)[situation.channel]
    return eligibility.products(Context(channel), place, situation.moment)


def customer_vectors(
    examples: Sequence[Example], towers: Towers, vectors_ND: NDArray[np.float32], length: int
) -> NDArray[np.float32]:
    """Return the customers' vectors (B, D)."""
    device = next(towers.parameters()).device
    tower_input = encode([one.past for one in examples], [one.situation for one in examples], length)
    history_BLD = torch.as_tensor(gather(vectors_ND, tower_input.products_BL), device=device)
    with torch.inference_mode():
        return towers.customer(history_BLD, *customer_tensors(tower_input, device)).cpu().numpy()
