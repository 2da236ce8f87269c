"""How training and serving grow with the data: generated shops of up to ten million purchases.

Each is trained with the default recipe by the command that users give, served, and asked for recommendations.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from resource import struct_rusage
from subprocess import Popen
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from benchmarks.fit.generated import UNTIL, Size, locations_of, write_shop
from benchmarks.fit.outcome import Growth
from benchmarks.harness import cores, machine, plot
from benchmarks.harness.report import Table, write_report
from benchmarks.harness.server import serve
from benchmarks.latency.generate import generator
from benchmarks.latency.plan import Stage
from benchmarks.latency.traffic import RECOMMEND, Call, K
from embeddings.release.bundle import Manifest, read_manifest
from embeddings.release.store import BundleStore

SIZES = (Size(300_000, 6_000, 9_000), Size(1_000_000, 20_000, 30_000), Size(10_000_000, 200_000, 300_000))
_CALLS = 20_000
_WEB, _ANONYMOUS = 0.3, 0.1
_WARM_UP_SECONDS, _SECONDS = 5.0, 20.0
_MANY, _FEW = 32, 8


def run(json_file: Path, *, quick: bool) -> Sequence[Growth]:
    """Measure, print, and write the JSON and a picture beside it.

    Args:
        json_file: where everything that was measured goes.
        quick: the smallest shop alone.
    """
    found: list[Growth] = []
    for size in SIZES[:1] if quick else SIZES:
        with TemporaryDirectory(prefix="opportune-grow-") as folder:
            found.append(_measured(size, Path(folder)))
        _print(found)
        write_report(json_file, {"suite": "grow", "quick": quick, "machine": machine.describe(), "found": found})
    plot.grow(json_file.with_suffix(".png"), found)
    return found


def _measured(size: Size, folder: Path) -> Growth:
    data, store = folder / "data", folder / "store"
    write_shop(size, data)
    seconds, used = _train(data, store)
    manifest = read_manifest(BundleStore(store).bundle(BundleStore(store).current()))
    calls = _calls(size)
    with (
        generator(cores.choose()) as load,
        serve(store, "--clock", "replay", core=load.cores.server) as served,
    ):
        load.run(served.port, calls, [Stage(_WARM_UP_SECONDS, _FEW, None)])
        most = load.run(served.port, calls, [Stage(_SECONDS, _MANY, None)])
        rate = int(most.good.sum()) / _SECONDS
        half = load.run(served.port, calls, [Stage(_SECONDS, _MANY, rate / 2)])
        latencies = half.where(half.good).latencies()
        resident = served.resident_mib()
    return Growth(
        size=size,
        training_seconds=round(seconds, 1),
        processor_seconds=round(used.ru_utime + used.ru_stime, 1),
        training_mib=round(used.ru_maxrss / 1024),
        store_mib=round(sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) / 2**20),
        ready_seconds=round(served.ready_seconds, 2),
        resident_mib=round(resident),
        rate=round(rate, 1),
        p50_ms=latencies.p50,
        p99_ms=latencies.p99,
        **_figures(manifest),
    )


def _figures(manifest: Manifest) -> Mapping[str, float]:
    methods = {"served": "served", "popular": "popular", "personal": "personal_top_frequency"}
    return {name: round(manifest.metrics[method]["ndcg@10"], 4) for name, method in methods.items()}


def _train(data: Path, store: Path) -> tuple[float, struct_rusage]:
    """Train, and return how long it took and what it used."""
    command = [sys.executable, "-m", "training", "--data", str(data), "--store", str(store)]
    began = time.monotonic()
    process = Popen([*command, "--until", UNTIL.isoformat()])  # noqa: S603 - our own command
    _, status, used = os.wait4(process.pid, 0)  # what this very process used; subprocess does not say
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"training ended with {process.returncode}; its output says why")
    return time.monotonic() - began, used


def _calls(size: Size) -> list[Call]:
    """Return requests of random customers in the days after the cut-off, some of them anonymous, some on the web."""
    random, calls = np.random.default_rng(1), list[Call]()
    customers, places = random.integers(size.customers, size=_CALLS), random.integers(locations_of(size), size=_CALLS)
    web, anonymous = random.random((2, _CALLS)) < np.array([[_WEB], [_ANONYMOUS]])
    for number in range(_CALLS):
        at = UNTIL + timedelta(seconds=int(random.integers(7 * 86_400)))
        context = {"channel": "web"} if web[number] else {"channel": "store", "location": f"s{places[number]}"}
        who = {} if anonymous[number] else {"customer_id": f"c{customers[number]}"}
        body = {**who, "context": {**context, "at": at.isoformat()}, "kinds": ["product"], "limit": K}
        calls.append(Call(RECOMMEND, msgspec.json.encode(body)))
    return calls


def _print(found: Sequence[Growth]) -> None:
    columns = [
        "events",
        "training s",
        "processor s",
        "GiB",
        "ready s",
        "resident MiB",
        "requests/s",
        "p50 ms",
        "p99 ms",
    ]
    table = Table("Growth", [*columns, "NDCG@10", "popular", "personal"])
    for one in found:
        table.add(
            f"{one.size.events:,}",
            f"{one.training_seconds:.0f}",
            f"{one.processor_seconds:.0f}",
            f"{one.training_mib / 1024:.2f}",
            f"{one.ready_seconds:.1f}",
            f"{one.resident_mib:.0f}",
            f"{one.rate:.0f}",
            f"{one.p50_ms:.2f}",
            f"{one.p99_ms:.2f}",
            f"{one.served:.4f}",
            f"{one.popular:.4f}",
            f"{one.personal:.4f}",
        )
    table.print()
