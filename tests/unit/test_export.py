"""What an export promises: the same vectors as torch, whatever the shapes, and plain files that name nobody."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from embeddings.bundle import IVF_INDEX, Manifest, ModelBundle, open_histories, read_manifest
from embeddings.catalog import Catalog, ChannelRule
from embeddings.encoders import CustomerEncoder, ProductEncoder
from embeddings.features import TowerInput, gather
from embeddings.history import Histories
from embeddings.index.exact import ExactIndex
from embeddings.index.plan import MEASURED
from embeddings.index.planned import PlannedIndex
from embeddings.scoring import ScoreParameters
from embeddings.tables import TABLES
from tests.world import UNTIL, tables
from training import export as exporting
from training.catalogue import master_catalog, observe
from training.config import Recipe, TowersConfig
from training.datasets.frames import GivenTable, as_of, assemble
from training.evaluate import Evaluation
from training.export import PARITY, ParityError, export
from training.fit import Towers, customer_tensors
from training.histories import read_histories

LENGTH, D = 8, 8
RECIPE = Recipe(
    channels={"store": ChannelRule.ASSORTMENT, "mailer": ChannelRule.PROMOTED, "email": ChannelRule.EVERYTHING},
    towers=TowersConfig(dimensions=D, history_length=LENGTH, heads=2),
)
EVALUATION = Evaluation({"popular": {"ndcg@10": 0.25}, "served": {"ndcg@10": 0.5}}, ScoreParameters(0.9, 1.5, 0.2))


class Exported(NamedTuple):
    staged: Path
    towers: Towers
    catalog: Catalog
    histories: Histories
    manifest: Manifest


def export_to(staged: Path, towers: Towers, catalog: Catalog, histories: Histories) -> Exported:
    (staged / "bundle").mkdir()
    (staged / "histories").mkdir()
    notes = ("a note",)
    manifest = export(staged, towers, catalog, histories, EVALUATION, RECIPE, until=UNTIL, data="world", notes=notes)
    return Exported(staged, towers, catalog, histories, manifest)


def randomised(towers: Towers) -> Towers:
    """Towers all of whose parameters matter, as they do after fitting."""
    torch.manual_seed(1)
    for parameter in towers.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return towers.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Towers that were not fitted, exported for a world whose first customers did next to nothing."""
    frames = tables()
    known = "customer-" + pl.col("customer_id")
    frames |= {name: frames[name].with_columns(customer_id=known) for name in ("customers", "events")}
    frames["events"] = pl.concat([one.head(1) for one in frames["events"].partition_by("customer_id")])
    dataset = as_of(assemble("world", (GivenTable(one, one.name, frames[one.name].lazy()) for one in TABLES)), UNTIL)
    catalog = master_catalog(dataset, RECIPE, UNTIL)
    histories = read_histories(dataset, catalog)
    catalog = observe(catalog, histories.events, int(UNTIL.timestamp()), RECIPE.assortment)
    towers = randomised(Towers(catalog, histories, RECIPE))
    return export_to(tmp_path_factory.mktemp("staged"), towers, catalog, histories)


def random_input(random: np.random.Generator, catalog: Catalog, batch: int, length: int) -> TowerInput:
    lengths_B1 = random.integers(0, length + 1, (batch, 1))
    lengths_B1[0] = length
    real_BL = np.arange(length) < lengths_B1
    contexts = (len(catalog.channels), len(catalog.locations.ids), 7, 24)
    return TowerInput(
        products_BL=np.where(real_BL, random.integers(0, len(catalog.products.ids), (batch, length)), -1),
        types_BL=np.where(real_BL, random.integers(1, 8, (batch, length)), 0),
        ages_BL=np.where(real_BL, random.random((batch, length)) * 9, 0).astype(np.float32),
        attributes_BA=random.integers(0, 5, (batch, 1)),
        context_BC=np.stack([random.integers(0, codes + 1, batch) for codes in contexts], axis=1),
    )


@pytest.mark.parametrize("batch", [1, 2, 33])
@pytest.mark.parametrize("length", [1, 2, LENGTH, 3 * LENGTH])
def test_the_customer_encoder_computes_what_torch_does(exported: Exported, batch: int, length: int) -> None:
    tower_input = random_input(np.random.default_rng([batch, length]), exported.catalog, batch, length)
    vectors_ND = np.load(exported.staged / "bundle" / "vectors" / "products.npy")
    found_BD = CustomerEncoder(exported.staged / "bundle" / "customer.onnx", "cpu").encode(tower_input, vectors_ND)
    history_BLD = torch.as_tensor(gather(vectors_ND, tower_input.products_BL))
    with torch.inference_mode():
        expected_BD = exported.towers.customer(history_BLD, *customer_tensors(tower_input, torch.device("cpu")))
    assert np.abs(found_BD - expected_BD.numpy()).max() <= PARITY
    assert batch == 1 or not np.allclose(found_BD[0], found_BD[1], atol=PARITY)


@pytest.mark.parametrize("count", [1, 2, 99])
def test_the_product_encoder_computes_what_torch_does(exported: Exported, count: int) -> None:
    random = np.random.default_rng(count)
    sizes = exported.catalog.products.attributes.sizes
    rows = random.integers(-1, len(exported.catalog.products.ids), count)
    attributes = np.stack([random.integers(0, size, count) for size in sizes], axis=1)
    price = np.where(random.random(count) < 0.3, np.nan, random.random(count) * 50).astype(np.float32)
    found_KD = ProductEncoder(exported.staged / "bundle" / "product.onnx", "cpu").encode(rows, attributes, price)
    with torch.inference_mode():
        expected_KD = exported.towers.product(*map(torch.as_tensor, (rows, attributes, price)))
    assert np.abs(found_KD - expected_KD.numpy()).max() <= PARITY


@pytest.mark.parametrize("changed", ["product", "customer"])
def test_an_encoder_that_computes_something_else_is_refused(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    towers = Towers(exported.catalog, exported.histories, RECIPE)
    towers.load_state_dict(exported.towers.state_dict())

    def exported_before(module: torch.nn.Module, *arguments: object) -> None:
        path = arguments[-1]
        assert isinstance(path, Path)
        shutil.copy(exported.staged / "bundle" / path.name, path)
        if path.name == f"{changed}.onnx":
            with torch.no_grad():
                module.get_submodule("mix.2").get_parameter("bias")[0] += 3 * PARITY

    monkeypatch.setattr(exporting, "_to_onnx", exported_before)
    with pytest.raises(ParityError, match=rf"{changed}\.onnx differs from torch by 3\..e-04, more than 1e-04"):
        export_to(tmp_path, towers, exported.catalog, exported.histories)


def load(exported: Exported, name: str) -> NDArray[np.float32]:
    return np.load(exported.staged / "bundle" / "vectors" / f"{name}.npy")


def test_vectors_are_those_of_products_of_length_one_and_of_offers(exported: Exported) -> None:
    vectors_ND, units_ND, offers_OD = (load(exported, name) for name in ("products", "products-unit", "offers"))
    assert vectors_ND.shape == (122, D)
    np.testing.assert_allclose(np.linalg.norm(units_ND, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose((units_ND * vectors_ND).sum(1), np.linalg.norm(vectors_ND, axis=1), rtol=1e-5)
    for row in range(len(exported.catalog.offers.ids)):
        covered = exported.catalog.offers.products[row]
        np.testing.assert_allclose(offers_OD[row], vectors_ND[covered].mean(axis=0), atol=1e-6)


def test_the_manifest_says_what_the_release_is(exported: Exported) -> None:
    manifest = read_manifest(exported.staged / "bundle")
    assert msgspec.structs.replace(manifest, seal="") == exported.manifest
    assert manifest.data_cut_off == UNTIL
    assert UNTIL < manifest.created_at <= datetime.now(UTC)
    assert (manifest.data, manifest.notes, manifest.seed) == ("world", ("a note",), 1)
    assert (manifest.dimensions, manifest.history_length) == (D, LENGTH)
    assert manifest.score == EVALUATION.score
    assert manifest.metrics == EVALUATION.metrics
    assert manifest.recipe == msgspec.to_builtins(RECIPE)
    trained = int(exported.catalog.products.trained_N.sum())
    assert manifest.counts == {
        "products": 122,
        "products_sold": trained,
        "locations": 6,
        "locations_known": 2,
        "offers": 6,
        "customers": 120,
        "events": 120,
    }
    assert 0 < trained < 122
    for library in ("torch", "numpy", "onnx", "onnxruntime", "polars", "implicit"):
        assert manifest.libraries[library] == version(library)
    assert "faiss" in manifest.libraries


def test_the_files_are_listed_open_and_nothing_is_pickled(exported: Exported) -> None:
    for folder in ("bundle", "histories"):
        files = [path for path in (exported.staged / folder).rglob("*") if path.is_file()]
        assert {path.suffix for path in files} <= {".npy", ".json", ".onnx", ".faiss"}
        for path in files:
            if path.suffix == ".npy":
                np.load(path, allow_pickle=False)
    bundle = ModelBundle.open(exported.staged / "bundle", "cpu", 2**20)
    assert bundle.products.search(load(exported, "products")[:1], 3, [None]).rows_BK.shape == (1, 3)
    manifest, histories = open_histories(exported.staged / "histories")
    assert manifest.version == bundle.manifest.version
    assert np.array_equal(histories.events, exported.histories.events)


def test_a_large_catalogue_is_also_cut_into_cells(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert IVF_INDEX not in exported.manifest.files
    at_any_size = replace(MEASURED, ivf_rows=1)
    monkeypatch.setattr(exporting, "MEASURED", at_any_size)
    _, towers, catalog, histories, _ = exported
    found = export_to(tmp_path, towers, catalog, histories)
    assert found.manifest.files.keys() - exported.manifest.files.keys() == {IVF_INDEX, "products.ivf.radii.npy"}
    monkeypatch.setattr("embeddings.bundle.PlannedIndex", partial(PlannedIndex, costs=at_any_size))
    bundle = ModelBundle.open(tmp_path / "bundle", "cpu", 2**20)
    products = bundle.products.search(load(found, "products")[:1], 3, [None])
    assert products.plans_B == ("ivf",)
    np.testing.assert_array_equal(
        products.rows_BK, ExactIndex(load(found, "products")).search(load(found, "products")[:1], 3, [None]).rows_BK
    )


def test_the_bundle_names_no_customer_and_the_histories_do(exported: Exported) -> None:
    assert b"customer-c017" in (exported.staged / "histories" / "ids-text.npy").read_bytes()
    for path in (exported.staged / "bundle").rglob("*"):
        assert path.is_dir() or b"customer-c" not in path.read_bytes()
