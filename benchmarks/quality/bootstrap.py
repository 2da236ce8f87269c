"""How far a figure could be off: percentile bootstrap over households.

A household is drawn with all its questions, so several questions of one household do not pass for independent ones.
Every figure of a task is computed on the same draws, which pairs what is compared.

Shapes: B bins, H households, M items of all answers, Q questions, R resamples.
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

F64 = NDArray[np.float64]

RESAMPLES = 1_000
_PERCENTILES = (2.5, 97.5)
_BINS = 15


class Figure(Struct, frozen=True):
    """A value, and where 95% of the resampled ones lie."""

    value: float
    low: float
    high: float


class Resamples:
    """Draws of as many households as there are, with replacement.

    Args:
        households: of each question.
        seed: of the draws.
    """

    def __init__(self, households: Sequence[str], seed: int = 0) -> None:
        names, household_Q = np.unique(np.asarray(households), return_inverse=True)
        self._household_Q = household_Q
        count = len(names)
        self._drawn_RH = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES)

    def mean(self, values_Q: Sequence[float]) -> Figure:
        """Return the mean of a value of each question."""
        return _figure(float(np.mean(values_Q)), self._means(values_Q))

    def difference(self, ours_Q: Sequence[float], theirs_Q: Sequence[float]) -> Figure:
        """Return the mean of one less the mean of the other."""
        return self.mean(np.subtract(ours_Q, theirs_Q).tolist())

    def ratio(self, ours_Q: Sequence[float], theirs_Q: Sequence[float]) -> Figure | None:
        """Return the mean of one over the mean of the other; None where the other's is 0, or is in a resample."""
        theirs_R = self._means(theirs_Q)
        if not theirs_R.all() or not np.mean(theirs_Q):
            return None
        return _figure(float(np.mean(ours_Q) / np.mean(theirs_Q)), self._means(ours_Q) / theirs_R)

    def gain(self, ours_Q: Sequence[float], theirs_Q: Sequence[float]) -> Figure | None:
        """Return the ratio less one; None where there is no ratio."""
        ratio = self.ratio(ours_Q, theirs_Q)
        return None if ratio is None else Figure(*(round(one - 1, 5) for one in (ratio.value, ratio.low, ratio.high)))

    def calibration(self, scores_M: F64, taken_M: F64, questions_M: NDArray[np.int64]) -> Figure:
        """Return the expected calibration error of scores of items, over bins of equal size.

        Args:
            scores_M: probabilities.
            taken_M: 1 for what was taken, else 0.
            questions_M: the number of the question that each is of.
        """
        bins_M = np.empty(len(scores_M), np.int64)
        for number, part in enumerate(np.array_split(np.argsort(scores_M, kind="stable"), _BINS)):
            bins_M[part] = number
        household_M, count = self._household_Q[questions_M], self._drawn_RH.shape[1]
        gaps_HB = np.bincount(household_M * _BINS + bins_M, scores_M - taken_M, count * _BINS).reshape(count, _BINS)
        items_H = np.bincount(household_M, minlength=count)
        errors_R = np.abs(self._drawn_RH @ gaps_HB).sum(axis=1) / np.maximum(self._drawn_RH @ items_H, 1)
        return _figure(float(np.abs(gaps_HB.sum(axis=0)).sum() / max(len(scores_M), 1)), errors_R)

    def _means(self, values_Q: Sequence[float]) -> F64:
        """Return the mean of each resample, (R,)."""
        sums_H = np.bincount(self._household_Q, weights=values_Q)
        counts_H = np.bincount(self._household_Q)
        return (self._drawn_RH @ sums_H) / (self._drawn_RH @ counts_H)


def _figure(value: float, resampled_R: F64) -> Figure:
    low, high = np.percentile(resampled_R, _PERCENTILES)
    return Figure(round(value, 5), round(float(low), 5), round(float(high), 5))
