"""What was observed of a catalogue before a moment: how much of each product is bought, and where.

Letters: N products, M locations, R regions, L pairs of a list and a product on it.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import Array, Ragged
from embeddings.catalogue.columns import ASSUMED, SOLD, Locations

SoldLists: TypeAlias = tuple[int, ...]
"""Numbers of lists of `Observed.sold`."""


class Observed(NamedTuple):
    """Purchases before a moment, counted by product, and by location and product.

    What is bought at a location stands in a list: each location has one, and after these each region, for locations of
    which nothing is known: it holds means over comparable locations.

    Attributes:
        popularity_N: float32, decayed count of purchases at all locations; a row beyond the last was never bought.
        trained_N: bool, whether the product was seen in training: its id vector means something.
        sold: int32 product rows, ascending, by number of list; ``M + 1 + R`` lists.
        popularity_L: float32, aligned with ``sold.values``: decayed count of purchases.
        lists_M: int64, the number of each location's list; -1 for a location where nothing was sold.
    """

    popularity_N: NDArray[np.float32]
    trained_N: NDArray[np.bool_]
    sold: Ragged
    popularity_L: NDArray[np.float32]
    lists_M: NDArray[np.int64]

    def lists_of(self, locations: Sequence[int] | None) -> SoldLists:
        """Return the lists of some locations, given by their rows; none where nothing was sold, or for no locations."""
        if not locations:
            return ()
        item = self.lists_M.item  # a whole look-up of some would take longer than each
        return tuple([number for number in map(item, locations) if number >= 0])

    def arrays(self) -> dict[str, Array]:
        """Return the arrays from which this can be built again."""
        return {
            "popularity": self.popularity_N,
            "trained": self.trained_N,
            "sold-offsets": self.sold.offsets,
            "sold-values": self.sold.values,
            "sold-popularity": self.popularity_L,
            "sold-lists": self.lists_M,
        }

    @classmethod
    def of_arrays(cls, arrays: dict[str, Array]) -> "Observed":
        """Return what ``arrays`` was taken from."""
        return cls(
            arrays["popularity"],
            arrays["trained"],
            Ragged(arrays["sold-offsets"], arrays["sold-values"]),
            arrays["sold-popularity"],
            arrays["sold-lists"],
        )


def lists_of(locations: Locations, published: int) -> NDArray[np.int64]:
    """Return the number of each location's list (M): its own, its region's where its products are assumed, or -1.

    Args:
        locations: at present.
        published: how many of them there were when purchases were counted.
    """
    why_M = locations.why_M
    lists_M = np.where(why_M & ASSUMED > 0, published + locations.assumed_M, -1)
    return np.where(why_M & SOLD > 0, np.arange(len(why_M)), lists_M)
