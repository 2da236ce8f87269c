"""What an export promises: the same vectors as torch, whatever the shapes, and plain files that name nobody."""

import shutil
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
import polars as pl
import pytest
import torch
from numpy.typing import NDArray

from embeddings.catalogue.columns import Catalogue, ChannelRule
from embeddings.customer.history import Histories
from embeddings.customer.tower_input import TowerInput, gather, situation_sizes
from embeddings.index.exact import ExactIndex
from embeddings.ranking.features import RANKER_FEATURES
from embeddings.ranking.statistics import Statistics
from embeddings.release.bundle import IVF_INDEX, Epochs, Manifest, ModelBundle, open_histories, read_manifest
from embeddings.release.encoders import CustomerEncoder, ProductEncoder, RankerSession
from tests.arrays import arrays_of
from tests.world import UNTIL, dataset_of, tables
from training import export as exporting
from training.catalogue import master_catalogue
from training.config import Recipe, TowersConfig
from training.export import PARITY, ParityError, Release, export
from training.fit import Towers, customer_tensors, fit_als
from training.histories import read_histories
from training.observed import observe
from training.offer_ranker import OfferRanker
from training.ranker import Ranker, Rankers
from training.redemption import Redemption
from training.statistics import count, find_nearby

LENGTH, D = 8, 8
RECIPE = Recipe(
    channels={"store": ChannelRule.ASSORTMENT, "mailer": ChannelRule.PROMOTED, "email": ChannelRule.EVERYTHING},
    towers=TowersConfig(dimensions=D, history_length=LENGTH, heads=2),
)
METRICS = {"popular": {"ndcg@10": 0.25}, "served": {"ndcg@10": 0.5}}
CURVES = {
    "towers": [Epochs(1, 99, 0.5, 2.5, {"ndcg@10": 0.2}), Epochs(2, 198, 1.1, 2.0, {"ndcg@10": 0.3})],
    "ranker": [Epochs(1, 7, 0.1, 1.5, {})],
}


Module = TypeVar("Module", bound=torch.nn.Module)


class Exported(NamedTuple):
    staged: Path
    release: Release
    manifest: Manifest

    @property
    def towers(self) -> Towers:
        return self.release.towers

    @property
    def catalogue(self) -> Catalogue:
        return self.release.catalogue

    @property
    def histories(self) -> Histories:
        return self.release.histories


def export_to(staged: Path, release: Release) -> Exported:
    (staged / "bundle").mkdir()
    (staged / "histories").mkdir()
    notes = ("a note",)
    manifest = export(staged, release, RECIPE, until=UNTIL, data="world", notes=notes)
    return Exported(staged, release, manifest)


def randomised(module: Module) -> Module:
    """A network all of whose parameters matter, as they do after fitting."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.eval()


def randomised_ranker() -> Ranker:
    ranker = randomised(Ranker((16, 8)))
    ranker.mean.normal_()
    ranker.spread.uniform_(0.1, 1)
    ranker.calibration.copy_(torch.tensor([0.7, -0.4]))
    return ranker


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Towers that were not fitted, exported for a world whose first customers did next to nothing."""
    frames = tables()
    known = "customer-" + pl.col("customer_id")
    frames |= {name: frames[name].with_columns(customer_id=known) for name in ("customers", "events")}
    frames["events"] = pl.concat([one.head(1) for one in frames["events"].partition_by("customer_id")])
    dataset = dataset_of(frames)
    catalogue = master_catalogue(dataset, RECIPE, UNTIL)
    histories = read_histories(dataset, catalogue, 0)
    moment = int(UNTIL.timestamp())
    catalogue, observed = observe(catalogue, histories.events, moment, RECIPE.assortment)
    als = fit_als(histories, len(catalogue.products.ids), RECIPE)
    nearby = find_nearby(histories, catalogue, als.products_ND, RECIPE.als.regularisation, RECIPE.ranker)
    statistics = count(histories, catalogue, observed, moment, nearby, RECIPE.ranker)
    towers = randomised(Towers(catalogue, histories, RECIPE))
    return export_to(
        tmp_path_factory.mktemp("staged"),
        Release(
            towers,
            Rankers(randomised_ranker(), randomised_ranker(), 30.0),
            OfferRanker().eval(),
            Redemption(0.1).eval(),
            catalogue,
            statistics,
            histories,
            METRICS,
            CURVES,
        ),
    )


def random_input(random: np.random.Generator, catalogue: Catalogue, batch: int, length: int) -> TowerInput:
    lengths_B1 = random.integers(0, length + 1, (batch, 1))
    lengths_B1[0] = length
    real_BL = np.arange(length) < lengths_B1
    contexts = (len(catalogue.channels), len(catalogue.locations.ids), 7, 24)
    return TowerInput(
        products_BL=np.where(real_BL, random.integers(0, len(catalogue.products.ids), (batch, length)), -1),
        types_BL=np.where(real_BL, random.integers(1, 8, (batch, length)), 0),
        ages_BL=np.where(real_BL, random.random((batch, length)) * 9, 0).astype(np.float32),
        attributes_BA=random.integers(0, 5, (batch, 1)),
        context_BC=np.stack([random.integers(0, codes + 1, batch) for codes in contexts], axis=1),
    )


@pytest.mark.parametrize("batch", [1, 2, 33])
@pytest.mark.parametrize("length", [1, 2, LENGTH, 3 * LENGTH])
def test_the_customer_encoder_computes_what_torch_does(exported: Exported, batch: int, length: int) -> None:
    tower_input = random_input(np.random.default_rng([batch, length]), exported.catalogue, batch, length)
    vectors_ND = np.load(exported.staged / "bundle" / "vectors" / "products.npy")
    sizes = situation_sizes(exported.catalogue)
    encoder = CustomerEncoder(exported.staged / "bundle" / "customer.onnx", "cpu", sizes)
    found_BD = encoder.encode(tower_input, vectors_ND)
    history_BLD = torch.as_tensor(gather(vectors_ND, tower_input.products_BL))
    with torch.inference_mode():
        expected_BD = exported.towers.customer(history_BLD, *customer_tensors(tower_input, torch.device("cpu")))
    assert np.abs(found_BD - expected_BD.numpy()).max() <= PARITY
    assert batch == 1 or not np.allclose(found_BD[0], found_BD[1], atol=PARITY)


@pytest.mark.parametrize("count", [1, 2, 99])
def test_the_product_encoder_computes_what_torch_does(exported: Exported, count: int) -> None:
    random = np.random.default_rng(count)
    sizes = exported.catalogue.products.attributes.sizes
    rows = random.integers(-1, len(exported.catalogue.products.ids), count)
    attributes = np.stack([random.integers(0, size, count) for size in sizes], axis=1)
    price = np.where(random.random(count) < 0.3, np.nan, random.random(count) * 50).astype(np.float32)
    found_KD = ProductEncoder(exported.staged / "bundle" / "product.onnx", "cpu", sizes).encode(rows, attributes, price)
    with torch.inference_mode():
        expected_KD = exported.towers.product(*map(torch.as_tensor, (rows, attributes, price)))
    assert np.abs(found_KD - expected_KD.numpy()).max() <= PARITY


@pytest.mark.parametrize("count", [1, 2, 999])
def test_the_ranker_computes_what_torch_does(exported: Exported, count: int) -> None:
    random = np.random.default_rng(count)
    features_MF = random.exponential(30, (count, len(RANKER_FEATURES))).astype(np.float32)
    features_MF[random.random(features_MF.shape) < 0.6] = 0
    rankers = exported.release.rankers
    for file, ranker in (("ranker.onnx", rankers.regular), ("newcomers.onnx", rankers.newcomers)):
        found_M = RankerSession(exported.staged / "bundle" / file, "cpu").rank(features_MF)
        with torch.inference_mode():
            expected_M = ranker(torch.from_numpy(features_MF)).numpy()
        assert found_M.shape == (count,)
        assert np.abs(found_M - expected_M).max() <= PARITY
        assert count == 1 or found_M.std() > 0.01


def test_statistics_come_back_as_they_were(exported: Exported) -> None:
    found, expected = Statistics.load(exported.staged / "bundle" / "statistics"), exported.release.statistics
    for one, other in zip(arrays_of(found), arrays_of(expected), strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


LAST_BIAS = {"product": "mix.2", "customer": "mix.2", "ranker": "layers.6"}


@pytest.mark.parametrize("changed", LAST_BIAS)
def test_an_encoder_that_computes_something_else_is_refused(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    towers = Towers(exported.catalogue, exported.histories, RECIPE)
    towers.load_state_dict(exported.towers.state_dict())
    rankers = exported.release.rankers._replace(regular=randomised_ranker())

    def exported_before(module: torch.nn.Module, *arguments: object) -> None:
        path = next(one for one in arguments if isinstance(one, Path))
        shutil.copy(exported.staged / "bundle" / path.name, path)
        if path.name == f"{changed}.onnx":
            with torch.no_grad():
                # A probability moves less than its log-odds do.
                step = 3 * PARITY if changed != "ranker" else 30 * PARITY
                module.get_submodule(LAST_BIAS[changed]).get_parameter("bias")[0] += step

    monkeypatch.setattr(exporting, "to_onnx", exported_before)
    with pytest.raises(ParityError, match=rf"{changed}\.onnx differs from torch by \d\..e-04, more than 1e-04"):
        export_to(tmp_path, exported.release._replace(towers=towers, rankers=rankers))


def load(exported: Exported, name: str) -> NDArray[np.float32]:
    return np.load(exported.staged / "bundle" / "vectors" / f"{name}.npy")


def test_vectors_are_those_of_products_also_of_length_one(exported: Exported) -> None:
    vectors_ND, units_ND, origin_D = (load(exported, name) for name in ("products", "similar", "similar-origin"))
    assert vectors_ND.shape == (122, D)
    np.testing.assert_allclose(np.linalg.norm(units_ND, axis=1), 1, rtol=1e-5)
    assert origin_D.shape == vectors_ND.shape[1:]


def test_the_manifest_says_what_the_release_is(exported: Exported) -> None:
    manifest = read_manifest(exported.staged / "bundle")
    assert msgspec.structs.replace(manifest, seal="") == exported.manifest
    assert manifest.data_cut_off == UNTIL
    assert UNTIL < manifest.created_at <= datetime.now(UTC)
    assert (manifest.data, manifest.notes, manifest.seed) == ("world", ("a note",), 1)
    assert (manifest.dimensions, manifest.history_length) == (D, LENGTH)
    assert manifest.metrics == METRICS
    assert manifest.curves == CURVES
    assert manifest.recipe == msgspec.json.decode(msgspec.json.encode(RECIPE))
    trained = int(exported.release.statistics.observed.trained_N.sum())
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
        assert {path.suffix for path in files} <= {".npy", ".json", ".onnx", ".faiss", ".png"}
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
    monkeypatch.setattr(exporting, "WORTH_ROWS", 1)
    found = export_to(tmp_path, exported.release)
    assert found.manifest.files.keys() - exported.manifest.files.keys() == {IVF_INDEX, "products.ivf.radii.npy"}
    bundle = ModelBundle.open(tmp_path / "bundle", "cpu", 0)
    products = bundle.products.search(load(found, "products")[:1], 3, [None])
    assert products.plans_B == ("ivf",)
    np.testing.assert_array_equal(
        products.rows_BK, ExactIndex(load(found, "products")).search(load(found, "products")[:1], 3, [None]).rows_BK
    )


def test_the_bundle_names_no_customer_and_the_histories_do(exported: Exported) -> None:
    assert b"customer-c017" in (exported.staged / "histories" / "ids-text.npy").read_bytes()
    for path in (exported.staged / "bundle").rglob("*"):
        assert path.is_dir() or b"customer-c" not in path.read_bytes()
