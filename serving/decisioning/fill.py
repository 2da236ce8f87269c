"""The slots of an answer, filled with what was ranked for it, and what its items say of that."""

from collections.abc import Collection, Sequence
from random import Random

from msgspec import UNSET
from msgspec.structs import replace

from embeddings.catalogue.columns import Catalogue
from serving.decisioning.arrange import Key, Placed, arrange, arrangement_of, by_value
from serving.decisioning.placements import Terms
from serving.ranked import Ranked
from serving.recommendation import Item


def filled(
    terms: Terms, ranked: Sequence[Ranked], catalogue: Catalogue, taken: Collection[Key], random: Random
) -> list[Placed]:
    """Return what the slots show.

    Args:
        terms: what the answer is to be.
        ranked: all that was ranked, the likeliest first; what was ranked for its pin alone comes behind.
        catalogue: of the rows.
        taken: what other answers to the same request show.
        random: draws what is explored.
    """
    left = [one for one in ranked if (one.kind, one.row) not in taken] if taken else ranked
    placement = terms.placement
    if placement is None:
        return [Placed(one) for one in left[: terms.limit]]
    ordered = by_value(left, catalogue) if placement.strategy == "value" else [Placed(one) for one in left]
    return arrange(ordered, arrangement_of(placement, terms.limit, catalogue), random)


def worth(items: Sequence[Item], placed: Sequence[Placed], terms: Terms) -> list[Item]:
    """Return items with their values, and where the placement explores with their propensities."""
    placement = terms.placement
    explores = placement is not None and placement.exploration > 0
    if not explores and all(one.value is None for one in placed):
        return [*items]
    return [
        replace(
            item,
            value=UNSET if one.value is None else one.value,
            propensity=one.propensity if explores else UNSET,
        )
        for item, one in zip(items, placed, strict=True)
    ]


def keys_of(items: Sequence[Item], catalogue: Catalogue) -> set[Key]:
    """Return the kinds and rows of items."""
    found: set[Key] = set()
    for one in items:
        row = (catalogue.products if one.kind == "product" else catalogue.offers).ids.row(one.id)
        if row is not None:
            found.add((one.kind, row))
    return found
