"""The metrics that ``/metrics`` shows: requests, events, the model, its batches and its indexes."""

import asyncio
import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from litestar import Response, get
from litestar.datastructures import State
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from embeddings.index.planned import PlannedIndex
from embeddings.release.bundle import ModelBundle
from serving.batcher import Batcher
from serving.catalogue.follower import CatalogueFollower
from serving.clock import Clock
from serving.ranked import Ranked
from serving.retrieve import RankRequest
from serving.slot import ViewSlot
from serving.state.decisions import DecisionStore
from serving.state.worker_metrics import WorkerMetrics
from serving.watcher import ReleaseWatcher

_LAG_EVERY_SECONDS = 0.02
_GIVEN_UP = [(b"content-length", b"0"), (b"retry-after", b"1"), (b"connection", b"close")]
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)


class Refusing(NamedTuple):
    """A time in which the event store takes no events: since when, and how many it has not taken."""

    since: datetime
    events: int


class Metrics:
    """The metrics of this process, in a registry of its own.

    Attributes:
        refusing: None as long as the event store takes what it is given.
        of_workers: adds what the other workers count; None where there are none.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.of_workers: WorkerMetrics | None = None
        self.refusing: Refusing | None = None
        self.requests = Histogram(
            "opportune_request_seconds",
            "Time to answer, by route and status",
            ["route", "status"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.loop_lag = Histogram(
            "opportune_loop_lag_seconds",
            "How much later than asked for the event loop ran a timer",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.events = Counter(
            "opportune_events", "Events received, by what became of them", ["outcome"], registry=self.registry
        )

        self.refused = Counter(
            "opportune_refused", "Requests that were not let in, by why", ["why"], registry=self.registry
        )

    def refuse_events(self, count: int) -> None:
        """Count events that the event store did not take."""
        self.events.labels("refused").inc(count)
        since, before = self.refusing or (datetime.now(UTC).replace(microsecond=0), 0)
        self.refusing = Refusing(since, before + count)

    async def page(self) -> bytes:
        """Return everything that all workers together count, in Prometheus' text format."""
        return generate_latest(self.registry) if self.of_workers is None else await self.of_workers.page()


class ModelCollector(Collector):
    """Figures read off the model and the batcher at the moment of asking."""

    def __init__(
        self,
        slot: ViewSlot,
        watcher: ReleaseWatcher,
        follower: CatalogueFollower,
        batcher: Batcher[RankRequest, list[Ranked]],
        clock: Clock,
        decisions: DecisionStore,
    ) -> None:
        self._slot = slot
        self._decisions = decisions
        self._clock = clock
        self._watcher = watcher
        self._follower = follower
        self._batcher = batcher

    def collect(self) -> Iterator[Metric]:
        """Yield the figures as of now."""
        model = GaugeMetricFamily("opportune_model", "The model in service", labels=["version"])
        model.add_metric([self._slot.current.version], 1)
        yield model
        yield GaugeMetricFamily(
            "opportune_data_age_days",
            "Days since the data cut-off of the model in service",
            value=self._slot.current.release.bundle.manifest.days_old(self._clock.now()),
        )
        yield CounterMetricFamily("opportune_model_swaps", "Times the model was replaced", value=self._slot.swaps)
        yield GaugeMetricFamily(
            "opportune_model_refused",
            "Whether the published version could not be opened, so that an older one serves",
            value=self._watcher.refused is not None,
        )
        yield GaugeMetricFamily(
            "opportune_store_unreadable",
            "Whether the store cannot be read, so that no new version is found",
            value=self._watcher.unreadable is not None,
        )
        yield from self._catalogue()
        yield CounterMetricFamily("opportune_batches", "Batches computed", value=self._batcher.batches)
        yield CounterMetricFamily(
            "opportune_batched_requests", "Requests computed in batches", value=self._batcher.computed
        )
        decisions = CounterMetricFamily(
            "opportune_decisions", "What was shown, by what became of it", labels=["outcome"]
        )
        decisions.add_metric(["stored"], self._decisions.stored)
        decisions.add_metric(["dropped"], self._decisions.dropped)
        yield decisions
        yield from index_figures(_indexes(self._slot.current.release.bundle))

    def _catalogue(self) -> Iterator[Metric]:
        """Yield how far the catalogue of this worker is; by worker, as sums over workers would say nothing."""
        worker = str(os.getpid())
        seq = GaugeMetricFamily(
            "opportune_catalogue_seq", "The newest change that answers have seen", labels=["worker"]
        )
        seq.add_metric([worker], self._slot.current.seq)
        lag = GaugeMetricFamily(
            "opportune_catalogue_lag_seconds",
            "Since when answers may lack changes of the catalogue",
            labels=["worker"],
        )
        lag.add_metric([worker], self._follower.lag_seconds)
        refused = CounterMetricFamily(
            "opportune_catalogue_refused", "Changes that the release cannot show", value=self._follower.refused
        )
        yield from (seq, lag, refused)


def index_figures(indexes: Mapping[str, PlannedIndex]) -> Iterator[Metric]:
    """Yield figures of what indexes hold and have done, by their names."""
    hits = CounterMetricFamily("opportune_index_hits", "Times what is kept of a set was there", labels=["index"])
    misses = CounterMetricFamily("opportune_index_misses", "Times it was not", labels=["index"])
    evicted = CounterMetricFamily("opportune_index_evicted", "Sets dropped to make room for others", labels=["index"])
    oversize = CounterMetricFamily("opportune_index_oversize", "Sets too large to be kept at all", labels=["index"])
    held = GaugeMetricFamily("opportune_index_bytes", "Memory of what is kept of sets", labels=["index"])
    searches = CounterMetricFamily(
        "opportune_index_searches", "Queries answered, by the plan taken", labels=["index", "plan"]
    )
    for name, index in indexes.items():
        hits.add_metric([name], index.cache.hits)
        misses.add_metric([name], index.cache.misses)
        evicted.add_metric([name], index.cache.evicted)
        oversize.add_metric([name], index.cache.oversize)
        held.add_metric([name], index.cache.bytes)
        for plan, count in index.searches.items():
            searches.add_metric([name, plan], count)
    yield from (hits, misses, evicted, oversize, held, searches)


def _indexes(bundle: ModelBundle) -> dict[str, PlannedIndex]:
    return {"products": bundle.products, "similar": bundle.similar}


def count_anew(bundle: ModelBundle) -> None:
    """Reset the counts of a worker's indexes: every worker would repeat what was counted before the fork."""
    for index in _indexes(bundle).values():
        index.cache.count_anew()
        index.searches.clear()


@get("/metrics", summary="Prometheus metrics", media_type="text/plain")
async def metrics_page(state: State) -> Response[bytes]:
    """Metrics in Prometheus' text format."""
    metrics: Metrics = state.metrics
    return Response(await metrics.page(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def watch_loop(metrics: Metrics) -> None:
    """Observe, for ever, how long the event loop is held by whatever else runs on it."""
    while True:
        asked = time.perf_counter()
        await asyncio.sleep(_LAG_EVERY_SECONDS)
        metrics.loop_lag.observe(max(0.0, time.perf_counter() - asked - _LAG_EVERY_SECONDS))


def metered(app: ASGIApp, metrics: Metrics) -> ASGIApp:
    """Return the same application with every HTTP request counted and timed, under its route and not its path.

    A request that is given up, as the service leaves and has waited for it, is answered with 503.
    """
    children: dict[tuple[str, int], Histogram] = {}  # finding one by its labels costs more than counting

    async def measure(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await app(scope, receive, note_status)
        except asyncio.CancelledError:
            if status:
                raise
            await note_status({"type": "http.response.start", "status": 503, "headers": _GIVEN_UP})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            route = scope.get("path_template") or "unmatched"
            child = children.get((route, status))
            if child is None:
                child = children[route, status] = metrics.requests.labels(route, status)
            child.observe(time.perf_counter() - started)

    return measure
