"""The process of the management API; ``opportune-serve`` starts it and says on standard input what it needs."""

import asyncio
import logging
import socket
import sys
from pathlib import Path

import msgspec
import uvicorn
import uvloop

from serving.management.app import create_app
from serving.management.database import CatalogueDatabase
from serving.management.keep import Given
from serving.management.releases import Releases
from serving.server import configured

_log = logging.getLogger("opportune.serve")

_DRAIN_SECONDS = 4
_CONNECTIONS = 256


def main() -> None:
    """Answer until standard input ends: with the process that started this one, or when it says so."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    given = msgspec.json.decode(sys.stdin.buffer.readline(), type=Given)
    uvloop.run(_serve(given))


async def _serve(given: Given) -> None:
    database = CatalogueDatabase(given.database)
    app = create_app(given.host, database, Releases(Path(given.store)))
    config = configured(app, _DRAIN_SECONDS, limit_concurrency=_CONNECTIONS)
    server, loop = uvicorn.Server(config), asyncio.get_running_loop()

    def leave() -> None:
        loop.remove_reader(sys.stdin.fileno())
        server.should_exit = True

    loop.add_reader(sys.stdin.fileno(), leave)
    async with database.connected():
        _log.warning(
            "management API on %s port %d: it asks for no key yet, so whoever reaches this port can change everything",
            *(given.host, given.port),
        )
        await server.serve(sockets=[socket.socket(fileno=one) for one in given.sockets])


if __name__ == "__main__":
    main()
