"""How common repeats are, told from what happened before a moment alone."""

import pytest

from tests.unit.training.test_batches import Event, histories
from training.batches import Baskets
from training.repeats import repeats_were_rare


def customer(*pairs: tuple[int, int]) -> list[Event]:
    return [Event(at, product=product) for at, product in pairs]


@pytest.mark.parametrize(
    ("customers", "rare"),
    [
        ([customer((1, 0), (5, 0))], False),
        ([customer((1, 0), (5, 1))], True),
        ([customer((1, 0), (5, 1)), customer((1, 1), (5, 0))], True),  # of somebody else it is no repeat
        ([customer((5, 0), (6, 0))], True),  # only what was taken before the first moment counts as taken before
        ([customer((1, 0), (5, 1), (9, 1), (9, 0))], True),  # from the other moment on nothing counts
        ([customer((1, 0), (5, 0)), *[customer((1, 0), (5, 1), (6, 2))] * 5], True),  # one of eleven
        ([customer((1, 0), (5, 0)), *[customer((1, 0), (5, 1), (6, 2))] * 4], False),  # one of nine
        ([customer((1, 0))], False),  # where nothing was taken, nothing is known
    ],
)
def test_repeats_are_rare_where_few_of_what_is_taken_was_taken_before(customers: list[list[Event]], rare: bool) -> None:
    assert repeats_were_rare(Baskets.of(histories(customers)), 4, 9) == rare
