"""What rules are asked of: columns of attributes, histories and memberships, whoever holds them.

Letters: N rows, whatever they are: customers, products or offers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embeddings.rules.conditions import Aggregate, Membership
from embeddings.rules.schema import Path


@dataclass(frozen=True, eq=False)
class Labels:
    """The texts that codes stand for: code ``i`` is ``values[i - 1]``, code 0 is what is not known.

    Keep one as long as its texts stay: their codes are looked up in a table that is made once.
    """

    values: Sequence[str]

    @cached_property
    def codes(self) -> dict[str, int]:
        """Return the code of each text."""
        return {value: code for code, value in enumerate(self.values, start=1)}


@dataclass(frozen=True, eq=False)
class Texts:
    """A text for each row.

    Attributes:
        codes_N: integers of any size.
        labels: what they stand for.
    """

    codes_N: NDArray[np.integer[Any]]
    labels: Labels


Textual: TypeAlias = Texts | str | None
"""Texts of rows, or one text for all of them; None if it is not known."""

Numbers: TypeAlias = NDArray[np.float64 | np.integer[Any]] | float | None
"""Numbers (N,), or one for all rows; NaN and None are not known."""

Flags: TypeAlias = NDArray[np.int8 | np.bool_] | bool | None
"""1, or true, what holds, 0 what does not, -1 what is not known (N,); or one for all rows, None if it is not known."""


class Facts(Protocol):
    """What is known of one customer and many rows, or of many customers, at one moment.

    Whatever does not vary from row to row is one value and no array. What the schema names has the type that the schema
    says; nothing else is asked.
    """

    def attribute(self, path: Path) -> Textual | Numbers | Flags:
        """Return what a name stands for."""
        ...

    def history(self, aggregates: Sequence[Aggregate]) -> Sequence[Numbers] | NDArray[np.float64]:
        """Return the figures of histories, in the order of the aggregates; an array has one row for each.

        A program asks for all it needs at once, always with the same tuple: what was prepared for it can be kept.
        """
        ...

    def membership(self, memberships: Sequence[Membership]) -> Sequence[Flags] | NDArray[np.int8]:
        """Return who is in segments and has consented, as `history` returns figures."""
        ...
