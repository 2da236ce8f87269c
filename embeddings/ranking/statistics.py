"""Statistics of past purchases for each product: how much, how often and with what else it is bought.

Letters: D factors, N products, P figures a product, L products sold by location, T neighbours, Q groups of a product,
R products bought, S of them bought several times, M products that came after the figures were counted, H spans of days.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from embeddings import kernel
from embeddings.arrays import Table, load_arrays, save_arrays
from embeddings.catalogue.columns import Attributes
from embeddings.ranking.acceptance import Acceptance
from embeddings.ranking.observed import Observed

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
    "price",
    "price_lately",
    "accepted",
    *(f"{group}_share" for group in GROUPINGS),
)
"""The columns of ``Statistics.products_NP``."""


HAZARD_DAYS = (0.75, 1.5, 2.5, 3.5, 5.0, 7.5, 10.5, 14.5, 21.5, 28.5, 42.5, 60.5, 90.5, 150.5)
"""Where the spans of days since a purchase end for which it is known how likely the next is; the last has no end."""


Scored: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Catalogue rows, ascending, and a score for each."""


class Neighbours(NamedTuple):
    """Each product's nearest others, the nearest first.

    Attributes:
        rows_NT: int32 catalogue rows, -1 where there are no more.
        weights_NT: float32, 0 where there are no more: cosines, or shares of baskets for complements.
    """

    rows_NT: Table[np.int32]
    weights_NT: Table[np.float32]

    @classmethod
    def of(cls, rows_NT: NDArray[np.int32], weights_NT: NDArray[np.float32]) -> Self:
        """Return the neighbours of all products that there are."""
        return cls(Table.of(rows_NT), Table.of(weights_NT))

    def with_new(self, count: int) -> "Neighbours":
        """Return the same with products that came later, which have no neighbours."""
        width = self.rows_NT.columns
        return Neighbours(
            self.rows_NT.with_tail(np.full((count, width), -1, np.int32)),
            self.weights_NT.with_tail(np.zeros((count, width), np.float32)),
        )

    def around(self, rows_R: NDArray[np.int64], weights_R: NDArray[np.float32]) -> Scored:
        """Return the neighbours of some weighted products, ascending, each with its weighted sum of cosines."""
        return kernel.around(rows_R, weights_R, self.rows_NT, self.weights_NT)


class AlsFactors(NamedTuple):
    """A matrix factorisation of who buys what (Hu, Koren and Volinsky, 2008), its product side.

    Attributes:
        products_ND: float32 factors of the products.
        gram_DD: float32, their inner products summed, with the regularisation on the diagonal.
    """

    products_ND: Table[np.float32]
    gram_DD: NDArray[np.float32]

    def of(self, rows_R: NDArray[np.int64], times_R: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the ALS factors (D) of a customer who bought some products so many times.

        They are one step of alternating least squares; zeros for a customer who bought nothing.
        """
        bought_RD = self.products_ND.take(rows_R)
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
            purchases; purchases per visit, of the visits that it was bought in; what a piece has cost on average, and
            what it cost in the last 28 days, 0 where nobody said; a hundred times the odds that it is bought after it
            was shown, 0 where too little was shown to say; and the mean share of the products of its groups,
            which is all that is known of a product not sold yet.
        unsold_P: float32, the figures of a product that was never sold and whose groups are unknown.
        observed: how much is bought, and where.
        month_L: float32, aligned with ``observed.sold.values``: purchases there in the last 28 days.
        hazards_NH: float32, the share of visits in which a customer buys a product who bought it so many days ago for
            the last time, by the spans of ``HAZARD_DAYS``; smoothed towards its type's.
        hazards_GH: float32, the same of the products of a type, by its code; of all products in row 0.
        groups_NQ: int32, codes of the groups named in ``GROUPINGS``, 0 where unknown.
        attributes: the products' attributes that these groups are codes of; empty where there is none.
        also_bought: products that the same customers buy.
        bought_together: products that lie in the same baskets.
        complements: products that lie in most of the baskets of a product, oftener than by chance; the weight is the
            share of its baskets.
        together_NT: int32, aligned with the complements: in how many baskets both lay.
        als: ALS factors, which say how much a product suits a customer as a whole.
        lifts_GG: float32, by codes of the wide groups: the log of how much oftener than by chance products of both
            lie in one basket.
        redeemed_O: float32, how often each offer was redeemed.
        acceptance: how likely each offer is accepted when it is shown.
        longest_absence: days since the newest purchase beyond which training saw next to nobody. Whoever stays away
            for longer is taken to have stayed away for so long: features that age further were never learnt from. It
            stands in the manifest of a bundle.
    """

    products_NP: Table[np.float32]
    unsold_P: NDArray[np.float32]
    observed: Observed
    month_L: NDArray[np.float32]
    hazards_NH: Table[np.float32]
    hazards_GH: NDArray[np.float32]
    groups_NQ: Table[np.int32]
    attributes: tuple[str, ...]
    also_bought: Neighbours
    bought_together: Neighbours
    complements: Neighbours
    together_NT: Table[np.int32]
    als: AlsFactors
    lifts_GG: NDArray[np.float32]
    redeemed_O: NDArray[np.float32]
    acceptance: Acceptance = Acceptance.none()
    longest_absence: float = math.inf

    def with_new(self, groups_MQ: NDArray[np.int32]) -> Self:
        """Return the statistics with products that came later: nothing is known of them but their groups' codes."""
        count, factors = len(groups_MQ), self.als.products_ND
        products_MP = np.repeat(self.unsold_P[None], count, axis=0)
        for number, group in enumerate(GROUPINGS):
            column = PRODUCT_STATISTICS.index(f"{group}_share")
            codes_N, codes_M = self.groups_NQ.base[:, number], groups_MQ[:, number]
            # All products of a group have the same mean; one without products, such as a new one, has none.
            means_G = np.zeros(max(int(codes_N.max(initial=0)), int(codes_M.max(initial=0))) + 1, np.float32)
            means_G[codes_N] = self.products_NP.base[:, column]
            products_MP[:, column] = means_G[codes_M]
        return self._replace(
            products_NP=self.products_NP.with_tail(products_MP),
            hazards_NH=self.hazards_NH.with_tail(self._hazards_of(groups_MQ[:, GROUPINGS.index("type")])),
            groups_NQ=self.groups_NQ.with_tail(groups_MQ),
            also_bought=self.also_bought.with_new(count),
            bought_together=self.bought_together.with_new(count),
            complements=self.complements.with_new(count),
            together_NT=self.together_NT.with_tail(np.zeros((count, self.together_NT.columns), np.int32)),
            als=self.als._replace(
                products_ND=factors.with_tail(np.zeros((count, factors.columns), np.float32)),
            ),
        )

    def _hazards_of(self, types_M: NDArray[np.int32]) -> NDArray[np.float32]:
        """Return the hazards (M, H) of products of which only the code of the type is known."""
        return self.hazards_GH[np.where(types_M < len(self.hazards_GH), types_M, 0)]

    def save(self, folder: Path) -> None:
        """Write the statistics into a folder."""
        save_arrays(
            folder,
            {
                **self.observed.arrays(),
                "products": self.products_NP.whole,
                "unsold": self.unsold_P,
                "month": self.month_L,
                "hazards": self.hazards_NH.whole,
                "hazards-types": self.hazards_GH,
                "groups": self.groups_NQ.whole,
                "also-bought-rows": self.also_bought.rows_NT.whole,
                "also-bought-weights": self.also_bought.weights_NT.whole,
                "bought-together-rows": self.bought_together.rows_NT.whole,
                "bought-together-weights": self.bought_together.weights_NT.whole,
                "complements-rows": self.complements.rows_NT.whole,
                "complements-weights": self.complements.weights_NT.whole,
                "complements-baskets": self.together_NT.whole,
                "als-products": self.als.products_ND.whole,
                "als-gram": self.als.gram_DD,
                "lifts": self.lifts_GG,
                "redeemed": self.redeemed_O,
                **self.acceptance.arrays(),
            },
        )
        (folder / "attributes.json").write_bytes(msgspec.json.encode(self.attributes))

    @classmethod
    def none(cls, observed: Observed, offers: int) -> Self:
        """Return the statistics of a release that counts nothing, whose candidates come from the towers alone."""
        products = len(observed.popularity_N)
        nobody = Neighbours.of(np.zeros((products, 0), np.int32), np.zeros((products, 0), np.float32))
        return cls(
            Table.of(np.zeros((products, len(PRODUCT_STATISTICS)), np.float32)),
            np.zeros(len(PRODUCT_STATISTICS), np.float32),
            observed,
            np.zeros(len(observed.sold.values), np.float32),
            Table.of(np.zeros((products, len(HAZARD_DAYS) + 1), np.float32)),
            np.zeros((1, len(HAZARD_DAYS) + 1), np.float32),
            Table.of(np.zeros((products, len(GROUPINGS)), np.int32)),
            ("",) * len(GROUPINGS),
            nobody,
            nobody,
            nobody,
            Table.of(np.zeros((products, 0), np.int32)),
            AlsFactors(Table.of(np.zeros((products, 1), np.float32)), np.eye(1, dtype=np.float32)),
            np.zeros((1, 1), np.float32),
            np.zeros(offers, np.float32),
        )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map what ``save`` wrote into memory."""
        arrays: dict[str, Any] = load_arrays(folder)
        return cls(
            Table.of(arrays["products"]),
            arrays["unsold"],
            Observed.of_arrays(arrays),
            arrays["month"],
            Table.of(arrays["hazards"]),
            arrays["hazards-types"],
            Table.of(arrays["groups"]),
            msgspec.json.decode((folder / "attributes.json").read_bytes(), type=tuple[str, ...]),
            Neighbours.of(arrays["also-bought-rows"], arrays["also-bought-weights"]),
            Neighbours.of(arrays["bought-together-rows"], arrays["bought-together-weights"]),
            Neighbours.of(arrays["complements-rows"], arrays["complements-weights"]),
            Table.of(arrays["complements-baskets"]),
            AlsFactors(Table.of(arrays["als-products"]), arrays["als-gram"]),
            arrays["lifts"],
            arrays["redeemed"],
            Acceptance.of_arrays(arrays),
        )


def groups_of(attributes: Attributes, names: Sequence[str]) -> NDArray[np.int32]:
    """Return the codes (N, Q) of the groups that some attributes make, in the order of their names; 0 where unknown."""
    codes_NA = attributes.codes_NA
    nothing_N = np.zeros(len(codes_NA), np.int32)
    columns = [codes_NA[:, attributes.names.index(name)] if name in attributes.names else nothing_N for name in names]
    return np.stack(columns, axis=1).astype(np.int32)
