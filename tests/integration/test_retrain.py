"""The retraining job with real PostgreSQL: what it records, and what stops it.

Training is real where a test is about what it makes of it, and a script where it is about the job alone.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import TypeVar

import asyncpg
import psutil
import pytest

from embeddings.database import runs
from embeddings.database.migrate import prepare
from embeddings.database.postgres import database
from embeddings.database.runs import LoggedRun, Run
from embeddings.release.bundle import Manifest, read_manifest
from embeddings.release.store import BundleStore
from tests.integration import server
from tests.integration.server import ROOT, Postgres, Server, copy_store, execute, free_port, on_connection
from tests.integration.test_admin import JSON, client_of, done, problem
from tests.integration.test_training import RECIPE as TABLES
from tests.world import UNTIL
from training.config import Recipe
from training.datasets import open_dataset
from training.load.job import load
from training.retrain import child
from training.retrain.child import Settings
from training.retrain.job import Job
from training.retrain.schedule import Schedule

Found = TypeVar("Found")

PATIENCE = 300
"""Seconds, for a training on a machine that does much else: a bound for what is broken, not an expectation."""

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


SCRIPT = """#!/bin/sh
echo $$ >>{folder}/attempts
while [ "$1" != --progress ]; do shift; done
tell() {{ echo "$1" >/proc/self/fd/$progress; }}
progress=$2
{training}
"""
FITS = """tell '{"stage": "fitting", "done": 1, "of": 2}'\n"""
NEVER_ENDS = FITS + "exec sleep 3600"
PUBLISHES = FITS + """echo published v1\ntell '{"stage": "published", "done": 1, "of": 1, "release": "v1"}'"""
FAULTY = """tell '{"stage": "ended", "done": 1, "of": 1, "said": "lines.txt is no good"}'\nexit 2"""
KILLED = FITS + "kill -9 $$"
LOSES_CONNECTION = (
    "CREATE SEQUENCE losses",
    """
    CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('losses') = 1 THEN
            PERFORM pg_terminate_backend(pg_backend_pid());
            PERFORM pg_sleep(60);
        END IF;
        RETURN NEW;
    END $$
    """,
    "CREATE TRIGGER lose BEFORE UPDATE ON runs FOR EACH ROW WHEN (NEW.ended_at IS NOT NULL) EXECUTE FUNCTION lose()",
)
"""The first time that the end of a run is recorded, its connection is lost."""


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
        return self.process.wait(PATIENCE)

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


class Working:
    """A job in a thread of this process, whose training is a script."""

    def __init__(self, url: str, folder: Path, training: str, schedule: Schedule | None = None) -> None:
        self.store = BundleStore(folder / "store")
        self._attempts = folder / "attempts"
        script = folder / "training"
        script.write_text(SCRIPT.format(folder=folder, training=training))
        script.chmod(0o700)
        settings = Settings(
            store=folder / "store", database=url, data="postgres", recipe=None, device="cpu", gated=True
        )
        self._job = Job(settings, url, schedule, once=False)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_until_complete, args=(self._job.work(),))
        self._thread.start()

    def attempts(self) -> list[int]:
        """The numbers of the processes that were started as trainings in its folder."""
        return [int(line) for line in self._attempts.read_text().splitlines()] if self._attempts.exists() else []

    def leave(self) -> None:
        self._loop.call_soon_threadsafe(self._job.leave)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self._loop.close()


@contextmanager
def working(url: str, folder: Path, training: str, schedule: Schedule | None = None) -> Generator[Working]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(child, "sys", SimpleNamespace(executable=str(folder / "training"), stdout=sys.stdout))
        found = Working(url, folder, training, schedule)
        try:
            yield found
        finally:
            found.leave()


def eventually(look: Callable[[], Found | None], what: str) -> Found:
    return server.eventually(look, what, PATIENCE)


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


@pytest.mark.parametrize(
    ("training", "attempts", "message"),
    [(FAULTY, 1, "lines.txt"), (KILLED, 3, f"signal {signal.SIGKILL}")],
    ids=["faulty", "killed"],
)
def test_faulty_data_fail_at_once_and_a_crash_the_third_time(
    url: str, tmp_path: Path, training: str, attempts: int, message: str
):
    run = ask(url)
    with working(url, tmp_path, training) as one:
        failed = when(url, run.id, lambda run: run.ended_at)
        assert (failed.state, failed.attempts, len(one.attempts())) == ("failed", attempts, attempts)
        assert message in failed.message


def test_what_a_run_came_to_is_recorded_once_the_lost_connection_is_back(url: str, tmp_path: Path):
    execute(url, *LOSES_CONNECTION)
    run = ask(url)
    with working(url, tmp_path, PUBLISHES) as one:
        ended = when(url, run.id, lambda run: run.ended_at)
        assert (ended.state, ended.release, ended.attempts, len(one.attempts())) == ("published", "v1", 1, 1)
        assert "published v1" in ended.log
        following = ask(url)
        assert when(url, following.id, lambda run: run.ended_at).state == "published"
        assert len(one.attempts()) == 2


@pytest.mark.slow
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
        (training,) = busy.children()
        busy.process.kill()
        eventually(lambda: gone(training), "the end of what it had started")
        when(url, run.id, lambda run: run.attempts == 2)
        eventually(idle.children, "another attempt")
        assert [each.id for each in all_runs(url)] == [run.id]


def test_a_job_that_is_told_to_leave_has_its_run_taken_up_again(url: str, tmp_path: Path):
    run = ask(url)
    with working(url, tmp_path, NEVER_ENDS):
        when(url, run.id, fitting)
    waiting = found(url, run.id)
    assert (waiting.state, waiting.attempts) == ("queued", 0)
    assert "interrupted" in waiting.message
    with working(url, tmp_path, PUBLISHES):
        ended = when(url, run.id, lambda run: run.ended_at)
        assert (ended.state, ended.attempts) == ("published", 1)


def test_a_run_goes_on_when_postgresql_comes_back(tmp_path: Path, anybodys: Path):
    postgres = Postgres(Path(tempfile.mkdtemp(dir=anybodys)))
    try:
        url = postgres.database()
        asyncio.run(prepare(url))
        run = ask(url)
        with working(url, tmp_path, NEVER_ENDS) as one:
            when(url, run.id, fitting)
            training = psutil.Process(one.attempts()[0])
            postgres.stop()
            eventually(lambda: gone(training), "its end, as the lock is lost")
            postgres.start()
            eventually(lambda: len(one.attempts()) == 2, "another training")
            assert found(url, run.id).attempts == 1
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


def test_a_training_by_hand_into_the_same_store_is_waited_for(url: str, tmp_path: Path):
    with BundleStore(tmp_path / "store").training():
        run = ask(url)
        with working(url, tmp_path, PUBLISHES) as one:
            when(url, run.id, lambda run: run.progress is not None and "waiting" in run.progress.stage)
            assert one.attempts() == []
    assert found(url, run.id).state == "queued"


def test_its_time_brings_a_run(url: str, tmp_path: Path):
    with working(url, tmp_path, NEVER_ENDS, Schedule("* * * * * */1")):
        run = eventually(lambda: all_runs(url), "a run")[0]
        assert (run.reason, run.requested_by) == ("schedule", "opportune-retrain")


@pytest.mark.parametrize("options", [("--schedule", "61 * * * *"), ("--recipe", "nonesuch.toml")])
def test_what_cannot_begin_ends_with_a_sentence(url: str, data: Path, options: tuple[str, str]):
    wrong = Retrain(url, data, SHORT, *options)
    assert wrong.ended() == 2
    assert f"opportune-retrain: {options[0]}: expected" in wrong.log.read_text()
    assert all_runs(url) == []


def test_a_request_over_the_management_api_begins_at_once(
    published: tuple[BundleStore, Manifest], postgres: Postgres, tmp_path: Path
):
    url = postgres.database()
    port = str(free_port())
    served = Server(copy_store(published[0], tmp_path / "served"), "--database", url, "--admin-port", port)
    try:
        with client_of(served) as admin:
            asked = done(admin.post("/v1/runs", headers={**JSON, "X-Actor": "zoe"}))
            assert (asked["state"], asked["requested_by"], asked["reason"]) == ("queued", "zoe", "request")
            assert done(admin.post("/v1/runs", headers=JSON)) == asked
            problem(admin.post("/v1/runs"), 415)
            path = f"/v1/runs/{asked['id']}"
            with working(url, tmp_path, PUBLISHES):
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
        served.stop()


def test_a_training_stops_once_nobody_reads_its_progress(data: Path):
    (data.parent / "recipe.toml").write_text(ENDLESS)
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "training", "--data", f"interactions:{data}", "--progress", str(writing)]
    command += ["--store", str(data.parent / "store"), "--recipe", str(data.parent / "recipe.toml")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, pass_fds=[writing])
    os.close(writing)
    with os.fdopen(reading) as told:
        assert '"stage":"fitting"' in next(line for line in told if "fitting" in line)
    assert process.wait(PATIENCE) == 128 + signal.SIGTERM
