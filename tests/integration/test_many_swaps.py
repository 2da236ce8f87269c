"""Thirty releases, one after another, under load: no answer fails or is mixed, and nothing of the old ones stays."""

import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import NamedTuple

import httpx
import psutil
import pytest

from embeddings.release.store import BundleStore
from tests.integration.server import PATIENCE_SECONDS, Postgres, Server, eventually, release
from tests.integration.test_workers import workers
from tests.world import UNTIL, store

pytestmark = pytest.mark.slow

SWAPS, FIRST = 30, 3
CLIENTS, PAUSE_SECONDS = 4, 0.02
"""Together some 150 requests a second."""

SETTLED = 400
"""Answers after a swap, before anything is measured."""

MORE = 1.05


class Held(NamedTuple):
    """What a process holds: descriptors, and KiB of address space and of memory."""

    descriptors: int
    mapped: int
    resident: int


def held(process: psutil.Process) -> Held:
    memory = process.memory_info()
    return Held(process.num_fds(), memory.vms // 1024, memory.rss // 1024)


def gap(version: str) -> float:
    """The usual gap of every product in a release: it shows in every answer which release has given it."""
    return 100.0 + int(version.removeprefix("v"))


class Load:
    """Clients that ask without end, and count what they were answered."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = Event()
        self.answered = [0] * CLIENTS
        self.versions: set[str] = set()

    def ask(self, client: int) -> None:
        with httpx.Client(base_url=self._url, timeout=PATIENCE_SECONDS) as http:
            while not self._over.wait(PAUSE_SECONDS):
                customer = (client + CLIENTS * self.answered[client]) % 120
                asked = {
                    "customer_id": f"c{customer:03d}" if customer % 5 else None,
                    "context": {"channel": "store", "location": store(customer), "at": UNTIL.isoformat()},
                    "kinds": ["product", "offer"] if customer % 3 == 0 else ["product"],
                    "filter_already_bought": customer % 7 == 0,
                    "explain": True,
                }
                answer = http.post("/v1/recommend", json=asked)
                assert answer.status_code == 200, answer.text
                told = answer.json()
                assert not told["degraded"]
                products = [one for one in told["items"] if one["kind"] == "product"]
                gaps = {
                    one["explanation"]["features"]["product_gap"] for one in products if one["explanation"]["features"]
                }
                if told["model_version"].startswith("v"):
                    assert gaps <= {gap(told["model_version"])}
                self.versions.add(told["model_version"])
                self.answered[client] += 1

    @contextmanager
    def running(self) -> Generator[list[Future[None]]]:
        with ThreadPoolExecutor(CLIENTS) as threads:
            clients = [threads.submit(self.ask, client) for client in range(CLIENTS)]
            try:
                yield clients
            finally:
                self._over.set()
        for client in clients:
            client.result()


def test_thirty_releases_under_load_leave_nothing_behind(
    own_store: Path, postgres: Postgres, record_property: Callable[[str, object], None]
):
    server = Server(own_store, "--database", postgres.database(), "--workers", "2", "--index-cache-mib", "64")
    try:
        both = eventually(lambda: found if len(found := workers(server)) == 2 else None, "both workers")
        load = Load(str(server.client.base_url))
        measured: dict[int, list[Held]] = {}
        begun = time.monotonic()
        with load.running() as clients:
            for number in range(1, SWAPS + 1):
                release(own_store, f"v{number}", gap(f"v{number}"))
                with BundleStore(own_store).lock():
                    BundleStore(own_store).prune(keep=2)
                eventually(lambda v=f"v{number}": server.metric("opportune_model", version=v) == 2, "both to swap")
                wanted = sum(load.answered) + SETTLED
                eventually(
                    lambda wanted=wanted: sum(load.answered) > wanted or any(client.done() for client in clients),
                    "answers of the new release",
                )
                measured[number] = [held(worker) for worker in both]
        assert load.versions >= {f"v{number}" for number in range(1, SWAPS + 1)}
        record_property("answers", f"{sum(load.answered)} in {time.monotonic() - begun:.0f} s")
        for worker, (early, late) in enumerate(zip(measured[FIRST], measured[SWAPS], strict=True)):
            record_property(f"worker {worker}", f"after swap {FIRST}: {early}, after swap {SWAPS}: {late}")
            for name, before, after in zip(Held._fields, early, late, strict=True):
                assert after <= MORE * before, (worker, name, measured)
        assert workers(server) == both, "no worker was replaced"
        assert server.metric("opportune_model_refused") == 0
    finally:
        server.stop()
