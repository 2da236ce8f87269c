"""A run through the command line, from a small file to a release whose vectors answer."""

import itertools
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embeddings.catalogue.columns import Catalogue
from embeddings.customer.tower_input import Situation, encode, situation_sizes
from embeddings.errors import InvalidInput, RefusedByGate
from embeddings.release.bundle import (
    CATALOG,
    CURVES,
    CUSTOMER_ENCODER,
    PRODUCT_VECTORS,
    SIMILAR_VECTORS,
    Manifest,
    open_histories,
    read_manifest,
    verify,
)
from embeddings.release.encoders import CustomerEncoder
from embeddings.release.store import BundleStore
from training.config import RECIPES
from training.interactions import job
from training.interactions.config import FactorsRecipe, Recipe, SequencesRecipe, read_recipe
from training.interactions.factors import Factors
from training.interactions.files import Interactions, Split, read, read_part
from training.interactions.fit import Metrics
from training.interactions.model import Model, Vectors

pytestmark = pytest.mark.usefixtures("one_thread")
UNTIL = datetime(2026, 1, 1, tzinfo=UTC)
GROUPS, IN_A_GROUP = 4, 12
FACTORS = """
model = "factors"
hops = 1
dimensions = 8
history_length = 6
[loss]
temperature = 0.2
negatives = 32
[fit]
epochs = 4
patience = 2
customers_a_batch = 16
learning_rate = 0.05
"""
SASREC = """
model = "sasrec"
dimensions = 8
history_length = 6
layers = 1
[loss]
temperature = 0.2
negatives = 32
[fit]
epochs = 8
patience = 8
customers_a_batch = 8
learning_rate = 0.05
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Customers who each keep to a group of products, and go round in it."""
    random = np.random.default_rng(3)
    lines: list[str] = []
    for customer in range(80):
        first, size = int(random.integers(IN_A_GROUP)), int(random.integers(5, 9))
        products = [f"g{customer % GROUPS}-{(first + step) % IN_A_GROUP}" for step in range(size)]
        lines.append(f"customer-{customer} {' '.join(products)}\n")
    path = tmp_path_factory.mktemp("data") / "file.txt"
    path.write_text("".join(lines))
    return path


def recipe(folder: Path, text: str) -> Recipe:
    path = folder / "recipe.toml"
    path.write_text(text)
    return read_recipe(path)


class Reached(BaseException):
    """A run has come to where it would export this model."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.vectors = model.vectors()


@pytest.fixture
def _no_export(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """Writing a release takes longer than all else."""

    def reached(_staged: Path, model: Model, *_rest: Any, **_more: Any) -> None:
        raise Reached(model)

    monkeypatch.setattr(job, "export", reached)


ASKED: dict[str, Any] = {"validation": None, "until": UNTIL, "device": "cpu", "gated": True}


def ran(data: Path, kind: str, folder: Path, **asked: Any) -> Manifest:
    folder.mkdir(exist_ok=True)
    text = FACTORS if kind == "interactions" else SASREC
    return job.run(f"{kind}:{data}", folder / "store", recipe(folder, text), **ASKED | asked)


def through_the_command_line(data: Path, folder: Path) -> str:
    (folder / "recipe.toml").write_text(FACTORS)
    command = [sys.executable, "-m", "training", "--data", f"interactions:{data}", "--store", str(folder / "store")]
    command += ["--recipe", str(folder / "recipe.toml"), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "what libraries say is not for whoever trains"
    assert "faiss" not in done.stdout
    version = BundleStore(folder / "store").current()
    assert f"published {version}" in done.stdout
    return version


@pytest.mark.parametrize("kind", ["interactions", "sequences"])
def test_a_file_becomes_a_release_whose_vectors_answer(data: Path, tmp_path: Path, kind: str) -> None:
    version = through_the_command_line(data, tmp_path) if kind == "interactions" else ran(data, kind, tmp_path).version
    store = tmp_path / "store"
    releases = BundleStore(store)
    assert releases.current() == version
    assert not list((store / "runs").glob("*/"))

    bundle = releases.bundle(version)
    manifest = read_manifest(bundle)
    verify(bundle, manifest)
    catalogue = Catalogue.load(bundle / CATALOG)
    products_NV = np.load(bundle / PRODUCT_VECTORS)
    units_ND = np.load(bundle / SIMILAR_VECTORS)
    np.testing.assert_allclose(np.linalg.norm(units_ND, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(
        (units_ND * products_NV[:, :-1]).sum(1), np.linalg.norm(products_NV[:, :-1], axis=1), rtol=1e-5
    )
    _, histories = open_histories(releases.histories(version))
    whole = read(data, "interactions" if kind == "interactions" else "sequences")
    assert tuple(catalogue.products.ids.ids()) == whole.products
    assert tuple(histories.customers.ids()) == whole.customers
    assert histories.events["product"].tolist() == whole.rows.values.tolist()
    assert (histories.events["at"] < manifest.data_cut_off.timestamp()).all()
    (name,) = manifest.metrics.keys() - {"popular"}
    assert name == ("lightgcn" if kind == "interactions" else "sasrec")
    validated, again = manifest.curves[name], manifest.curves[f"{name} on everything"]
    assert manifest.metrics[name] in [one.metrics for one in validated]
    assert [one.metrics for one in again] == [{}] * len(again)
    assert (bundle / CURVES).read_bytes().startswith(b"\x89PNG")

    # Everybody is led to their own group, by the service's encoder and by the vectors beside the histories.
    customers_CV = np.load(releases.histories(version) / "vectors.npy")
    length = manifest.history_length
    situations = [Situation(0, -1, 0)] * len(whole.customers)
    tower_input = encode([histories[row] for row in range(len(whole.customers))], situations, length)
    sizes = situation_sizes(Catalogue.load(bundle / CATALOG))
    encoder = CustomerEncoder(bundle / CUSTOMER_ENCODER, "cpu", sizes)
    encoded_CV = encoder.encode(tower_input, products_NV)
    if kind == "sequences":
        np.testing.assert_allclose(encoded_CV, customers_CV, atol=1e-4)
    for vectors_CV in (encoded_CV, customers_CV):
        found = (vectors_CV @ products_NV.T).argmax(1)
        groups = [whole.products[row].partition("-")[0] for row in found.tolist()]
        right = [group == f"g{customer % GROUPS}" for customer, group in enumerate(groups)]
        assert np.mean(right) > 0.9


@pytest.mark.usefixtures("_no_export")
def test_validation_never_sees_what_is_fitted_and_the_end_is_fitted_on_everything(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = tmp_path / "validation.txt"
    held.write_text("".join(f"{line.split()[0]} {line.split()[2]}\n" for line in data.read_text().splitlines()))
    made, asked = list[Interactions](), list[Split]()
    model, validated = job.Factors, job.validate

    def making(interactions: Interactions, recipe: FactorsRecipe, device: torch.device) -> Factors:
        made.append(interactions)
        return model(interactions, recipe, device)

    def validating(found: Vectors, parts: Split, k: int) -> Metrics:
        asked.append(parts)
        return validated(found, parts, k)

    monkeypatch.setattr(job, "Factors", making)
    monkeypatch.setattr(job, "validate", validating)
    with pytest.raises(Reached):
        ran(data, "interactions", tmp_path, validation=held)
    first, last = made
    whole = read(data, "interactions")
    assert all(parts.fit is first for parts in asked)
    assert all(parts.held_out.rows.values.tolist() == read_part(held, whole).rows.values.tolist() for parts in asked)
    for customer in range(len(whole.customers)):
        kept, out = first.rows[customer].tolist(), asked[0].held_out.rows[customer].tolist()
        assert len(out) == 1
        assert sorted(kept + out) == last.rows[customer].tolist() == whole.rows[customer].tolist()


@pytest.mark.usefixtures("_no_export")
def test_killed_while_fitting_on_everything_it_goes_on_to_the_same_vectors(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Reached) as whole:
        ran(data, "interactions", tmp_path / "whole")
    loss = Factors.loss
    steps = itertools.count(1)

    def counted(self: Factors, epoch: int, step: int) -> torch.Tensor:
        if next(steps) == 4 * 5 + 2:  # all epochs of validation, and a step more
            raise KeyboardInterrupt
        return loss(self, epoch, step)

    with monkeypatch.context() as patched:
        patched.setattr(Factors, "loss", counted)
        with pytest.raises(KeyboardInterrupt):
            ran(data, "interactions", tmp_path / "killed")
    assert list((tmp_path / "killed" / "store" / "runs").glob("*/*/checkpoint.safetensors"))
    with pytest.raises(Reached) as continued:
        ran(data, "interactions", tmp_path / "killed")
    for one, other in zip(continued.value.vectors, whole.value.vectors, strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.usefixtures("_no_export")
def test_of_a_customer_who_took_every_product_the_loss_stays_finite(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = " ".join(f"g{group}-{one}" for group in range(GROUPS) for one in range(IN_A_GROUP))
    more = tmp_path / "more.txt"
    more.write_text(f"{data.read_text()}all {everything}\n")
    loss, losses = Factors.loss, list[float]()

    def noted(self: Factors, epoch: int, step: int) -> torch.Tensor:
        found = loss(self, epoch, step)
        losses.append(found.item())
        return found

    monkeypatch.setattr(Factors, "loss", noted)
    with pytest.raises(Reached) as reached:
        ran(more, "interactions", tmp_path / "run")
    assert np.isfinite(losses).all()
    assert all(np.isfinite(one).all() for one in reached.value.vectors)


def test_the_wrong_recipe_or_split_for_the_data_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="expected interactions:FILE"):
        job.run(f"sequences:{data}", tmp_path, recipe(tmp_path, FACTORS), **ASKED)
    with pytest.raises(InvalidInput, match="expected none for sequences"):
        ran(data, "sequences", tmp_path, validation=data)
    assert not (tmp_path / "staging").exists()


@pytest.mark.usefixtures("_no_export")
def test_a_model_worse_than_popularity_is_refused_unless_it_may_pass(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody_predicted(found: Vectors, _parts: Split, k: int) -> Metrics:
        return {f"recall@{k}": 0.0, f"ndcg@{k}": 0.1 if found.products_NV.shape[1] == 1 else 0.0}

    monkeypatch.setattr(job, "validate", nobody_predicted)
    with pytest.raises(RefusedByGate, match=r"0\.0000 in validation, less than popularity's 0\.1000"):
        ran(data, "interactions", tmp_path)
    assert not (tmp_path / "store" / "CURRENT").exists()
    with pytest.raises(Reached):
        ran(data, "interactions", tmp_path, gated=False)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (FACTORS + "depth = 3\n", "depth"),
        (FACTORS.replace("factors", "trees"), "trees"),
        (FACTORS.replace("hops = 1", "hops = 2"), "hops"),
        (SASREC.replace("dimensions = 8", "dimensions = 7"), "heads"),
        (SASREC.replace("layers = 1", "smoothing = 1.5"), "smoothing"),
    ],
)
def test_a_wrong_recipe_is_refused_by_its_key(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem):
        recipe(tmp_path, text)


def test_the_recipes_that_come_with_it_are_read() -> None:
    files = {
        "lightgcn.toml": "lightgcn",
        "matrix-factorisation.toml": "matrix-factorisation",
        "sasrec.toml": "sasrec",
    }
    for file, name in files.items():
        found = read_recipe(RECIPES / file)
        assert found.name == name
        assert isinstance(found, SequencesRecipe if name == "sasrec" else FactorsRecipe)
    assert set(job.DEFAULT_RECIPES.values()) <= set(files)
