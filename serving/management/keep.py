"""Keeps the process of the management API running beside those that answer requests."""

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from embeddings.database.postgres import Database

_log = logging.getLogger("opportune.serve")

# One that dies within so many seconds of its start is replaced after a pause, twice as long each time in a row.
_STEADY_SECONDS, _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 10.0, 0.1, 30.0
_LEAVING_SECONDS = 5.0
"""How long it may take to leave, as long as requests for recommendations may."""


class Given(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the process is told on its standard input, where nobody else can read the database's password.

    Attributes:
        store: where releases are published.
        database: the URL of PostgreSQL.
        host, port: where it listens, for the log and to tell who may ask.
        sockets: descriptors of the sockets, which listen already.
    """

    store: str
    database: str
    host: str
    port: int
    sockets: tuple[int, ...]


class Management:
    """The process of the management API, as the one that keeps it sees it; one that dies is replaced.

    Its standard input is a pipe that ends with this process, however it ends, and then it leaves.

    Args:
        store: where releases are published.
        database: PostgreSQL.
        host: where the sockets listen.
        port: of them.
        sockets: listening ones; without any nothing is started.
    """

    def __init__(self, store: Path, database: Database, host: str, port: int, sockets: Sequence[socket.socket]) -> None:
        descriptors = tuple(one.fileno() for one in sockets)
        given = Given(store=str(store), database=database.url, host=host, port=port, sockets=descriptors)
        self._told = msgspec.json.encode(given) + b"\n"
        self._inherited = descriptors if database.home is None else (*descriptors, database.home.descriptor)
        self._listens = bool(sockets)
        self._keeping: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None] | None:
        """Start it, and again whenever it dies; return the task that does so, or None where nothing is started."""
        if self._listens:
            self._keeping = asyncio.create_task(_keep(self._told, self._inherited), name="management")
        return self._keeping

    async def leave(self) -> None:
        """Have it answer what is under way and end, and wait for that."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait([self._keeping])


async def _keep(told: bytes, inherited: Sequence[int]) -> None:
    """Start the process whenever there is none; have it leave when this is cancelled."""
    pause = 0.0
    while True:
        await asyncio.sleep(pause)
        started = time.monotonic()
        try:
            code = await _run(told, inherited)
            _log.error("the management API ended with %s; another follows", code)
        except OSError as error:
            _log.error("cannot start the management API: %s", error)
        lived = time.monotonic() - started
        pause = 0.0 if lived > _STEADY_SECONDS else min(max(2 * pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)


async def _run(told: bytes, inherited: Sequence[int]) -> int:
    """Run one process to its end, and return its exit code or minus its signal."""
    # In a session of its own it does not hear Ctrl-C, which tells everybody: this process says when it is to leave.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "serving.management"),
        stdin=asyncio.subprocess.PIPE,
        pass_fds=inherited,
        start_new_session=True,
    )
    assert process.stdin is not None  # noqa: S101 - a pipe was asked for
    try:
        process.stdin.write(told)
        return await process.wait()
    except asyncio.CancelledError:
        process.stdin.close()
        try:
            async with asyncio.timeout(_LEAVING_SECONDS):
                await process.wait()
        except TimeoutError:
            _log.error("the management API did not leave within %g s and is killed", _LEAVING_SECONDS)
            process.kill()
            await process.wait()
        raise
