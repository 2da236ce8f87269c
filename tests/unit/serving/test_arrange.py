"""Slots filled from a ranking: value, pins, diversity and exploration."""

from itertools import product
from random import Random

import numpy as np
import pytest

from embeddings.catalogue.changes import PlacementState
from embeddings.catalogue.columns import OfferTerms
from embeddings.catalogue.placement import Diversity, Pin
from serving.decisioning.arrange import Arrangement, Placed, arrange, arrangement_of, by_value
from serving.ranked import Ranked
from tests.unit.embeddings.small import catalogue

LETTERS = "aabbcc"


def placed(count: int = 6, demoted: int = 0) -> list[Placed]:
    """Products in the order of their rows, the last of them demoted."""
    return [Placed(Ranked("product", row, 1.0 - row / 10, "towers", row >= count - demoted)) for row in range(count)]


def letter(one: Ranked) -> str | None:
    """Two items of each letter; nothing is known of later ones."""
    return LETTERS[one.row] if one.row < len(LETTERS) else None


def rules(
    limit: int = 6, pins: dict[int, int] | None = None, at_most: int = 99, exploration: float = 0.0
) -> Arrangement:
    of_products = {position: ("product", row) for position, row in (pins or {}).items()}
    return Arrangement(limit, of_products, letter, at_most, exploration)  # pyright: ignore[reportArgumentType]


def rows(found: list[Placed]) -> list[int]:
    return [one.ranked.row for one in found]


def test_without_rules_the_order_stays():
    assert rows(arrange(placed(), rules(4), Random(1))) == [0, 1, 2, 3]


def test_diversity_takes_what_comes_next_and_leaves_slots_empty_rather_than_exceed():
    assert rows(arrange(placed(), rules(3, at_most=1), Random(1))) == [0, 2, 4]
    assert rows(arrange(placed(), rules(6, at_most=1), Random(1))) == [0, 2, 4]
    assert rows(arrange(placed(8), rules(6, at_most=1), Random(1))) == [0, 2, 4, 6, 7]


def test_a_pin_stands_at_its_position_and_counts_for_diversity():
    assert rows(arrange(placed(), rules(3, {2: 5}), Random(1))) == [0, 5, 1]
    assert rows(arrange(placed(), rules(3, {3: 1}, at_most=1), Random(1))) == [2, 4, 1], "a's place is taken"
    assert rows(arrange(placed(2), rules(6, {5: 0}), Random(1))) == [1, 0], "further up where too little is above it"
    assert rows(arrange(placed(3), rules(3, {1: 77}), Random(1))) == [0, 1, 2], "it may not be shown"


def test_value_orders_by_probability_value_and_priority_with_unknown_values_behind():
    whole = catalogue()
    prices = np.array([1.0, 5.0, np.nan, *[1.0] * 7])
    terms = {0: OfferTerms(value=4.0, priority=2.0), 1: OfferTerms(value=0.0)}
    whole = whole._replace(products=whole.products._replace(price_N=prices), offers=whole.offers._replace(terms=terms))
    ranked = [
        Ranked("product", 2, 0.9, "towers"),
        Ranked("product", 0, 0.8, "towers"),
        Ranked("offer", 2, 0.7, "eligible"),
        Ranked("product", 1, 0.3, "towers"),
        Ranked("offer", 0, 0.2, "eligible"),
        Ranked("offer", 1, 0.1, "eligible"),
        Ranked("product", 3, 0.05, "towers", demoted=True),
    ]
    found = by_value(ranked, whole)
    assert [(one.ranked.kind, one.ranked.row) for one in found] == [
        ("offer", 0),
        ("product", 1),
        ("product", 0),
        ("offer", 1),
        ("product", 2),
        ("offer", 2),
        ("product", 3),
    ]
    assert [one.value for one in found] == [pytest.approx(1.6), 1.5, 0.8, 0.0, None, None, pytest.approx(0.05)]


@pytest.mark.parametrize("exploration", [0.3, 1.0])
def test_propensities_sum_to_one_and_are_how_often_answers_are_drawn(exploration: float):
    limits, at_most, draws = 2, 1, 20_000
    random = Random(5)
    drawn: dict[tuple[int, ...], list[float]] = {}
    for _ in range(draws):
        found = arrange(placed(), rules(limits, at_most=at_most, exploration=exploration), random)
        drawn.setdefault(tuple(rows(found)), []).append(found[0].propensity * found[1].propensity)
    possible = [pair for pair in product(range(6), repeat=2) if LETTERS[pair[0]] != LETTERS[pair[1]]]
    assert set(drawn) == set(possible)
    assert sum(one[0] for one in drawn.values()) == pytest.approx(1)
    for answer, propensities in drawn.items():
        assert len({round(one, 12) for one in propensities}) == 1
        chance = propensities[0]
        spread = (draws * chance * (1 - chance)) ** 0.5
        assert abs(len(propensities) - draws * chance) < 5 * spread, answer


def test_what_was_demoted_is_not_drawn_while_anything_else_is_left():
    for seed in range(50):
        found = arrange(placed(6, demoted=3), rules(6, exploration=1.0), Random(seed))
        assert set(rows(found)[:3]) == {0, 1, 2}
        assert sorted(rows(found)) == [0, 1, 2, 3, 4, 5]


def test_pins_have_a_propensity_of_one():
    found = arrange(placed(), rules(3, {2: 5}, exploration=1.0), Random(3))
    assert found[1].propensity == 1
    assert found[0].propensity == pytest.approx(1 / 5)
    assert found[2].propensity == pytest.approx(1 / 4)


def test_the_rules_of_a_placement_are_those_of_the_catalogue():
    whole = catalogue()
    slot = PlacementState(
        id="home",
        kinds=("product", "offer"),
        pinned=(
            Pin(kind="product", id="p3", position=2),
            Pin(kind="product", id="gone", position=1),
            Pin(kind="offer", id="p4", position=3),
            Pin(kind="product", id="p5", position=9),
        ),
        diversity=Diversity(attribute="category", at_most=2),
    )
    found = arrangement_of(slot, 5, whole)
    assert found.pins == {2: ("product", 3)}
    values = [found.group(Ranked("product", row, 0.0, "towers")) for row in range(5)]
    assert (values, found.at_most) == ([None, "x", "y", "z", None], 2)
    unheard = arrangement_of(PlacementState(id="x", diversity=Diversity(attribute="shape")), 5, whole)
    assert unheard.group(Ranked("product", 1, 0.0, "towers")) is None
