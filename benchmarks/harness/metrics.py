"""Samples that a running service publishes on /metrics."""

from collections.abc import Mapping

from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.harness.server import Served

_LOOP_LAG = "opportune_loop_lag_seconds"


class LoopLag(Struct, frozen=True):
    """How late the event loop was, in milliseconds: the mean, and upper bounds as fine as the histogram's buckets.

    A bound is None where the figure lies in the last, endless bucket.
    """

    count: int
    mean_ms: float
    p50_below_ms: float | None
    p99_below_ms: float | None


def scrape(served: Served) -> dict[tuple[str, str], float]:
    """Return every sample by its name and its ``le`` label, summed over the other labels."""
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(served.get("/metrics").decode()):
        for sample in family.samples:
            key = sample.name, sample.labels.get("le", "")
            found[key] = found.get(key, 0.0) + sample.value
    return found


def loop_lag(before: Mapping[tuple[str, str], float], after: Mapping[tuple[str, str], float]) -> LoopLag | None:
    """Return the event loop's lag between two scrapes.

    None if the service does not measure it, or measured nothing in between.
    """
    grown = {key: value - before.get(key, 0.0) for key, value in after.items() if key[0].startswith(_LOOP_LAG)}
    count = grown.get((f"{_LOOP_LAG}_count", ""), 0.0)
    if not count:
        return None
    buckets = sorted((float(le), value) for (name, le), value in grown.items() if name == f"{_LOOP_LAG}_bucket")

    def below_ms(share: float) -> float | None:
        bound = next(le for le, value in buckets if value >= share * count)
        return None if bound == float("inf") else bound * 1000

    return LoopLag(int(count), grown[f"{_LOOP_LAG}_sum", ""] / count * 1000, below_ms(0.5), below_ms(0.99))
