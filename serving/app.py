"""The application: routes, error answers and the OpenAPI description around one engine."""

from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

from litestar import Litestar
from litestar.datastructures import State
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.types import ASGIApp

from serving.admission import admitted
from serving.api import openapi
from serving.api.events import events
from serving.api.model import healthz, model, readyz
from serving.api.post import LARGEST_BODY
from serving.api.problems import answer_error
from serving.api.products import similar
from serving.api.recommend import recommend
from serving.batcher import Batcher
from serving.clock import Clock
from serving.engine import Engine
from serving.metrics import Metrics, ModelCollector, metered, metrics_page
from serving.rank import Ranked, rank_personal
from serving.retrieve import Ask
from serving.settings import Settings
from serving.slot import BundleSlot
from serving.state.events import EventStore

LARGEST_BATCH = 16


def create_app(settings: Settings, slot: BundleSlot, events_store: EventStore, metrics: Metrics) -> ASGIApp:
    """The service as an ASGI application.

    Args:
        settings: what the server was started with.
        slot: holds the model that answers.
        events_store: connected.
        metrics: where everything is counted.
    """
    # GPU indexes are not safe for two threads, even to read: one thread owns the device.
    executor = ThreadPoolExecutor(1, "device") if settings.device == "cuda" else None
    batcher: Batcher[Ask, list[Ranked]] = Batcher(rank_personal, LARGEST_BATCH, executor, settings.deadline_seconds)
    cut_off = slot.current.bundle.manifest.data_cut_off
    clock = Clock(settings.clock, int(cut_off.timestamp()))
    metrics.registry.register(ModelCollector(slot, batcher))
    posts = [recommend(Engine(slot, batcher, clock)), events(slot, events_store, clock, metrics)]
    app = Litestar(
        [*(post.route() for post in posts), similar, model, healthz, readyz, metrics_page],
        state=State({"slot": slot, "events": events_store, "clock": clock, "metrics": metrics}),
        exception_handlers={Exception: answer_error},
        request_max_body_size=LARGEST_BODY,
        logging_config=None,
        openapi_config=OpenAPIConfig(
            title="Opportune",
            version=version("opportune"),
            description="The right offer, for this customer, here, now, on this channel.",
            # Below this path Litestar answers what it does not know with a page of its own: nothing may lie there.
            path="/openapi.json",
            use_handler_docstrings=True,
            # The JSON document alone: pages around it would load their scripts from somebody else's server.
            render_plugins=[JsonRenderPlugin(path="/")],
        ),
    )
    openapi.complete(app, posts)
    return metered(admitted(app, settings.in_flight), metrics)
