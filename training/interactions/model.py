"""The interface of every model of interactions: batches that it learns from, and the vectors that result.

Letters: C customers, N products, D dimensions, V of a vector that also says how popular a product is.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn


class Vectors(NamedTuple):
    """The vectors of customers and products that a model results in, to be compared by inner product.

    Attributes:
        customers_CV: what each customer will do after what the model was fitted on.
        products_NV: every product.
    """

    customers_CV: NDArray[np.float32]
    products_NV: NDArray[np.float32]

    @classmethod
    def of(
        cls, customers_CD: NDArray[np.float32], products_ND: NDArray[np.float32], added_N: NDArray[np.float32]
    ) -> Self:
        """Return vectors whose last number adds the product's popularity to their inner product.

        Args:
            customers_CD: without popularity.
            products_ND: without popularity.
            added_N: by product.
        """
        ones_C1 = np.ones((len(customers_CD), 1), np.float32)
        return cls(np.hstack([customers_CD, ones_C1]), np.hstack([products_ND, added_N[:, None]]))


class Model(nn.Module, ABC):
    """A module whose batches are drawn by seed, epoch and step alone, so that a fit goes on where it was killed."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """Return how many batches make an epoch."""

    @property
    @abstractmethod
    def examples(self) -> int:
        """Return how many products an epoch shows with a customer, to be predicted."""

    @abstractmethod
    def loss(self, epoch: int, step: int) -> Tensor:
        """Return the loss of one batch."""

    @abstractmethod
    def vectors(self) -> Vectors:
        """Return the vectors of every customer and product that the model was made for."""
