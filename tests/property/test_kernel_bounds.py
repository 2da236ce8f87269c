"""The compiled loops read nothing outside their arrays, whatever they are given: they answer, or they refuse.

Rows lie on both sides of the catalogue, arrays may be empty, of one element too many or too few, strided or of another
dtype. ``make sanitize`` runs this where a single byte read too far ends the run.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embeddings import kernel
from embeddings.arrays import Table
from embeddings.customer.history import EVENT, PURCHASE, RETURN
from embeddings.ranking.profile import GROUP, OWN

ANY = NDArray[Any]
EDGES = [-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 5, 8, 2**31 - 1, 2**31, 2**62, 2**63 - 1]
NUMBERS = [0.0, 1.0, -1.0, 0.5, 1e-45, 1e30, -1e38, float("inf"), float("-inf"), float("nan")]


class Odd:
    """Draws arguments that mostly fit, so that a call gets to its loops, and now and then do not."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self.rows, self.dimensions, self.bought = (int(self._random.integers(0, most)) for most in (9, 5, 7))

    def rarely(self) -> bool:
        return bool(self._random.random() < 0.04)

    def size(self, size: int) -> int:
        return max(0, size + int(self._random.integers(-1, 2))) if self.rarely() else size

    def made(self, array: ANY) -> Any:
        """The array, or the same numbers as no loop takes them."""
        if not self.rarely():
            return array
        other = {"f": np.float64, "i": np.int16}.get(array.dtype.kind)
        kind = self._random.integers(0, 4)
        if kind == 0 and other is not None:
            return array.astype(other)
        if kind == 1:
            return np.repeat(array, 2, axis=array.ndim - 1)[..., ::2]
        if kind == 2:
            return array.reshape(*array.shape, 1)
        return array[..., :0].copy()

    def floats(self, *shape: int) -> Any:
        array = self._random.standard_normal([self.size(one) for one in shape]).astype(np.float32)
        if array.size and self.rarely():
            array.flat[self._random.integers(0, array.size)] = self._random.choice(NUMBERS)
        return self.made(array)

    def integers(self, *shape: int, below: int, least: int = 0, kind: type = np.int64, ascending: bool = False) -> Any:
        array = self._random.integers(least, max(below, least + 1), [self.size(one) for one in shape])
        if ascending and not self.rarely():
            array = np.unique(array)
        if array.size and self.rarely():
            array.flat[self._random.integers(0, array.size)] = self._random.choice(EDGES)
        return self.made(array.astype(kind))

    def table(self, rows_NC: Any) -> Any:
        """Some rows as they are, or as a base and a tail."""
        if rows_NC.ndim == 0 or self._random.random() < 0.5:
            return rows_NC
        cut = int(self._random.integers(0, len(rows_NC) + 1))
        return Table(rows_NC[:cut], self.made(rows_NC[cut:]))

    def rows_of(self, count: int, *, ascending: bool = False, kind: type = np.int64) -> Any:
        return self.integers(count, below=self.rows, ascending=ascending, kind=kind)

    def number(self, *usual: int) -> int:
        return int(self._random.choice(EDGES if self.rarely() else usual))

    def real(self) -> float:
        return float(self._random.choice(NUMBERS if self.rarely() else [0.1, 0.5, 0.9]))

    def events(self, count: int) -> Any:
        events = np.zeros(self.size(count), EVENT)
        if len(events):
            events["at"] = np.sort(self._random.integers(0, 10**7, len(events)))
            events["product"] = self._random.integers(-1, max(self.rows, 1), len(events))
            events["type"] = self._random.choice([PURCHASE, PURCHASE, RETURN, 0, 4, 8, 65_535], len(events))
            events["location"] = self._random.integers(-1, 3, len(events))
            if self.rarely():
                events["at"][-1] = self._random.choice(EDGES)
            if self.rarely():
                events["product"][0] = self._random.choice([-(2**31), 2**31 - 1])
        return self.made(events)

    def members(self) -> kernel.Members:
        return kernel.Members(self.rows_of(int(self._random.integers(0, 9)), ascending=True))

    def scored(self) -> tuple[Any, Any]:
        count = int(self._random.integers(0, 6))
        return self.rows_of(count), self.floats(count)

    def customer(self) -> kernel.Customer:
        rows_R = np.unique(self._random.integers(0, max(self.rows, 1), self.bought))
        groups = [
            (self.integers(2, below=9, kind=np.int32), np.abs(self.floats(3, len(GROUP))))
            for _ in range(self.number(2) % 4)
        ]
        own_RC = np.abs(self.floats(len(rows_R) + 1, len(OWN)))
        return kernel.Customer(self.made(rows_R), own_RC, groups, self.scored(), self.floats(self.dimensions))

    def copy(self) -> kernel.QuantisedSet:
        rows_N = self.rows_of(self.rows, ascending=True, kind=(np.int32, np.int64)[self._random.integers(0, 2)])
        return kernel.QuantisedSet(self.floats(len(rows_N), self.dimensions), rows_N, self.number(self.rows))


def nearest(odd: Odd) -> None:
    queries = int(odd.size(3))
    vectors_ND = odd.floats(odd.rows, odd.dimensions)
    rotation_DD = None if odd.rarely() else odd.floats(odd.dimensions, odd.dimensions)
    sets: list[Any] = [
        (odd.copy(), None, [0], odd.rows_of(4)),
        (odd.copy(), odd.members(), [odd.number(1)], None),
        (odd.copy().among(odd.members()), None, [], odd.rows_of(2)),
        (odd.rows_of(5), None if not odd.rarely() else odd.members(), [odd.number(2)], None),
    ]
    for isa in kernel.isas():
        kernel.nearest(
            odd.floats(queries, odd.dimensions), rotation_DD, vectors_ND, sets, odd.number(1, 3) % 2**10, isa
        )


def features(odd: Odd) -> None:
    groups, figures, context, spans = 2, 3, 4, 3
    reader = kernel.FeatureReader(
        odd.table(odd.floats(odd.rows, figures)),
        odd.table(odd.integers(odd.rows, groups, below=5, kind=np.int32)),
        odd.floats(3, 3),
        odd.table(odd.floats(odd.rows, odd.dimensions)),
        odd.table(odd.floats(odd.rows, odd.dimensions)),
        odd.made(np.array([0, odd.number(2), 4])),
        odd.integers(4, below=odd.rows, kind=np.int32),
        odd.floats(4),
        odd.floats(4),
        odd.table(odd.floats(odd.rows, spans)),
        odd.floats(3, spans),
        [float(end) for end in range(odd.size(spans - 1))],
        odd.number(1),
        odd.number(2),
        odd.number(0, 1),
        odd.number(0, 1),
    )
    rows_R = np.unique(np.arange(odd.bought) % max(odd.rows, 1))
    width = len(OWN) + 2 + len(GROUP) * groups + figures + 3 + 2 + 2 + 3 + groups + 2 + context
    own_RC, bought = np.zeros((len(rows_R) + 1, len(OWN)), np.float32), len(rows_R) + 1
    by_group = [(odd.integers(2, below=9, kind=np.int32), odd.floats(3, len(GROUP))) for _ in range(odd.number(2) % 4)]
    customer = kernel.Customer(rows_R, own_RC, by_group, odd.scored(), odd.floats(odd.dimensions))
    reader.read(
        customer,
        odd.floats(bought),
        odd.floats(bought),
        odd.rows_of(7),
        odd.floats(odd.dimensions),
        odd.number(-1, 0, 1),
        odd.integers(3, below=odd.rows, kind=np.int32),
        odd.scored(),
        odd.rows_of(2),
        odd.rows_of(2),
        odd.scored(),
        odd.real(),
        [odd.real()] * odd.size(context),
        odd.floats(7, width),
    )


def purchases(odd: Odd) -> None:
    rows_R, _, by_visit, newest = kernel.purchases(odd.events(12), odd.real(), odd.number(0, 1, 100))
    products_NP = odd.table(odd.floats(odd.rows, 3))
    codes_NQ = odd.table(odd.integers(odd.rows, 2, below=300, kind=np.int32))
    by_visit.at(odd.number(-1, 0, 1) % 2**31)
    by_visit.at_hour(odd.number(newest), odd.real() * 7_200, odd.real())
    never = 0.0, 1.0, 2.0, 3.0
    by_visit.usual_location(odd.real(), odd.rows_of(3))
    by_visit.statistics(
        rows_R, products_NP, odd.number(1), odd.number(2), codes_NQ, (0.9, 0.5), odd.real(), 1.0, odd.real(), never, 7.0
    )


def few(odd: Odd) -> Sequence[int]:
    return range(odd.number(0, 1, 6) % 7)


CALLS: dict[str, Callable[[Odd], object]] = {
    "inner_products": lambda odd: kernel.inner_products(
        odd.floats(2, odd.dimensions), odd.floats(1, 3, odd.dimensions)
    ),
    "best": lambda odd: kernel.best(
        odd.floats(2, odd.dimensions),
        odd.floats(odd.rows, odd.dimensions),
        odd.integers(2, 9, below=odd.rows, least=-1),
        odd.number(0, 1, 9),
    ),
    "nearest": nearest,
    "max_norm": lambda odd: kernel.max_norm(odd.floats(odd.rows, odd.dimensions)),
    "leading": lambda odd: kernel.leading(
        odd.floats(6), odd.rows_of(6), odd.rows_of(6), odd.made(np.zeros(odd.size(6), np.bool_)), odd.number(0, 3, 9)
    ),
    "log_sum_exp": lambda odd: kernel.log_sum_exp(odd.floats(odd.number(0, 5) % 9)),
    "members": lambda odd: odd.members().without(odd.rows_of(5)).contains(odd.rows_of(9)),
    "bytes": lambda odd: odd.members().without(odd.rows_of(5)).with_rows(odd.rows_of(3)).bytes(),
    "largest": lambda odd: kernel.largest(odd.scored(), odd.members(), odd.number(0, 2, 9)),
    "again": lambda odd: kernel.again(
        odd.customer(), odd.floats(odd.bought + 1), odd.real(), odd.members(), odd.number(0, 2, 9)
    ),
    "due": lambda odd: kernel.due(odd.customer(), odd.real(), odd.members(), odd.number(0, 2, 9)),
    "groups": lambda odd: kernel.usual_gaps(
        odd.customer(), odd.table(odd.floats(odd.rows, 3)), odd.number(0, 2), [odd.number(0, 3) for _ in few(odd)]
    ),
    "sold_at": lambda odd: kernel.sold_at(
        odd.made(np.array([0, odd.size(3), 6])),
        odd.made(np.sort(odd.rows_of(6)).astype(np.int32)),
        odd.floats(6),
        [odd.number(0, 2) for _ in few(odd)],
        [odd.number(0, 3) for _ in few(odd)],
    ),
    "foremost": lambda odd: kernel.foremost(odd.floats(6), odd.number(0, 3, 9)),
    "merged": lambda odd: kernel.merged([odd.rows_of(4) for _ in few(odd)]),
    "around": lambda odd: kernel.around(
        odd.rows_of(4),
        odd.floats(4),
        odd.table(odd.integers(odd.rows, 3, below=odd.rows, least=-1, kind=np.int32)),
        odd.table(odd.floats(odd.rows, 3)),
    ),
    "inserted": lambda odd: kernel.inserted(odd.events(6), odd.events(3)),
    "purchases": purchases,
    "times_bought": lambda odd: kernel.times_bought(
        odd.rows_of(5), odd.rows_of(5), [odd.number(0, 3) for _ in few(odd)]
    ),
    "repurchases": lambda odd: kernel.repurchases(
        odd.integers(6, below=3, kind=np.int64),
        odd.integers(6, below=4, kind=np.int64),
        odd.rows_of(6),
        odd.integers(6, below=9, kind=np.int64),
        odd.rows,
        [odd.real() for _ in few(odd)],
    ),
    "bought": lambda odd: kernel.bought(odd.events(6), odd.made(np.array([0, odd.size(3), 6])), odd.number(0, 1, 100)),
    "visit": lambda odd: kernel.visit(odd.events(6), odd.number(0), [True for _ in few(odd)]),
    "newest_of": lambda odd: kernel.newest_of(odd.events(6), [True for _ in few(odd)]),
    "products_since": lambda odd: kernel.products_since(odd.events(6), odd.number(0), [True for _ in few(odd)]),
    "any_interaction": lambda odd: kernel.any_interaction(odd.events(6), [True for _ in few(odd)]),
    "latest": lambda odd: kernel.latest(
        [odd.events(6), odd.events(0)], [True] * 6, [odd.number(10**7)] * odd.size(2), odd.number(1, 3, 9)
    ),
    "known": lambda odd: kernel.known(odd.integers(3, 4, below=9, least=-2), odd.integers(4, below=9)),
    "gather": lambda odd: kernel.gather(
        odd.table(odd.floats(odd.rows, odd.dimensions)), odd.integers(2, 9, below=odd.rows, least=-1)
    ),
    "features": features,
}


@settings(max_examples=200, deadline=None)
@pytest.mark.parametrize("call", CALLS)
@given(seed=st.integers(0, 2**32 - 1))
def test_nothing_is_read_outside_of_what_is_given(call: str, seed: int):
    with suppress(ValueError, TypeError):
        CALLS[call](Odd(seed))


@pytest.mark.parametrize("call", CALLS)
def test_arguments_that_fit_are_answered(call: str):
    """The draws above do get to the loops."""
    answered = 0
    for seed in range(200):
        try:
            CALLS[call](Odd(seed))
        except (ValueError, TypeError):
            continue
        answered += 1
    assert answered > 20
