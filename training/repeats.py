"""How common it is that customers take what they have taken before."""

from collections.abc import Sequence

import numpy as np

from training.examples import Example

COMMON = 0.1
"""From this share of what is taken on, repeats are common."""


def repeats_are_rare(examples: Sequence[Example]) -> bool:
    """Return whether little of what the customers of some examples take had been taken by them before."""
    again = [np.isin(list(one.bought), one.past.purchases.rows_R).sum() for one in examples]
    return sum(again) < COMMON * sum(len(one.bought) for one in examples)
