"""What the service does when it is strained: stopped for moments, asked twice what it can do, held by slow clients.

Each part stands beside the same load without the strain, in the same run.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import msgspec
from msgspec import Struct

from benchmarks.harness import cores, machine
from benchmarks.harness.release import current, own_state, release
from benchmarks.harness.report import Table, write_report
from benchmarks.harness.server import Served, serve
from benchmarks.latency.generate import generator
from benchmarks.latency.plan import Stage
from benchmarks.latency.samples import Latencies, Samples
from benchmarks.latency.traffic import RECOMMEND, traffic
from embeddings.catalogue.columns import Catalogue
from embeddings.release.store import BundleStore

_CONNECTIONS = 512
_WARM_UP_SECONDS = 5.0
_STOP_SECONDS, _STOPS_EVERY_SECONDS = 0.05, 1.0
_IDLE, _HALF_SENT, _TRICKLING = 500, 200, 50
_TRICKLE_SECONDS = 0.5
_BESIDE_RPS = 200.0
_AMONG = 10_000
_HALF = b"POST /v1/recommend HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 4000\r\n\r\n{"


class Effort(Struct, frozen=True):
    """How long to measure, in seconds."""

    saturation: float
    stopped: float
    overload: float
    beside: float


FULL, QUICK = Effort(8, 60, 30, 30), Effort(3, 15, 8, 10)


class Strained(Struct, frozen=True):
    """Results of the requests of one span.

    Attributes:
        accepted: latencies of those that were answered, from the moment each was due.
        refused_ms: the median time until a refusal, from when the request was sent; None where nothing was refused.
    """

    rate: float
    statuses: dict[str, int]
    accepted: Latencies
    refused_ms: float | None
    resident_mib: float


def run(store: Path, json_file: Path, *, quick: bool) -> Mapping[str, Strained]:
    """Measure, print, write the JSON, and return the results by name.

    Args:
        store: a store with a release on Complete Journey; one is trained there if it holds none.
        json_file: where everything that was measured goes.
        quick: within two minutes.
    """
    effort = QUICK if quick else FULL
    version = current(store, lambda _: True) or release(store)
    calls = traffic().calls
    found: dict[str, Strained] = {}
    with (
        generator(cores.choose()) as load,
        own_state(store, version) as own,
        serve(own, "--clock", "replay", core=load.cores.server) as served,
    ):

        def under(rate: float | None, seconds: float, connections: int = _CONNECTIONS) -> Strained:
            samples = load.run(served.port, calls, [Stage(seconds, connections, rate)])
            return _strained(samples, served)

        under(None, _WARM_UP_SECONDS, 8)
        saturation = under(None, effort.saturation, 32)
        half, twice = saturation.rate / 2, saturation.rate * 2
        found |= {"saturation": saturation, "half": under(half, effort.beside)}
        with _stopped_now_and_then(served.pid):
            found["half, stopped"] = under(half, effort.stopped)
        found["twice"] = under(twice, effort.overload)
        found["half, after"] = under(half, effort.beside)
        found["beside nobody"] = under(_BESIDE_RPS, effort.beside)
        with _held(served.port), _asking(served.port, _largest_request(store, version)):
            found["beside slow clients and the largest items"] = under(_BESIDE_RPS, effort.beside)
    write_report(json_file, {"suite": "strain", "quick": quick, "machine": machine.describe(), "found": found})
    table = Table("Strain", ["", "due/s", "accepted", "refused", "other", "p50 ms", "p99 ms", "refusal ms", "MiB"])
    for name, one in found.items():
        good = sum(count for status, count in one.statuses.items() if status.startswith("2"))
        refused = one.statuses.get("503", 0)
        other = sum(one.statuses.values()) - good - refused
        refusal = "" if one.refused_ms is None else f"{one.refused_ms:.2f}"
        figures = f"{one.rate:.0f}", str(good), str(refused), str(other), f"{one.accepted.p50:.2f}"
        table.add(name, *figures, f"{one.accepted.p99:.2f}", refusal, f"{one.resident_mib:.0f}")
    table.print()
    return found


def _strained(samples: Samples, served: Served) -> Strained:
    refused = samples.where(samples.refused)
    seconds = (int(samples.due_R.max()) - int(samples.due_R.min())) / 1e9
    return Strained(
        rate=round(len(samples.due_R) / seconds, 1),
        statuses=samples.statuses(),
        accepted=samples.where(samples.good & (samples.event_R == 0)).latencies(),
        refused_ms=round(refused._replace(due_R=refused.sent_R).median_ms(), 3) if len(refused.due_R) else None,
        resident_mib=round(served.resident_mib(), 1),
    )


@contextmanager
def _meanwhile(work: Callable[[threading.Event], None]) -> Generator[None]:
    """Run ``work`` in a thread until the block is left; its event is set then."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=[over])
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _stopped_now_and_then(pid: int) -> AbstractContextManager[None]:
    def stop(over: threading.Event) -> None:
        while not over.wait(_STOPS_EVERY_SECONDS - _STOP_SECONDS):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(_STOP_SECONDS)
            os.kill(pid, signal.SIGCONT)

    return _meanwhile(stop)


@contextmanager
def _held(port: int) -> Generator[None]:
    """Hold connections that ask nothing, that stop in the middle, and that go on one byte at a time.

    Those that have sent something are opened anew if cut.
    """

    def hold(over: threading.Event) -> None:
        sent = [b""] * _IDLE + [_HALF] * (_HALF_SENT + _TRICKLING)
        held = [_connection(port, one) for one in sent]
        while not over.wait(_TRICKLE_SECONDS):
            for place in range(_IDLE, len(held)):
                if _is_cut(held[place]) or (place >= _IDLE + _HALF_SENT and not _trickles(held[place])):
                    held[place].close()
                    held[place] = _connection(port, sent[place])
        for one in held:
            one.close()

    with _meanwhile(hold):
        yield


def _is_cut(connection: socket.socket) -> bool:
    """Return whether the server has closed a connection; what it has answered is read."""
    try:
        return not connection.recv(1_000)
    except BlockingIOError:  # nothing has come
        return False
    except ConnectionError:
        return True


def _trickles(connection: socket.socket) -> bool:
    """Send one more byte; return whether the connection is still there."""
    with suppress(BlockingIOError):  # as much as fits is on its way
        try:
            connection.send(b" ")
        except ConnectionError:
            return False
    return True


def _connection(port: int, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 5)
    connection.sendall(sent)
    connection.setblocking(False)
    return connection


def _asking(port: int, body: bytes) -> AbstractContextManager[None]:
    def ask(over: threading.Event) -> None:
        connection = HTTPConnection("127.0.0.1", port)
        while not over.is_set():
            try:
                connection.request("POST", RECOMMEND, body, {"Content-Type": "application/json"})
                connection.getresponse().read()
            except (OSError, HTTPException):
                connection.close()
        connection.close()

    return _meanwhile(ask)


def _largest_request(store: Path, version: str) -> bytes:
    """Return the body of the largest request: as many products as may be named, all shown explained."""
    ids = Catalogue.load(BundleStore(store).bundle(version) / "catalogue").products.ids
    named = ids.ids(range(min(_AMONG, len(ids))))
    body = {"context": {"channel": "web"}, "items": named, "explain": True, "limit": 100}
    return msgspec.json.encode(body)
