"""The database as the service's users meet it: dying, coming back, missing, misnamed."""

import asyncio
import os
import signal
import tempfile
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

import serving.workers
from embeddings.database.connection import connected
from embeddings.database.migrate import prepare
from embeddings.errors import EventStoreUnavailable, InvalidInput, OpportuneError
from serving.workers import WorkerPlace, supervise
from tests.integration.server import PATIENCE_SECONDS, Postgres, Server, event, eventually, postgres_of, serve
from tests.integration.test_embedded import BY_ROOT, by
from tests.integration.test_workers import workers
from tests.world import UNTIL

# Dying and coming back


def accepted(server: Server, customer: str) -> bool:
    """Whether an event is accepted; if not, it must be refused with a problem."""
    answer = server.client.post("/v1/events", json={"events": [event(customer, "p050", UNTIL)]})
    if answer.status_code == 202:
        return True
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert answer.json()["type"] == "urn:opportune:problem:event-store-unavailable"
    return False


@pytest.mark.parametrize("number", ["1", "2"])
def test_a_killed_postgres_is_started_again_while_recommendations_go_on(own_store: Path, number: str):
    server = Server(own_store, "--workers", number)
    try:
        for turn in range(2):
            assert eventually(lambda: accepted(server, "survivor"), "events to be accepted")
            doomed = postgres_of(own_store)
            assert doomed
            os.kill(doomed, signal.SIGKILL)
            refused = 0
            while not accepted(server, f"other-{turn}"):
                refused += 1
                assert len(server.recommend(f"c{refused % 100:03d}")["items"]) == 10
            eventually(lambda: not server.recommend("survivor")["degraded"], "whole answers")
        assert server.send(signal.SIGTERM) == 0, server.log
        assert "Traceback" not in server.log
        silent, back = (server.log.count(f"the event store {what}") for what in ("is silent", "answers again"))
        assert silent <= 2 * int(number), "a line for each change of state, not for each event"
        assert back <= silent
        assert postgres_of(own_store) is None
    finally:
        server.stop()


def test_postgres_and_the_worker_that_watches_it_may_die_together(own_store: Path):
    server = Server(own_store, "--workers", "2")
    try:
        forks = [one for one in workers(server) if one.name() != "postgres"]
        doomed = postgres_of(own_store)
        assert doomed
        for one in (forks[0].pid, doomed):
            os.kill(one, signal.SIGKILL)
        eventually(lambda: postgres_of(own_store) not in (None, doomed), "another PostgreSQL")
        eventually(lambda: "another follows" in server.log, "another worker")
        assert eventually(lambda: accepted(server, "survivor"), "events to be accepted")
    finally:
        server.stop()
    assert postgres_of(own_store) is None


def test_a_worker_that_begins_while_the_database_is_away_answers_from_the_snapshot(own_store: Path):
    postgres = Postgres(Path(tempfile.mkdtemp()))
    server = Server(own_store, "--database", postgres.database(), "--workers", "2")
    try:
        eventually(lambda: len(workers(server)) == 2, "both workers")
        postgres.stop()
        first = workers(server)
        for one in first:
            one.kill()
        eventually(lambda: len([one for one in workers(server) if one not in first]) == 2, "two others")
        assert server.recommend("c017")["degraded"]
        postgres.start()
        assert accepted(server, "c017"), "the first event is stored again"
    finally:
        server.stop()
        postgres.stop()


# What ends the start


def refused(store: Path, log: Path, url: str | None, *options: str) -> str:
    """The one sentence with which a start ends."""
    before = os.environ.get("OPPORTUNE_DATABASE")
    if url is not None:
        os.environ["OPPORTUNE_DATABASE"] = url
    try:
        process, _ = serve(store, log, *options)
    finally:
        os.environ.pop("OPPORTUNE_DATABASE", None)
        if before is not None:
            os.environ["OPPORTUNE_DATABASE"] = before
    assert process.wait(PATIENCE_SECONDS) == 2, log.read_text()
    said = log.read_text()
    assert "Traceback" not in said
    (sentence,) = [line for line in said.splitlines() if line.startswith("opportune-serve:")]
    return sentence


def test_a_password_is_taken_from_the_environment_alone(own_store: Path, postgres: Postgres, tmp_path: Path):
    url = postgres.database().replace("postgres@", "postgres:a-secret@")
    sentence = refused(own_store, tmp_path / "log", None, "--database", url)
    assert "OPPORTUNE_DATABASE" in sentence
    assert "a-secret" not in sentence
    os.environ["OPPORTUNE_DATABASE"] = url
    try:
        server = Server(own_store)
    finally:
        del os.environ["OPPORTUNE_DATABASE"]
    try:
        assert accepted(server, "c001")
        assert "a-secret" not in " ".join(psutil.Process(server.process.pid).cmdline())
        assert not (own_store / "state").exists()
    finally:
        server.stop()


def fault(url: str) -> str:
    """What is said of a database that cannot be used at start."""
    with pytest.raises(OpportuneError) as told:
        asyncio.run(prepare(url))
    return str(told.value)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "http://shop@db/shop",
        "postgresql://shop:pa/ss@db/shop",
        "postgresql://shop:secret@db:port/shop",
        "postgresql://shop:secret@127.0.0.1:99999/shop",
        "postgresql://[db/shop",
        "postgresql://shop@" + "d" * 300 + "/shop",
    ],
)
def test_a_malformed_url_is_named_and_not_repeated(url: str):
    said = fault(url)
    assert "--database or OPPORTUNE_DATABASE: expected a URL such as" in said
    assert "pa" not in said.replace("password", "")
    assert "secret" not in said


def test_a_database_that_is_not_there_is_named(postgres: Postgres):
    assert "nonesuch" in fault(postgres.url("nonesuch"))
    assert "host db.invalid" in fault("postgresql://shop@db.invalid/shop")
    assert "127.0.0.1" in fault("postgresql://shop@127.0.0.1:1/shop")
    assert "stranger" in fault(postgres.url("postgres").replace("postgres@", "stranger@"))


@BY_ROOT
def test_a_user_without_a_name_or_a_home_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch):
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    assert "HOME" in by(12_345, lambda: fault("postgresql://127.0.0.1:1/shop"))


def test_a_machine_without_a_folder_for_temporary_files_is_told_so(monkeypatch: pytest.MonkeyPatch):
    def none(**_: object) -> None:
        raise FileNotFoundError("No usable temporary directory found")

    def work(_place: WorkerPlace) -> None:
        raise AssertionError("forked")

    monkeypatch.setattr(serving.workers.tempfile, "TemporaryDirectory", none)
    monkeypatch.setattr(serving.workers.psutil, "Process", lambda: SimpleNamespace(num_threads=lambda: 1))
    with pytest.raises(InvalidInput, match="TMPDIR: expected a folder that can be written"):
        supervise(2, [], 0.0, work)


def test_sigterm_ends_a_start_that_waits(own_store: Path, tmp_path: Path):
    import fcntl

    from embeddings.locks import locked, try_for

    (own_store / "state").mkdir()
    with locked(own_store / "state" / "users.lock") as lock:
        assert try_for(lock, fcntl.LOCK_EX)
        process, _ = serve(own_store, tmp_path / "log")
        eventually(lambda: (own_store / "state").stat().st_mode & 0o777 == 0o700, "it to wait")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0


# What else goes wrong while it is used


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("of a file"), KeyError("column")])
def test_what_fails_beside_the_database_is_not_blamed_on_it(postgres: Postgres, error: Exception):
    url = postgres.database()

    async def work() -> None:
        async with connected(url, refuses="nothing"):
            raise error

    with pytest.raises(type(error)) as raised:
        asyncio.run(work())
    assert raised.value is error


def test_a_database_that_ends_while_it_is_used_does_not_answer(postgres: Postgres):
    url = postgres.database()

    async def work() -> None:
        async with connected(url, refuses="nothing") as connection:
            await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(EventStoreUnavailable, match="does not answer"):
        asyncio.run(work())
