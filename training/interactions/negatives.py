"""The draw of the products that stand for all others in a softmax's sum. Letters: N products, K drawn ones."""

import numpy as np
from numpy.typing import NDArray

from training.interactions.config import LossConfig


class Negatives:
    """Products drawn for a batch, with weights that make their sum an unbiased estimate of the sum over all.

    Attributes:
        log_weights_N: log of the weight of a drawn product, its weight in the whole sum over the probability of being
            drawn: the logQ correction of Bengio and Senécal, 2008, with inclusion probabilities, as the drawn products
            are distinct.
        log_shares_N: log of a product's weight in the whole sum; the mean weight of products that occur is one.
        added_N: the same as what it adds to a cosine.
    """

    def __init__(self, counts_N: NDArray[np.int64], config: LossConfig) -> None:
        """Prepare to draw among the products that occur.

        Args:
            counts_N: how often each product occurs.
            config: how many are drawn a batch, and what popular ones weigh.
        """
        drawn, occurs_N = config.negatives, counts_N > 0
        weight_N = np.maximum(counts_N, 1.0) ** config.popularity
        weight_N /= weight_N[occurs_N].mean()
        chance_N = counts_N / counts_N.sum() / 2 + occurs_N / occurs_N.sum() / 2
        self._cumulative_N = chance_N.cumsum()
        self._drawn = drawn
        inclusion_N = -np.expm1(drawn * np.log1p(-np.minimum(chance_N, 1 - 1e-12)))
        self.log_shares_N = np.log(weight_N).astype(np.float32)
        self.added_N = config.temperature * self.log_shares_N
        self.log_weights_N = self.log_shares_N - np.log(np.where(occurs_N, inclusion_N, 1)).astype(np.float32)

    def draw(self, random: np.random.Generator) -> NDArray[np.int64]:
        """Draw distinct product rows (K), ascending; K is at most the number that the recipe draws."""
        # Below the last cumulative sum, so that rounding never yields a product that does not occur.
        at = random.random(self._drawn) * self._cumulative_N[-1]
        rows = np.searchsorted(self._cumulative_N, np.minimum(at, np.nextafter(self._cumulative_N[-1], 0)), "right")
        return np.unique(rows).astype(np.int64)
