"""Kills, again and again, under load: nothing that was acknowledged is lost or doubled. Run with ``make test-kill``."""

import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from embeddings.database.postgres import database
from tests.integration.server import PATIENCE_SECONDS, Server, event, execute, postgres_of
from tests.world import UNTIL

ROUNDS, SENDERS, EVENTS_A_SECOND = 20, 8, 200
PROMPT_SECONDS = 10.0
"""How soon after PostgreSQL's death events are promised to be accepted again."""


class Load:
    """Senders of events, one a request, at a steady pace, who note what was acknowledged and when."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.acknowledged: Counter[str] = Counter()
        self.sent: set[str] = set()
        self.accepted_at = 0.0
        self._stopping = threading.Event()
        self._lock = threading.Lock()

    def send(self) -> None:
        """Send until told to stop; an event that was not acknowledged is sent again now and then."""
        client = httpx.Client(timeout=5)
        unsure: list[dict[str, object]] = []
        due = time.monotonic()
        while not self._stopping.is_set():
            due = max(due + SENDERS / EVENTS_A_SECOND, time.monotonic() - 1)
            self._stopping.wait(max(0.0, due - time.monotonic()))
            one = (
                unsure.pop(0) if unsure and random.random() < 0.5 else event(f"k{random.randrange(500)}", "p050", UNTIL)
            )
            name = str(one["event_id"])
            with self._lock:
                self.sent.add(name)
            try:
                answer = client.post(f"http://127.0.0.1:{self.server.port}/v1/events", json={"events": [one]})
            except httpx.HTTPError:
                unsure.append(one)
                continue
            if answer.status_code != 202:
                assert answer.status_code == 503, answer.text
                unsure.append(one)
                continue
            with self._lock:
                self.acknowledged[name] += answer.json()["accepted"]
                self.accepted_at = time.monotonic()

    def stop(self) -> None:
        self._stopping.set()

    def accepted_after(self, moment: float) -> float:
        """Seconds from a moment to the first acknowledgement of what was sent later."""
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            if self.accepted_at > moment:
                return self.accepted_at - moment
            time.sleep(0.005)
        raise AssertionError(f"no event was accepted within {PATIENCE_SECONDS} s")


@pytest.mark.kill
@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_acknowledged_event_is_lost_or_doubled_by_kills(own_store: Path, workers: str):
    server = Server(own_store, "--workers", workers)
    load = Load(server)
    chance = random.Random(7)
    recovered: list[float] = []
    ready: list[float] = []
    with ThreadPoolExecutor(SENDERS) as senders:
        sending = [senders.submit(load.send) for _ in range(SENDERS)]
        try:
            for number in range(ROUNDS):
                load.accepted_after(time.monotonic())
                time.sleep(chance.uniform(0.2, 1.0))  # somewhere in a group, not always at its start
                what = ("both", "PostgreSQL", "service")[number % 3]
                doomed = postgres_of(own_store)
                assert doomed
                if what != "PostgreSQL":
                    server.process.send_signal(signal.SIGKILL)
                if what != "service":
                    os.kill(doomed, signal.SIGKILL)
                died = time.monotonic()
                if what == "PostgreSQL":
                    time.sleep(0.05)  # answers that were under way
                    recovered.append(load.accepted_after(time.monotonic()) + 0.05)
                else:
                    server.ended()
                    server.start()
                    ready.append(time.monotonic() - died)
                assert all(not one.done() for one in sending)
        finally:
            load.stop()
            for one in sending:
                one.result()
            server.stop()
    assert "Traceback" not in server.log
    with database(None, own_store) as found:
        stored = Counter(execute(found.url, "SELECT event_id FROM events"))
    assert not set(load.acknowledged) - set(stored), "lost"
    assert not [name for name, times in load.acknowledged.items() if times > 1], "acknowledged twice as new"
    assert set(stored) <= load.sent
    assert max(stored.values()) == 1
    print(  # noqa: T201 - the figures
        f"\n{workers} workers, {ROUNDS} rounds: {len(load.sent)} events sent, {len(load.acknowledged)} acknowledged, "
        f"{len(stored)} stored; accepted again after {max(recovered):.2f} s at most; ready at the first start "
        f"{len(ready)} times of {len(ready)}, after {max(ready):.2f} s at most"
    )
    assert max(recovered) < PROMPT_SECONDS
