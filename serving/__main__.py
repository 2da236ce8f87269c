"""``opportune-serve``: the service."""

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TypeVar

# FAISS, ONNX Runtime and OpenBLAS each bring threads of their own; the event loop computes small batches itself.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import faiss
import uvicorn
import uvloop

from embeddings.device import resolve_device
from embeddings.errors import OpportuneError
from embeddings.store import BundleStore
from serving.app import create_app
from serving.metrics import Metrics, watch_loop
from serving.settings import Settings
from serving.slot import BundleSlot, open_model
from serving.state.events import EventStore
from serving.state.postgres import database

_DRAIN_SECONDS = 10
# Requests make no cycles to speak of, and what a model holds is frozen: a collection every 700 objects only delays.
_GC_THRESHOLDS = (100_000, 20, 100)


Number = TypeVar("Number", int, float)


def main() -> None:
    """Run the command line until SIGTERM or SIGINT; exit 2 if there is nothing that can be served."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    gc.set_threshold(*_GC_THRESHOLDS)
    faiss.omp_set_num_threads(1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    try:
        settings = Settings(
            store=arguments.store,
            host=arguments.host,
            port=arguments.port,
            database=arguments.database,
            device=resolve_device(arguments.device),
            clock=arguments.clock,
            in_flight=arguments.in_flight,
            deadline_seconds=arguments.deadline,
        )
        BundleStore(settings.store).current()  # before a PostgreSQL is set up beside nothing
        with database(settings.database, settings.store) as url:
            uvloop.run(_serve(settings, url))
    except OpportuneError as error:
        print(f"opportune-serve: {error}", file=sys.stderr)
        sys.exit(2)


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Exit 0 by way of every ``finally``.

    uvicorn drains on a signal and then raises it again; by default that would end the process there and then, with
    the embedded PostgreSQL left running.
    """
    sys.exit(0)


async def _serve(settings: Settings, url: str) -> None:
    """Serve until told to stop; requests under way are answered first."""
    store = BundleStore(settings.store)
    async with EventStore.connect(url) as events:
        open_version = partial(open_model, settings, events=events)
        slot = BundleSlot(open_version(store.current()))
        logging.getLogger("opportune.serve").info("serving %s", slot.current.version)
        metrics = Metrics()
        config = uvicorn.Config(
            create_app(settings, slot, events, metrics),
            host=settings.host,
            port=settings.port,
            http="httptools",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
        watching = [
            asyncio.create_task(slot.watch(store, open_version, settings.swap_poll_seconds)),
            asyncio.create_task(watch_loop(metrics)),
        ]
        try:
            await uvicorn.Server(config).serve()
        finally:
            for task in watching:
                task.cancel()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="opportune-serve", description="Answer recommend calls over HTTP.")
    parser.add_argument("--store", required=True, type=Path, help="the store that opportune-train publishes into")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--database", help="a PostgreSQL URL for events; default: an embedded PostgreSQL under the store"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument(
        "--in-flight",
        type=_positive(int),
        default=128,
        help="requests under way at once; one more gets 503; default 128",
    )
    parser.add_argument(
        "--deadline", type=_positive(float), default=1.0, help="seconds a request may wait for its turn; default 1"
    )
    parser.add_argument(
        "--clock", choices=["wall", "replay"], default="wall", help="replay: now is the newest moment seen"
    )
    return parser


def _positive(kind: type[Number]) -> Callable[[str], Number]:
    def read(text: str) -> Number:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"expected more than 0, got {text}")
        return value

    return read


if __name__ == "__main__":
    main()
