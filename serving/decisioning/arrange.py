"""The arrangement of what was ranked into the slots of a placement: value, pins, diversity and exploration.

Pure functions of the ranking; chance comes in as a generator of random numbers.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import NamedTuple, TypeAlias

from embeddings.catalogue.changes import PlacementState
from embeddings.catalogue.columns import Attributes, Catalogue, OfferTerms
from embeddings.catalogue.tables import OFFER_KINDS
from serving.ranked import Kind, Ranked

Key: TypeAlias = tuple[Kind, int]
"""The kind and row of an item."""

_USUAL = OfferTerms()


class Placed(NamedTuple):
    """An item in its slot.

    Attributes:
        value: probability x value x priority; None where the strategy is another, or the value is unknown.
        propensity: the probability with which this slot shows this item, given those above it. The product of all is
            the probability of the whole answer.
    """

    ranked: Ranked
    value: float | None = None
    propensity: float = 1.0


class Arrangement(NamedTuple):
    """The rules of an arrangement, in rows of one catalogue.

    Attributes:
        limit: how many slots there are.
        pins: items by their positions, from 1.
        group: the value of the attribute of which so many items may be alike; None where it is unknown.
        at_most: how many.
        exploration: the share of slots whose item is drawn.
    """

    limit: int
    pins: Mapping[int, Key]
    group: Callable[[Ranked], str | None]
    at_most: int
    exploration: float


def arrangement_of(placement: PlacementState, limit: int, catalogue: Catalogue) -> Arrangement:
    """Return the rules of a placement as they are in a catalogue; pins that it does not hold are left out."""
    pins: dict[int, Key] = {}
    for pin in placement.pinned:
        row = (catalogue.products if pin.kind == "product" else catalogue.offers).ids.row(pin.id)
        if row is not None and pin.position <= limit:
            pins[pin.position] = pin.kind, row
    diversity = placement.diversity
    group = _alone if diversity is None else _grouping(catalogue, diversity.attribute)
    return Arrangement(limit, pins, group, 0 if diversity is None else diversity.at_most, placement.exploration)


def pinned_products(placement: PlacementState, catalogue: Catalogue, ranked: Sequence[Ranked]) -> list[int]:
    """Return the rows of the products pinned to a placement that were not ranked."""
    rows = catalogue.products.ids.rows([pin.id for pin in placement.pinned if pin.kind == "product"]).tolist()
    held = {one.row for one in ranked if one.kind == "product"} if rows else ()
    return [row for row in rows if row >= 0 and row not in held]


def by_value(ranked: Sequence[Ranked], catalogue: Catalogue) -> list[Placed]:
    """Return items by probability x value x priority, the highest first; then those of unknown value by probability.

    The value of a product is its price and its priority 1. Demoted items come last.
    """
    placed = [Placed(one, _value(one, catalogue)) for one in ranked]
    return sorted(
        placed,
        key=lambda one: (
            one.ranked.demoted,
            one.value is None,
            -(one.value or 0.0),
            -one.ranked.score,
            one.ranked.kind,
            one.ranked.row,
        ),
    )


def arrange(ordered: Sequence[Placed], rules: Arrangement, random: Random) -> list[Placed]:
    """Return the items that are shown, from the first slot to the last.

    A pinned item that is among those ordered stands at its position, or further up where there are too few items
    above it. It counts for diversity and is shown in spite of it. Each other slot shows the first item that diversity
    allows there, or, with the probability of exploration, one drawn from all that it allows; an item that was demoted
    is drawn only where all were.
    """
    by_key = {(one.ranked.kind, one.ranked.row): one for one in ordered}
    pins = {position: by_key[key] for position, key in rules.pins.items() if key in by_key}
    fixed = {id(one) for one in pins.values()}
    left = [(one, rules.group(one.ranked)) for one in ordered if id(one) not in fixed]
    shown = Counter(rules.group(one.ranked) for one in pins.values())
    placed: list[Placed] = []
    for position in range(1, rules.limit + 1):
        pinned = pins.get(position)
        if pinned is not None:
            placed.append(pinned)
            continue
        left = [(one, group) for one, group in left if group is None or shown[group] < rules.at_most]
        if not left:
            continue
        place, propensity = _choice([one for one, _ in left], rules.exploration, random)
        chosen, group = left.pop(place)
        placed.append(chosen._replace(propensity=propensity))
        shown[group] += 1
    return placed


def _choice(candidates: Sequence[Placed], exploration: float, random: Random) -> tuple[int, float]:
    """Return the place of the item that a slot shows, and the probability with which it does."""
    if not exploration:
        return 0, 1.0
    pool = [place for place, one in enumerate(candidates) if not one.ranked.demoted] or [*range(len(candidates))]
    place = pool[random.randrange(len(pool))] if random.random() < exploration else pool[0]
    return place, exploration / len(pool) + (1 - exploration) * (place == pool[0])


def _value(one: Ranked, catalogue: Catalogue) -> float | None:
    if one.kind == "product":
        price = float(catalogue.products.price_N[one.row])
        return one.score * price if price == price else None  # noqa: PLR0124 - not a number where unknown
    terms = catalogue.offers.terms.get(one.row, _USUAL)
    return None if terms.value is None else one.score * terms.value * terms.priority


def _alone(_one: Ranked) -> str | None:
    return None


def _grouping(catalogue: Catalogue, attribute: str) -> Callable[[Ranked], str | None]:
    """Return what tells the value of an attribute: any of products; kind, campaign and partner of offers."""
    attributes, offers = catalogue.products.attributes, catalogue.offers
    of_product = _labelled(attributes, attribute)

    def group(one: Ranked) -> str | None:
        if one.kind == "product":
            return of_product(one.row)
        if attribute == "kind":
            return OFFER_KINDS[offers.kinds_O[one.row]]
        terms = offers.terms.get(one.row, _USUAL)
        return {"campaign": terms.campaign, "partner": terms.partner}.get(attribute)

    return group


def _labelled(attributes: Attributes, name: str) -> Callable[[int], str | None]:
    if name not in attributes.names:
        return lambda _row: None
    place = attributes.names.index(name)
    labels = attributes.labels[place]

    def label(row: int) -> str | None:
        code = int(attributes.codes_NA[row, place])
        return labels[code - 1] if code else None

    return label
