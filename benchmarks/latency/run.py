"""Speed of the service under load, beside an empty endpoint and beside what a user would pick instead.

One run, one machine, one server stack. Service and floor take turns on the server's core, round after round, so that
a machine that slows down slows both. Then the service alone is overloaded, then the peers follow one by one.
"""

from collections.abc import Generator as Yields
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import psutil
from msgspec import Struct

from benchmarks.harness import cores, machine, metrics, plot
from benchmarks.harness.release import own_state, release
from benchmarks.harness.report import write_report
from benchmarks.harness.server import Served, launch, serve
from benchmarks.latency.fidelity import peer_fidelity, service_fidelity
from benchmarks.latency.generate import Generator, generator
from benchmarks.latency.outcome import HalfLoad, Overload, PeerResult, Saturation, print_table, summary
from benchmarks.latency.plan import Stage
from benchmarks.latency.samples import Samples
from benchmarks.latency.traffic import (
    ANONYMOUS,
    CHANNELS,
    EVENTS,
    RECOMMEND,
    Call,
    Traffic,
    evenly,
    recommend_call,
    traffic,
)
from benchmarks.peers import PEERS
from benchmarks.peers.stack import Past
from embeddings.device import Device
from embeddings.release.store import BundleStore

_OVERLOAD = 2.0
_HALF = 0.5
_WORKERS = (1, 2, 4) if psutil.LINUX else ()
"""No other system tells what processes share."""
_WORKERS_BURSTS, _WORKERS_RPS = 12, 500.0
"""For so many workers together, so that there is as much to remember; every burst comes on new connections, of which
each worker gets some."""


class Effort(Struct, frozen=True):
    """How long to measure; seconds are per stage."""

    rounds: int
    connections: tuple[int, ...]
    warm_up_seconds: float
    saturation_seconds: float
    half_load_seconds: float
    overload_seconds: float
    overload_connections: int
    recovery_seconds: float
    checked: int
    workers_seconds: float


FULL = Effort(3, (4, 8, 16, 32), 20, 4, 15, 30, 512, 10, 500, 8)
QUICK = Effort(2, (8, 16, 32), 12, 2, 5, 10, 512, 5, 200, 4)


class _Round(NamedTuple):
    """Samples of one ramp: of all stages with events in between, and of the best stage without."""

    mixed: Samples
    recommendations: Samples


class _Servers(NamedTuple):
    """The servers that take turns.

    Attributes:
        towers: the service with neither ranker nor any source but the towers.
    """

    service: Served
    floor: Served
    towers: Served


def run(store: Path, json_file: Path, *, quick: bool, device: Device = "cpu") -> Mapping[str, float | None]:
    """Measure, print, write the JSON and a picture beside it, and return the summary.

    Args:
        store: a store of the suites' own; a release is trained there if it holds none. Nothing is written to its
            event store: the service measured has one of its own.
        json_file: where everything that was measured goes.
        quick: within five minutes, with the same keys.
        device: where the service searches and runs its models; its peers stay on the CPU.
    """
    effort = QUICK if quick else FULL
    version = release(store)
    past, mixed = Past.open(store), traffic()
    units_ND = np.load(BundleStore(store).bundle(version) / "vectors" / "similar.npy")
    with generator(cores.choose()) as load, own_state(store, version) as own:
        with serve(own, "--clock", "replay", "--device", device, core=load.cores.server) as service:
            body_bytes = _usual_bytes(service, mixed)
            with _floor(own, body_bytes, load) as floor, _towers(store, version, load) as towers:
                servers = _Servers(service, floor, towers)
                for served in servers:
                    _warm_up(load, served, mixed.calls, effort)
                service_at, floor_at, towers_at = _saturations(load, servers, mixed, effort)
                before = metrics.scrape(service)
                service_half, floor_half, curves = _half_loads(load, servers, mixed.calls, service_at.rps, effort)
                loop_lag = metrics.loop_lag(before, metrics.scrape(service))
            overload = _overload(load, service, mixed.calls, service_at.rps, service_half, effort)
            fidelity = service_fidelity(service, past, units_ND, evenly(mixed.asked, effort.checked))
            started = {"ready_seconds": round(service.ready_seconds, 2), "resident_mib": round(service.resident_mib())}
        peers = {name: _peer(load, name, own, past, mixed, effort) for name in PEERS}
        mib_by_workers = {count: _mib_of_workers(count, load, store, version, mixed, effort) for count in _WORKERS}
        ceiling = load.ceiling(mixed.recommendations(), 64, effort.saturation_seconds, body_bytes)
        pinned = load.cores
    figures = summary(
        service_at, floor_at, towers_at, service_half, floor_half, overload, fidelity, peers, mib_by_workers
    )
    report = {
        "suite": "latency",
        "quick": quick,
        "version": version,
        "traffic": {
            "calls": len(mixed.calls),
            "channels": CHANNELS,
            "anonymous": ANONYMOUS,
            "events": EVENTS,
            "answer_bytes": body_bytes,
        },
        "effort": effort,
        "cores": {"server": pinned.server, "generator": pinned.generator},
        "generator_ceiling_rps": ceiling,
        "service": {
            **started,
            "saturation": service_at,
            "half_load": service_half,
            "loop_lag": loop_lag,
            "overload": overload,
            "fidelity": fidelity,
        },
        "floor": {"saturation": floor_at, "half_load": floor_half},
        "towers_alone": {"saturation": towers_at},
        "peers": peers,
        "proportional_mib_by_workers": mib_by_workers,
        "machine": machine.describe(),
        "device": device,
        "summary": figures,
    }
    write_report(json_file, report)
    plot.latency(
        json_file.with_suffix(".png"),
        curves,
        {"empty endpoint": floor_at.rps, "opportune": service_at.rps}
        | {f"{name}, recall {peer.fidelity.recall:.3f}": peer.saturation.rps for name, peer in peers.items()},
    )
    print_table(service_at, floor_at, service_half, floor_half, fidelity, peers)
    return figures


@contextmanager
def _floor(folder: Path, body_bytes: int, load: Generator) -> Yields[Served]:
    module = ["benchmarks.peers", "floor", "--body-bytes", str(body_bytes)]
    with launch(module, folder / "floor.log", load.cores.server) as served:
        yield served


@contextmanager
def _towers(store: Path, version: str, load: Generator) -> Yields[Served]:
    options = ["--clock", "replay", "--sources", "towers", "--no-ranker"]
    with own_state(store, version) as own, serve(own, *options, core=load.cores.server) as served:
        yield served


def _usual_bytes(service: Served, mixed: Traffic) -> int:
    """Return the median size of an answer in bytes."""
    return int(median(len(service.post(RECOMMEND, recommend_call(one).body)) for one in evenly(mixed.asked, 100)))


def _warm_up(load: Generator, served: Served, calls: Sequence[Call], effort: Effort) -> None:
    load.run(served.port, calls, [Stage(effort.warm_up_seconds, effort.connections[0])])


def _saturations(
    load: Generator, servers: _Servers, mixed: Traffic, effort: Effort
) -> tuple[Saturation, Saturation, Saturation]:
    rounds = [[_ramp(load, served, mixed, effort) for served in servers] for _ in range(effort.rounds)]
    service, floor, towers = (_saturation([one[place] for one in rounds], effort) for place in range(3))
    return service, floor, towers


def _ramp(load: Generator, served: Served, mixed: Traffic, effort: Effort) -> _Round:
    """Measure more and more connections, each for a while; then the best of them again, without events."""
    stages = [Stage(effort.saturation_seconds, count) for count in effort.connections]
    with_events = load.run(served.port, mixed.calls, stages)
    best = max(range(len(stages)), key=lambda stage: with_events.of_stage(stage).rate(_skipped(effort)))
    return _Round(with_events, load.run(served.port, mixed.recommendations(), [stages[best]]))


def _saturation(rounds: Sequence[_Round], effort: Effort) -> Saturation:
    found = {
        count: round(median(one.mixed.of_stage(stage).rate(_skipped(effort)) for one in rounds), 1)
        for stage, count in enumerate(effort.connections)
    }
    best = max(found, key=lambda count: found[count])
    return Saturation(
        rps=found[best],
        recommendations_rps=round(median(one.recommendations.rate(_skipped(effort)) for one in rounds), 1),
        connections=best,
        rps_by_connections=found,
        statuses=Samples.joined([samples for one in rounds for samples in one]).statuses(),
    )


def _skipped(effort: Effort) -> float:
    """Return the seconds of a saturation stage that pass before counting begins."""
    return effort.saturation_seconds / 4


def _half_loads(
    load: Generator, servers: _Servers, calls: Sequence[Call], saturation: float, effort: Effort
) -> tuple[HalfLoad, HalfLoad, dict[str, Samples]]:
    stages = [Stage(effort.half_load_seconds, effort.overload_connections, saturation * _HALF)]
    pair = servers.service, servers.floor
    rounds = [[load.run(served.port, calls, stages) for served in pair] for _ in range(effort.rounds)]
    service, floor = (Samples.joined([one[place] for one in rounds]) for place in range(2))
    curves = {"opportune": _recommendations(service), "empty endpoint": _recommendations(floor)}
    return _half_load(service, saturation * _HALF), _half_load(floor, saturation * _HALF), curves


def _half_load(samples: Samples, rate: float) -> HalfLoad:
    return HalfLoad(
        rate=round(rate, 1),
        latencies=_recommendations(samples).latencies(),
        events=samples.where(samples.event_R == 1).latencies(),
        statuses=samples.statuses(),
        sent_late_p99_ms=round(float(np.percentile(samples.sent_R - samples.due_R, 99)) / 1e6, 4),
    )


def _recommendations(samples: Samples) -> Samples:
    return samples.where(samples.event_R == 0)


def _overload(
    load: Generator, service: Served, calls: Sequence[Call], saturation: float, half: HalfLoad, effort: Effort
) -> Overload:
    before = service.resident_mib()
    stages = [
        Stage(effort.overload_seconds, effort.overload_connections, saturation * _OVERLOAD),
        Stage(effort.recovery_seconds, effort.overload_connections, saturation * _HALF),
    ]
    samples = load.run(service.port, calls, stages)
    flood, after = samples.of_stage(0), samples.of_stage(1)
    refused = flood.where(flood.refused)
    from_sent_ms = (refused.done_R - refused.sent_R) / 1e6
    return Overload(
        rate=round(saturation * _OVERLOAD, 1),
        seconds=effort.overload_seconds,
        connections=effort.overload_connections,
        statuses=flood.statuses(),
        statuses_after=after.statuses(),
        refused_share=round(len(refused.due_R) / len(flood.due_R), 4),
        refused_p50_ms=refused.latencies().p50 if len(refused.due_R) else None,
        refused_p50_from_sent_ms=round(float(np.median(from_sent_ms)), 3) if len(refused.due_R) else None,
        accepted_rps=round(flood.rate(), 1),
        accepted=_recommendations(flood.where(flood.good)).latencies(),
        recovered_seconds=after.recovery_seconds(int(flood.due_R.max()), half.latencies.p99),
        resident_mib_before=round(before, 1),
        resident_mib_after=round(service.resident_mib(), 1),
    )


def _mib_of_workers(count: int, load: Generator, store: Path, version: str, mixed: Traffic, effort: Effort) -> float:
    """Measure the memory in MiB of a service of so many workers, their parent counted, after some traffic."""
    burst = Stage(effort.workers_seconds / _WORKERS_BURSTS, effort.connections[-1], _WORKERS_RPS)
    with own_state(store, version) as own, serve(own, "--workers", str(count), core=load.cores.server) as served:
        for _ in range(_WORKERS_BURSTS):
            load.run(served.port, mixed.calls, [burst])
        return round(served.proportional_mib(), 1)


def _peer(load: Generator, name: str, store: Path, past: Past, mixed: Traffic, effort: Effort) -> PeerResult:
    module = ["benchmarks.peers", name, "--store", str(store)]
    with launch(module, store / f"{name}.log", load.cores.server) as served:
        _warm_up(load, served, mixed.calls, effort)
        ramp = _ramp(load, served, mixed, effort)
        return PeerResult(
            saturation=_saturation([ramp], effort),
            fidelity=peer_fidelity(served, past, evenly(mixed.asked, effort.checked)),
            ready_seconds=round(served.ready_seconds, 2),
            resident_mib=round(served.resident_mib(), 1),
        )
