"""What every model of interactions is: batches that teach it, and vectors that it ends as.

Letters: C customers, N products, D dimensions.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn


class Vectors(NamedTuple):
    """What a model says, to be compared by inner product.

    Attributes:
        customers_CD: what each customer will do after what the model was fitted on.
        products_ND: of length one.
    """

    customers_CD: NDArray[np.float32]
    products_ND: NDArray[np.float32]


class Model(nn.Module, ABC):
    """A module whose batches are drawn by seed, epoch and step alone, so that a fit goes on where it was killed."""

    @property
    @abstractmethod
    def steps(self) -> int:
        """How many batches make an epoch."""

    @property
    @abstractmethod
    def examples(self) -> int:
        """How many products an epoch shows with a customer, to be foretold."""

    @abstractmethod
    def loss(self, epoch: int, step: int) -> Tensor:
        """The loss of one batch."""

    @abstractmethod
    def vectors(self) -> Vectors:
        """The vectors of every customer and product that the model was made for."""
