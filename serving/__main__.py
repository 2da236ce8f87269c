"""``opportune-serve``: the service."""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NamedTuple, cast

# FAISS, ONNX Runtime and OpenBLAS each bring threads of their own; the event loop computes small batches itself.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import faiss
import uvicorn
import uvloop
from msgspec.structs import replace

from embeddings.database.event_days import Kept, look_after_days
from embeddings.database.keeper import kept
from embeddings.database.migrate import prepare
from embeddings.database.postgres import Database, database
from embeddings.errors import EmptyStore, OpportuneError
from embeddings.release.store import BundleStore, close_to_others
from serving.app import create_app
from serving.background import Background
from serving.catalogue.follower import CatalogueFollower
from serving.command_line import parser, settings_of
from serving.connections import Connection, Connections
from serving.management.keep import Management
from serving.metrics import Metrics, count_anew, watch_loop
from serving.opening import open_view
from serving.server import configured
from serving.settings import Settings
from serving.slot import ViewSlot
from serving.state.decisions import DecisionStore
from serving.state.events import EventStore
from serving.state.feed import Feed
from serving.state.invalidations import Invalidations
from serving.state.worker_metrics import WorkerMetrics
from serving.watcher import ReleaseWatcher
from serving.workers import WorkerPlace, bind, listen, room_for, supervise

_BACKLOG = 2_048
_ADMIN = "--admin-host, --admin-port (0 for no management API)"
_DRAIN_SECONDS = 5
# Requests make no cycles to speak of, and what a model holds is frozen: a collection every 700 objects only delays.
_GC_THRESHOLDS = (100_000, 20, 100)


def main() -> None:
    """Run the command line until SIGTERM or SIGINT; exit 2 if nothing can be served, 1 if the background fails."""
    arguments = parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    gc.set_threshold(*_GC_THRESHOLDS)
    faiss.omp_set_num_threads(1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    try:
        settings = settings_of(arguments)
        BundleStore(settings.store).current()  # before a PostgreSQL is set up beside nothing
        _close_histories(settings.store / "histories")
        sockets = bind(settings.host, settings.port)
        admin = bind(settings.admin_host, settings.admin_port, _ADMIN) if settings.admin_port else []
        with database(settings.database, settings.store) as found:
            _run(settings, sockets, admin, found)
    except OpportuneError as error:
        print(f"opportune-serve: {error}", file=sys.stderr)
        sys.exit(2)


def _close_histories(folder: Path) -> None:
    """Close the histories to other users, if an earlier version published them open to all."""
    try:
        close_to_others(folder)
    except OSError as error:
        logging.getLogger("opportune.serve").warning("%s stays readable by others: %s", folder, error)


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Exit 0 by way of every ``finally``.

    uvicorn drains on a signal and then raises it again; by default that would end the process there and then, with
    the embedded PostgreSQL left running.
    """
    sys.exit(0)


class _Service(NamedTuple):
    """The objects that are made once, before the process forks into workers."""

    settings: Settings
    sockets: Sequence[socket.socket]
    admin: Sequence[socket.socket]
    database: Database
    events: EventStore
    decisions: DecisionStore
    feed: Feed
    slot: ViewSlot
    watcher: ReleaseWatcher
    follower: CatalogueFollower
    metrics: Metrics
    connections: Connections
    config: uvicorn.Config


def _run(
    settings: Settings, sockets: Sequence[socket.socket], admin: Sequence[socket.socket], database: Database
) -> None:
    """Open the model and answer with it, in this process or in as many forks of it as there are to be workers."""
    store, invalidations = BundleStore(settings.store), Invalidations(settings.workers)
    events = EventStore(database.url, invalidations)
    # On asyncio's own loop: uvloop's keeps threads that look up names.
    asyncio.run(prepare(database.url))
    open_version = partial(open_view, settings, events=events)
    slot = ViewSlot(open_version(store.current()))
    follower = CatalogueFollower(slot, database.url)
    asyncio.run(follower.catch_up())
    watcher = ReleaseWatcher(slot, store, open_version, follower.publish)
    listen(sockets, settings.host, settings.port, _BACKLOG)
    listen(admin, settings.admin_host, settings.admin_port, _BACKLOG, _ADMIN)
    logging.getLogger("opportune.serve").info(
        "serving %s on %s port %d", slot.current.version, settings.host, settings.port
    )
    metrics = Metrics()
    decisions = DecisionStore(database.url, settings.decisions, events)
    app = create_app(settings, slot, watcher, follower, events, decisions, metrics)
    limits = replace(settings.limits, connections=room_for(settings.limits.connections))
    connections = Connections(limits, app.admission, metrics.refused)
    config = configured(
        app.answer,
        _DRAIN_SECONDS,
        http=cast("type[asyncio.Protocol]", partial(Connection, connections)),
        backlog=_BACKLOG,
    )
    config.load()
    feed = Feed(database.url, events)
    service = _Service(
        settings,
        sockets,
        admin,
        database,
        events,
        decisions,
        feed,
        slot,
        watcher,
        follower,
        metrics,
        connections,
        config,
    )

    def work(place: WorkerPlace) -> None:
        invalidations.take(place.worker)
        count_anew(slot.current.release.bundle)
        sys.exit(uvloop.run(_serve(service, place)))

    # What lives as long as the process is kept out of the collector's sight: it delays no request, and a collection
    # does not touch, and by that copy, what forks share.
    gc.collect()
    gc.freeze()
    if settings.workers == 1:
        sys.exit(uvloop.run(_serve(service, None)))
    else:
        supervise(settings.workers, [*sockets, *admin], _DRAIN_SECONDS, work)


async def _serve(service: _Service, place: WorkerPlace | None) -> int:
    """Serve until told to stop, or until a task in the background fails; requests under way are answered first.

    Returns:
        The exit code: 1 where a task has failed.

    Args:
        service: what answers.
        place: which of several workers this process is; None for the only one.
    """
    slot, metrics = service.slot, service.metrics
    async with AsyncExitStack() as stack:
        if service.database.home is not None:
            stack.enter_context(kept(service.database.home))
        await stack.enter_async_context(service.events.connected())
        decisions = await stack.enter_async_context(service.decisions.writing())
        if place is not None:
            place.leave_with_parent()
            metrics.of_workers = WorkerMetrics(place.folder, place.worker, place.workers, metrics.registry)
            await stack.enter_async_context(metrics.of_workers.listening())
            await _join(slot, place, service)
        await service.follower.catch_up()
        # Worker 0 looks after the management API for all; one that replaces it has its number.
        admin = service.admin if place is None or place.worker == 0 else ()
        settings = service.settings
        beside = Management(settings.store, service.database, settings.admin_host, settings.admin_port, admin)
        server = _Server(service.config, beside, service.decisions)
        keep = Kept(settings.keep_events, settings.keep_decisions)
        background = Background(server.leave)
        background.hear(decisions)
        if (keeping := beside.start()) is not None:
            background.hear(keeping)
        with background.running(
            releases=service.watcher.watch(settings.swap_poll_seconds),
            loop=watch_loop(metrics),
            feed=service.feed.follow(),
            catalogue=service.follower.follow(),
            partitions=look_after_days(service.database.url, keep),
            connections=service.connections.watch(server.server_state.connections),
        ):
            await server.serve(sockets=list(service.sockets))
        return 1 if background.failed else 0


class _Server(uvicorn.Server):
    """A server that has the management API leave while requests under way are answered, and then stores decisions.

    Afterwards would be too late: uvicorn raises the signal again, and a worker is gone at once.
    """

    def __init__(self, config: uvicorn.Config, beside: Management, decisions: DecisionStore) -> None:
        super().__init__(config)
        self._beside = beside
        self._decisions = decisions

    def leave(self) -> None:
        """Have it answer what is under way and end."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is under way, wait until all have left, and store what was shown."""
        await asyncio.gather(super().shutdown(sockets), self._beside.leave())
        await self._decisions.leave()


async def _join(slot: ViewSlot, place: WorkerPlace, service: _Service) -> None:
    """Bring a worker to the version that the other workers serve, before it answers.

    It was forked from the version that the parent opened at first. What it takes lacks the changes of the catalogue,
    which it tries to catch up with once before it answers.

    Raises:
        EmptyStore: neither that version nor the current one can be opened, and others serve; the supervisor starts
            another worker after a pause. One that is alone serves what it has.
    """
    slot.on_swap = place.say_serving
    version = place.said_serving()
    if version is None:
        return
    if await service.watcher.join(version, service.follower.begin_with):
        return
    if not place.alone:
        raise EmptyStore(f"version {version}, which other workers serve, cannot be opened any more")
    place.say_serving(slot.current.version)


if __name__ == "__main__":
    main()
