"""Slots against a slow oracle that tries every answer there could be."""

from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.decisioning.arrange import Arrangement, Placed, arrange
from serving.ranked import Ranked

GROUPS = st.lists(st.sampled_from(["a", "b", "c", None]), max_size=8)
PINS = st.dictionaries(st.integers(1, 6), st.integers(0, 9), max_size=3)


def ordered(groups: list[str | None]) -> list[Placed]:
    return [Placed(Ranked("product", row, 1 / (row + 1), "towers")) for row in range(len(groups))]


def rules(
    groups: list[str | None], limit: int, pins: dict[int, int], at_most: int, exploration: float = 0.0
) -> Arrangement:
    by_row = {position: row for position, row in pins.items() if position <= limit}
    distinct = {row: position for position, row in by_row.items()}
    keys = {position: ("product", row) for row, position in distinct.items()}
    return Arrangement(limit, keys, lambda one: groups[one.row], at_most, exploration)  # pyright: ignore[reportArgumentType]


def best_answer(groups: list[str | None], limit: int, pins: dict[int, int], at_most: int) -> list[int]:
    """The longest answer that diversity allows; of several the one whose items come first in the order."""
    fixed = list(pins.values())
    others = [row for row in range(len(groups)) if row not in fixed]

    def allowed(rows: tuple[int, ...]) -> bool:
        shown = [groups[row] for row in (*fixed, *rows)]
        return all(groups[row] is None or shown.count(groups[row]) <= at_most for row in rows)

    for size in range(min(limit - len(fixed), len(others)), -1, -1):
        found = [rows for rows in combinations(others, size) if allowed(rows)]
        if found:
            answer = list(min(found))
            for position, row in sorted(pins.items()):
                answer.insert(min(position - 1, len(answer)), row)
            return answer
    raise AssertionError("nothing at all is always allowed")


@given(GROUPS, st.integers(1, 6), PINS, st.integers(1, 3))
def test_slots_show_the_longest_and_first_answer_that_diversity_and_pins_allow(
    groups: list[str | None], limit: int, pins: dict[int, int], at_most: int
):
    made = rules(groups, limit, pins, at_most)
    placed = arrange(ordered(groups), made, Random(1))
    held = {position: row for position, (_, row) in made.pins.items() if row < len(groups)}
    assert [one.ranked.row for one in placed] == best_answer(groups, limit, held, at_most)
    assert all(one.propensity == 1 for one in placed)


class Scripted(Random):
    """Draws what a test says."""

    def __init__(self, chance: float, drawn: int) -> None:
        super().__init__()
        self.chance, self.drawn, self.of = chance, drawn, 0

    def random(self) -> float:
        return self.chance

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        assert stop is None
        assert step == 1
        self.of = start
        return self.drawn


@given(GROUPS.filter(bool), st.integers(1, 3), st.floats(0.01, 0.99), st.data())
def test_the_propensities_of_all_that_a_slot_may_show_sum_to_one(
    groups: list[str | None], at_most: int, exploration: float, data: st.DataObject
):
    made = rules(groups, 1, {}, at_most, exploration)
    (greedy,) = arrange(ordered(groups), made, Scripted(exploration, 0))
    draws = [arrange(ordered(groups), made, Scripted(0.0, row))[0] for row in range(len(groups))]
    assert greedy == draws[0]
    assert [one.ranked.row for one in draws] == [*range(len(groups))]
    assert sum(one.propensity for one in draws) == pytest.approx(1)
    whole = rules(groups, 6, {}, at_most, exploration)
    answer = arrange(ordered(groups), whole, Random(data.draw(st.integers(0, 99))))
    shown = [groups[one.ranked.row] for one in answer]
    assert all(shown.count(group) <= at_most for group in set(shown) - {None})
    assert all(0 < one.propensity <= 1 for one in answer)
