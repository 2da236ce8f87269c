"""The service as its users meet it: a process of its own, reached over HTTP alone."""

import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import msgspec
import psutil

_PATIENCE_SECONDS = 60


class Served(msgspec.Struct, frozen=True):
    """A running server.

    Attributes:
        ready_seconds: from the start of its process to the first 200 of /readyz.
    """

    port: int
    pid: int
    ready_seconds: float

    def resident_mib(self) -> float:
        """Memory that the server's own process holds in RAM now, in MiB; its PostgreSQL is not counted."""
        return psutil.Process(self.pid).memory_info().rss / 2**20


@contextmanager
def serve(store: Path, *options: str) -> Generator[Served]:
    """Run ``opportune-serve`` on a free port until the block is left.

    Raises:
        RuntimeError: the server ended, or was not ready in time; its log is part of the message.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = store / "server.log"
    started = time.perf_counter()
    with log.open("wb") as sink:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "serving", "--store", str(store), "--port", str(port), *options],
            stdout=sink,
            stderr=sink,
        )
    try:
        while not _ready(port):
            if process.poll() is not None or time.perf_counter() - started > _PATIENCE_SECONDS:
                raise RuntimeError(f"the server is not ready; its log:\n{log.read_text()}")
            time.sleep(0.01)
        yield Served(port, process.pid, time.perf_counter() - started)
    finally:
        process.terminate()
        process.wait(_PATIENCE_SECONDS)


def _ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
