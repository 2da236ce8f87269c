"""Pictures of results."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.fit.outcome import Fit, Growth
from benchmarks.latency.samples import Samples
from benchmarks.search.outcome import Cell

mpl.use("agg")

_TICKS = (50, 90, 99, 99.9)


def latency(path: Path, curves: Mapping[str, Samples], throughputs: Mapping[str, float]) -> None:
    """Draw latency by percentile at half load, and throughput at saturation, as a PNG.

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


_SEARCHES = {
    "hot": "our index, set known",
    "cold": "our index, set never seen",
    "eligible_scan": "flat scan of a copy of the set",
    "panorama": "Panorama on a copy of the set",
    "bitmap": "flat scan of everything with a bitmap",
}
"""Times of a `Cell`, with what they are called."""


def search(path: Path, cells: Sequence[Cell]) -> None:
    """Draw the time of one query against selectivity, one panel a catalogue, as a PNG.

    Args:
        path: where the picture goes.
        cells: of all batch sizes; those of batch 1 are drawn.
    """
    alone = [cell for cell in cells if cell.batch == 1]
    catalogues = list(dict.fromkeys(cell.catalogue for cell in alone))
    figure = Figure(figsize=(4 * len(catalogues) + 1, 4.5), layout="constrained")
    panels = figure.subplots(1, len(catalogues), sharey=True, squeeze=False)[0]
    for panel, catalogue in zip(panels, catalogues, strict=True):
        of_it = [cell for cell in alone if cell.catalogue == catalogue]
        for name, label in _SEARCHES.items():
            points = [(cell.selectivity, time / 1000) for cell in of_it if (time := getattr(cell, name)) is not None]
            panel.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        shares = sorted({cell.selectivity for cell in of_it})
        panel.set(xscale="log", yscale="log", xlabel="eligible rows", title=f"{catalogue} rows")
        panel.set_xticks(shares, [f"{100 * share:g}%" for share in shares], fontsize=8)
        panel.set_xticks([], minor=True)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("ms a query, one thread, k = 64")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=120, metadata={"Software": None})


def fit(path: Path, fits: Sequence[Fit]) -> None:
    """Draw quality against seconds of fitting, one panel for all models of the same data, as a PNG.

    Args:
        path: where the picture goes.
        fits: those without a metric are left out.
    """
    measured = [one for one in fits if one.metric is not None]
    panels_of = list(dict.fromkeys((one.data, one.metric) for one in measured))
    figure = Figure(figsize=(5 * len(panels_of), 4), layout="constrained")
    for panel, (data, metric) in zip(figure.subplots(1, len(panels_of), squeeze=False)[0], panels_of, strict=True):
        for one in measured:
            points = [(reached.seconds, reached.figure) for reached in one.course if reached.figure is not None]
            if one.data == data:
                panel.plot(*zip(*points, strict=True), marker="o", markersize=3, label=f"{one.model}, {one.device}")
        panel.set(xscale="log", xlabel="seconds of fitting", ylabel=metric, title=data)
        panel.grid(alpha=0.3)
        panel.legend()
    figure.savefig(path, dpi=120, metadata={"Software": None})


def grow(path: Path, found: Sequence[Growth]) -> None:
    """Draw what training and serving take against the number of events, as a PNG."""
    events = [one.size.events for one in found]
    panels_of: Mapping[str, Mapping[str, list[float]]] = {
        "minutes": {
            "training": [one.training_seconds / 60 for one in found],
            "processor time of training": [one.processor_seconds / 60 for one in found],
        },
        "GiB": {
            "training": [one.training_mib / 1024 for one in found],
            "service": [one.resident_mib / 1024 for one in found],
        },
        "ms, at half of saturation": {"p50": [one.p50_ms for one in found], "p99": [one.p99_ms for one in found]},
    }
    figure = Figure(figsize=(12, 4), layout="constrained")
    for panel, (unit, curves) in zip(figure.subplots(1, len(panels_of)), panels_of.items(), strict=True):
        for name, values in curves.items():
            panel.plot(events, values, marker="o", label=name)
        panel.set(xscale="log", xlabel="purchases", ylabel=unit, ylim=(0, None))
        panel.grid(alpha=0.3)
        panel.legend()
    figure.savefig(path, dpi=120, metadata={"Software": None})
