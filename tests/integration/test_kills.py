"""Kills, again and again, under load: nothing that was acknowledged is lost or doubled. Run with ``make test-kill``."""

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from embeddings.database.postgres import database
from tests.integration.server import PATIENCE_SECONDS, Server, event, eventually, execute, free_port, postgres_of
from tests.integration.test_admin_process import processes, refuses
from tests.world import UNTIL

ROUNDS, SENDERS, EVENTS_A_SECOND = 30, 8, 200
WRITERS, CHANGES_A_SECOND, PRODUCTS = 2, 10, 20
DOOMED = ("both", "PostgreSQL", "service", "management API")
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


class Changes:
    """Writers of products over the management API, at a steady pace, who note what was acknowledged.

    Every write has a price of its own, and none is sent twice: a change is known by its product and its price.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.acknowledged: dict[int, tuple[str, float]] = {}
        self.sent: set[tuple[str, float]] = set()
        self._stopping = threading.Event()
        self._lock = threading.Lock()

    def send(self) -> None:
        """Send until told to stop."""
        client = httpx.Client(timeout=5)
        while not self._stopping.wait(WRITERS / CHANGES_A_SECOND):
            with self._lock:
                change = f"changed-{random.randrange(PRODUCTS)}", float(len(self.sent))
                self.sent.add(change)
            try:
                answer = client.put(f"http://127.0.0.1:{self.port}/v1/products/{change[0]}", json={"price": change[1]})
            except httpx.HTTPError:
                continue
            if answer.status_code == 200:
                with self._lock:
                    self.acknowledged[answer.json()["seq"]] = change
            else:
                assert answer.status_code == 503, answer.text

    def stop(self) -> None:
        self._stopping.set()


class Times(NamedTuple):
    """Seconds: until events were accepted again after PostgreSQL's death, and until a server that died was ready."""

    recovered: list[float]
    ready: list[float]


@pytest.mark.kill
@pytest.mark.parametrize("workers", ["1", "2"])
def test_nothing_acknowledged_is_lost_or_doubled_by_kills(own_store: Path, workers: str):
    server = Server(own_store, "--workers", workers, "--admin-port", str(port := free_port()))
    load, changes, times = Load(server), Changes(port), Times([], [])
    with ThreadPoolExecutor(SENDERS + WRITERS) as senders:
        sending = [senders.submit(load.send) for _ in range(SENDERS)]
        sending += [senders.submit(changes.send) for _ in range(WRITERS)]
        try:
            for number in range(ROUNDS):
                kill(DOOMED[number % len(DOOMED)], server, load, times)
                assert all(not one.done() for one in sending)
        finally:
            load.stop()
            changes.stop()
            for one in sending:
                one.result()
            server.stop()
    assert "Traceback" not in server.log
    with database(None, own_store) as found:
        stored = check_events(found.url, load)
        prices = check_changes(found.url, changes)
    server.start()
    try:
        last = max(changes.acknowledged)
        answer = server.recommend(items=sorted(prices), limit=len(prices), include=["price"], at_least=last)
        assert {one["id"]: one["price"] for one in answer["items"]} == prices
    finally:
        server.stop()
    print(  # noqa: T201 - the figures
        f"\n{workers} workers, {ROUNDS} rounds: {len(load.sent)} events sent, {len(load.acknowledged)} acknowledged, "
        f"{stored} stored; {len(changes.sent)} changes sent, {len(changes.acknowledged)} acknowledged; events accepted "
        f"again after {max(times.recovered):.2f} s at most; ready at the first start {len(times.ready)} times of "
        f"{len(times.ready)}, after {max(times.ready):.2f} s at most"
    )
    assert max(times.recovered) < PROMPT_SECONDS


def kill(what: str, server: Server, load: Load, times: Times) -> None:
    """Kill one thing, or both, at some moment; a service that died is started again."""
    load.accepted_after(time.monotonic())
    time.sleep(random.uniform(0.2, 1.0))  # somewhere in a group, not always at its start
    if what == "management API":
        for one in processes(server):
            one.kill()
        return
    doomed = postgres_of(server.store)
    assert doomed
    if what != "PostgreSQL":
        server.process.send_signal(signal.SIGKILL)
    if what != "service":
        os.kill(doomed, signal.SIGKILL)
    died = time.monotonic()
    if what == "PostgreSQL":
        time.sleep(0.05)  # answers that were under way
        times.recovered.append(load.accepted_after(time.monotonic()) + 0.05)
    else:
        server.ended()
        eventually(lambda: refuses(server), "the end of what it has started")
        server.start()
        times.ready.append(time.monotonic() - died)


def check_events(url: str, load: Load) -> int:
    """Compare the events that are stored with those acknowledged; returns how many there are."""
    stored = Counter(execute(url, "SELECT event_id FROM events"))
    assert not set(load.acknowledged) - set(stored), "lost"
    assert not [name for name, times in load.acknowledged.items() if times > 1], "acknowledged twice as new"
    assert set(stored) <= load.sent
    assert max(stored.values()) == 1
    return len(stored)


def check_changes(url: str, changes: Changes) -> dict[str, float]:
    """Compare the change log with what was acknowledged and with the tables; returns the price of each product."""
    changed, held = (
        [json.loads(one) for one in execute(url, f"SELECT jsonb_build_array(seq, id, body) FROM {table}")]
        for table in ("catalogue_changes", "catalogue")
    )
    written = {seq: (name, body["price"]) for seq, name, body in changed}
    assert changes.acknowledged.items() <= written.items(), "lost"
    assert len(set(written.values())) == len(changed), "written twice"
    assert set(written.values()) <= changes.sent
    newest = {name: [seq, name, body] for seq, name, body in sorted(changed)}
    assert {name: [seq, name, body] for seq, name, body in held} == newest, "change log and tables do not agree"
    assert len(changes.acknowledged) > ROUNDS
    return {name: body["price"] for _, name, body in newest.values()}
