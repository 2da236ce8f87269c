"""What a release knows by row: of the products that it was published with, and of those that came later.

Letters: N products published, M that came later, A attributes, D dimensions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embeddings.arrays import Table, of_length_one
from embeddings.catalogue.columns import Catalogue, Promotions
from embeddings.index.base import CandidateIndex
from embeddings.index.segmented import SegmentedIndex
from embeddings.ranking.features import FeatureReader
from embeddings.ranking.observed import lists_of
from embeddings.ranking.statistics import Statistics, groups_of
from embeddings.release.bundle import ModelBundle

_LEAST_DIFFERENCE = 1e-3
"""Attributes that move a vector by less than this share of its length tell no products apart."""


def units_of_described(vectors_MD: NDArray[np.float32], origin_D: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the vectors of length one (M, D) by which products are similar of which only attributes are known.

    They are zeros where the attributes say nothing.

    Args:
        vectors_MD: what the product tower makes of the attributes.
        origin_D: what it makes of those of the usual product.
    """
    apart_MD = vectors_MD - origin_D
    least_M = _LEAST_DIFFERENCE * np.linalg.norm(vectors_MD, axis=1)
    apart_MD[np.linalg.norm(apart_MD, axis=1) <= least_M] = 0
    return of_length_one(apart_MD)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Vectors, statistics and searches by product row, all of one moment.

    Rows are only added. So those of a later catalogue serve every earlier one of the same release.

    Attributes:
        statistics: with what observed says of all locations that there are.
        vectors, units: product vectors, and those of length one by which products are similar.
        products, similar: search over both.
        features: reads what the ranker reads.
        promotions: that the features read of.
        codes_MA, price_M: of the products that came later, as they were encoded.
    """

    statistics: Statistics
    vectors: Table[np.float32]
    units: Table[np.float32]
    products: CandidateIndex
    similar: CandidateIndex
    features: FeatureReader
    promotions: Promotions
    codes_MA: NDArray[np.int32]
    price_M: NDArray[np.float64]

    @classmethod
    def of(cls, bundle: ModelBundle) -> "Rows":
        """Return the rows that a bundle was published with."""
        vectors = Table.of(bundle.vectors_ND)
        products = bundle.catalogue.products
        return cls(
            bundle.statistics,
            vectors,
            Table.of(bundle.units_ND),
            bundle.products,
            bundle.similar,
            FeatureReader(bundle.catalogue.promotions, bundle.statistics, vectors),
            bundle.catalogue.promotions,
            products.attributes.codes_NA[:0],
            products.price_N[:0],
        )

    def following(self, bundle: ModelBundle, catalogue: Catalogue) -> "Rows":
        """Return the rows for a later catalogue of the same release; these, where nothing that they hold has changed.

        Vectors of products that came later than the bundle are encoded from their attributes, again if these change;
        they are zeros where the bundle has no product encoder. Nothing was sold of them, so the statistics hold what
        their groups say.
        """
        held, products = len(bundle.catalogue.products.ids), catalogue.products
        codes_MA, price_M = products.attributes.codes_NA[held:], products.price_N[held:]
        observed = bundle.statistics.observed
        locations = lists_of(catalogue.locations, len(bundle.catalogue.locations.ids))
        if (
            catalogue.promotions is self.promotions
            and np.array_equal(locations, self.statistics.observed.lists_M)
            and np.array_equal(codes_MA, self.codes_MA)
            and np.array_equal(price_M, self.price_M, equal_nan=True)
        ):
            return self
        statistics = bundle.statistics._replace(observed=observed._replace(lists_M=locations))
        vectors, units = self.vectors, self.units
        if len(codes_MA):
            late = products.attributes._replace(codes_NA=codes_MA)
            statistics = statistics.with_new(groups_of(late, statistics.attributes))
            vectors = vectors.with_tail(self._encoded(bundle, codes_MA, price_M))
            units = units.with_tail(
                np.zeros((len(codes_MA), units.columns), np.float32)
                if bundle.product_encoder is None
                else units_of_described(vectors.tail, bundle.origin_D)
            )
        return Rows(
            statistics,
            vectors,
            units,
            SegmentedIndex(bundle.products, held, vectors.tail) if len(codes_MA) else bundle.products,
            SegmentedIndex(bundle.similar, held, units.tail) if len(codes_MA) else bundle.similar,
            FeatureReader(catalogue.promotions, statistics, vectors),
            catalogue.promotions,
            codes_MA,
            price_M,
        )

    def _encoded(
        self, bundle: ModelBundle, codes_MA: NDArray[np.int32], price_M: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Return the vectors (M, D) of products that came later; encode only those that differ from before."""
        vectors_MD = np.zeros((len(codes_MA), self.vectors.columns), np.float32)
        encoder = bundle.product_encoder
        if encoder is None:
            return vectors_MD
        held, shown = len(self.codes_MA), min(self.codes_MA.shape[1], codes_MA.shape[1])
        vectors_MD[:held] = self.vectors.tail
        changed_M = np.ones(len(codes_MA), np.bool_)
        changed_M[:held] = (codes_MA[:held, :shown] != self.codes_MA[:, :shown]).any(axis=1)
        changed_M[:held] |= ~np.isclose(price_M[:held], self.price_M, rtol=0, atol=0, equal_nan=True)
        if not np.isfinite(bundle.catalogue.products.price_N).any():  # then prices have taught the tower nothing
            price_M = np.full(len(price_M), np.nan)
        if changed_M.any():
            vectors_MD[changed_M] = encoder.encode(
                np.full(int(changed_M.sum()), -1, np.int64),
                codes_MA[changed_M].astype(np.int64),
                price_M[changed_M].astype(np.float32),
            )
        return vectors_MD
