"""The suite: train through the command line, read the course of its fits, and fit ALS on the same data beside it.

Training runs in a process of its own and ALS in this one, one after the other, with equally many threads. The
release's manifest holds the course of every trained fit; validations and checkpoints are not part of its time.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.fit import als
from benchmarks.fit.files import hold_out, write_first_purchases
from benchmarks.fit.outcome import ALS, Fit, Reached, described, print_table, reached, summary
from benchmarks.harness import machine, plot
from benchmarks.harness.release import RECIPES, UNTIL
from benchmarks.harness.report import write_report
from benchmarks.quality.interactions import DEFAULT_RECIPES, KS, Kind
from embeddings.device import Device
from embeddings.errors import DeviceUnavailable, InvalidInput
from embeddings.release.bundle import Manifest, open_histories, read_manifest
from embeddings.release.store import BundleStore

JOURNEY = "complete-journey"
DEFAULT = (JOURNEY, "interactions", "sequences")
_RECIPE_OF: Mapping[str, Path] = {JOURNEY: RECIPES / "default.toml", **DEFAULT_RECIPES}
_QUICK: Mapping[str, Mapping[str, int]] = {
    JOURNEY: {"windows": 2, "examples_a_window": 1_000},
    "interactions": {"epochs": 15},
    "sequences": {"epochs": 6},
}
"""What a quick run changes of a recipe."""
_QUICK_UNTIL = datetime(2017, 3, 13, tzinfo=UTC)
"""And from Complete Journey it takes the first eleven weeks."""


def run(data: Sequence[str], json_file: Path, *, quick: bool) -> Mapping[str, float | None]:
    """Measure, print, write the JSON and a picture beside it, and return the summary.

    Args:
        data: ``complete-journey``, ``interactions:FILE``, ``sequences:FILE``; without a file, the first purchases of
            Complete Journey's households stand for one.
        json_file: where everything that was measured goes.
        quick: eleven weeks of Complete Journey, and fewer epochs on files.

    Raises:
        InvalidInput: the kind of data is unknown, or a file cannot be split.
    """
    for one in data:
        if one.partition(":")[0] not in _RECIPE_OF:
            raise InvalidInput("--data", f"expected {JOURNEY}, interactions:FILE or sequences:FILE; got {one}")
    threads = len(os.sched_getaffinity(0))
    devices: list[Device] = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    fits: list[Fit] = []
    left_out: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for one in data:
        for device in devices:
            began = time.monotonic()
            with TemporaryDirectory(prefix="opportune-fit-") as folder:
                measure = _of_tables if one == JOURNEY else _of_file
                fits += measure(one, device, threads, Path(folder), left_out, quick=quick)
            seconds[f"{one}, {device}"] = round(time.monotonic() - began, 1)
            print_table(fits)
    figures = summary(fits)
    report = {
        "suite": "fit",
        "quick": quick,
        "machine": machine.describe(),
        "threads": threads,
        "runs_seconds": seconds,
        "fits": [described(one) for one in fits],
        "left_out": left_out,
        "summary": figures,
    }
    write_report(json_file, report)
    plot.fit(json_file.with_suffix(".png"), fits)
    return figures


def _of_tables(
    data: str, device: Device, threads: int, folder: Path, left_out: dict[str, str], *, quick: bool
) -> list[Fit]:
    """Fit towers and ranker, and ALS on the purchases that the towers learn from."""
    arguments = ["--data", data, "--until", (_QUICK_UNTIL if quick else UNTIL).isoformat()]
    manifest, store = _train(arguments, JOURNEY, device, threads, folder, quick=quick)
    metric = "ndcg@10"
    fits = [_fit(data, device, "towers", metric, manifest), _fit(data, device, "ranker", None, manifest)]
    _, histories = open_histories(store.histories(manifest.version))
    window = manifest.data_cut_off.timestamp() - manifest.recipe["validation_days"] * 86_400
    matrix = als.purchases(histories, manifest.counts["products"], int(window))
    try:
        course = als.course(matrix, device, threads, None)
    except DeviceUnavailable as error:
        left_out[f"{data}, {device}: {ALS}"] = str(error)
        return fits
    # The run itself asked its ALS, of the same purchases and settings, the questions that it asks the towers.
    course[-1] = Reached(course[-1].epochs, course[-1].seconds, manifest.metrics["als"][metric])
    return [*fits, Fit(data, device, ALS, metric, matrix.nnz, course)]


def _of_file(
    data: str, device: Device, threads: int, folder: Path, left_out: dict[str, str], *, quick: bool
) -> list[Fit]:
    """Fit the embeddings of a file, and ALS on the same part of it."""
    name, _, path = data.partition(":")
    kind: Kind = "interactions" if name == "interactions" else "sequences"
    file = Path(path) if path else folder / "first-purchases.txt"
    if not path:
        write_first_purchases(file)
    validation = folder / "validation.txt"
    held = hold_out(file, kind, validation)
    arguments = ["--data", f"{kind}:{file}"]
    if kind == "interactions":
        arguments += ["--validation", str(validation)]
    manifest, _ = _train(arguments, kind, device, threads, folder, quick=quick)
    shown, metric = f"{kind}:{file.name}", f"ndcg@{KS[kind]}"
    fits = [_fit(shown, device, _RECIPE_OF[kind].stem, metric, manifest)]
    measure = als.ndcg_of_held_out(held.fitted_CN, held.held_out, KS[kind])
    try:
        course = als.course(held.fitted_CN, device, threads, measure)
    except DeviceUnavailable as error:
        left_out[f"{shown}, {device}: {ALS}"] = str(error)
        return fits
    return [*fits, Fit(shown, device, ALS, metric, held.fitted_CN.nnz, course)]


def _fit(data: str, device: Device, model: str, metric: str | None, manifest: Manifest) -> Fit:
    curve = manifest.curves[model]
    return Fit(data, device, model, metric, curve[0].examples, reached(curve, metric))


def _train(
    arguments: Sequence[str], kind: str, device: Device, threads: int, folder: Path, *, quick: bool
) -> tuple[Manifest, BundleStore]:
    recipe = _RECIPE_OF[kind]
    if quick:
        recipe = shortened(recipe, _QUICK[kind], folder)
    command = [sys.executable, "-m", "training", *arguments, "--store", str(folder / "store")]
    command += ["--recipe", str(recipe), "--device", device, "--no-gate"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, check=True, env=environment)  # noqa: S603 - our own command
    store = BundleStore(folder / "store")
    return read_manifest(store.bundle(store.current())), store


def shortened(recipe: Path, changes: Mapping[str, int], folder: Path) -> Path:
    """Write a copy of a recipe with other numbers to a folder, and return its path.

    Where a key stands in several sections, the first one changes.
    """
    text = recipe.read_text()
    for key, value in changes.items():
        text, count = re.subn(rf"(?m)^{key} = \d+", f"{key} = {value}", text, count=1)
        assert count, f"{recipe} does not set {key}"  # noqa: S101 - our own recipes
    copy = folder / recipe.name
    copy.write_text(text)
    return copy
