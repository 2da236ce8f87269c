"""Compares what would be served with a simple rival on the same questions, and says what chance leaves open.

A customer is drawn with all questions of theirs, so several questions of one customer do not pass for independent ones
(percentile bootstrap). Letters: C customers, Q questions, R resamples.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.ways import Way

FEWEST_CUSTOMERS = 30
"""Of fewer customers an interval says nothing."""

_RESAMPLES = 1_000
_PERCENTILES = (2.5, 97.5)

F64 = NDArray[np.float64]

Measure: TypeAlias = Callable[[F64], tuple[float, float]]
"""Returns what is served and the rival reach where each customer (C) counts so often; not a number of nothing."""


class Comparison(NamedTuple):
    """What is served beside its rival.

    Attributes:
        what: what is ranked.
        metric: its name.
        against: the rival.
        served, rival: what both reach.
        low, high: the difference lies between these with a probability of 95%.
        customers: how many were asked about.
    """

    what: str
    metric: str
    against: str
    served: float
    rival: float
    low: float
    high: float
    customers: int

    @property
    def is_worse(self) -> bool:
        """Return whether what is served is worse than the rival, and not by chance alone."""
        return not self.high >= 0  # not a number is worse, too

    def __str__(self) -> str:
        """Return the figures as a clause."""
        return (
            f"{self.metric} {self.served:.4f} beside {self.rival:.4f} of {self.against}: a difference of "
            f"{self.served - self.rival:+.4f} ({self.low:+.4f}, {self.high:+.4f}), of {self.customers:,} customers"
        )


class Questions(NamedTuple):
    """Questions that were asked in one way.

    Attributes:
        customers_Q: int64, row of the customer.
        served_Q, rival_Q: float64, the metric of both answers.
        open_Q: bool, whether there was more to choose from than an answer holds.
    """

    customers_Q: NDArray[np.int64]
    served_Q: F64
    rival_Q: F64
    open_Q: NDArray[np.bool_]


def compare(what: str, metric: str, against: str, customers: int, measure: Measure) -> Comparison:
    """Measure what is served beside its rival, and how far the difference could be off.

    The draws depend on the number of customers alone.

    Args:
        what: what is ranked.
        metric: its name.
        against: the rival.
        customers: C.
        measure: of any draw of them.
    """
    random = np.random.default_rng(customers)
    served, rival = measure(np.ones(customers))
    differences: list[float] = []
    for _ in range(_RESAMPLES):
        drawn = np.bincount(random.integers(customers, size=customers), minlength=customers)
        ours, theirs = measure(drawn.astype(np.float64))
        differences.append(ours - theirs)
    kept = np.array(differences)
    kept = kept[np.isfinite(kept)]  # in a few draws nothing may be left to measure
    low, high = np.percentile(kept, _PERCENTILES).tolist() if len(kept) else (np.nan, np.nan)
    return Comparison(what, metric, against, served, rival, low, high, customers)


def compare_products(asked: Mapping[Way, Questions], shares: Mapping[Way, float], metric: str) -> Comparison:
    """Compare products with what is popular, in all ways in which requests ask, each by its share.

    Args:
        asked: what was asked in each way, at least something; a way without a share decides nothing, unless all are.
        shares: how often requests ask in each way.
        metric: its name.
    """
    known = {way: shares.get(way, 0.0) for way in asked}
    if not any(known.values()):
        known = dict.fromkeys(asked, 1.0)
    customers, places = np.unique(np.concatenate([asked[way].customers_Q for way in known]), return_inverse=True)
    parts: list[tuple[float, NDArray[np.int64], F64, F64]] = []
    begin = 0
    for way, share in known.items():
        some = asked[way]
        parts.append((share, places[begin : begin + len(some.customers_Q)], some.served_Q, some.rival_Q))
        begin += len(some.customers_Q)

    def measure(times_C: F64) -> tuple[float, float]:
        served = rival = together = 0.0
        for share, customers_Q, served_Q, rival_Q in parts:
            times_Q = times_C[customers_Q]
            if (total := times_Q.sum()) > 0:
                served += share * float(times_Q @ served_Q / total)
                rival += share * float(times_Q @ rival_Q / total)
                together += share
        return (served / together, rival / together) if together else (np.nan, np.nan)

    return compare("products", metric, "what is popular", len(customers), measure)


def can_be_judged(asked: Mapping[Way, Questions], products: Comparison) -> bool:
    """Return whether products tell a good release from a bad one.

    They do not where few customers were asked about, where an answer holds whatever there is to choose from, and where
    neither answer has anything right.

    Args:
        asked: what was asked in each way.
        products: from ``compare_products``.
    """
    choosing = [len(np.unique(some.customers_Q[some.open_Q])) for some in asked.values()]
    return max(choosing) >= FEWEST_CUSTOMERS and products.served + products.rival > 0
