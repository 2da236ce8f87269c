"""Statistics of past purchases for each product: how much, how often and with what else it is bought.

Letters: D factors, N products, P figures a product, L entries of all assortments, T neighbours, Q groups of a product,
R products bought, S of them bought several times.
"""

from pathlib import Path
from typing import NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embeddings import kernel
from embeddings.arrays import load_arrays, save_arrays

GROUPINGS = ("type", "category", "maker")
"""What a rhythm is kept for besides the product itself: a narrow and a wide group of products, and who makes them."""

PRODUCT_STATISTICS = (
    "share",
    "week",
    "month",
    "repeated",
    "buyers",
    "gap",
    "basket_size",
    *(f"{group}_share" for group in GROUPINGS),
)
"""The columns of ``Statistics.products_NP``."""


Scored: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Catalogue rows, ascending, and a score for each."""


class Neighbours(NamedTuple):
    """Each product's nearest others, the nearest first.

    Attributes:
        rows_NT: int32 catalogue rows, -1 where there are no more.
        weights_NT: float32 cosines, 0 where there are no more.
    """

    rows_NT: NDArray[np.int32]
    weights_NT: NDArray[np.float32]

    def around(self, rows_R: NDArray[np.int64], weights_R: NDArray[np.float32]) -> Scored:
        """Return the neighbours of some weighted products, ascending, each with its weighted sum of cosines."""
        return kernel.around(rows_R, weights_R, self.rows_NT, self.weights_NT)


class AlsFactors(NamedTuple):
    """A matrix factorisation of who buys what (Hu, Koren and Volinsky, 2008), its product side.

    Attributes:
        products_ND: float32 factors of the products.
        gram_DD: float32, their inner products summed, with the regularisation on the diagonal.
    """

    products_ND: NDArray[np.float32]
    gram_DD: NDArray[np.float32]

    def of(self, rows_R: NDArray[np.int64], times_R: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the ALS factors (D) of a customer who bought some products so many times.

        They are one step of alternating least squares; zeros for a customer who bought nothing.
        """
        bought_RD = self.products_ND[rows_R]
        times = times_R.astype(np.float32)
        again_R = times_R > 1  # what was bought once stands in the gram already
        again_SD = bought_RD[again_R]
        system_DD = self.gram_DD + (again_SD.T * (times[again_R] - 1)) @ again_SD
        return np.linalg.solve(system_DD, times @ bought_RD)


class Statistics(NamedTuple):
    """Statistics of the events before a moment.

    Attributes:
        products_NP: float32, in the order of ``PRODUCT_STATISTICS``: share of recent purchases; purchases in the last 7
            and in the last 28 days; share of buyers who bought again on another day; buyers; days between two
            purchases; purchases per visit, of the visits that it was bought in; and the mean share of the products of
            its groups, which is all that is known of a product not sold yet.
        local_L: float32, aligned with the locations' assortments: purchases there in the last 28 days.
        groups_NQ: int32, codes of the groups named in ``GROUPINGS``, 0 where unknown.
        also_bought: products that the same customers buy.
        bought_together: products that lie in the same baskets.
        als: ALS factors, which say how much a product suits a customer as a whole.
        lifts_GG: float32, by codes of the wide groups: the log of how much oftener than by chance products of both
            lie in one basket.
        redeemed_O: float32, how often each offer was redeemed.
    """

    products_NP: NDArray[np.float32]
    local_L: NDArray[np.float32]
    groups_NQ: NDArray[np.int32]
    also_bought: Neighbours
    bought_together: Neighbours
    als: AlsFactors
    lifts_GG: NDArray[np.float32]
    redeemed_O: NDArray[np.float32]

    def save(self, folder: Path) -> None:
        """Write the statistics into a folder."""
        save_arrays(
            folder,
            {
                "products": self.products_NP,
                "local": self.local_L,
                "groups": self.groups_NQ,
                "also-bought-rows": self.also_bought.rows_NT,
                "also-bought-weights": self.also_bought.weights_NT,
                "bought-together-rows": self.bought_together.rows_NT,
                "bought-together-weights": self.bought_together.weights_NT,
                "als-products": self.als.products_ND,
                "als-gram": self.als.gram_DD,
                "lifts": self.lifts_GG,
                "redeemed": self.redeemed_O,
            },
        )

    @classmethod
    def none(cls, products: int, carried: int, offers: int) -> Self:
        """Return the statistics of a release that counts nothing, whose candidates come from the towers alone."""
        nobody = Neighbours(np.zeros((products, 0), np.int32), np.zeros((products, 0), np.float32))
        return cls(
            np.zeros((products, len(PRODUCT_STATISTICS)), np.float32),
            np.zeros(carried, np.float32),
            np.zeros((products, len(GROUPINGS)), np.int32),
            nobody,
            nobody,
            AlsFactors(np.zeros((products, 1), np.float32), np.eye(1, dtype=np.float32)),
            np.zeros((1, 1), np.float32),
            np.zeros(offers, np.float32),
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map what ``save`` wrote into memory."""
        arrays = load_arrays(folder)
        return cls(
            arrays["products"],
            arrays["local"],
            arrays["groups"],
            Neighbours(arrays["also-bought-rows"], arrays["also-bought-weights"]),
            Neighbours(arrays["bought-together-rows"], arrays["bought-together-weights"]),
            AlsFactors(arrays["als-products"], arrays["als-gram"]),
            arrays["lifts"],
            arrays["redeemed"],
        )
