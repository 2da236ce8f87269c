"""The retraining job with real PostgreSQL and real training: what it records, and what stops it."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest

from embeddings.database import runs
from embeddings.database.migrate import prepare
from embeddings.database.postgres import database
from embeddings.database.runs import LoggedRun, Run
from embeddings.release.bundle import Manifest, read_manifest
from embeddings.release.store import BundleStore
from tests.integration.server import ROOT, Postgres, Server, copy_store, eventually, free_port, on_connection
from tests.integration.test_admin import JSON, client_of, done, problem
from tests.integration.test_training import RECIPE as TABLES
from tests.world import UNTIL
from training.config import Recipe
from training.datasets import open_dataset
from training.load.job import load

RECIPE = """
model = "factors"
hops = 0
dimensions = 4

[split]
share = 0.2
fewest_products = 5

[loss]
temperature = 0.1
negatives = 20

[fit]
epochs = {epochs}
patience = {epochs}
customers_a_batch = 64
learning_rate = 1e-9
checkpoint_seconds = 0
"""
"""Such a model learns nothing, and popularity beats it: what it is to publish goes past the gate."""
SHORT, ENDLESS = (RECIPE.format(epochs=epochs) for epochs in (1, 1_000_000))


@pytest.fixture
def url(postgres: Postgres) -> str:
    found = postgres.database()
    asyncio.run(prepare(found))
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What everybody takes, and something of one's own."""
    path = tmp_path / "lines.txt"
    lines = [f"c{one} {' '.join(f'p{k}' for k in range(8))} q{one % 40} q{one * 7 % 40}x\n" for one in range(80)]
    path.write_text("".join(lines))
    return path


class Retrain:
    """The command in a process of its own."""

    def __init__(self, url: str | None, data: Path, recipe: str, *options: str) -> None:
        folder = data.parent
        (folder / "recipe.toml").write_text(recipe)
        self.log = folder / f"log-{len(list(folder.glob('log-*')))}"
        command = [sys.executable, "-m", "training.retrain", "--store", str(folder / "store")]
        command += [] if url is None else ["--database", url]
        command += ["--data", f"interactions:{data}", "--recipe", str(folder / "recipe.toml"), *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)

    def ended(self) -> int:
        return self.process.wait(60)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()


@contextmanager
def job(url: str, data: Path, recipe: str, *options: str) -> Generator[Retrain]:
    found = Retrain(url, data, recipe, *options)
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.process.kill()
            found.process.wait()


def ask(url: str) -> Run:
    return on_connection(url, lambda connection: runs.request(connection, "zoe", "request"))


def all_runs(url: str) -> list[Run]:
    return on_connection(url, lambda connection: runs.page(connection, 2**63 - 1, 100))


def found(url: str, one: int) -> LoggedRun:
    async def find(connection: asyncpg.Connection) -> LoggedRun:
        run = await runs.find(connection, one)
        assert run is not None
        return run

    return on_connection(url, find)


def when(url: str, one: int, seen: Callable[[LoggedRun], object]) -> LoggedRun:
    """The run as soon as it is as it should be."""

    def look() -> LoggedRun | None:
        run = found(url, one)
        return run if seen(run) else None

    return eventually(look, "the run")


def fitting(run: LoggedRun) -> bool:
    return run.progress is not None and run.progress.stage == "fitting"


def gone(one: psutil.Process) -> bool:
    return not one.is_running() or one.status() == psutil.STATUS_ZOMBIE


def test_a_run_publishes_and_a_refused_one_keeps_the_release_and_says_why(url: str, data: Path):
    store = BundleStore(data.parent / "store")
    assert Retrain(url, data, SHORT, "--once", "--no-gate").ended() == 0
    (first,) = all_runs(url)
    assert (first.state, first.attempts, first.message, first.reason) == ("published", 1, "", "request")
    assert first.release == store.current()
    assert first.metrics is not None
    assert first.metrics["popular"]
    assert first.started_at is not None
    assert first.ended_at is not None
    assert f"published {first.release}" in found(url, first.id).log
    assert Retrain(url, data, SHORT, "--once").ended() == 3
    second = all_runs(url)[0]
    assert (second.state, second.release, second.metrics) == ("refused", None, None)
    assert "popular" in second.message
    assert store.current() == first.release
    data.write_text("c1\n")
    assert Retrain(url, data, SHORT, "--once").ended() == 1
    third = all_runs(url)[0]
    assert (third.state, third.attempts) == ("failed", 1)
    assert "lines.txt" in third.message


def test_it_trains_on_what_the_database_beside_the_store_holds(data: Path, world: Path, recipe: Recipe):
    store = data.parent / "store"
    with database(None, store) as beside:
        asyncio.run(prepare(beside.url))
        dataset = open_dataset(str(world), channels=recipe.channels, now=UNTIL, tables=recipe.tables)
        loaded = asyncio.run(load(dataset, beside.url, now=UNTIL, replace=False))
        assert Retrain(None, data, TABLES, "--data", "postgres", "--once").ended() == 0
        (run,) = all_runs(beside.url)
    manifest = read_manifest(BundleStore(store).bundle(run.release or ""))
    assert (manifest.data, manifest.catalogue_seq) == ("postgres", loaded.seq)
    assert run.metrics == manifest.metrics


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_a_stopped_job_had_read_from_the_database_is_gone(
    url: str, data: Path, world: Path, recipe: Recipe, number: signal.Signals
):
    dataset = open_dataset(str(world), channels=recipe.channels, now=UNTIL, tables=recipe.tables)
    asyncio.run(load(dataset, url, now=UNTIL, replace=False))
    folder = data.parent / "store" / "tables"
    with job(url, data, TABLES, "--data", "postgres") as one:
        ask(url)
        eventually(lambda: list(folder.glob("*/events.parquet")), "the tables")
        (child,) = one.children()
        one.process.send_signal(number)
        one.ended()
        eventually(lambda: gone(child), "the end of what it had started")
    assert list(folder.iterdir()) == []


def test_two_jobs_do_one_run_and_the_other_takes_it_up_when_the_first_is_killed(url: str, data: Path):
    with job(url, data, ENDLESS) as one, job(url, data, ENDLESS) as other:
        run = ask(url)
        assert ask(url).id == run.id
        when(url, run.id, fitting)
        jobs = sorted((one, other), key=lambda job: len(job.children()))
        idle, busy = jobs
        assert [len(each.children()) for each in jobs] == [0, 1]
        (child,) = busy.children()
        busy.process.kill()
        eventually(lambda: gone(child), "the end of what it had started")
        when(url, run.id, lambda run: run.attempts == 2)
        eventually(idle.children, "another attempt")
        assert [each.id for each in all_runs(url)] == [run.id]
        (child,) = idle.children()
        child.kill()
        when(url, run.id, lambda run: run.attempts == 3)
        eventually(lambda: [one for one in idle.children() if one != child], "a third attempt")[0].kill()
        failed = when(url, run.id, lambda run: run.ended_at)
        assert (failed.state, failed.attempts) == ("failed", 3)
        assert f"signal {signal.SIGKILL}" in failed.message
        assert idle.process.poll() is None, "it waits for the next"


def test_a_job_that_is_told_to_leave_has_its_run_taken_up_again(url: str, data: Path):
    with job(url, data, ENDLESS) as one:
        run = ask(url)
        when(url, run.id, fitting)
        (child,) = one.children()
        one.process.send_signal(signal.SIGTERM)
        assert one.ended() == 0
        assert gone(child)
        waiting = found(url, run.id)
        assert (waiting.state, waiting.attempts) == ("queued", 0)
        assert "interrupted" in waiting.message
    with job(url, data, SHORT, "--no-gate"):
        ended = when(url, run.id, lambda run: run.ended_at)
        assert (ended.state, ended.attempts) == ("published", 1)


def test_a_run_goes_on_when_postgresql_comes_back(data: Path, anybodys: Path):
    postgres = Postgres(Path(tempfile.mkdtemp(dir=anybodys)))
    try:
        url = postgres.database()
        asyncio.run(prepare(url))
        with job(url, data, ENDLESS) as one:
            run = ask(url)
            when(url, run.id, fitting)
            (child,) = one.children()
            postgres.stop()
            eventually(lambda: gone(child), "its end, as the lock is lost")
            postgres.start()
            eventually(lambda: [each for each in one.children() if each != child], "another child")
            assert found(url, run.id).attempts == 1
            one.process.send_signal(signal.SIGTERM)
            assert one.ended() == 0
    finally:
        postgres.close()


def test_a_job_that_starts_before_postgresql_waits_for_it(data: Path, anybodys: Path):
    postgres = Postgres(Path(tempfile.mkdtemp(dir=anybodys)))
    try:
        url = postgres.database()
        postgres.stop()
        with job(url, data, SHORT, "--once", "--no-gate") as one:
            eventually(lambda: "trying again" in one.log.read_text() or one.process.poll() is not None, "a try")
            assert one.process.poll() is None, one.log.read_text()
            postgres.start()
            assert one.ended() == 0
        assert [run.state for run in all_runs(url)] == ["published"]
    finally:
        postgres.close()


def test_a_job_that_waits_for_postgresql_leaves_when_told_to(data: Path):
    with job(f"postgresql://nobody@127.0.0.1:{free_port()}/none", data, SHORT) as one:
        eventually(lambda: "trying again" in one.log.read_text() or one.process.poll() is not None, "a try")
        one.process.send_signal(signal.SIGTERM)
        assert one.ended() == 0


def test_a_training_by_hand_into_the_same_store_is_waited_for(url: str, data: Path):
    with BundleStore(data.parent / "store").training():
        run = ask(url)
        with job(url, data, SHORT, "--no-gate") as one:
            when(url, run.id, lambda run: run.progress is not None and "waiting" in run.progress.stage)
            assert one.children() == []
            one.process.send_signal(signal.SIGTERM)
            assert one.ended() == 0
    assert found(url, run.id).state == "queued"


def test_its_time_brings_a_run(url: str, data: Path):
    with job(url, data, ENDLESS, "--schedule", "* * * * * */1"):
        run = eventually(lambda: all_runs(url), "a run")[0]
        assert (run.reason, run.requested_by) == ("schedule", "opportune-retrain")


@pytest.mark.parametrize("options", [("--schedule", "61 * * * *"), ("--recipe", "nonesuch.toml")])
def test_what_cannot_begin_ends_with_a_sentence(url: str, data: Path, options: tuple[str, str]):
    wrong = Retrain(url, data, SHORT, *options)
    assert wrong.ended() == 2
    assert f"opportune-retrain: {options[0]}: expected" in wrong.log.read_text()
    assert all_runs(url) == []


def test_a_request_over_the_management_api_begins_at_once(
    published: tuple[BundleStore, Manifest], postgres: Postgres, data: Path, tmp_path: Path
):
    url = postgres.database()
    port = str(free_port())
    server = Server(copy_store(published[0], tmp_path / "served"), "--database", url, "--admin-port", port)
    try:
        with client_of(server) as admin:
            asked = done(admin.post("/v1/runs", headers={**JSON, "X-Actor": "zoe"}))
            assert (asked["state"], asked["requested_by"], asked["reason"]) == ("queued", "zoe", "request")
            assert done(admin.post("/v1/runs", headers=JSON)) == asked
            problem(admin.post("/v1/runs"), 415)
            path = f"/v1/runs/{asked['id']}"
            with job(url, data, SHORT, "--no-gate"):
                ended = eventually(lambda: (run := done(admin.get(path)))["ended_at"] and run, "its end")
            assert ended["state"] == "published"
            assert ended["release"] in ended["log"]
            later = done(admin.post("/v1/runs", headers=JSON))
            newest = done(admin.get("/v1/runs", params={"limit": 1}))
            assert newest["items"] == [later]
            rest = done(admin.get("/v1/runs", params={"cursor": newest["cursor"]}))
            assert [one["id"] for one in rest["items"]] == [asked["id"]]
            assert rest["cursor"] is None
            for unknown in ("0", "x", "9" * 30, "-1"):
                problem(admin.get(f"/v1/runs/{unknown}"), 404)
            assert {"/v1/runs", "/v1/runs/{id}"} <= set(done(admin.get("/openapi.json"))["paths"])
    finally:
        server.stop()


def test_a_training_stops_once_nobody_reads_its_progress(data: Path):
    (data.parent / "recipe.toml").write_text(ENDLESS)
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "training", "--data", f"interactions:{data}", "--progress", str(writing)]
    command += ["--store", str(data.parent / "store"), "--recipe", str(data.parent / "recipe.toml")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, pass_fds=[writing])
    os.close(writing)
    with os.fdopen(reading) as told:
        assert '"stage":"fitting"' in next(line for line in told if "fitting" in line)
    assert process.wait(60) == 128 + signal.SIGTERM
