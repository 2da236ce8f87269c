"""The training command: its exit codes, what it publishes, what a kill costs, and what a cut-off hides."""

import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from msgspec.structs import replace
from numpy.typing import NDArray
from safetensors import safe_open

from embeddings.catalogue.columns import Products
from embeddings.customer.history import Histories
from embeddings.errors import InvalidInput
from embeddings.release.bundle import Manifest, ModelBundle, open_histories, read_manifest
from embeddings.release.store import BundleStore
from tests.one_thread import one_thread
from tests.world import CUSTOMERS, STORES, UNTIL, carries, tables, write_world
from training import __main__ as command
from training import fit as fitting
from training.config import Recipe
from training.fit import Towers
from training.job import run
from training.ranker import Rankers

ROOT = Path(__file__).parents[2]
RECIPE = """
validation_days = 14

[channels]
store = "assortment"
mailer = "promoted"
email = "everything"

[towers]
dimensions = 16
history_length = 16
heads = 2

[ranker]
windows = 3
window_days = 14
type_attribute = "brand"
category_attribute = "department"
epochs = 8
least_steps = 0
examples_a_batch = 16

[fit]
epochs = 4
least_steps = 0
baskets_a_batch = 64
uniform_negatives = 32
learning_rate = 5e-3
"""

Train = Callable[..., int]


class Release(NamedTuple):
    store: BundleStore
    manifest: Manifest

    def histories(self) -> Histories:
        return open_histories(self.store.histories(self.manifest.version))[1]

    def contents(self) -> dict[str, bytes]:
        """Every file by its name; of the manifests what does not depend on when, where and how fast they were made."""
        found: dict[str, bytes] = {}
        for folder in (self.store.bundle(self.manifest.version), self.store.histories(self.manifest.version)):
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                name = f"{folder.parent.name}/{path.relative_to(folder)}"
                if path.name == "manifest.json":
                    manifest: dict[str, Any] = json.loads(path.read_bytes())
                    for curve in manifest.get("curves", {}).values():
                        for epochs in curve:
                            del epochs["seconds"]
                    kept = {key: value for key, value in manifest.items() if key not in {"created_at", "data", "seal"}}
                    found[name] = json.dumps(kept).encode()
                else:
                    found[name] = path.read_bytes()
        return found


def released(store: Path) -> Release:
    bundles = BundleStore(store)
    return Release(bundles, read_manifest(bundles.bundle(bundles.current())))


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    with one_thread():
        yield


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Run the command line in this process until its exit; returns the exit code."""

    def run(data: Path, store: Path, *more: str, recipe: str = RECIPE) -> int:
        path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
        path.write_text(recipe)
        arguments = ["--data", str(data), "--store", str(store), "--recipe", str(path), "--until", UNTIL.isoformat()]
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sys, "argv", ["opportune-train", *arguments, *more])
            patched.setenv("OPENBLAS_NUM_THREADS", "1")  # which it would set for good
            with pytest.raises(SystemExit) as exited:
                command.main()
        assert isinstance(exited.value.code, int)
        return exited.value.code

    return run


@pytest.fixture(scope="module")
def release(train: Train, world: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The small world's release, trained without an interruption."""
    store = tmp_path_factory.mktemp("release")
    assert train(world, store) == 0
    return released(store)


def test_a_release_is_published_whole_and_says_what_it_is(release: Release) -> None:
    manifest = release.manifest
    assert release.store.versions() == [manifest.version]
    assert manifest.data_cut_off == UNTIL
    assert manifest.metrics["served"]["ndcg@10"] > 4 * manifest.metrics["popular"]["ndcg@10"]
    assert manifest.metrics["towers"]["ndcg@10"] > 2 * manifest.metrics["popular"]["ndcg@10"]
    bundle = ModelBundle.open(release.store.bundle(manifest.version), "cpu", 2**20)
    assert len(bundle.vectors_ND) == manifest.counts["products"] == 122
    assert len(release.histories().events) == manifest.counts["events"]
    assert {name: len(curve) for name, curve in manifest.curves.items()} == {"ranker": 8, "towers": 4}
    assert manifest.curves["towers"][-1].metrics == manifest.metrics["towers"]
    left = {path.name for path in release.store.bundle("").parent.rglob("*") if "checkpoint" in path.name}
    assert not left


# What is refused.


def test_bad_tables_are_all_reported_and_nothing_is_written(
    train: Train, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(world, data)
    events = pl.read_parquet(data / "events.parquet").head(3)
    events.with_columns(type=pl.Series(["purchase", "stolen", "purchase"]), quantity=pl.Series([1.0, 1.0, -2.0])).drop(
        "at"
    ).write_parquet(data / "events.parquet")
    assert train(data, tmp_path / "store") == 2
    report = capsys.readouterr().err
    assert "events.parquet: column at is missing" in report
    assert "events.parquet, row 2, column type: 'stolen'" in report
    assert "events.parquet, row 3, column quantity: -2.0" in report
    assert not (tmp_path / "store").exists()


def refusal(
    train: Train, capsys: pytest.CaptureFixture[str], data: Path, store: Path, *more: str, recipe: str = RECIPE
) -> str:
    assert train(data, store, *more, recipe=recipe) == 2
    assert not store.exists()
    return capsys.readouterr().err


def test_bad_arguments_are_refused_by_name(
    train: Train, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    assert "lerning_rate" in refusal(train, capsys, world, store, recipe=RECIPE + "lerning_rate = 1e-3")
    assert "none.toml" in refusal(train, capsys, world, store, "--recipe", str(tmp_path / "none.toml"))
    assert "no-such-data" in refusal(train, capsys, tmp_path / "no-such-data", store)
    assert "expected a moment" in refusal(train, capsys, world, store, "--until", "yesterday")
    assert "--device" in refusal(train, capsys, world, store, "--device", "tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="cuda is there")
def test_cuda_asked_for_and_absent_is_refused(
    train: Train, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no CUDA device" in refusal(train, capsys, world, tmp_path / "store", "--device", "cuda")


@pytest.mark.parametrize(
    ("days", "missing"),
    [
        (-365, "expected events before 2024-06-01 00:00:00+00:00; found none that counts"),
        (100, "expected purchases of products in the last 14 days"),
        (-111, "expected purchases over at least 4 days"),
    ],
)
def test_without_purchases_to_learn_from_or_to_validate_on_there_is_no_release(
    train: Train, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], days: int, missing: str
) -> None:
    until = (UNTIL + timedelta(days=days)).isoformat()
    assert missing in refusal(train, capsys, world, tmp_path / "store", "--until", until)


def write_hit_world(folder: Path) -> Path:
    """Everybody buys one hit every week and something else at random, never the same."""
    random = np.random.default_rng(1)
    rows = [
        (f"c{customer}", "purchase", UNTIL - timedelta(weeks=week, hours=customer), product)
        for customer in range(30)
        for week in range(1, 9)
        for product in ("the-hit", f"p{random.integers(300)}")
    ]
    schema = {"customer_id": pl.String, "type": pl.String, "at": pl.Datetime("us", "UTC"), "product_id": pl.String}
    folder.mkdir()
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(folder / "events.parquet")
    write_products(folder, [*(f"p{one}" for one in range(300)), "the-hit"])
    return folder


def write_products(folder: Path, ids: list[str]) -> None:
    """Products with the attributes that the recipe names."""
    attributes = {name: [f"{name} {len(one) % 3}" for one in ids] for name in ("brand", "department")}
    pl.DataFrame({"product_id": ids, **attributes}).write_parquet(folder / "products.parquet")


def test_a_model_worse_than_popularity_is_published_only_without_the_gate(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, store = write_hit_world(tmp_path / "data"), tmp_path / "store"
    # A ranker that tells no product from another: every tie goes to the first row, and the hit is in the last.

    def alike(
        _rankers: Rankers, features_MF: NDArray[np.float32], _regular_M: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        return np.zeros(len(features_MF), np.float32)

    monkeypatch.setattr("training.evaluate.rank", alike)
    assert train(data, store) == 3
    report = capsys.readouterr().err
    assert "refused by the gate: what would be served of products reached ndcg@10 0.0" in report
    assert "--no-gate" in report
    assert not list(store.rglob("manifest.json"))
    assert not (store / "CURRENT").exists()
    assert train(data, store, "--no-gate") == 0
    manifest = released(store).manifest
    assert f"published {manifest.version}" in capsys.readouterr().out
    assert manifest.metrics["served"]["ndcg@10"] < manifest.metrics["popular"]["ndcg@10"]


def test_towers_that_learnt_nothing_pass_where_what_is_served_is_good(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, store = write_hit_world(tmp_path / "data"), tmp_path / "store"

    def alike(_towers: Towers, products: Products, *_: object) -> NDArray[np.float32]:
        return np.zeros((len(products.ids), 16), np.float32)

    monkeypatch.setattr("training.stages.product_vectors", alike)
    assert train(data, store) == 0
    metrics = released(store).manifest.metrics
    assert metrics["towers"]["ndcg@10"] < metrics["popular"]["ndcg@10"] <= metrics["served"]["ndcg@10"]


# Data of all sizes.


def write_shop(folder: Path, customers: int, days: float, **changed: pl.Expr) -> Path:
    """A shop where each customer bought six times within some days, half of the time one of five favourites."""
    random = np.random.default_rng(customers)
    rows = [
        (f"c{customer}", "purchase", UNTIL - timedelta(days=days * float(random.random()), seconds=1), f"p{product}")
        for customer in range(customers)
        for favourites in [random.integers(0, 30, 5)]
        for _ in range(6)
        for product in (random.choice(favourites), random.integers(0, 30))
    ]
    schema = {"customer_id": pl.String, "type": pl.String, "at": pl.Datetime("us", "UTC"), "product_id": pl.String}
    folder.mkdir()
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_columns(**changed)
    frame.write_parquet(folder / "events.parquet")
    write_products(folder, [f"p{one}" for one in range(30)])
    return folder


SHOPS: dict[str, tuple[int, float, dict[str, pl.Expr], str]] = {
    "one customer": (1, 120, {}, "expected at least 5 customers who bought something before the last"),
    "five customers": (5, 120, {}, ""),
    "a week": (40, 7, {}, ""),
    "three weeks": (40, 21, {}, ""),
    "two days": (40, 2, {}, "expected purchases over at least 4 days; they span 1"),
    "times in days": (40, 60, {"at": pl.col("at").dt.truncate("1d")}, ""),
    "old": (40, 60, {"at": pl.col("at") - timedelta(days=200)}, ""),
    "views alone": (40, 60, {"type": pl.lit("view")}, ""),
    "nothing but impressions": (
        40,
        60,
        {"type": pl.lit("impression")},
        "expected purchases of products before the last 14 days",
    ),
    "the year 9999 alone": (
        40,
        60,
        {"at": pl.datetime(9999, 12, 31, time_zone="UTC")},
        "found none that counts; 480 lie at or after",
    ),
}


@pytest.mark.parametrize("shop", SHOPS)
def test_a_small_shop_is_a_release_or_a_sentence_that_says_what_is_missing(
    recipe: Recipe, tmp_path: Path, shop: str
) -> None:
    customers, days, changed, expected = SHOPS[shop]
    data = write_shop(tmp_path / "data", customers, days, **changed)
    small = replace(recipe, fit=replace(recipe.fit, epochs=1), ranker=replace(recipe.ranker, epochs=1))
    if expected:
        with pytest.raises(InvalidInput) as raised:
            run(str(data), tmp_path / "store", small, until=None, device="cpu", gated=False)
        assert expected in str(raised.value)
        assert not (tmp_path / "store").exists()
    else:
        manifest = run(str(data), tmp_path / "store", small, until=None, device="cpu", gated=False)
        assert math.isfinite(manifest.metrics["served"]["ndcg@10"])
        assert any("events count" in note for note in manifest.notes)


@pytest.mark.slow
def test_whoever_bills_once_in_two_months_has_a_release_by_following_what_is_said(
    recipe: Recipe, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    random = np.random.default_rng(0)
    rows = [
        (f"c{customer}", "purchase", UNTIL - timedelta(days=40 + 60 * bill, hours=customer % 20), product)
        for customer in range(40)
        for bill in range(6)
        for product in {f"p{customer % 5}", f"p{random.integers(30)}"}
    ]
    schema = {"customer_id": pl.String, "type": pl.String, "at": pl.Datetime("us", "UTC"), "product_id": pl.String}
    pl.DataFrame(rows, schema=schema, orient="row").write_parquet(tmp_path / "data" / "events.parquet")
    write_products(tmp_path / "data", [f"p{one}" for one in range(30)])

    def published(recipe: Recipe) -> Manifest:
        return run(str(tmp_path / "data"), tmp_path / "store", recipe, until=UNTIL, device="cpu", gated=False)

    with pytest.raises(InvalidInput) as raised:
        published(recipe)
    (days,) = re.findall(r"validation_days be at least (\d+) in the recipe", str(raised.value))
    longer = replace(recipe, validation_days=int(days))
    with pytest.raises(InvalidInput) as raised:
        published(longer)
    (weeks,) = re.findall(r"ranker.windows be at least (\d+) in the recipe", str(raised.value))
    manifest = published(replace(longer, ranker=replace(longer.ranker, windows=int(weeks))))
    assert manifest.metrics["served"]["examples"] == 40


def test_check_says_what_the_tables_hold_and_trains_nothing(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_shop(tmp_path / "data", 8, 60)
    assert train(data, tmp_path / "store", "--check", "--html", str(tmp_path / "page.html")) == 0
    said = capsys.readouterr().out
    assert "read 30 products, 96 events" in said
    assert "8 customers bought anything" in said
    assert not (tmp_path / "store").exists()
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[ranker]\nmaker_attribute = "maker"')
    assert train(data, tmp_path / "store", "--check", "--recipe", str(recipe)) == 2
    assert "ranker.maker_attribute: expected one of brand, department" in capsys.readouterr().err
    assert train(data, tmp_path / "store", "--check", "--validation", str(recipe)) == 2
    assert "expected --validation without --check" in capsys.readouterr().err
    (data / "events.parquet").write_bytes(b"no Parquet")
    assert train(data, tmp_path / "store", "--check") == 2
    assert "events.parquet: cannot be read" in capsys.readouterr().err


# What a kill costs.


def kill_at_first_checkpoint(data: Path, store: Path, recipe: Path) -> Path:
    """Start the command, kill it as soon as there is a checkpoint, and return the checkpoint."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "training", "--data", str(data), "--store", str(store)),
            *("--recipe", str(recipe), "--until", UNTIL.isoformat()),
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (found := list(store.glob("runs/*/checkpoint.safetensors"))):
            assert process.poll() is None, f"exited with {process.returncode} before a checkpoint"
            time.sleep(0.005)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    return found[0]


def test_a_killed_run_goes_on_from_its_checkpoint_and_publishes_the_same_vectors(
    train: Train, world: Path, release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = RECIPE + "checkpoint_seconds = 0\n"
    (tmp_path / "recipe.toml").write_text(recipe)
    store = tmp_path / "store"
    checkpoint = kill_at_first_checkpoint(world, store, tmp_path / "recipe.toml")
    assert not (store / "CURRENT").exists()
    with safe_open(checkpoint, framework="pt") as file:
        done = int(file.metadata()["done"])
    assert done > 0

    loss, steps = fitting.sampled_softmax, itertools.count()

    def counted(*arguments: torch.Tensor) -> torch.Tensor:
        next(steps)
        return loss(*arguments)

    monkeypatch.setattr(fitting, "sampled_softmax", counted)
    assert train(world, store, recipe=recipe) == 0
    # 120 customers' baskets of 11 weeks for the ranker and of 14 for the release, 64 a batch, 4 epochs
    assert next(steps) == sum(4 * -(-CUSTOMERS * weeks // 64) for weeks in (11, 14)) - done
    assert released(store).manifest.files == release.manifest.files
    assert not checkpoint.exists()


# What a cut-off hides.


def test_of_a_product_sold_only_afterwards_there_is_no_trace(release: Release) -> None:
    bundle = ModelBundle.open(release.store.bundle(release.manifest.version), "cpu", 2**20)
    products, locations, observed = bundle.catalogue.products, bundle.catalogue.locations, bundle.statistics.observed
    late = products.ids.row("late")
    assert late is not None
    assert observed.popularity_N[late] == 0
    assert not observed.trained_N[late]
    assert late not in locations.assortment.values
    events = release.histories().events
    assert late not in events["product"]
    assert events["at"].max() < UNTIL.timestamp()


def test_assortments_are_what_the_stores_sold_before(release: Release) -> None:
    bundle = ModelBundle.open(release.store.bundle(release.manifest.version), "cpu", 2**20)
    ids, locations = bundle.catalogue.products.ids, bundle.catalogue.locations
    for store in STORES:
        row = locations.ids.row(store)
        assert row is not None
        found = set(ids.ids(locations.assortment[row].tolist())) - {"unsold"}
        assert all(carries(store, product) for product in found)
        assert len(found) == 60


def forget_what_came_afterwards(world: Path) -> None:
    """Remove the later events, and what only they name, from the tables themselves."""
    events = tables()["events"].filter(pl.col("at") < UNTIL)
    assert "late" not in events["product_id"]
    events.write_parquet(world / "events.parquet")


def test_of_the_promotion_plan_what_is_over_is_left_out_and_what_is_to_come_is_known(release: Release) -> None:
    bundle = ModelBundle.open(release.store.bundle(release.manifest.version), "cpu", 2**20)
    weeks = {UNTIL.timestamp() + week * 7 * 86_400 for week in (1, 2)}
    assert set(bundle.catalogue.promotions.ends_G.tolist()) == weeks


def test_without_the_later_events_every_byte_is_the_same(train: Train, release: Release, tmp_path: Path) -> None:
    world = write_world(tmp_path / "world")
    forget_what_came_afterwards(world)
    assert train(world, tmp_path / "store") == 0
    assert released(tmp_path / "store").contents() == release.contents()


def test_nor_do_tables_that_are_derived_from_events_show_the_later_ones(train: Train, tmp_path: Path) -> None:
    world = write_world(tmp_path / "world")
    for table in ("customers", "products", "locations", "offers", "promotions"):
        (world / f"{table}.parquet").unlink()
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace('"brand"', '""').replace('"department"', '""'))
    events = tables()["events"]
    later = events.filter(pl.col("at") >= UNTIL).with_columns(
        customer_id=pl.lit("a newcomer"), location=pl.lit("a new store"), channel=pl.lit("email")
    )
    pl.concat([later, events]).write_parquet(world / "events.parquet")
    assert train(world, tmp_path / "whole", "--recipe", str(recipe)) == 0
    forget_what_came_afterwards(world)
    assert train(world, tmp_path / "cut", "--recipe", str(recipe)) == 0
    whole, cut = released(tmp_path / "whole"), released(tmp_path / "cut")
    assert whole.contents() == cut.contents()
    assert whole.manifest.counts["customers"] == CUSTOMERS
    bundle = ModelBundle.open(whole.store.bundle(whole.manifest.version), "cpu", 2**20)
    assert "late" not in bundle.catalogue.products.ids
    assert bundle.catalogue.locations.ids.ids() == sorted(STORES)


def test_guests_alone_are_no_release(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_hit_world(tmp_path / "data")
    events = pl.read_parquet(data / "events.parquet").with_columns(customer_id=pl.lit(None, pl.String))
    events.write_parquet(data / "events.parquet")
    assert "all are of guests" in refusal(train, capsys, data, tmp_path / "store")
