"""The latency suite from end to end on the small world: real servers, a real generator, moments of load."""

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from benchmarks.latency import run as latency
from benchmarks.latency.traffic import REPORT, Call, Traffic, TrafficRequest, recommend_call
from benchmarks.peers import PEERS
from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from tests.world import CUSTOMERS, STORES, UNTIL, favourite, store

SUMMARY = {
    "rps_vs_floor",
    "p99_vs_floor_at_half_load",
    "overload_p99_vs_half_load",
    "errors",
    "filter_violations",
    "rps_vs_best_peer",
    "memory_per_extra_worker",
}
MOMENTS = latency.Effort(
    rounds=1,
    connections=(2, 4),
    warm_up_seconds=0.1,
    saturation_seconds=0.2,
    half_load_seconds=0.2,
    overload_seconds=0.3,
    overload_connections=64,
    recovery_seconds=0.2,
    checked=24,
    workers_seconds=0.2,
)


def small_traffic() -> Traffic:
    """Every customer at their store, on the web or anonymous, and one event each."""
    asked = [
        TrafficRequest(
            f"c{number:03d}" if number % 5 else None,
            "web" if number % 3 == 0 else "store",
            store(number),
            UNTIL + timedelta(minutes=number),
        )
        for number in range(CUSTOMERS)
    ]
    asked += [TrafficRequest("c001", "mailer", one, UNTIL + timedelta(hours=3)) for one in STORES]
    event = {
        "event_id": "load-000000000000",
        "type": "purchase",
        "customer_id": "c017",
        "product_id": favourite(17),
        "at": UNTIL + timedelta(hours=1),
        "location": store(17),
        "channel": "store",
    }
    return Traffic([*map(recommend_call, asked), Call(REPORT, msgspec.json.encode({"events": [event]}))], asked)


def test_a_run_writes_every_figure_and_a_picture(
    published: tuple[BundleStore, Manifest], own_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def released(_store: Path) -> str:
        return published[1].version

    monkeypatch.setattr(latency, "release", released)
    monkeypatch.setattr(latency, "traffic", small_traffic)
    monkeypatch.setattr(latency, "QUICK", MOMENTS)
    before = sorted(path.name for path in own_store.iterdir())

    figures = latency.run(own_store, tmp_path / "latency.json", quick=True)

    report = msgspec.json.decode((tmp_path / "latency.json").read_bytes())
    assert report["summary"] == figures
    assert report["summary"].keys() >= SUMMARY
    assert figures["errors"] == 0
    assert figures["filter_violations"] == 0
    assert report["peers"].keys() == set(PEERS)
    for peer in report["peers"].values():
        assert peer["fidelity"] == {"asked": 24, "recall": 1.0, "violations": 0, "short": 0}
        assert peer["saturation"]["statuses"].keys() == {"200", "202"}
    service = report["service"]
    assert service["fidelity"] == {"asked": 24, "recall": 1.0, "violations": 0, "short": 0}
    assert service["half_load"]["latencies"].keys() == {"count", "p50", "p90", "p99", "p999", "longest"}
    assert service["half_load"]["rate"] == report["floor"]["half_load"]["rate"]
    assert report["generator_ceiling_rps"] > 0
    assert report["proportional_mib_by_workers"].keys() == {"1", "2", "4"}
    assert all(mib > 0 for mib in report["proportional_mib_by_workers"].values())
    assert report["machine"]["processor"]
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in own_store.iterdir()) == before, "the store's own events are left alone"
