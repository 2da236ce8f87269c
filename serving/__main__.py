"""``opportune-serve``: the service."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path
from types import FrameType

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
from serving.settings import Settings
from serving.slot import BundleSlot, open_model
from serving.state.events import EventStore
from serving.state.postgres import database

_DRAIN_SECONDS = 10
# From this many inner products on, FAISS multiplies matrices instead of looping: its own threshold supposes many
# threads. At 64 dimensions this is a batch of four.
_FAISS_BLAS_FROM = 256


def main() -> None:
    """Run the command line until SIGTERM or SIGINT; exit 2 if there is nothing that can be served."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    faiss.omp_set_num_threads(1)
    faiss.cvar.distance_compute_blas_threshold = _FAISS_BLAS_FROM
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
        config = uvicorn.Config(
            create_app(settings, slot, events),
            host=settings.host,
            port=settings.port,
            http="httptools",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
        watching = asyncio.create_task(slot.watch(store, open_version, settings.swap_poll_seconds))
        try:
            await uvicorn.Server(config).serve()
        finally:
            watching.cancel()


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
        "--clock", choices=["wall", "replay"], default="wall", help="replay: now is the newest moment seen"
    )
    return parser


if __name__ == "__main__":
    main()
