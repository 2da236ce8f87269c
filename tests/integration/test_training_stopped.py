"""The training command where it is stopped: by a signal, a full disk, another run, a damaged checkpoint."""

import asyncio
import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from embeddings.database.connection import DATABASE_VARIABLE
from embeddings.release.bundle import Manifest, read_manifest
from embeddings.release.store import BundleStore
from tests.integration.server import ROOT, Postgres
from tests.integration.test_training import RECIPE
from tests.world import UNTIL
from training.config import Recipe
from training.datasets import open_dataset
from training.load.job import load

PATIENCE_SECONDS = 300
"""How long to wait for a stage, or the end; a bound for a broken command, not an expectation."""

SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


class Run:
    """The command in a process of its own, on the small world."""

    def __init__(
        self,
        folder: Path,
        data: str,
        store: Path,
        *,
        recipe: str = RECIPE,
        largest: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; ``largest`` is how many bytes a file may have, as if the disk were full then."""
        path = folder / "recipe.toml"
        path.write_text(recipe)
        command = [sys.executable, "-m", "training", "--data", data, "--store", str(store), "--recipe", str(path)]
        self.store = store
        self.log = folder / "log"

        def prepare() -> None:
            for number, _ in SIGNALS:
                signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may ignore them
            if largest is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--until", UNTIL.isoformat(), "--device", "cpu"],
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"} | dict(environment or {}),
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=prepare,  # noqa: PLW1509 - no thread of the tests holds a lock that it takes
            )

    def said(self) -> str:
        return self.log.read_text()

    def until(self, seen: Callable[["Run"], object]) -> None:
        """Wait for a stage."""

        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            while not seen(self):
                assert self.process.poll() is None, self.said()
                assert time.monotonic() < deadline, self.said()
                time.sleep(0.005)
        except BaseException:
            self.process.kill()
            raise

    def ended(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)


def line(words: str) -> Callable[[Run], bool]:
    return lambda run: words in " ".join(run.said().split())


def path(pattern: str) -> Callable[[Run], bool]:
    return lambda run: any(run.store.glob(pattern))


STAGES: dict[str, Callable[[Run], bool]] = {
    "torch imported": line("events before"),
    "the ranker's towers": path("runs/*/checkpoint.safetensors"),
    "the ranker's examples": line("the ranker learns from"),
    "the towers of the release": lambda run: len(list(run.store.glob("runs/*/checkpoint.safetensors"))) == 2,
    "evaluated": line("validation served"),
    "staging": path("staging/*/bundle/product.onnx"),
    "staged": path("staging/*/bundle/manifest.json"),
}
OFTEN = RECIPE + "checkpoint_seconds = 0\n"


def names(store: Path, part: str) -> list[str]:
    return sorted(one.name for one in (store / part).glob("*") if one.name != "LOCK")


def same_files(store: BundleStore, expected: Manifest) -> bool:
    return read_manifest(store.bundle(store.current())).files == expected.files


@pytest.fixture(scope="module")
def expected(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """What a run publishes that nothing stops."""
    folder = tmp_path_factory.mktemp("whole")
    run = Run(folder, str(world), folder / "store")
    assert run.ended() == 0, run.said()
    store = BundleStore(folder / "store")
    assert names(store.bundle("").parent.parent, "runs") == names(folder / "store", "staging") == []
    return read_manifest(store.bundle(store.current()))


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_is_one_line_and_the_same_command_goes_on(
    world: Path, expected: Manifest, tmp_path: Path, number: signal.Signals, code: int
):
    run = Run(tmp_path, str(world), tmp_path / "store", recipe=OFTEN)
    run.until(STAGES["the ranker's towers"])
    run.process.send_signal(number)
    run.process.send_signal(number)  # who is impatient
    assert run.ended() == code
    last = run.said().splitlines()[-1]
    assert last == f"opportune-train: stopped by {number.name}; give the same command again to go on"
    assert "Traceback" not in run.said()
    assert not (tmp_path / "store" / "CURRENT").exists()
    again = Run(tmp_path, str(world), tmp_path / "store", recipe=OFTEN)
    assert again.ended() == 0, again.said()
    assert same_files(BundleStore(tmp_path / "store"), expected)
    assert names(tmp_path / "store", "runs") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_of_the_tables_of_a_database_nothing_is_left(
    world: Path, recipe: Recipe, postgres: Postgres, tmp_path: Path, number: signal.Signals
):
    url, temporary, store = postgres.database(), tmp_path / "temporary", tmp_path / "store"
    temporary.mkdir()
    dataset = open_dataset(str(world), channels=recipe.channels, now=UNTIL, tables=recipe.tables)
    asyncio.run(load(dataset, url, replace=False, now=UNTIL))

    def begun() -> Run:
        environment = {DATABASE_VARIABLE: url, "TMPDIR": str(temporary)}
        return Run(tmp_path, "postgres", store, recipe=OFTEN, environment=environment)

    run = begun()
    run.until(STAGES["torch imported"])
    (folder,) = (store / "tables").iterdir()
    assert {"events.parquet", "customers.parquet"} <= {one.name for one in folder.iterdir()}
    assert folder.stat().st_mode & 0o777 == 0o700
    run.process.send_signal(number)
    run.ended()
    if number is signal.SIGKILL:
        assert names(store, "tables") == [folder.name]
        run = begun()
        run.until(lambda run: folder.name not in names(run.store, "tables"))
        run.process.terminate()
        assert run.ended() == 143
    assert names(store, "tables") == []
    assert list(temporary.iterdir()) == []
    assert "Traceback" not in run.said()


NATIVE = """
import ctypes, sys
from training.__main__ import stopped_by_signals
with stopped_by_signals():
    print("here", flush=True)
    ctypes.CDLL(None).sleep(600)  # returns to Python after ten minutes, and starts anew where a signal ends it
    ctypes.CDLL(None).sleep(600)
"""


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_is_heard_inside_native_code(number: signal.Signals, code: int):
    assert ctypes.CDLL(None).sleep
    process = subprocess.Popen(
        [sys.executable, "-c", NATIVE],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.count("\n")) == (code, 1)


def test_a_damaged_checkpoint_is_named_and_not_used(world: Path, expected: Manifest, tmp_path: Path):
    run = Run(tmp_path, str(world), tmp_path / "store", recipe=OFTEN)
    run.until(STAGES["the ranker's towers"])
    run.process.kill()
    run.ended()
    (checkpoint,) = (tmp_path / "store").glob("runs/*/checkpoint.safetensors")
    os.truncate(checkpoint, checkpoint.stat().st_size // 2)
    again = Run(tmp_path, str(world), tmp_path / "store", recipe=OFTEN)
    assert again.ended() == 0, again.said()
    said = "".join(again.said().split())
    assert f"{checkpoint}isdamaged" in said
    assert "thisfitbeginsanew" in said
    assert same_files(BundleStore(tmp_path / "store"), expected)


def test_a_full_disk_is_one_sentence_and_the_release_before_stays_current(
    world: Path, published: tuple[BundleStore, Manifest], tmp_path: Path
):
    store = tmp_path / "store"
    before = published[0].current()
    for part in ("bundles", "histories"):
        shutil.copytree(published[0].bundle(before).parent.parent / part, store / part)
    (store / "CURRENT").write_text(before)
    largest = 16_384  # of the files of a release some are larger
    run = Run(tmp_path, str(world), store, recipe=RECIPE, largest=largest)
    assert run.ended() == 2, run.said()
    said = run.said().splitlines()[-1]
    assert said.startswith("opportune-train: ")
    assert str(store) in said
    assert "Traceback" not in run.said()
    assert names(store, "bundles") == names(store, "histories") == [before]
    assert BundleStore(store).current() == before
    assert names(store, "staging") == []


def test_a_second_run_into_a_store_is_refused_and_the_first_goes_on(world: Path, expected: Manifest, tmp_path: Path):
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    store = tmp_path / "store"
    first = Run(tmp_path / "first", str(world), store, recipe=OFTEN)
    first.until(STAGES["the ranker's towers"])
    second = Run(tmp_path / "second", str(world), store)
    assert second.ended() == 2
    assert f"another run trains into {store} now" in second.said().splitlines()[-1]
    assert first.ended() == 0, first.said()
    assert same_files(BundleStore(store), expected)


@contextmanager
def occupied(folder: Path, kind: str) -> Generator[Path]:
    """A path where no store can be."""
    (folder / "file").write_text("")
    if kind == "below a file":
        yield folder / "file" / "store"
    elif kind == "a file":
        yield folder / "file"
    else:
        (folder / "store").mkdir()
        (folder / "store" / "runs").write_text("")
        yield folder / "store"


@pytest.mark.parametrize("kind", ["a file", "below a file", "with a file for checkpoints"])
def test_a_path_where_no_store_can_be_exits_2_in_one_sentence(world: Path, tmp_path: Path, kind: str):
    with occupied(tmp_path, kind) as store:
        run = Run(tmp_path, str(world), store)
        assert run.ended() == 2
        assert str(tmp_path) in run.said().splitlines()[-1]
        assert "Traceback" not in run.said()


INTERACTIONS = """
model = "factors"
hops = 0
dimensions = 8

[split]
share = 0.1
fewest_products = 5

[loss]
temperature = 0.12
negatives = 20
popularity = 0.8

[fit]
epochs = 20000
patience = 20000
validate_every = 1
customers_a_batch = 30
learning_rate = 1e-3
checkpoint_seconds = 0
"""


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_file_of_interactions_is_no_other_matter(tmp_path: Path, number: signal.Signals, code: int):
    file = tmp_path / "lines.txt"
    file.write_text("".join(f"c{one} {' '.join(f'p{(one * 7 + k) % 50}' for k in range(9))}\n" for one in range(90)))
    run = Run(tmp_path, f"interactions:{file}", tmp_path / "store", recipe=INTERACTIONS)
    run.until(path("runs/*/validated/checkpoint.safetensors"))
    run.process.send_signal(number)
    assert run.ended() == code
    assert "Traceback" not in run.said()
    assert f"stopped by {number.name}" in run.said().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_at_any_stage_ends_with_the_same_bytes(
    world: Path, expected: Manifest, tmp_path: Path, stage: str
):
    run = Run(tmp_path, str(world), tmp_path / "store", recipe=OFTEN)
    run.until(STAGES[stage])
    run.process.kill()
    assert run.ended() == -signal.SIGKILL
    assert not (tmp_path / "store" / "CURRENT").exists()
    again = Run(tmp_path, str(world), tmp_path / "store", recipe=OFTEN)
    assert again.ended() == 0, again.said()
    assert same_files(BundleStore(tmp_path / "store"), expected)
    assert names(tmp_path / "store", "runs") == names(tmp_path / "store", "staging") == []
