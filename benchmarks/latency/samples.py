"""Samples that a load generator took, and the figures made from them.

Letters: R requests.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from hdrh.histogram import HdrHistogram
from msgspec import Struct
from numpy.typing import NDArray

TIMED_OUT, BROKEN = -1, -2
"""In place of a status: given up by the client; the connection broke."""

_LONGEST_US = 60_000_000
_DIGITS = 3
_WINDOW_NS, _CALM_WINDOWS = 100_000_000, 5


class Latencies(Struct, frozen=True):
    """Percentiles of latency in milliseconds, from the moment each request was due."""

    count: int
    p50: float
    p90: float
    p99: float
    p999: float
    longest: float


class Samples(NamedTuple):
    """One entry per request that was due.

    Attributes:
        stage_R: its stage in the plan.
        due_R, sent_R, done_R: ns of one clock: when it should leave, did leave, and was answered or given up.
        status_R: of the response, or `TIMED_OUT` or `BROKEN`.
        event_R: 1 if it reported an event, 0 if it asked for a recommendation.
    """

    stage_R: NDArray[np.int64]
    due_R: NDArray[np.int64]
    sent_R: NDArray[np.int64]
    done_R: NDArray[np.int64]
    status_R: NDArray[np.int64]
    event_R: NDArray[np.int64]

    def save(self, path: Path) -> None:
        """Write the samples to a file."""
        np.save(path, np.stack(self), allow_pickle=False)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote."""
        return cls(*np.load(path, allow_pickle=False))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Join several samples; their clocks and stages may differ, so use them for latencies and counts only."""
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def where(self, chosen_R: NDArray[np.bool_]) -> Self:
        """Return the chosen samples."""
        return type(self)(*(column[chosen_R] for column in self))

    def of_stage(self, stage: int) -> Self:
        """Return the samples of one stage."""
        return self.where(self.stage_R == stage)

    @property
    def good(self) -> NDArray[np.bool_]:
        """Return whether each request was answered with success, (R,)."""
        return (self.status_R >= 200) & (self.status_R < 300)

    @property
    def refused(self) -> NDArray[np.bool_]:
        """Return whether each request was refused as one too many, (R,)."""
        return self.status_R == 503

    def statuses(self) -> dict[str, int]:
        """Count the requests by how they ended: a status, ``timed out`` or ``broken``."""
        names = {TIMED_OUT: "timed out", BROKEN: "broken"}
        found, counts = np.unique(self.status_R, return_counts=True)
        return {
            names.get(status, str(status)): count for status, count in zip(found.tolist(), counts.tolist(), strict=True)
        }

    def errors(self) -> int:
        """Count the requests that were not answered with success."""
        return int((~self.good).sum())

    def rate(self, skip_seconds: float = 0.0) -> float:
        """Return the successes a second, by when they were answered; leave out the first ``skip_seconds``."""
        if not len(self.due_R):
            return 0.0
        starts, ends = int(self.due_R.min()) + int(skip_seconds * 1e9), int(self.due_R.max())
        counted_R = self.good & (self.done_R >= starts) & (self.done_R < ends)
        return float(counted_R.sum() / ((ends - starts) / 1e9)) if ends > starts else 0.0

    def histogram(self) -> HdrHistogram:
        """Return a histogram of the latencies in microseconds."""
        histogram = HdrHistogram(1, _LONGEST_US, _DIGITS)
        micros_R = np.clip((self.done_R - self.due_R) // 1000, 1, _LONGEST_US)
        values, counts = np.unique(micros_R, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            histogram.record_value(value, count)
        return histogram

    def latencies(self) -> Latencies:
        """Return the percentiles of latency; zeros if there are no samples."""
        histogram = self.histogram()
        p50, p90, p99, p999, longest = (
            histogram.get_value_at_percentile(one) / 1000 for one in (50, 90, 99, 99.9, 100)
        )
        return Latencies(len(self.due_R), p50, p90, p99, p999, longest)

    def recovery_seconds(self, since_ns: int, usual_ms: float) -> float | None:
        """Return the seconds from a moment until normal service begins; None if it never does.

        It begins with the first of five normal windows of 100 ms in a row. In a normal window none of the requests due
        was refused or failed, and their median latency is within ``usual_ms``.
        """
        window_R = (self.due_R - since_ns) // _WINDOW_NS
        windows = int(window_R.max(initial=-1)) + 1
        calm = 0
        for window in range(windows):
            here = self.where(window_R == window)
            calm = 0 if here.errors() or here.median_ms() > usual_ms else calm + 1
            if calm == _CALM_WINDOWS:
                return (window + 1 - calm) * _WINDOW_NS / 1e9
        return None

    def median_ms(self) -> float:
        """Return the median latency in milliseconds; 0 if there are no samples."""
        return float(np.median(self.done_R - self.due_R)) / 1e6 if len(self.due_R) else 0.0
