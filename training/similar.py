"""The vectors by which products are similar: what was learnt of each from sales, and what its attributes say.

Of a product that was hardly ever sold, the id taught next to nothing: its vector lies anywhere. So vectors shrink
towards what the product tower makes of the attributes alone, the more the fewer customers bought the product.
Letters: N products, D dimensions.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import of_length_one
from embeddings.release.rows import units_of_described

_PRIOR_BUYERS = 50.0
"""So many buyers tell as much of a product as its attributes."""


class Similar(NamedTuple):
    """Vectors of length one by which products are similar, and what was taken from the tower's before.

    Attributes:
        units_ND: float32; zeros for a product of which neither sales nor attributes tell anything.
        origin_D: float32; from which `units_of_described` measures what the attributes of a product say.
    """

    units_ND: NDArray[np.float32]
    origin_D: NDArray[np.float32]


def similar_vectors(
    vectors_ND: NDArray[np.float32], described_ND: NDArray[np.float32], buyers_N: NDArray[np.float32]
) -> Similar:
    """Return the vectors by which products are similar.

    Args:
        vectors_ND: of the product tower.
        described_ND: the same as if no product had an id.
        buyers_N: how many customers bought each.
    """
    sold_N = buyers_N > 0
    origin_D = described_ND[sold_N if sold_N.any() else slice(None)].mean(axis=0, dtype=np.float64).astype(np.float32)
    known_N1 = (buyers_N / (buyers_N + np.float32(_PRIOR_BUYERS)))[:, None]
    learnt_ND = of_length_one(vectors_ND - origin_D) * sold_N[:, None]
    mixed_ND = known_N1 * learnt_ND + (1 - known_N1) * units_of_described(described_ND, origin_D)
    return Similar(of_length_one(mixed_ND.astype(np.float32)), origin_D)
