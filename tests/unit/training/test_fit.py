"""Fitting: a function of its arguments alone, also when it was killed on the way."""

import dataclasses
import itertools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import msgspec
import numpy as np
import polars as pl
import pytest
import torch
from msgspec.structs import replace
from numpy.typing import NDArray
from torch import Tensor

from embeddings.catalogue.columns import Catalogue, ChannelRule
from embeddings.customer.history import Histories
from embeddings.customer.tower_input import gather
from tests.world import UNTIL, dataset_of, tables, write_world
from training import fit as fitting
from training.batches import Baskets
from training.catalogue import master_catalogue
from training.config import FitConfig, Recipe, TowersConfig
from training.fit import (
    Factors,
    Towers,
    als_regularisation,
    customer_tensors,
    fingerprint,
    fit,
    fit_als,
    product_vectors,
)
from training.histories import read_histories
from training.job import run
from training.observed import observe
from training.ways import Ways

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = Recipe(
    channels={"store": ChannelRule.ASSORTMENT, "mailer": ChannelRule.PROMOTED, "email": ChannelRule.EVERYTHING},
    towers=TowersConfig(dimensions=8, history_length=4, heads=2),
    fit=FitConfig(epochs=2, least_steps=0, baskets_a_batch=64, uniform_negatives=16, checkpoint_seconds=0),
)


class Killed(BaseException):
    """Stands for the end of the process."""


class Past(NamedTuple):
    catalogue: Catalogue
    trained_N: NDArray[np.bool_]
    histories: Histories
    als: Factors


@pytest.fixture(scope="module")
def past() -> Past:
    """Sixteen customers of the small world, three batches an epoch."""
    frames = tables() | {"events": tables()["events"].filter(pl.col("customer_id") < "c016")}
    dataset = dataset_of(frames)
    catalogue = master_catalogue(dataset, RECIPE, UNTIL)
    histories = read_histories(dataset, catalogue, 0)
    catalogue, observed = observe(catalogue, histories.events, int(UNTIL.timestamp()), RECIPE.assortment)
    return Past(catalogue, observed.trained_N, histories, fit_als(histories, len(catalogue.products.ids), RECIPE))


def fitted(past: Past, folder: Path, recipe: Recipe = RECIPE) -> dict[str, Tensor]:
    situated = Ways(past.catalogue, recipe.ways).situation
    towers, _ = fit(past.catalogue, past.trained_N, past.histories, past.als.products_ND, recipe, CPU, folder, situated)
    return towers.state_dict()


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def count_steps(monkeypatch: pytest.MonkeyPatch, kill_at: int | None = None) -> Callable[[], int]:
    """Count the steps that are computed from here on; the one numbered ``kill_at`` is not survived."""
    loss, steps = fitting.sampled_softmax, itertools.count(1)
    done = [0]

    def counted(*arguments: Tensor) -> Tensor:
        done[0] = next(steps)
        if done[0] == kill_at:
            raise Killed
        return loss(*arguments)

    monkeypatch.setattr(fitting, "sampled_softmax", counted)
    return lambda: done[0]


def test_equal_arguments_give_equal_towers_bit_by_bit(past: Past, tmp_path: Path) -> None:
    torch.manual_seed(99)  # whatever was drawn before
    first = fitted(past, tmp_path / "a")
    assert equal(first, fitted(past, tmp_path / "b"))
    other_seed = msgspec.structs.replace(RECIPE, seed=2)
    assert not equal(first, fitted(past, tmp_path / "c", other_seed))


@pytest.fixture(scope="module")
def uninterrupted(past: Past, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return fitted(past, tmp_path_factory.mktemp("uninterrupted"))


@pytest.mark.parametrize("kill_at", [2, 5, 8])
def test_killed_at_a_step_and_continued_is_uninterrupted_bit_by_bit(
    past: Past, uninterrupted: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    with monkeypatch.context() as patched:
        count_steps(patched, kill_at)
        with pytest.raises(Killed):
            fitted(past, tmp_path)
    steps = count_steps(monkeypatch)
    assert equal(fitted(past, tmp_path), uninterrupted)
    assert steps() == 2 * 4 - (kill_at - 1)


def test_a_finished_run_is_not_computed_again(
    past: Past, uninterrupted: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted(past, tmp_path)
    steps = count_steps(monkeypatch)
    assert equal(fitted(past, tmp_path), uninterrupted)
    assert steps() == 0


def test_how_often_checkpoints_are_written_changes_nothing(
    past: Past, uninterrupted: dict[str, Tensor], tmp_path: Path
) -> None:
    never = msgspec.structs.replace(RECIPE, fit=msgspec.structs.replace(RECIPE.fit, checkpoint_seconds=1e9))
    assert equal(fitted(past, tmp_path, never), uninterrupted)
    assert not list(tmp_path.iterdir())


def test_fitting_learns_what_customers_buy(past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = fitting.sampled_softmax
    losses: list[Tensor] = []

    def noted(*arguments: Tensor) -> Tensor:
        losses.append(found := loss(*arguments))
        return found

    monkeypatch.setattr(fitting, "sampled_softmax", noted)
    fitted(
        past,
        tmp_path,
        msgspec.structs.replace(
            RECIPE, fit=FitConfig(epochs=30, least_steps=0, baskets_a_batch=64, learning_rate=5e-3)
        ),
    )
    assert torch.stack(losses[-4:]).mean() < 0.8 * torch.stack(losses[:4]).mean()


def test_als_is_deterministic_and_knows_nothing_of_what_nobody_bought(past: Past) -> None:
    again = fit_als(past.histories, len(past.catalogue.products.ids), RECIPE)
    assert np.array_equal(again.products_ND, past.als.products_ND)
    assert np.array_equal(again.customers_CD, past.als.customers_CD)
    assert past.als.products_ND.shape == (122, 8)
    assert past.als.customers_CD.shape == (120, 8)
    unbought = ~past.trained_N
    assert unbought.any()
    assert not past.als.products_ND[unbought].any()
    assert past.als.products_ND[~unbought].any(axis=1).all()


def test_where_repeats_are_rare_towers_start_as_a_step_of_als(past: Past, tmp_path: Path) -> None:
    count, length = len(past.catalogue.products.ids), RECIPE.towers.history_length
    als = fit_als(past.histories, count, RECIPE, novel=True)
    still = replace(RECIPE, fit=replace(RECIPE.fit, learning_rate=1e-9))  # what it starts as is what comes out
    situated = Ways(past.catalogue, RECIPE.ways).situation
    towers, _ = fit(
        past.catalogue, past.trained_N, past.histories, als.products_ND, still, CPU, tmp_path, situated, novel=True
    )
    vectors_ND = product_vectors(towers, past.catalogue.products, past.trained_N, CPU)
    baskets = Baskets.of(past.histories)
    row = int(np.flatnonzero(baskets.starts_S >= length)[0])
    found = baskets.encode(np.array([row]), past.histories, length, situated, np.random.default_rng(0))
    history_BLD = torch.as_tensor(gather(vectors_ND, found.products_BL))
    with torch.inference_mode():
        customer_D = towers.customer(history_BLD, *customer_tensors(found, CPU))[0].numpy()
    gram_DD = als.products_ND.T @ als.products_ND + als_regularisation(RECIPE, novel=True) * np.eye(8)
    step_D = np.linalg.solve(gram_DD, als.products_ND[found.products_BL[0]].sum(0))
    scores_N, expected_N = (vectors_ND @ customer_D)[past.trained_N], (als.products_ND @ step_D)[past.trained_N]
    scale = scores_N @ expected_N / (expected_N @ expected_N)
    assert scale > 0
    np.testing.assert_allclose(scores_N, scale * expected_N, atol=1e-3 * np.abs(scores_N).max())


def test_where_repeats_are_rare_a_purchase_counts_for_more_in_als(past: Past) -> None:
    owners = np.repeat(np.arange(len(past.histories.customers)), np.diff(past.histories.offsets))
    bought, _ = past.histories.bought()
    rows = past.histories.events["product"][bought]

    def said(als: Factors) -> float:
        """How near the products that customers bought come to 1."""
        return float((als.customers_CD[owners[bought]] * als.products_ND[rows]).sum(1).mean())

    trusting = fit_als(past.histories, len(past.catalogue.products.ids), RECIPE, novel=True)
    assert said(trusting) > said(past.als)


def test_products_that_nobody_bought_are_placed_by_their_attributes_alone(past: Past) -> None:
    torch.manual_seed(1)
    towers = Towers(past.catalogue, past.histories, RECIPE)
    before = product_vectors(towers, past.catalogue.products, past.trained_N, CPU)
    with torch.no_grad():
        towers.product.ids.weight += 1
    moved = (product_vectors(towers, past.catalogue.products, past.trained_N, CPU) != before).any(axis=1)
    assert np.array_equal(moved, past.trained_N)


class Asked(NamedTuple):
    """What a run asks for to be fitted."""

    catalogue: Catalogue
    trained_N: NDArray[np.bool_]
    histories: Histories
    als_ND: NDArray[np.float32]
    recipe: Recipe
    device: torch.device
    checkpoints: Path


def asked(folder: Path, store: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe = RECIPE) -> Asked:
    found: list[Asked] = []

    def noted(*arguments: Any, **_: Any) -> None:
        found.append(Asked(*arguments[: len(Asked._fields)]))
        raise Killed

    monkeypatch.setattr("training.stages.Stages.rankers", Mock())
    monkeypatch.setattr("training.stages.fit", noted)
    with pytest.raises(Killed):
        run(str(folder), store, recipe, until=UNTIL, device="cpu", gated=True)
    return found[0]


def test_fitting_sees_nothing_of_the_validation_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    window = UNTIL - timedelta(days=RECIPE.validation_days)
    events = tables()["events"]
    folder = write_world(tmp_path / "world")
    first = asked(folder, tmp_path / "store", monkeypatch)
    elsewhere = events.with_columns(
        product_id=pl.when(pl.col("at") >= window).then(pl.lit("unsold")).otherwise("product_id"),
        location=pl.when(pl.col("at") >= window).then(pl.lit("pole")).otherwise("location"),
    )
    elsewhere.write_parquet(folder / "events.parquet")
    second = asked(folder, tmp_path / "store", monkeypatch)
    assert first.histories.events["at"].max() < window.timestamp()
    assert np.array_equal(first.histories.events, second.histories.events)
    assert np.array_equal(first.als_ND, second.als_ND)
    assert np.array_equal(first.trained_N, second.trained_N)
    one, other = first.catalogue.locations, second.catalogue.locations
    assert np.array_equal(one.assortment.values, other.assortment.values)
    assert first.checkpoints == second.checkpoints


def test_validation_knows_what_was_promoted_in_its_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = asked(write_world(tmp_path / "world"), tmp_path / "store", monkeypatch).catalogue
    assert catalogue.promotions.starts_G.min() == (UNTIL - timedelta(days=14)).timestamp()


def test_a_checkpoint_is_found_again_by_the_very_same_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = tables()
    first_at = world["events"]["at"].min()
    changes: dict[str, tuple[str, pl.Expr]] = {
        "another event": ("events", pl.col("at").replace(first_at, UNTIL - timedelta(days=200))),
        "another price": ("products", pl.col("price") + 1),
        "another brand": ("products", pl.col("brand").fill_null("b1")),
        "another segment": ("customers", pl.col("segment").fill_null("s1")),
    }
    other_recipe = msgspec.structs.replace(RECIPE, seed=2)
    folder = write_world(tmp_path / "world")
    first = asked(folder, tmp_path / "store", monkeypatch).checkpoints
    assert first.is_relative_to(tmp_path / "store")
    assert asked(folder, tmp_path / "store", monkeypatch).checkpoints == first
    found = {first, asked(folder, tmp_path / "store", monkeypatch, other_recipe).checkpoints}
    for table, change in changes.values():
        world[table].with_columns(change).write_parquet(folder / f"{table}.parquet")
        found.add(asked(folder, tmp_path / "store", monkeypatch).checkpoints)
        world[table].write_parquet(folder / f"{table}.parquet")
    world["products"].vstack(world["products"].tail(1).with_columns(product_id=pl.lit("new"))).write_parquet(
        folder / "products.parquet"
    )
    found.add(asked(folder, tmp_path / "store", monkeypatch).checkpoints)
    assert len(found) == 3 + len(changes)
    write_world(folder)
    assert asked(folder, tmp_path / "store", monkeypatch).checkpoints == first


def test_towers_are_taken_up_by_a_run_that_differs_in_what_they_do_not_depend_on(past: Past) -> None:
    def key(recipe: Recipe = RECIPE, histories: Histories = past.histories) -> str:
        return fingerprint(recipe, histories, past.catalogue, past.trained_N, CPU)

    same = replace(RECIPE, ranker=replace(RECIPE.ranker, epochs=9, window_days=7), validation_days=3, keep_versions=9)
    assert key(same) == key()
    others = [
        replace(RECIPE, seed=RECIPE.seed + 1),
        replace(RECIPE, towers=replace(RECIPE.towers, history_length=3)),
        replace(RECIPE, als=replace(RECIPE.als, iterations=3)),
        replace(RECIPE, fit=replace(RECIPE.fit, epochs=7)),
    ]
    shorter = past.histories.before(int(UNTIL.timestamp()) - 9 * 86_400)
    paused = dataclasses.replace(past.histories, visit_pause=60)
    keys = [key(), *map(key, others), key(histories=shorter), key(histories=paused)]
    assert len(set(keys)) == len(keys)
