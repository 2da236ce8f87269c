"""Pictures of results."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.samples import Samples

mpl.use("agg")

_TICKS = (50, 90, 99, 99.9)


def latency(path: Path, curves: Mapping[str, Samples], throughputs: Mapping[str, float]) -> None:
    """Latency by percentile at half load, and throughput at saturation, as a PNG.

    Args:
        path: where the picture goes.
        curves: by name, what the generator saw.
        throughputs: by name, requests a second; drawn in this order.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    percentiles = 100 - np.geomspace(100, 0.05, 200)
    for name, samples in curves.items():
        histogram = samples.histogram()
        millis = [histogram.get_value_at_percentile(float(one)) / 1000 for one in percentiles]
        left.plot(1 / (1 - percentiles / 100), millis, label=name)
    left.set(xscale="log", yscale="log", xlabel="percentile", ylabel="ms from the moment a request was due")
    left.set_xticks([1 / (1 - one / 100) for one in _TICKS], [f"{one:g}" for one in _TICKS])
    left.set_xticks([], minor=True)
    left.set_title("latency, open loop at half of saturation")
    left.grid(alpha=0.3)
    left.legend()
    names = list(throughputs)[::-1]
    bars = right.barh(names, [throughputs[name] for name in names])
    right.bar_label(bars, fmt="%.0f", padding=3)
    right.set_title("requests a second at saturation, one core")
    right.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, metadata={"Software": None})
