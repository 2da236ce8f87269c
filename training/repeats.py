"""How common it is that customers take what they have taken before."""

from collections.abc import Sequence

import numpy as np

from training.batches import Baskets
from training.examples import Example

COMMON = 0.1
"""From this share of what is taken on, repeats are common."""


def repeats_are_rare(examples: Sequence[Example]) -> bool:
    """Return whether little of what the customers of some examples take had been taken by them before."""
    again = [np.isin(list(one.bought), one.past.purchases.rows_R).sum() for one in examples]
    return sum(again) < COMMON * sum(len(one.bought) for one in examples)


def repeats_were_rare(baskets: Baskets, begin: int, end: int) -> bool:
    """Return the same of all that customers took from one moment until before another, in seconds since 1970 UTC.

    Args:
        baskets: also those before the first moment.
        begin: the first moment.
        end: the other.
    """
    earlier, inside = baskets.between(int(baskets.moments_S.min(initial=begin)), begin), baskets.between(begin, end)
    taken = earlier.by_customer()
    again = all_taken = 0
    for customer, rows in inside.by_customer().items():
        again += len(rows & taken.get(customer, frozenset()))
        all_taken += len(rows)
    return again < COMMON * all_taken
