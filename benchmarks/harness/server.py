"""A server as its users meet it: a process of its own, reached over HTTP alone."""

import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import msgspec
import psutil

from benchmarks.harness.cores import pinned

_PATIENCE_SECONDS = 180
"""Long enough for a peer that builds a graph index over the whole catalogue first."""


class Served(msgspec.Struct, frozen=True):
    """A running server.

    Attributes:
        ready_seconds: from the start of its process to the first 200 of /readyz.
    """

    port: int
    pid: int
    ready_seconds: float

    def resident_mib(self) -> float:
        """Return the MiB that the server's own process holds in RAM now; its PostgreSQL is not counted."""
        return psutil.Process(self.pid).memory_info().rss / 2**20

    def proportional_mib(self) -> float:
        """Return the MiB that all its processes hold together, PostgreSQL left out; on Linux only.

        Each page is shared out among the processes that hold it.
        """
        server = psutil.Process(self.pid)
        family = [server, *server.children(recursive=True)]
        return sum(one.memory_full_info().pss for one in family if one.name() != "postgres") / 2**20

    def get(self, path: str) -> bytes:
        """Return the body of the answer to a GET; raise RuntimeError if its status is not 200."""
        return self._call("GET", path)

    def post(self, path: str, body: bytes) -> bytes:
        """Return the body of the answer to a POST of JSON; raise RuntimeError if its status is not 200."""
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_SECONDS)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != 200:
            raise RuntimeError(f"{method} {path} was answered {response.status}: {answer.decode(errors='replace')}")
        return answer


@contextmanager
def serve(store: Path, *options: str, core: int | None = None) -> Generator[Served]:
    """Run ``opportune-serve`` on a free port until the block is left; see `launch`."""
    with launch(
        ["serving", "--store", str(store), "--admin-port", "0", *options], store / "server.log", core
    ) as served:
        yield served


@contextmanager
def launch(module: Sequence[str], log: Path, core: int | None = None) -> Generator[Served]:
    """Run a Python module that takes ``--port`` and answers /readyz, until the block is left.

    Args:
        module: its name and its arguments.
        log: where its output goes.
        core: the one it may run on, with everything it starts; None for any.

    Raises:
        RuntimeError: the server ended, or was not ready in time; its log is part of the message.
    """
    port = free_port()
    started = time.perf_counter()
    with log.open("wb") as sink, pinned(core):
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", *module, "--port", str(port)], stdout=sink, stderr=sink
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


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def embedded_url(store: Path) -> str:
    """Return the URL of the PostgreSQL that a server embeds beside its store."""
    return f"postgresql://postgres@/postgres?host={(store / 'state' / 'postgres').absolute()}"


def _ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
