"""Ways to search all rows on a GPU, side by side: ours, FAISS's brute force, torch, and cuVS where it is installed.

A million rows of 128 dimensions as they come, no set: what is compared is the scan. Shapes: B queries, D dimensions,
K results, N rows.
"""

import time
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct

from benchmarks.harness import machine
from benchmarks.harness.report import Table, write_report
from benchmarks.search import clusters
from embeddings.errors import DeviceUnavailable
from embeddings.index.base import F32, I64

ROWS, DIMENSIONS, K = 1_000_000, 128, 64
_BATCHES = (1, 64)
_COPIED_BYTES = 2**30


class Way(Struct, frozen=True):
    """Figures of one way.

    Attributes:
        p50_ms: by batch size, from NumPy queries to NumPy rows.
        bandwidth_share: bytes of its vectors over the time of a batch of 64, as a share of what copying reaches.
        equal_rows: share of the rows of the CPU's answers found, in their places.
    """

    p50_ms: dict[int, float]
    bandwidth_share: float
    equal_rows: float


class _Search(NamedTuple):
    """A way to search: queries in, rows (B, K) out, and how many bytes its vectors take on the device."""

    rows: Callable[[F32], I64]
    nbytes: int


def run(json_file: Path, *, quick: bool) -> Mapping[str, float | None]:
    """Measure, print, write the JSON; return p50 in ms of batch 1 and the bandwidth share of batch 64, by way.

    Raises:
        DeviceUnavailable: torch or FAISS sees no GPU.
    """
    torch = require_torch()
    # FAISS after torch: each brings its own CUDA libraries, and the ones loaded first win.
    from embeddings.device import faiss_sees_gpu  # noqa: PLC0415
    from embeddings.index.planned import PlannedIndex  # noqa: PLC0415

    if not faiss_sees_gpu():
        raise DeviceUnavailable("FAISS sees no GPU (faiss.get_num_gpus() is 0); install opportune[gpu]")
    random = np.random.default_rng(0)
    mixture = clusters.Mixture.like(random.standard_normal((10_000, DIMENSIONS), np.float32), ROWS // 100, 0)
    vectors_ND, queries_QD = mixture.draw(random, ROWS), mixture.draw(random, 64)
    cpu = PlannedIndex(vectors_ND, "cpu")
    right_QK = cpu.search(queries_QD, K, [None] * len(queries_QD)).rows_BK
    copied = _copied_a_second(torch)
    repetitions = 50 if quick else 500
    ways: dict[str, Way] = {}
    for name, make in _ways(torch, PlannedIndex).items():
        search = make(vectors_ND)
        p50_ms = {batch: _p50_ms(search.rows, queries_QD[:batch], repetitions) for batch in _BATCHES}
        ways[name] = Way(
            p50_ms=p50_ms,
            bandwidth_share=round(search.nbytes / (p50_ms[64] / 1000) / copied, 4),
            equal_rows=round(float((search.rows(queries_QD) == right_QK).mean()), 6),
        )
        del search
    figures: dict[str, float | None] = {f"{name}_p50_ms": way.p50_ms[1] for name, way in ways.items()}
    figures |= {f"{name}_bandwidth_share": way.bandwidth_share for name, way in ways.items()}
    report = {
        "suite": "search",
        "device": torch.cuda.get_device_name(),
        "quick": quick,
        "machine": machine.describe(),
        "rows": ROWS,
        "dimensions": DIMENSIONS,
        "k": K,
        "copied_gb_a_second": round(copied / 1e9, 1),
        "ways": ways,
        "summary": figures,
    }
    write_report(json_file, report)
    table = Table("search of all rows on the GPU", ["way", "p50 ms, 1", "p50 ms, 64", "bandwidth share", "equal rows"])
    for name, way in ways.items():
        times = (f"{way.p50_ms[batch]:.3f}" for batch in _BATCHES)
        table.add(name, *times, f"{way.bandwidth_share}", f"{way.equal_rows}")
    table.print()
    return figures


def require_torch() -> Any:
    """Import torch now and return it.

    Raises:
        DeviceUnavailable: it is not installed or sees no GPU.
    """
    if find_spec("torch") is None:
        raise DeviceUnavailable("torch is not installed; install opportune[train]")
    torch = import_module("torch")
    if not torch.cuda.is_available():
        raise DeviceUnavailable("torch sees no GPU (torch.cuda.is_available() is False)")
    return torch


def _ways(torch: Any, planned: Any) -> dict[str, Callable[[F32], _Search]]:
    """Return functions that make each way ready, by name."""
    ways: dict[str, Callable[[F32], _Search]] = {
        "planned": lambda vectors_ND: _planned(planned, vectors_ND),
        "knn_gpu": _knn_gpu,
        "torch_fp32": lambda vectors_ND: _torch_mm(torch, vectors_ND, torch.float32),
        "torch_fp16": lambda vectors_ND: _torch_mm(torch, vectors_ND, torch.float16),
    }
    if find_spec("cuvs") is not None:
        ways["cuvs"] = lambda vectors_ND: _cuvs(torch, vectors_ND)
    return ways


def _planned(planned: Any, vectors_ND: F32) -> _Search:
    """Return our index: GpuIndexFlat over half-precision copies, whose proposals the CPU scores again."""
    index = planned(vectors_ND, "cuda")

    def rows(queries_BD: F32) -> I64:
        return index.search(queries_BD, K, [None] * len(queries_BD)).rows_BK

    return _Search(rows, vectors_ND.nbytes // 2)


def _knn_gpu(vectors_ND: F32) -> _Search:
    """Return FAISS's brute force, over vectors that torch keeps on the device."""
    faiss, torch = import_module("faiss"), import_module("torch")
    import_module("faiss.contrib.torch_utils")
    resources, held_ND = faiss.StandardGpuResources(), torch.from_numpy(vectors_ND).cuda()

    def rows(queries_BD: F32) -> I64:
        asked_BD = torch.from_numpy(queries_BD).cuda()
        return faiss.knn_gpu(resources, asked_BD, held_ND, K, metric=faiss.METRIC_INNER_PRODUCT)[1].cpu().numpy()

    return _Search(rows, vectors_ND.nbytes)


def _torch_mm(torch: Any, vectors_ND: F32, dtype: Any) -> _Search:
    """Return a search by one matrix product and torch's top-k."""
    held_DN = torch.from_numpy(vectors_ND).cuda().to(dtype).T

    def rows(queries_BD: F32) -> I64:
        return (torch.from_numpy(queries_BD).cuda().to(dtype) @ held_DN).topk(K).indices.cpu().numpy()

    return _Search(rows, held_DN.nbytes)


def _cuvs(torch: Any, vectors_ND: F32) -> _Search:
    """Return the brute force of cuVS."""
    brute_force = import_module("cuvs.neighbors.brute_force")
    held_ND = torch.from_numpy(vectors_ND).cuda()
    index = brute_force.build(held_ND, metric="inner_product")

    def rows(queries_BD: F32) -> I64:
        _held = held_ND  # which the index only refers to
        _, found_BK = brute_force.search(index, torch.from_numpy(queries_BD).cuda(), K)
        return torch.as_tensor(found_BK, device="cuda").cpu().numpy().astype(np.int64)

    return _Search(rows, vectors_ND.nbytes)


def _copied_a_second(torch: Any) -> float:
    """Measure the bytes a second that copying on the device reads and writes: the most a scan could reach."""
    source = torch.empty(_COPIED_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times: list[float] = []
    for _ in range(20):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return 2 * _COPIED_BYTES / float(np.median(times))


def _p50_ms(rows: Callable[[F32], I64], queries_BD: F32, repetitions: int) -> float:
    """Measure the median milliseconds of a call.

    Every way ends with rows in NumPy, so each call has waited for the device.
    """
    for _ in range(5):
        rows(queries_BD)
    times: list[int] = []
    for _ in range(repetitions):
        begin = time.perf_counter_ns()
        rows(queries_BD)
        times.append(time.perf_counter_ns() - begin)
    return round(float(np.median(times)) / 1e6, 4)
