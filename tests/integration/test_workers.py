"""Several workers on one port: what one knows all know, and none is missed when it dies."""

import asyncio
import json
import re
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import httpx
import psutil
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.parser import text_string_to_metric_families

from embeddings.device import free_memory
from embeddings.errors import InvalidInput
from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from serving.command_line import parser, settings_of
from serving.state.worker_metrics import WorkerMetrics
from serving.workers import WorkerPlace, supervise
from tests.integration.server import (
    PATIENCE_SECONDS,
    Postgres,
    Server,
    copy_store,
    event,
    eventually,
    lay_beside,
    point_at,
    release,
    serve,
)
from tests.integration.test_lifecycle import answer_of, under_way
from tests.world import UNTIL

WORKERS = 3
SOON, LATER = UNTIL + timedelta(hours=1), UNTIL + timedelta(hours=2)
RECOMMENDS = {"route": "/v1/recommend", "status": "200"}


class Line:
    """A connection that stays with one worker."""

    def __init__(self, server: Server, worker: psutil.Process) -> None:
        """Connect while no other worker can answer."""
        others = [other for other in workers(server) if other != worker]
        for other in others:
            other.suspend()
        try:
            eventually(lambda: all(other.status() == psutil.STATUS_STOPPED for other in others), "others to stop")
            self.http = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
            self.get("/healthz")
        finally:
            for other in others:
                other.resume()
        assert self.http.sock
        mine = self.http.sock.getsockname()
        assert mine in [tuple(one.raddr) for one in worker.net_connections()]
        self.http.auto_open = 0  # a second connection might reach another worker

    def get(self, path: str) -> str:
        return self._call("GET", path, 200)

    def report(self, *events: dict[str, Any]) -> dict[str, Any]:
        return json.loads(self._call("POST", "/v1/events", 202, {"events": events}))

    def recommend(self, customer: str, **rest: Any) -> dict[str, Any]:
        asked = {"customer_id": customer, "context": {"channel": "web", "at": LATER.isoformat()}, "limit": 100}
        return json.loads(self._call("POST", "/v1/recommend", 200, asked | rest))

    def bought(self, customer: str, product: str) -> int:
        """How often the next answer says that a customer has bought a product."""
        for item in self.recommend(customer)["items"]:
            if item["id"] == product and item["reasons"][0]["code"] == "bought_before":
                return int((re.findall(r"(\d+) times", item["reasons"][0]["text"]) or ["1"])[0])
        return 0

    def redeemed(self, offer: str) -> float:
        """How often everybody has redeemed an offer, as the ranker reads it for the next answer."""
        items = self.recommend("c010", kinds=["offer"], explain=True)["items"]
        return next(item["explanation"]["features"]["redeemed_by_others"] for item in items if item["id"] == offer)

    def metric(self, name: str, **labels: str) -> float:
        samples = [
            sample.value
            for family in text_string_to_metric_families(self.get("/metrics"))
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        ]
        return sum(samples)

    def _call(self, method: str, path: str, status: int, body: object = None) -> str:
        content = None if body is None else json.dumps(body)
        self.http.request(method, path, content, {"Content-Type": "application/json"})
        answer = self.http.getresponse()
        text = answer.read().decode()
        assert answer.status == status, text
        return text


def redemption(customer: str) -> dict[str, Any]:
    return event(customer, None, SOON, "redemption", offer_id="everyone")


def workers(server: Server) -> list[psutil.Process]:
    """The workers of a server whose PostgreSQL is not its own."""
    return psutil.Process(server.process.pid).children()


def heir(server: Server, doomed: psutil.Process, steady: psutil.Process) -> psutil.Process | None:
    """The worker that has taken the place of the doomed one, if it is there."""
    found = workers(server)  # looked at once: from one look to the next a process can end or begin
    return None if doomed in found else next((worker for worker in found if worker != steady), None)


@contextmanager
def lines(server: Server, each: int = 1) -> Generator[list[Line]]:
    """So many connections to every worker, one worker after the other."""
    with ExitStack() as stack:
        found = [Line(server, worker) for _ in range(each) for worker in workers(server)]
        for line in found:
            stack.callback(line.http.close)
        yield found


@pytest.fixture(scope="module")
def several(
    published: tuple[BundleStore, Manifest], postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server whose workers stay; tests take customers of their own."""
    store = copy_store(published[0], tmp_path_factory.mktemp("several"))
    server = Server(store, "--database", postgres.database(), "--workers", str(WORKERS))
    eventually(lambda: len(workers(server)) == WORKERS, "all workers")
    yield server
    server.stop()


@pytest.fixture
def brittle(own_store: Path, postgres: Postgres) -> Iterator[Server]:
    """A server whose workers are killed, for a single test."""
    server = Server(own_store, "--database", postgres.database(), "--workers", "2")
    eventually(lambda: len(workers(server)) == 2, "both workers")
    yield server
    server.stop()


# One answer, whoever gives it


def test_an_accepted_event_is_in_the_very_next_answer_of_every_worker(several: Server):
    with lines(several, each=2) as all_lines:
        for customer in ("c003", "roamer"):
            assert [line.bought(customer, "p050") for line in all_lines] == [0] * len(all_lines)
            for count in range(1, 3 * WORKERS):
                purchase = event(customer, "p050", SOON - timedelta(seconds=count))
                assert all_lines[count % len(all_lines)].report(purchase)["accepted"] == 1
                assert [line.bought(customer, "p050") for line in all_lines] == [count] * len(all_lines)


def test_a_redemption_counts_in_the_very_next_answer_of_every_worker(several: Server):
    with lines(several, each=2) as all_lines:
        for count in range(1, 3 * WORKERS):
            all_lines[count % len(all_lines)].report(redemption(f"c{count:03d}"))
            assert [line.redeemed("everyone") for line in all_lines] == [count] * len(all_lines)


def test_a_duplicate_that_reaches_another_worker_counts_once(several: Server):
    with lines(several) as (first, second, third):
        once = event("repeater", "p050", SOON)
        assert [line.report(once)["accepted"] for line in (first, second, third)] == [1, 0, 0]
        assert [line.bought("repeater", "p050") for line in (first, second, third)] == [1, 1, 1]


def test_events_of_a_customer_racing_through_all_workers_are_never_missed(several: Server):
    rounds, acknowledged = 15, [0]

    def race(number: int, mine: Line, next_one: Line) -> None:
        for place in range(rounds):
            mine.report(event("racer", "p050", SOON - timedelta(seconds=place * WORKERS + number)))
            acknowledged[0] += 1  # one at a time: the interpreter's lock is given up elsewhere
            before = acknowledged[0]
            assert next_one.bought("racer", "p050") >= before

    with lines(several, each=2) as all_lines, ThreadPoolExecutor(WORKERS) as threads:
        writers, readers = all_lines[:WORKERS], all_lines[WORKERS:]
        races = [threads.submit(race, n, writers[n], readers[(n + 1) % WORKERS]) for n in range(WORKERS)]
        for one in races:
            one.result()
        assert [line.bought("racer", "p050") for line in all_lines] == [rounds * WORKERS] * len(all_lines)


# Figures


def test_one_worker_tells_the_figures_of_all(several: Server):
    with lines(several) as all_lines:
        names = ("opportune_batches_total", "opportune_batched_requests_total")
        before = [all_lines[0].metric(name) for name in names]
        requests = all_lines[0].metric("opportune_request_seconds_count", **RECOMMENDS)
        accepted = all_lines[0].metric("opportune_events_total", outcome="accepted")
        for line in all_lines:
            line.recommend("c017")
            line.recommend("c021")
            line.report(event("counted", "p000", SOON))
        version = json.loads(several.client.get("/v1/model").text)["version"]
        for line in all_lines:
            assert [line.metric(name) for name in names] == [one + 2 * WORKERS for one in before]
            assert line.metric("opportune_request_seconds_count", **RECOMMENDS) == requests + 2 * WORKERS
            assert line.metric("opportune_events_total", outcome="accepted") == accepted + WORKERS
            assert line.metric("opportune_model", version=version) == WORKERS
            assert line.metric("opportune_model_refused") == 0


def test_what_was_counted_outlives_a_worker_and_a_model(brittle: Server):
    def counted() -> list[float]:
        names = {"opportune_request_seconds_count": RECOMMENDS, "opportune_batches_total": {}}
        found = [brittle.metric(name, **labels) or 0 for name, labels in names.items()]
        searches = [brittle.metric("opportune_index_searches_total", index="products", plan=one) for one in plans]
        return [*found, sum(one or 0 for one in searches)]

    plans = re.findall(r'index_searches_total{index="products",plan="(\w+)"}', brittle.client.get("/metrics").text)
    plans = sorted({*plans, "brute_force", "own", "masked", "whole"})
    with lines(brittle) as both:
        for line in both:
            for _ in range(10):
                line.recommend("c017")
    before = counted()
    assert min(before) >= 20
    doomed, steady = workers(brittle)
    doomed.kill()
    eventually(lambda: heir(brittle, doomed, steady), "another worker")
    assert all(after >= one for after, one in zip(counted(), before, strict=True))
    release(brittle.store, "second", 0.125)
    eventually(lambda: brittle.metric("opportune_model", version="second") == 2, "both workers to swap")
    assert brittle.metric("opportune_model_swaps_total") == 2
    assert all(after >= one for after, one in zip(counted(), before, strict=True))


def test_counts_go_on_and_states_end_with_their_worker():
    async def check(folder: Path) -> None:
        registries = [CollectorRegistry() for _ in range(2)]
        counters = [Counter("done", "Done", ["how"], registry=one) for one in registries]
        gauges = [Gauge("held", "Held", registry=one) for one in registries]
        tallies = [WorkerMetrics(folder, place, 2, one) for place, one in enumerate(registries)]

        async def told() -> tuple[float | None, float | None]:
            page = (await tallies[0].page()).decode()
            found = {
                sample.name: sample.value
                for family in text_string_to_metric_families(page)
                for sample in family.samples
            }
            return found.get("done_total"), found.get("held")

        assert await told() == (None, 0)
        counters[1].labels("well").inc(5)
        gauges[1].set(7)
        async with tallies[1].listening():
            assert await told() == (5, 7)
            counters[0].labels("well").inc(2)
            gauges[0].set(1)
            assert await told() == (7, 8)
            counters[1].clear()  # as a swapped model begins anew
            assert await told() == (7, 8)
            counters[1].labels("well").inc(1)
            assert await told() == (8, 8)
        assert await told() == (8, 1), "its counts stay, what it held is gone"
        heir = CollectorRegistry()
        Counter("done", "Done", ["how"], registry=heir).labels("well").inc(10)
        async with WorkerMetrics(folder, 1, 2, heir).listening():
            assert (await told())[0] == 18

    with tempfile.TemporaryDirectory() as folder:  # of a path short enough for a socket
        asyncio.run(check(Path(folder)))


# Life and death


def test_a_killed_worker_is_replaced_while_others_answer(brittle: Server):
    doomed, steady = workers(brittle)
    line = Line(brittle, steady)
    assert line.report(event("survivor", "p050", SOON))["accepted"] == 1
    doomed.kill()

    def replaced() -> psutil.Process | None:
        assert line.bought("survivor", "p050") == 1
        return heir(brittle, doomed, steady)

    new_line = Line(brittle, eventually(replaced, "another worker"))
    assert new_line.bought("survivor", "p050") == 1
    assert new_line.report(event("survivor", "p050", SOON - timedelta(seconds=1)))["accepted"] == 1
    assert line.bought("survivor", "p050") == 2
    assert "another follows" in brittle.log


def test_a_worker_that_replaces_another_counts_all_redemptions(brittle: Server):
    doomed, steady = workers(brittle)
    line = Line(brittle, steady)
    line.report(redemption("c001"))
    doomed.kill()
    new_line = Line(brittle, eventually(lambda: heir(brittle, doomed, steady), "another worker"))
    assert new_line.redeemed("everyone") == 1
    line.report(redemption("c002"))
    assert new_line.redeemed("everyone") == 2


def test_a_replaced_worker_begins_with_the_release_that_the_others_have_taken(brittle: Server):
    release(brittle.store, "second", 0.125)
    eventually(lambda: brittle.metric("opportune_model", version="second") == 2, "both workers to swap")
    doomed, steady = workers(brittle)
    doomed.kill()
    another = eventually(lambda: heir(brittle, doomed, steady), "another worker")
    assert json.loads(Line(brittle, another).get("/v1/model"))["version"] == "second"


def refuse_the_newest(store: Path) -> None:
    """Publish a release that no worker can open."""
    bundle = lay_beside(store, "spoilt")
    (bundle / "customer.onnx").write_bytes(b"no model")
    point_at(store, "spoilt")


def spoil_current(store: Path) -> None:
    (store / "CURRENT").write_bytes(b"\xff\x00")


@pytest.mark.parametrize("spoil", [refuse_the_newest, spoil_current])
def test_a_worker_that_replaces_another_serves_what_the_others_serve(brittle: Server, spoil: Callable[[Path], None]):
    release(brittle.store, "second", 0.125)
    eventually(lambda: brittle.metric("opportune_model", version="second") == 2, "both workers to swap")
    spoil(brittle.store)
    amiss = "opportune_model_refused" if spoil is refuse_the_newest else "opportune_store_unreadable"
    eventually(lambda: brittle.metric(amiss) == 2, "both workers to notice")
    doomed, steady = workers(brittle)
    doomed.kill()
    line = Line(brittle, eventually(lambda: heir(brittle, doomed, steady), "another worker"))
    assert json.loads(line.get("/v1/model"))["version"] == "second"
    assert line.recommend("c017")["model_version"] == "second"
    eventually(lambda: brittle.metric(amiss) == 2, "the new worker to notice too")


def test_a_worker_that_cannot_serve_what_the_others_serve_serves_nothing_unless_it_is_alone(brittle: Server):
    first = brittle.recommend("c017")["model_version"]
    release(brittle.store, "second", 0.125)
    eventually(lambda: brittle.metric("opportune_model", version="second") == 2, "both workers to swap")
    shutil.rmtree(brittle.store / "bundles" / "second")
    doomed, steady = workers(brittle)
    doomed.kill()

    def answering() -> str | None:
        """The version that a new connection meets; None if its worker has just been killed."""
        try:
            with urlopen(f"http://127.0.0.1:{brittle.port}/v1/model", timeout=PATIENCE_SECONDS) as answer:
                return json.load(answer)["version"]
        except OSError:
            return None

    def given_up() -> bool:
        assert answering() == "second"
        return brittle.log.count("cannot be opened any more") > 1

    eventually(given_up, "new workers to give up")
    steady.kill()
    eventually(lambda: answering() == first, "a worker that is alone")
    brittle.client = httpx.Client(base_url=brittle.client.base_url, timeout=PATIENCE_SECONDS)
    eventually(lambda: brittle.metric("opportune_model", version=first) == 2, "another one beside it")


FAILS = """
import serving.__main__
from pathlib import Path
from serving.state.feed import Feed

look = Feed._look


async def fail(self, *given):
    if Path("{told}").exists():
        raise ZeroDivisionError("unexpected")
    return await look(self, *given)


Feed._look = fail
serving.__main__.main()
"""


class Failing(Server):
    """A server whose feed fails once a file is there."""

    @property
    def told(self) -> Path:
        return self.store / "fail"

    def start(self) -> None:
        program = ("-c", FAILS.format(told=self.told))
        self.process, self.port = serve(self.store, self.log_path, *self.options, program=program)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_SECONDS)
        eventually(self._up, "/readyz")


def test_a_worker_whose_background_fails_says_why_and_is_replaced(own_store: Path, postgres: Postgres):
    server = Failing(own_store, "--database", postgres.database(), "--workers", "2")
    try:
        both = eventually(lambda: found if len(found := workers(server)) == 2 else None, "both workers")
        server.told.touch()
        eventually(lambda: not [one for one in both if one.is_running()], "both to end")
        server.told.unlink()
        assert "ZeroDivisionError: unexpected" in server.log
        eventually(lambda: server.log.count("ended with 1; another follows") >= 2, "the parent to say so")
        server.client.close()
        server.client = httpx.Client(base_url=server.client.base_url, timeout=PATIENCE_SECONDS)
        eventually(server._up, "others to answer")  # pyright: ignore[reportPrivateUsage]
    finally:
        server.stop()


def test_a_service_of_one_process_ends_when_its_background_fails(own_store: Path, postgres: Postgres):
    server = Failing(own_store, "--database", postgres.database())
    server.told.touch()
    assert server.ended() == 1
    assert "ZeroDivisionError: unexpected" in server.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_all_workers_answer_what_is_under_way(brittle: Server, number: signal.Signals):
    body = b'{"customer_id": "c017", "context": {"channel": "web", "at": "2025-06-01T00:00:00Z"}}'
    both = workers(brittle)
    connections: list[socket.socket] = []
    for worker in both:
        (other,) = [one for one in both if one != worker]
        other.suspend()
        eventually(lambda other=other: other.status() == psutil.STATUS_STOPPED, "the other to stop")
        connections.append(under_way(brittle, body))
        other.resume()
    if number == signal.SIGINT:  # Ctrl-C reaches every process of the terminal
        for worker in both:
            worker.send_signal(number)
    brittle.process.send_signal(number)

    def refuses() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", brittle.port)) != 0

    eventually(refuses, "new connections to be refused")
    assert brittle.process.poll() is None
    for connection in connections:
        connection.sendall(body[10:])
        status, answer = answer_of(connection)
        connection.close()
        assert status == b"HTTP/1.1 200 OK"
        assert answer["personalised"]
    assert brittle.ended() == 0, brittle.log
    assert not [worker for worker in both if worker.is_running()]
    assert "Traceback" not in brittle.log


def test_workers_leave_when_their_parent_is_killed(brittle: Server):
    both = workers(brittle)
    brittle.send(signal.SIGKILL)
    eventually(lambda: not [worker for worker in both if worker.is_running()], "the workers to leave")
    brittle.start()
    assert brittle.recommend("c017")["personalised"]


def test_the_folder_that_workers_share_ends_with_them(
    own_store: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
):
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        server = Server(own_store, "--database", postgres.database(), "--workers", "2")
        assert [path.name for path in Path(folder).glob("*/*.socket")]
        for number in (signal.SIGTERM, signal.SIGKILL):
            server.send(number)
            eventually(lambda: not list(Path(folder).iterdir()), "the folder to be removed")
            if number == signal.SIGTERM:
                server.start()


# Memory


def proportional_set_mib(server: Server) -> float:
    """The memory of a server's own processes, of what several share a share each."""
    processes = [server.process.pid, *(worker.pid for worker in workers(server))]
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in processes]
    return sum(int(re.findall(r"^Pss: +(\d+) kB", rollup, re.MULTILINE)[0]) for rollup in rollups) / 1024


def test_a_worker_more_costs_less_than_half_a_process(several: Server, own: Server):
    for number in range(200):
        own.recommend(f"c{number % 120:03d}", "store", "south")
    with lines(several) as all_lines:
        for number in range(200 * WORKERS):
            all_lines[number % WORKERS].recommend(f"c{number % 120:03d}")
    one, all_of_them = proportional_set_mib(own), proportional_set_mib(several)
    assert (all_of_them - one) / (WORKERS - 1) < one / 2, (one, all_of_them)


def control_group(folder: Path, limit: str, current: int, inactive_file: int) -> Path:
    (folder / "memory.max").write_text(limit + "\n")
    (folder / "memory.current").write_text(f"{current}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive_file}\n")
    return folder


def test_free_memory_is_the_machines_or_what_a_control_group_leaves(tmp_path: Path):
    machine = free_memory(tmp_path / "none")
    assert 0 < machine <= psutil.virtual_memory().total
    assert free_memory(control_group(tmp_path, "max", 100, 0)) > 2**20
    assert free_memory(control_group(tmp_path, "1000", 900, 300)) == 400
    assert free_memory(control_group(tmp_path, "1000", 1200, 0)) == 0
    assert free_memory(control_group(tmp_path, str(2**60), 0, 0)) < 2**60


# What is refused at start


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--workers", "2", "--clock", "replay"], "--workers: expected 1 with --clock replay"),
        (["--workers", "0"], "expected more than 0"),
        (["--index-cache-mib", "-1"], "expected more than 0"),
    ],
)
def test_options_that_do_not_go_together_end_the_start(own_store: Path, tmp_path: Path, options: list[str], said: str):
    process, _ = serve(own_store, tmp_path / "log", *options)
    assert process.wait(PATIENCE_SECONDS) == 2
    assert said in (tmp_path / "log").read_text()


def settings(monkeypatch: pytest.MonkeyPatch, device: str, *options: str) -> Any:
    def found(_choice: str) -> str:
        return device

    monkeypatch.setattr("serving.command_line.resolve_device", found)
    return settings_of(parser().parse_args(["--store", "store", *options]))


def test_several_workers_cannot_own_one_device(monkeypatch: pytest.MonkeyPatch):
    assert settings(monkeypatch, "cuda").workers == 1
    with pytest.raises(InvalidInput, match="owns the device"):
        settings(monkeypatch, "cuda", "--workers", "2")


def test_workers_divide_the_memory_for_indexes(monkeypatch: pytest.MonkeyPatch):
    assert settings(monkeypatch, "cpu", "--workers", "4", "--index-cache-mib", "8").index_cache_bytes == 2 * 2**20
    monkeypatch.setattr("serving.settings.free_memory", lambda: 4_000)
    assert settings(monkeypatch, "cpu").index_cache_bytes == 1_000
    assert settings(monkeypatch, "cpu", "--workers", "2").index_cache_bytes == 500


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_taken_port_ends_the_start(several: Server, tmp_path: Path, workers: str):
    port = str(several.port)
    process, _ = serve(several.store, tmp_path / "log", *several.options[:2], "--workers", workers, "--port", port)
    assert process.wait(PATIENCE_SECONDS) == 2
    assert f"expected an address that is free, but 127.0.0.1:{port} is not" in (tmp_path / "log").read_text()


def test_a_process_of_several_threads_is_not_forked():
    done = threading.Event()
    threading.Thread(target=done.wait).start()

    def work(_place: WorkerPlace) -> None:
        raise AssertionError("forked")

    try:
        with pytest.raises(InvalidInput, match="cannot be forked safely"):
            supervise(2, [], 0.0, work)
    finally:
        done.set()
