"""The process of the management API: how it begins and ends, and what it says while PostgreSQL is away."""

import os
import signal
import socket
import tempfile
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from embeddings.catalogue.changes import OfferState, ProductState
from embeddings.database.changelog import write
from tests.integration.server import (
    PATIENCE_SECONDS,
    Postgres,
    Server,
    eventually,
    execute,
    free_port,
    lay_beside,
    on_connection,
    point_at,
    serve,
)
from tests.integration.test_admin import JSON, client_of, done, problem

SEVERAL = ("--workers", "2")


@contextmanager
def started(store: Path, *options: str) -> Generator[Server]:
    server = Server(store, *options, "--admin-port", str(free_port()))
    try:
        yield server
    finally:
        server.stop()


def processes(server: Server) -> list[psutil.Process]:
    """Those of the management API, below a server."""
    found: list[psutil.Process] = []
    for one in psutil.Process(server.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended a moment ago
            found += [one] if "serving.management" in one.cmdline() else []
    return found


def gone(one: psutil.Process) -> bool:
    return not one.is_running() or one.status() == psutil.STATUS_ZOMBIE


def refuses(server: Server) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(server.options[-1]))) != 0


@pytest.mark.parametrize("options", [(), SEVERAL], ids=["one worker", "several workers"])
def test_it_is_started_again_when_it_dies_and_leaves_with_the_service(own_store: Path, options: tuple[str, ...]):
    with started(own_store, *options) as server, client_of(server) as admin:
        done(admin.put("/v1/products/milk", json={}))
        (first,) = processes(server)
        assert "no key" in server.log
        first.kill()
        second = eventually(lambda: [one for one in processes(server) if one != first], "another process")[0]
        with client_of(server) as again:
            done(again.get("/v1/products/milk"))
        assert server.send(signal.SIGTERM) == 0, server.log
        assert gone(second)
        assert refuses(server)
        assert "Traceback" not in server.log


@pytest.mark.parametrize("options", [(), SEVERAL], ids=["one worker", "several workers"])
def test_it_dies_with_the_service_that_is_killed(own_store: Path, postgres: Postgres, options: tuple[str, ...]):
    with started(own_store, "--database", postgres.database(), *options) as server:
        with client_of(server) as admin:
            done(admin.get("/v1/changes"))
        (one,) = processes(server)
        server.send(signal.SIGKILL)
        eventually(lambda: gone(one), "its end")
        eventually(lambda: refuses(server), "the port to be free")


def test_it_outlives_the_worker_that_looks_after_it(own_store: Path, postgres: Postgres):
    with started(own_store, "--database", postgres.database(), *SEVERAL) as server:
        with client_of(server) as admin:
            done(admin.put("/v1/products/milk", json={}))
        (first,) = processes(server)
        keeper = first.parent()
        assert keeper
        keeper.kill()
        eventually(lambda: [one for one in processes(server) if one != first], "another process")
        with client_of(server) as admin:
            done(admin.get("/v1/products/milk"))


def test_ctrl_c_in_the_terminal_ends_it_once_and_cleanly(own_store: Path, postgres: Postgres):
    with started(own_store, "--database", postgres.database()) as server:
        with client_of(server) as admin:
            done(admin.get("/v1/changes"))
        (one,) = processes(server)
        assert os.getsid(one.pid) != os.getsid(server.process.pid)
        assert server.send(signal.SIGINT) == 0
        assert gone(one)
        assert "another follows" not in server.log


def test_a_write_under_way_is_answered_when_the_service_is_told_to_leave(own_store: Path, postgres: Postgres):
    url = postgres.database()
    with started(own_store, "--database", url) as server, client_of(server) as admin, ThreadPoolExecutor(1) as pool:
        things = [{"id": f"p{number}"} for number in range(10_000)]
        written = pool.submit(admin.post, "/v1/products:batch", json=things)
        eventually(lambda: execute(url, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"), "the write to begin")
        assert server.send(signal.SIGTERM) == 0, server.log
        assert done(written.result())["seq"] == 10_000


def test_a_port_that_is_taken_ends_the_start(own_store: Path, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process, _ = serve(own_store, tmp_path / "log", "--admin-port", str(port))
        assert process.wait(PATIENCE_SECONDS) == 2
    assert "--admin-port (0 for no management API): expected an address that is free" in (tmp_path / "log").read_text()


def test_without_a_port_there_is_none(own: Server):
    assert processes(own) == []


def test_postgresql_away_is_told_and_it_comes_back_by_itself(own_store: Path, anybodys: Path):
    postgres = Postgres(Path(tempfile.mkdtemp(dir=anybodys)))
    try:
        with started(own_store, "--database", postgres.database()) as server, client_of(server) as admin:
            done(admin.put("/v1/products/milk", json={"price": 1}))
            postgres.stop()
            for answer in (
                admin.put("/v1/products/milk", json={"price": 2}),
                admin.post("/v1/products:batch", json=[{"id": "bread"}]),
                admin.get("/v1/products/milk"),
                admin.get("/v1/changes"),
            ):
                assert "database" in problem(answer, 503)["detail"]
                assert answer.headers["Retry-After"] == "1"
            assert admin.get("/healthz").status_code == 200
            done(admin.get("/v1/releases"))
            postgres.start()
            eventually(lambda: admin.get("/v1/products/milk").status_code == 200, "PostgreSQL")
            assert [one["id"] for one in done(admin.get("/v1/changes"))["items"]] == ["milk"]
            assert done(admin.put("/v1/products/milk", json={"price": 2}))["seq"] == 2
            assert server.log.count("PostgreSQL does not answer the management API") == 1
    finally:
        postgres.close()


def test_channels_are_those_of_the_release_in_service(own_store: Path, postgres: Postgres):
    with started(own_store, "--database", postgres.database()) as server, client_of(server) as admin:
        done(admin.put("/v1/products/milk", json={}))
        offer = {
            "products": ["milk"],
            "starts": "2026-01-01T00:00:00Z",
            "ends": "2027-01-01T00:00:00Z",
            "channels": ["kiosk"],
        }
        refused = admin.put("/v1/offers/o", json=offer)
        assert problem(refused, 422)["errors"][0]["field"] == "channels[0]"
        words = lay_beside(own_store, "later") / "catalogue" / "words.json"
        words.write_text(words.read_text().replace('"web"', '"kiosk"'))
        point_at(own_store, "later")
        done(admin.put("/v1/offers/o", json=offer))
        point_at(own_store, "no such version")
        done(admin.put("/v1/offers/o", json={**offer, "name": "o"}))


def test_an_offer_is_led_on_where_the_release_lacks_its_channel(own_store: Path, postgres: Postgres):
    url = postgres.database()
    with started(own_store, "--database", url) as server, client_of(server) as admin:
        now = datetime.now(UTC)
        ends = now + timedelta(days=9)
        kiosk = OfferState(id="o", products=("milk",), starts=now, ends=ends, channels=("kiosk",), status="draft")
        on_connection(url, lambda connection: write(connection, [ProductState(id="milk"), kiosk], "me"))
        for action in ("approve", "pause", "resume"):
            done(admin.post(f"/v1/offers/o:{action}", headers=JSON))


def test_beyond_this_machine_any_host_is_served(own_store: Path, postgres: Postgres):
    options = ("--database", postgres.database(), "--admin-host", "0.0.0.0")
    with started(own_store, *options) as server, client_of(server) as admin:
        done(admin.get("/v1/changes", headers={"Host": "admin.example"}))
