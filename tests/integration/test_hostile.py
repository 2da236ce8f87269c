"""Clients that are slow, silent or rude, beside others; and leaving while they hold on."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest

from tests.integration.server import PATIENCE_SECONDS, Postgres, Server, event, ids, postgres_of
from tests.world import UNTIL

LEAVES_WITHIN_SECONDS = 10
HALF = b"POST /v1/recommend HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"


def connect(server: Server, sent: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS)
    connection.sendall(sent)
    return connection


def test_half_sent_requests_keep_nobody_out(reader: Server):
    halves = [connect(reader, HALF) for _ in range(200)]
    silent = [connect(reader, b"") for _ in range(200)]
    for _ in range(5):
        assert len(ids(reader.recommend("c017"))) == 10
    assert reader.client.get("/v1/model").status_code == 200
    for one in (*halves, *silent):
        one.close()


def test_a_flood_of_headers_takes_no_memory(reader: Server):
    process = psutil.Process(reader.process.pid)
    before = process.memory_info().rss
    for _ in range(20):
        connection = connect(reader, b"GET /healthz HTTP/1.1\r\n")
        try:
            for _ in range(100):
                connection.sendall(b"a: b\r\n" * 20_000)
        except OSError:
            pass
        connection.close()
    assert reader.client.get("/healthz").status_code == 200
    assert process.memory_info().rss - before < 2**26


@pytest.mark.parametrize("path", ["//v1/recommend", "/v1//recommend", "/v1/recommend/", "/v1/../v1/recommend"])
def test_however_a_path_is_written_it_is_routed_or_not_found(reader: Server, path: str):
    connection = connect(reader, f"POST {path} HTTP/1.0\r\n\r\n".encode())
    received = b"".join(iter(lambda: connection.recv(2**16), b""))
    assert received.split()[1] in {b"404", b"415"}
    connection.close()


class Stoppable:
    """A PostgreSQL whose processes can be stopped where they are."""

    def __init__(self, folder: Path) -> None:
        self.postgres = Postgres(folder)
        self._folder = folder

    def send(self, number: signal.Signals) -> None:
        pid = postgres_of(self._folder)
        assert pid is not None
        for one in (pid, *(one.pid for one in psutil.Process(pid).children(recursive=True))):
            os.kill(one, number)


@pytest.fixture(scope="module")
def stoppable(anybodys: Path) -> Generator[Stoppable]:
    found = Stoppable(anybodys / "stoppable")
    yield found
    found.postgres.close()


def post(path: str, body: object) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("stopped", [False, True])
def test_sigterm_ends_the_service_whoever_holds_on(own_store: Path, stoppable: Stoppable, workers: str, stopped: bool):
    server = Server(own_store, "--database", stoppable.postgres.database(), "--workers", workers)
    trickling = threading.Event()

    def trickle() -> None:
        connection = connect(server, HALF)
        try:
            while not trickling.wait(0.05):
                connection.sendall(b"a")
        except OSError:
            pass
        connection.close()

    trickler = threading.Thread(target=trickle)
    trickler.start()
    held = [connect(server, sent) for sent in (b"", HALF, HALF[:30], HALF, b"GET /healthz HTTP/1.1\r\n\r\n") * 4]
    try:
        if stopped:
            stoppable.send(signal.SIGSTOP)
            body = {"events": [event("c017", "p050", UNTIL)]}
            held += [connect(server, post("/v1/events", body)) for _ in range(4)]
            body = {"customer_id": "nobody-yet", "context": {"channel": "web"}}
            held += [connect(server, post("/v1/recommend", body)) for _ in range(8)]
            assert server.client.get("/healthz").status_code == 200
        began = time.monotonic()
        assert server.send(signal.SIGTERM) == 0, server.log
        assert time.monotonic() - began < LEAVES_WITHIN_SECONDS
        assert "Traceback" not in server.log
    finally:
        stoppable.send(signal.SIGCONT)
        trickling.set()
        trickler.join()
        for one in held:
            one.close()
        server.stop()
