"""``GET /v1/model`` and ``/readyz``: the model in service, and whether the service can answer."""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from litestar import Request, Response, get
from litestar.datastructures import State
from msgspec import Struct

from embeddings.errors import EventStoreUnavailable
from serving.api.decode import read_query
from serving.catalogue.follower import CatalogueFollower
from serving.clock import Clock
from serving.metrics import Metrics
from serving.slot import ViewSlot
from serving.state.decisions import DecisionStore
from serving.state.events import EventStore
from serving.watcher import ReleaseWatcher

_PATIENCE_SECONDS = 0.5
"""How long the event store may take to answer: who asks for readiness commonly waits for a second."""
_SHARED_SECONDS = 0.25
"""For how long an answer of the event store holds: readiness is always answered, and must not compete with events."""


class SharedPing:
    """Asks the event store whether it answers, once for all who want to know within a quarter of a second.

    Args:
        events: the event store.
        now: a clock in seconds, which never goes back.
    """

    def __init__(self, events: EventStore, now: Callable[[], float] = time.monotonic) -> None:
        self._events = events
        self._now = now
        self._asked: asyncio.Task[bool] | None = None
        self._until = 0.0

    async def answers(self) -> bool:
        """Return whether the event store answers, or did a moment ago, or does so soon.

        Whoever asks waits for ``_PATIENCE_SECONDS`` at most, and gives nothing up: to cancel a statement that a silent
        PostgreSQL holds takes seconds itself.
        """
        now = self._now()
        if self._asked is None or (self._asked.done() and now > self._until):
            self._asked = asyncio.create_task(_answers(self._events))
            self._until = now + _SHARED_SECONDS
        answered, _ = await asyncio.wait([self._asked], timeout=_PATIENCE_SECONDS)
        return bool(answered) and self._asked.result()


class ModelResponse(Struct, frozen=True):
    """The model in service.

    Attributes:
        catalogue_seq: the newest change of the catalogue that answers have seen.
        metrics: by method, then by metric, on the validation window before the cut-off.
        days_old: how long ago the data end, by the clock of the service.
        stale_after_days: how many days the recipe allows; null for ever.
    """

    version: str
    catalogue_seq: int
    data_cut_off: datetime
    days_old: float
    stale_after_days: float | None
    created_at: datetime
    data: str
    notes: tuple[str, ...]
    counts: dict[str, int]
    metrics: dict[str, dict[str, float]]


class ReadyQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """What counts as ready: with ``strict`` only a service without any fault."""

    strict: bool | Literal[""] = False


class RefusedEvents(Struct, frozen=True):
    """Events that the event store would not take from the worker that answers, as long as it takes none.

    Attributes:
        count: how many since then; one that was sent again counts again.
    """

    since: datetime
    count: int


class LostDecisions(Struct, frozen=True):
    """A time in which more was shown than this worker can store: since when, and how many decisions it has lost."""

    since: datetime
    count: int


class Readiness(Struct, frozen=True, kw_only=True):
    """Whether requests can be answered, and what is amiss: what is not as its default says is a fault.

    Attributes:
        ready: whether recommendations can be given; with ``strict``, whether nothing is amiss besides.
        catalogue_seq: the newest change of the catalogue that answers have seen.
        catalogue_lag_seconds: since when they may lack changes.
        catalogue: whether they lack none that they should have.
        decisions: the decisions that are lost, as PostgreSQL does not take them; null as long as all are stored.
        refused_version: a published version that could not be opened, and why; the old one is still in service.
        unreadable_store: why no new version can be found; the old one is still in service.
        degraded: why the CPU searches in place of the device that was asked for, or null.
        stale: that the data are older than the recipe allows, or null.
    """

    ready: bool
    model_version: str
    catalogue_seq: int
    catalogue_lag_seconds: float
    catalogue: Literal["follows", "behind"] = "follows"
    event_store: Literal["answers", "does not answer"] = "answers"
    refused_events: RefusedEvents | None = None
    decisions: LostDecisions | None = None
    refused_version: str | None = None
    unreadable_store: str | None = None
    degraded: str | None = None
    stale: str | None = None


@get("/v1/model", summary="The model in service")
async def model(state: State) -> ModelResponse:
    """Version, data cut-off and metrics of the model in service."""
    slot: ViewSlot = state.slot
    clock: Clock = state.clock
    manifest = slot.current.release.bundle.manifest
    return ModelResponse(
        version=manifest.version,
        catalogue_seq=slot.current.seq,
        data_cut_off=manifest.data_cut_off,
        days_old=round(manifest.days_old(clock.now()), 2),
        stale_after_days=manifest.stale_after_days,
        created_at=manifest.created_at,
        data=manifest.data,
        notes=manifest.notes,
        counts=manifest.counts,
        metrics=manifest.metrics,
    )


@get("/readyz", summary="Whether requests can be answered")
async def readyz(request: Request[Any, Any, Any], state: State) -> Response[Readiness]:
    """200 as long as recommendations can be given, with what is amiss; with ``strict``, 503 if anything is."""
    strict = read_query(request.query_params, ReadyQuery).strict is not False
    slot: ViewSlot = state.slot
    watcher: ReleaseWatcher = state.watcher
    metrics: Metrics = state.metrics
    faults: dict[str, Any] = {}
    ping: SharedPing = state.ping
    if not await ping.answers():
        faults["event_store"] = "does not answer"
    follower: CatalogueFollower = state.follower
    if follower.is_late:
        faults["catalogue"] = "behind"
    if metrics.refusing is not None:
        faults["refused_events"] = RefusedEvents(*metrics.refusing)
    decisions: DecisionStore = state.decisions
    if decisions.losing is not None:
        faults["decisions"] = LostDecisions(*decisions.losing)
    if watcher.refused is not None:
        faults["refused_version"] = f"{watcher.refused.version}: {watcher.refused.reason}"
    if watcher.unreadable is not None:
        faults["unreadable_store"] = "CURRENT cannot be read, or names no version of the store; the log says more"
    if slot.current.release.bundle.degraded is not None:
        faults["degraded"] = "the device failed: the CPU searches in its place; the log says more"
    clock: Clock = state.clock
    manifest = slot.current.release.bundle.manifest
    if manifest.is_stale(clock.now()):
        faults["stale"] = (
            f"the data end {manifest.days_old(clock.now()):.0f} days ago, and the recipe allows "
            f"{manifest.stale_after_days:g} (stale_after_days): train again with newer data"
        )
    ready = not (strict and faults)
    readiness = Readiness(
        ready=ready,
        model_version=slot.current.version,
        catalogue_seq=slot.current.seq,
        catalogue_lag_seconds=round(follower.lag_seconds, 2),
        **faults,
    )
    return Response(readiness, status_code=200 if ready else 503)


async def _answers(events: EventStore) -> bool:
    try:
        await events.ping()
    except EventStoreUnavailable:
        return False
    return True
