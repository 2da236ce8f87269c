"""The application: routes, error answers and the OpenAPI description around one engine."""

from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import NamedTuple

from litestar import Litestar
from litestar.datastructures import State
from litestar.types import ASGIApp

from serving.admission import Admission
from serving.api import openapi
from serving.api.description import openapi_config
from serving.api.events import events
from serving.api.health import headed, healthz
from serving.api.model import SharedPing, model, readyz
from serving.api.post import LARGEST_BODY
from serving.api.problems import answer_error
from serving.api.products import similar
from serving.api.recommend import recommend
from serving.api.recommendations import recommendation
from serving.batcher import Batcher, Pieces
from serving.catalogue.follower import CatalogueFollower
from serving.clock import Clock
from serving.engine import Engine
from serving.metrics import Metrics, ModelCollector, metered, metrics_page
from serving.pipeline import answer_batch, answer_in_pieces
from serving.ranked import Ranked
from serving.retrieve import RankRequest
from serving.settings import Settings
from serving.slot import ViewSlot
from serving.state.decisions import DecisionStore
from serving.state.events import EventStore
from serving.watcher import ReleaseWatcher

LARGEST_BATCH, LARGEST_ROWS = 16, 2_000
"""The most requests in one batch, and the most candidates of all of them together."""
_PATIENCE = 10
"""How much longer a request may wait to be computed than to begin: a large one waits for others that came before."""


class Application(NamedTuple):
    """The service.

    Attributes:
        answer: the ASGI application.
        admission: lets requests in, but for those for health and metrics, which need no admission.
    """

    answer: ASGIApp
    admission: Admission


def create_app(
    settings: Settings,
    slot: ViewSlot,
    watcher: ReleaseWatcher,
    follower: CatalogueFollower,
    events_store: EventStore,
    decisions: DecisionStore,
    metrics: Metrics,
) -> Application:
    """Put the service together.

    Args:
        settings: what the server was started with.
        slot: holds the view that answers.
        watcher: looks for releases that may come to answer.
        follower: brings changes of the catalogue into the view.
        events_store: connected before the application answers.
        decisions: keeps what was shown.
        metrics: where everything is counted.
    """
    # GPU indexes are not safe for two threads, even to read: one thread owns the device.
    executor = ThreadPoolExecutor(1, "device") if settings.device == "cuda" else None
    pieces = Pieces[RankRequest, list[Ranked]](attrgetter("rows"), LARGEST_ROWS, answer_in_pieces)
    patience = _PATIENCE * settings.deadline_seconds
    batcher: Batcher[RankRequest, list[Ranked]] = Batcher(answer_batch, LARGEST_BATCH, executor, patience, pieces)
    cut_off = slot.current.release.bundle.manifest.data_cut_off
    clock = Clock(settings.clock, int(cut_off.timestamp()))
    metrics.registry.register(ModelCollector(slot, watcher, follower, batcher, clock, decisions))
    posts = [
        recommend(Engine(slot, batcher, clock, lambda: follower.is_late, decisions)),
        events(slot, events_store, clock, metrics),
    ]
    app = Litestar(
        [*(post.route() for post in posts), similar, recommendation, model, healthz, readyz, metrics_page],
        state=State(
            {
                "slot": slot,
                "watcher": watcher,
                "follower": follower,
                "ping": SharedPing(events_store),
                "clock": clock,
                "decisions": decisions,
                "metrics": metrics,
            }
        ),
        exception_handlers={Exception: answer_error},
        request_max_body_size=LARGEST_BODY,
        logging_config=None,
        openapi_config=openapi_config("Opportune", "The right offer, for this customer, here, now, on this channel."),
    )
    openapi.complete(app, posts)
    return Application(headed(metered(app, metrics)), Admission(settings.deadline_seconds, batcher.waiting))
