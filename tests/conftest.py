"""What several suites share: the small world, trained and published once a run."""

import os
from pathlib import Path

# Before torch is there: a thread of its that waits would spin, and keep those of the other tests from running.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hypothesis
import msgspec
import pytest
import torch

from embeddings.release.bundle import Manifest
from embeddings.release.store import BundleStore
from tests.world import UNTIL, write_world
from training.config import RECIPES, FitConfig, RankerConfig, Recipe, TowersConfig, read_recipe
from training.job import run

# A busy machine is no fault of what is tested.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the small world's tables."""
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """The default recipe, made small."""
    return msgspec.structs.replace(
        read_recipe(RECIPES / "default.toml"),
        validation_days=14,
        stale_after_days=36_500.0,  # the world is of 2025, whenever it is served
        towers=TowersConfig(dimensions=16, history_length=16, heads=2),
        fit=FitConfig(epochs=4, least_steps=0, baskets_a_batch=64, uniform_negatives=32, learning_rate=5e-3),
        ranker=RankerConfig(
            widths=(32, 16),
            windows=3,
            window_days=14,
            type_attribute="brand",
            category_attribute="department",
            epochs=5,
            least_steps=0,
            examples_a_batch=16,
        ),
    )


@pytest.fixture(scope="session")
def published(world: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[BundleStore, Manifest]:
    """A store with one release, trained on the small world until ``UNTIL``. Read-only: copy it to change it."""
    torch.set_num_threads(1)  # so small a model is fitted many times faster without threads
    folder = tmp_path_factory.mktemp("store")
    manifest = run(str(world), folder, recipe, until=UNTIL, device="cpu", gated=True)
    return BundleStore(folder), manifest
