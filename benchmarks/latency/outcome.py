"""Results of the latency suite, and the few figures that sum them up."""

from collections.abc import Mapping

from msgspec import Struct

from benchmarks.harness.report import Table
from benchmarks.latency.fidelity import Fidelity
from benchmarks.latency.samples import Latencies


class Saturation(Struct, frozen=True):
    """The highest rate answered in a closed loop, and its number of connections; medians of all rounds.

    Attributes:
        recommendations_rps: the rate with as many connections, and no events in between.
    """

    rps: float
    recommendations_rps: float
    connections: int
    rps_by_connections: dict[int, float]
    statuses: dict[str, int]


class HalfLoad(Struct, frozen=True):
    """An open loop at half of the service's saturation.

    Attributes:
        latencies: of recommendations.
        events: of reported events.
        sent_late_p99_ms: how long after it was due a request left: what the generator itself, or its bound on
            connections, added to the latencies.
    """

    rate: float
    latencies: Latencies
    events: Latencies
    statuses: dict[str, int]
    sent_late_p99_ms: float


class Overload(Struct, frozen=True):
    """An open loop at twice the service's saturation, and what came after.

    Attributes:
        refused_p50_ms, refused_p50_from_sent_ms: of 503s, from when they were due, and from when they left.
        recovered_seconds: from the end of the overload until half load is served as usual; None if it never was.
        resident_mib_before, resident_mib_after: of the server's process.
    """

    rate: float
    seconds: float
    connections: int
    statuses: dict[str, int]
    statuses_after: dict[str, int]
    refused_share: float
    refused_p50_ms: float | None
    refused_p50_from_sent_ms: float | None
    accepted_rps: float
    accepted: Latencies
    recovered_seconds: float | None
    resident_mib_before: float
    resident_mib_after: float


class PeerResult(Struct, frozen=True):
    """Results of one peer."""

    saturation: Saturation
    fidelity: Fidelity
    ready_seconds: float
    resident_mib: float


def summary(
    service_at: Saturation,
    floor_at: Saturation,
    towers_at: Saturation,
    service_half: HalfLoad,
    floor_half: HalfLoad,
    overload: Overload,
    fidelity: Fidelity,
    peers: Mapping[str, PeerResult],
    mib_by_workers: Mapping[int, float],
) -> dict[str, float | None]:
    """Return the flat figures that other programs read; None where there is nothing to divide by.

    ``errors`` counts the requests neither answered with success nor, during and after the overload, refused with 503.
    """
    equal = [peer.saturation.rps for peer in peers.values() if peer.fidelity.recall >= fidelity.recall]
    success, overloaded = {"200", "202"}, {"200", "202", "503"}
    return {
        "rps_vs_floor": _ratio(service_at.rps, floor_at.rps),
        "rps_vs_floor_without_events": _ratio(service_at.recommendations_rps, floor_at.recommendations_rps),
        "rps_vs_towers_alone": _ratio(service_at.rps, towers_at.rps),
        "p99_vs_floor_at_half_load": _ratio(service_half.latencies.p99, floor_half.latencies.p99),
        "overload_p99_vs_half_load": _ratio(overload.accepted.p99, service_half.latencies.p99),
        "errors": _others(service_at.statuses, success)
        + _others(service_half.statuses, success)
        + _others(overload.statuses, overloaded)
        + _others(overload.statuses_after, overloaded),
        "filter_violations": fidelity.violations,
        "rps_vs_best_peer": _ratio(service_at.rps, max(equal, default=0.0)),
        "memory_per_extra_worker": _memory_per_extra_worker(mib_by_workers),
    }


def print_table(
    service_at: Saturation,
    floor_at: Saturation,
    service_half: HalfLoad,
    floor_half: HalfLoad,
    fidelity: Fidelity,
    peers: Mapping[str, PeerResult],
) -> None:
    """Print throughput, latencies and fidelity, one row a server."""
    columns = ["", "req/s", "p50", "p90", "p99", "p99.9", "recall", "violated"]
    table = Table(f"saturation; latency in ms at {service_half.rate:.0f} requests/s; filters", columns)
    for name, at, half in (("empty endpoint", floor_at, floor_half), ("opportune", service_at, service_half)):
        latencies = half.latencies
        cells = [f"{one:.2f}" for one in (latencies.p50, latencies.p90, latencies.p99, latencies.p999)]
        right = [f"{fidelity.recall:.4f}", str(fidelity.violations)] if name == "opportune" else ["", ""]
        table.add(name, f"{at.rps:.0f}", *cells, *right)
    for name, peer in peers.items():
        right = [f"{peer.fidelity.recall:.4f}", str(peer.fidelity.violations)]
        table.add(name, f"{peer.saturation.rps:.0f}", "", "", "", "", *right)
    table.print()


def _others(statuses: Mapping[str, int], expected: set[str]) -> int:
    return sum(count for status, count in statuses.items() if status not in expected)


def _memory_per_extra_worker(mib_by_workers: Mapping[int, float]) -> float | None:
    """Return the most a worker beyond the first takes, as a share of a single one; None if nothing was measured."""
    if not mib_by_workers:
        return None
    alone = mib_by_workers[1]
    return round(max((mib - alone) / (count - 1) / alone for count, mib in mib_by_workers.items() if count > 1), 4)


def _ratio(one: float, other: float) -> float | None:
    return round(one / other, 4) if other else None
