"""How fast and how right the search inside eligible sets is, beside FAISS without our index around it.

One thread. Over selectivity and batch size, on three catalogues: the product vectors of the suites' own release with
its customers' vectors, and generated ones of a million and ten million. Times of a cell are taken in turns; recall is
held against the oracle. Last, the same number of eligible rows is searched in all three catalogues, in turns again.
"""

import resource
from collections.abc import Iterator, Mapping
from hashlib import file_digest
from pathlib import Path

import faiss
import numpy as np
from msgspec import Struct
from rich.console import Console
from rich.progress import track

from benchmarks.harness import machine, plot
from benchmarks.harness.release import release
from benchmarks.harness.report import write_report
from benchmarks.peers.stack import Past
from benchmarks.search import clusters, costs, cuda
from benchmarks.search.cells import Catalogue, K, Repetitions, flat_index, growth, measure
from benchmarks.search.graphs import measure_graphs, print_graphs
from benchmarks.search.outcome import Cell, print_table, summary
from embeddings.device import Device
from embeddings.index.base import F32
from embeddings.index.ivf import radii_path, write_ivf
from embeddings.index.planned import PlannedIndex
from embeddings.release.bundle import IVF_INDEX
from embeddings.release.store import BundleStore

BATCHES = (1, 8, 64)
CACHE_BYTES = 2 * 2**30
"""Bound on the copies that our index keeps: room for half of ten million rows, which the service's default has not."""
GROWTH_ROWS, GROWTH_SETS = 20_000, 8
_QUERIES = 512
_GRAPH_QUERIES = 256
_ALL = (1.0, 0.5, 0.1, 0.01, 0.001, 0.0001)


class Size(Struct, frozen=True):
    """What to measure on one catalogue.

    Attributes:
        rows: of a generated catalogue; None for the real one.
        checked: how many queries are compared with the oracle.
        ivf: whether a generated catalogue has a bounded IVF, as `training` exports one; the real one has its release's.
            At ten million rows its clustering takes a quarter of an hour.
    """

    rows: int | None
    selectivities: tuple[float, ...]
    checked: int
    ivf: bool = True


class Effort(Struct, frozen=True):
    """How much to measure.

    Attributes:
        sizes: the catalogues, ascending.
        cell, growth, point: repetitions of a cell, of the growth, and of each point that the costs are fitted to.
    """

    sizes: tuple[Size, ...]
    cell: Repetitions
    growth: Repetitions
    point: Repetitions


FULL = Effort(
    (Size(None, _ALL, 64), Size(1_000_000, _ALL, 16), Size(10_000_000, _ALL, 8)),
    Repetitions(5, 3, 500),
    Repetitions(20, 400, 2_000),
    Repetitions(2, 20, 300),
)
QUICK = Effort(
    (Size(None, _ALL, 64), Size(1_000_000, _ALL, 8), Size(10_000_000, (0.01, 0.0001), 4, ivf=False)),
    Repetitions(0.7, 2, 100),
    Repetitions(3, 200, 400),
    Repetitions(0.5, 10, 100),
)


def run(store: Path, json_file: Path, *, quick: bool, device: Device) -> Mapping[str, float | None]:
    """Measure, print, write the JSON, on the CPU also a picture beside it, and return the summary.

    Args:
        store: a store of the suites' own; a release is trained there if it holds none. Generated catalogues stay in
            its folder ``search`` for the next run: 3 GB, and with the inverted file of ten million rows 4.5 GB.
        json_file: where everything that was measured goes.
        quick: within five minutes, with the same keys; at ten million rows fewer selectivities.
        device: where our index searches. On ``cuda`` ways to search all rows are compared, see `cuda`.

    Raises:
        InvalidInput: no room on the disk for the generated catalogues.
        DeviceUnavailable: ``cuda`` without a GPU.
    """
    if device == "cuda":
        return cuda.run(json_file, quick=quick)
    faiss.omp_set_num_threads(1)
    effort = QUICK if quick else FULL
    version = release(store)
    cells: list[Cell] = []
    catalogues: list[Catalogue] = []
    past = Past.open(store)
    for size, catalogue in zip(effort.sizes, _catalogues(store, past, version, effort), strict=True):
        cells += _cells(catalogue, size, effort)
        catalogues.append(catalogue)
    grown = growth(catalogues, GROWTH_ROWS, GROWTH_SETS, effort.growth)
    graphs = list(measure_graphs(past, catalogues[0], effort.sizes[0].selectivities, _GRAPH_QUERIES, effort.cell))
    measured_costs = costs.costs(catalogues[0], catalogues[1], effort.point)
    figures = summary(cells, grown)
    report = {
        "suite": "search",
        "quick": quick,
        "version": version,
        "machine": machine.describe(),
        "threads": 1,
        "k": K,
        "cache_bytes": CACHE_BYTES,
        "effort": effort,
        "generated": {"rows_a_cluster": clusters.ROWS_A_CLUSTER, "variance_within": clusters.WITHIN},
        "peak_resident_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "cells": [cell.with_ratios() for cell in cells],
        "growth": grown,
        "graphs": graphs,
        "costs": measured_costs,
        "summary": figures,
    }
    write_report(json_file, report)
    plot.search(json_file.with_suffix(".png"), cells)
    print_table(cells, figures)
    print_graphs(graphs)
    return figures


def _catalogues(store: Path, past: Past, version: str, effort: Effort) -> Iterator[Catalogue]:
    """Yield the catalogue of each size, opened when it is its turn."""
    for size in effort.sizes:
        if size.rows is None:
            yield _real(past, BundleStore(store).bundle(version))
        else:
            yield _generated(store / "search", past.vectors_ND, size.rows, ivf=size.ivf)


def _real(past: Past, bundle: Path) -> Catalogue:
    random = np.random.default_rng(0)
    asked_QD = random.choice(past.customers_CD, _QUERIES, replace=len(past.customers_CD) < _QUERIES)
    ivf = bundle / IVF_INDEX if (bundle / IVF_INDEX).exists() else None
    index = PlannedIndex(past.vectors_ND, "cpu", cache_bytes=CACHE_BYTES, ivf=ivf)
    return Catalogue(f"{len(past.vectors_ND):,} real", past.vectors_ND, asked_QD, index, ivf)


def _generated(folder: Path, like_ND: F32, rows: int, *, ivf: bool) -> Catalogue:
    file = clusters.catalogue(folder, like_ND, rows)
    vectors_ND: F32 = np.load(file, mmap_mode="r")
    inverted = _inverted(file, vectors_ND) if ivf else None
    index = PlannedIndex(vectors_ND, "cpu", cache_bytes=CACHE_BYTES, ivf=inverted)
    return Catalogue(f"{rows:,} generated", vectors_ND, clusters.queries(like_ND, rows, _QUERIES), index, inverted)


def _inverted(file: Path, vectors_ND: F32) -> Path:
    """Return the bounded IVF beside a catalogue's file; make it if it is not there."""
    path, partial = file.with_suffix(".ivf.faiss"), file.with_suffix(".partial.faiss")
    if not path.exists():
        with Console().status(f"clustering {len(vectors_ND):,} vectors"):
            write_ivf(vectors_ND, partial)
        radii_path(partial).rename(radii_path(path))
        partial.rename(path)
    with path.open("rb") as kept:  # a release is read whole when it is verified: its pages are in memory then
        file_digest(kept, "blake2b")
    return path


def _cells(catalogue: Catalogue, size: Size, effort: Effort) -> list[Cell]:
    """Measure every cell of a catalogue.

    The baseline's copy of the catalogue is gone afterwards: ten million rows take 2.6 GB.
    """
    flat = flat_index(catalogue.vectors_ND)
    return [
        cell
        for selectivity in track(size.selectivities, f"searching {catalogue.name}", transient=True)
        for cell in measure(catalogue, flat, selectivity, BATCHES, size.checked, effort.cell)
    ]
