"""The summary of the latency suite: which figures it is made of, and what it says where there is nothing to say."""

import msgspec
import pytest

from benchmarks.harness import cores
from benchmarks.harness.metrics import loop_lag
from benchmarks.latency.fidelity import Fidelity
from benchmarks.latency.outcome import HalfLoad, Overload, PeerResult, Saturation, summary
from benchmarks.latency.samples import Latencies
from benchmarks.latency.traffic import REPORT, Call, Traffic

EXACT, APPROXIMATE = Fidelity(10, 1.0, 0, 0), Fidelity(10, 0.99, 0, 0)
GOOD = {"200": 95, "202": 5}


def latencies(p99: float) -> Latencies:
    return Latencies(100, 1.0, 1.5, p99, 2 * p99, 3 * p99)


def saturation(rps: float, statuses: dict[str, int] | None = None) -> Saturation:
    return Saturation(rps, rps * 1.1, 8, {8: rps}, statuses or GOOD)


def half(p99: float, statuses: dict[str, int] | None = None) -> HalfLoad:
    return HalfLoad(500.0, latencies(p99), latencies(p99), statuses or GOOD, 0.01)


def overload(statuses: dict[str, int] | None = None, after: dict[str, int] | None = None) -> Overload:
    return Overload(
        rate=2000.0,
        seconds=10,
        connections=64,
        statuses=statuses or GOOD,
        statuses_after=after or GOOD,
        refused_share=0.0,
        refused_p50_ms=None,
        refused_p50_from_sent_ms=None,
        accepted_rps=900.0,
        accepted=latencies(12.0),
        recovered_seconds=0.0,
        resident_mib_before=100.0,
        resident_mib_after=100.0,
    )


def peer(rps: float, fidelity: Fidelity) -> PeerResult:
    return PeerResult(saturation(rps), fidelity, 1.0, 100.0)


def test_ratios_are_those_of_one_run() -> None:
    peers = {"quick": peer(5000, APPROXIMATE), "exact": peer(500, EXACT), "slow": peer(100, EXACT)}
    figures = summary(
        saturation(1000), saturation(2000), saturation(500), half(4.0), half(2.0), overload(), EXACT, peers, {}
    )
    assert figures["rps_vs_floor"] == 0.5
    assert figures["rps_vs_towers_alone"] == 2.0
    assert figures["p99_vs_floor_at_half_load"] == 2.0
    assert figures["overload_p99_vs_half_load"] == 3.0
    assert figures["rps_vs_best_peer"] == 2.0, "a peer with less recall does not count"
    assert figures["errors"] == 0
    assert figures["filter_violations"] == 0


def test_without_an_equal_peer_there_is_no_ratio() -> None:
    peers = {"quick": peer(5000, APPROXIMATE)}
    figures = summary(saturation(1), saturation(2), saturation(500), half(4), half(2), overload(), EXACT, peers, {})
    assert figures["rps_vs_best_peer"] is None


def test_a_refusal_is_an_error_except_under_overload() -> None:
    refused, broken = {"200": 1, "503": 3}, {"200": 1, "timed out": 4, "broken": 1, "500": 2}
    calm = summary(
        saturation(1), saturation(2), saturation(500), half(4), half(2), overload(refused, refused), EXACT, {}, {}
    )
    assert calm["errors"] == 0
    early = summary(
        saturation(1, refused), saturation(2), saturation(500), half(4, refused), half(2), overload(), EXACT, {}, {}
    )
    assert early["errors"] == 6
    worse = summary(
        saturation(1), saturation(2), saturation(500), half(4), half(2), overload(broken, broken), EXACT, {}, {}
    )
    assert worse["errors"] == 14


def test_memory_of_workers_is_compared_with_that_of_a_single_one() -> None:
    for mib_by_workers, most in (
        ({1: 400.0, 2: 450.0, 4: 520.0}, 0.125),
        ({1: 400.0, 2: 420.0, 4: 700.0}, 0.25),
        ({}, None),
    ):
        figures = summary(
            saturation(1), saturation(2), saturation(5), half(4), half(2), overload(), EXACT, {}, mib_by_workers
        )
        assert figures["memory_per_extra_worker"] == most


def test_loop_lag_is_what_the_histogram_grew_by() -> None:
    name = "opportune_loop_lag_seconds"
    before = {(f"{name}_bucket", "0.001"): 5.0, (f"{name}_bucket", "+Inf"): 5.0}
    before |= {(f"{name}_count", ""): 5.0, (f"{name}_sum", ""): 1.0}
    after = {(f"{name}_bucket", "0.001"): 65.0, (f"{name}_bucket", "+Inf"): 105.0}
    after |= {(f"{name}_count", ""): 105.0, (f"{name}_sum", ""): 1.2}
    found = loop_lag(before, after)
    assert found is not None
    assert (found.count, found.p50_below_ms, found.p99_below_ms) == (100, 1.0, None)
    assert found.mean_ms == pytest.approx(2.0)
    assert loop_lag(before, before) is None
    assert loop_lag({}, {("opportune_batches_total", ""): 3.0}) is None


def test_events_are_left_out_of_the_recommendations() -> None:
    event = Call(REPORT, msgspec.json.encode({"events": [{"event_id": "load-000000000000"}]}))
    ask = Call("/v1/recommend", b"{}")
    assert Traffic([ask, event, ask], []).recommendations() == [ask, ask]
    head, tail = event.encoded()
    assert tail is not None
    assert msgspec.json.decode((head + b"000000000042" + tail).partition(b"\r\n\r\n")[2]) == {
        "events": [{"event_id": "load-000000000042"}]
    }


def test_server_and_generator_get_different_cores_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = {3, 1, 2}

    def affinity(_pid: int) -> set[int]:
        return allowed

    monkeypatch.setattr("os.sched_getaffinity", affinity)
    assert cores.choose() == (1, 3)
    allowed -= {1, 2}
    assert cores.choose() == (None, None)
