"""``GET /v1/model``, ``/healthz`` and ``/readyz``: what serves, and whether it can."""

from datetime import datetime

from litestar import Response, get
from litestar.datastructures import State
from msgspec import Struct

from embeddings.errors import EventStoreUnavailable
from serving.slot import BundleSlot
from serving.state.events import EventStore


class ModelResponse(Struct, frozen=True):
    """The model in service.

    Attributes:
        metrics: by method, then by metric, on the validation window before the cut-off.
    """

    version: str
    data_cut_off: datetime
    created_at: datetime
    data: str
    notes: tuple[str, ...]
    counts: dict[str, int]
    metrics: dict[str, dict[str, float]]


class Readiness(Struct, frozen=True):
    """Whether requests can be answered, and what is amiss.

    Attributes:
        refused_version: a published version that could not be opened, and why; the old one is still in service.
        degraded: why the CPU searches in place of the device that was asked for, or null.
    """

    ready: bool
    model_version: str
    event_store: str
    refused_version: str | None
    degraded: str | None


@get("/v1/model", summary="The model in service")
async def model(state: State) -> ModelResponse:
    """Version, data cut-off and metrics of the model in service."""
    slot: BundleSlot = state.slot
    manifest = slot.current.bundle.manifest
    return ModelResponse(
        version=manifest.version,
        data_cut_off=manifest.data_cut_off,
        created_at=manifest.created_at,
        data=manifest.data,
        notes=manifest.notes,
        counts=manifest.counts,
        metrics=manifest.metrics,
    )


@get("/healthz", summary="Whether the process lives")
async def healthz() -> dict[str, str]:
    """200 as long as the event loop turns."""
    return {"status": "alive"}


@get("/readyz", summary="Whether requests can be answered")
async def readyz(state: State) -> Response[Readiness]:
    """200 when a model is loaded and the event store answers, else 503."""
    slot: BundleSlot = state.slot
    events: EventStore = state.events
    trouble: str | None = None
    try:
        await events.ping()
    except EventStoreUnavailable as error:
        trouble = str(error)
    refused = None if slot.refused is None else f"{slot.refused[0]}: {slot.refused[1]}"
    readiness = Readiness(
        trouble is None, slot.current.version, trouble or "answers", refused, slot.current.bundle.degraded
    )
    return Response(readiness, status_code=200 if trouble is None else 503)
