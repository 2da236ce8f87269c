"""From fitted towers to the files of a release, each checked against what training computed.

Letters: N products, O offers, D dimensions, L events, A attributes, V visits.
"""

import hashlib
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version as library_version
from pathlib import Path
from typing import NamedTuple

import faiss
import msgspec
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from embeddings.arrays import of_length_one, save_array
from embeddings.catalogue.columns import Catalogue, Products
from embeddings.customer.history import Histories
from embeddings.customer.tower_input import Situation, encode, gather, situation_sizes
from embeddings.errors import OpportuneError
from embeddings.index.ivf import WORTH_ROWS, write_ivf
from embeddings.ranking.features import RANKER_FEATURES
from embeddings.ranking.offer_features import OFFER_FEATURES
from embeddings.ranking.redemption import VISIT_FEATURES
from embeddings.ranking.statistics import PRODUCT_STATISTICS, Statistics
from embeddings.release.bundle import (
    BUNDLE,
    CATALOG,
    CURVES,
    CUSTOMER_ENCODER,
    HISTORIES,
    IVF_INDEX,
    NEWCOMERS,
    OFFER_RANKER,
    PRODUCT_ENCODER,
    PRODUCT_MAP,
    PRODUCT_VECTORS,
    RANKER,
    REDEMPTION,
    SIMILAR_ORIGIN,
    SIMILAR_VECTORS,
    STATISTICS,
    Epochs,
    FileEntry,
    HistoriesManifest,
    Manifest,
    hash_files,
    write_manifest,
)
from embeddings.release.encoders import (
    CustomerEncoder,
    OfferRankerSession,
    ProductEncoder,
    RankerSession,
    RedemptionSession,
)
from training.config import Recipe
from training.datasets.database import Marks
from training.evaluate import Metrics
from training.fit import ProductInput, Towers, customer_tensors
from training.offer_ranker import OfferRanker
from training.pictures import draw_curves, draw_map
from training.ranker import Ranker, Rankers
from training.redemption import Redemption
from training.similar import Similar, similar_vectors

PARITY = 1e-4
"""The largest difference between what ONNX Runtime and torch compute in any number, or its largest share of it."""

_LIBRARIES = ("torch", "numpy", "onnx", "onnxruntime", "polars", "implicit")
"""What the manifest names the versions of, besides FAISS, whose distribution has two names."""


class ParityError(OpportuneError):
    """An exported encoder does not compute what training computed."""


class Release(NamedTuple):
    """The results of a run, to be published.

    Attributes:
        catalogue, statistics, histories: as of the data cut-off.
        metrics: on the validation window.
        curves: the course of each fit, by what was fitted.
    """

    towers: Towers
    rankers: Rankers
    offers: OfferRanker
    redemption: Redemption
    catalogue: Catalogue
    statistics: Statistics
    histories: Histories
    metrics: Metrics
    curves: Mapping[str, list[Epochs]]


def export(
    staged: Path,
    release: Release,
    recipe: Recipe,
    *,
    until: datetime,
    data: str,
    notes: tuple[str, ...],
    marks: Marks | None = None,
) -> Manifest:
    """Write bundle and histories into a staged folder, with their manifests.

    Args:
        staged: an empty folder.
        release: what was learnt.
        recipe: the settings.
        until: the data cut-off.
        data: the name of the data set.
        notes: what its owner should know of it.
        marks: how far a database was read; None where the tables lay in a folder.

    Raises:
        ParityError: ONNX Runtime and torch disagree by more than ``PARITY``.
    """
    bundle = staged / BUNDLE
    catalogue, histories = release.catalogue, release.histories
    towers = release.towers.cpu()
    observed = release.statistics.observed
    vectors_ND = _export_product_tower(bundle / PRODUCT_ENCODER, towers, catalogue.products, observed.trained_N)
    _export_customer_tower(bundle / CUSTOMER_ENCODER, towers, release, vectors_ND, recipe)
    export_ranker(bundle / RANKER, release.rankers.regular)
    export_ranker(bundle / NEWCOMERS, release.rankers.newcomers)
    export_offer_ranker(bundle / OFFER_RANKER, release.offers)
    export_redemption(bundle / REDEMPTION, release.redemption)
    release.statistics.save(bundle / STATISTICS)
    (bundle / CATALOG).mkdir()
    catalogue.save(bundle / CATALOG)
    described_ND = _described(bundle / PRODUCT_ENCODER, catalogue.products)
    buyers_N = release.statistics.products_NP.base[:, PRODUCT_STATISTICS.index("buyers")]
    write_vectors(bundle, vectors_ND, similar_vectors(vectors_ND, described_ND, buyers_N))
    draw_curves(bundle / CURVES, release.curves)
    category, department = recipe.ranker.category_attribute, recipe.department_attribute
    if {category, department} <= set(catalogue.products.attributes.names):
        units_ND = of_length_one(vectors_ND)
        draw_map(bundle / PRODUCT_MAP, units_ND, catalogue.products, observed.popularity_N, category, department)
    histories.save(staged / HISTORIES)
    files, past = hash_files(bundle), hash_files(staged / HISTORIES)
    created_at = datetime.now(UTC)
    version = version_of(until, files, past)
    manifest = Manifest(
        version=version,
        created_at=created_at,
        data_cut_off=until,
        data=data,
        notes=notes,
        counts={
            "products": len(catalogue.products.ids),
            "products_sold": int(observed.trained_N.sum()),
            "locations": len(catalogue.locations.ids),
            "locations_known": int(catalogue.locations.known_M.sum()),
            "offers": len(catalogue.offers.ids),
            "customers": len(histories.customers),
            "events": len(histories.events),
        },
        seed=recipe.seed,
        stale_after_days=recipe.stale_after_days,
        longest_absence=release.rankers.longest_absence,
        catalogue_log="" if marks is None else marks.catalogue.log,
        catalogue_seq=0 if marks is None else marks.catalogue.seq,
        dimensions=vectors_ND.shape[1],
        history_length=recipe.towers.history_length,
        recipe=msgspec.json.decode(msgspec.json.encode(recipe)),  # as it will be read: no tuples
        metrics={method: dict(values) for method, values in release.metrics.items()},
        curves=dict(release.curves),
        libraries={name: library_version(name) for name in _LIBRARIES} | {"faiss": faiss.__version__},
        files=files,
    )
    write_manifest(bundle, manifest)
    write_manifest(
        staged / HISTORIES,
        HistoriesManifest(
            version=version,
            created_at=created_at,
            data_cut_off=until,
            files=past,
            mark=msgspec.UNSET if marks is None else marks.events,
        ),
    )
    return manifest


def version_of(until: datetime, files: Mapping[str, FileEntry], past: Mapping[str, FileEntry]) -> str:
    """Return a release's name: its cut-off, and a digest of the files of bundle and histories."""
    digest = hashlib.sha256(msgspec.json.encode((files, past))).hexdigest()
    return f"{until:%Y%m%dT%H%M%SZ}-{digest[:8]}"


def write_vectors(bundle: Path, vectors_ND: NDArray[np.float32], similar: Similar) -> None:
    """Write product vectors, those by which products are similar, and for a large catalogue the inverted file."""
    (bundle / PRODUCT_VECTORS).parent.mkdir()
    save_array(bundle / PRODUCT_VECTORS, vectors_ND)
    save_array(bundle / SIMILAR_VECTORS, similar.units_ND)
    save_array(bundle / SIMILAR_ORIGIN, similar.origin_D)
    if len(vectors_ND) >= WORTH_ROWS:
        write_ivf(vectors_ND, bundle / IVF_INDEX)


def _export_product_tower(
    path: Path, towers: Towers, products: Products, trained_N: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Export the product tower; return all product vectors (N, D) as the exported encoder computes them."""
    product_input = ProductInput.of(products, trained_N, torch.device("cpu"))
    sample = (product_input.rows_N[:2], product_input.attributes_NA[:2], product_input.price_N[:2])
    to_onnx(
        towers.product,
        sample,
        ["rows", "attributes", "price"],
        {"rows": "K", "attributes": "K", "price": "K"},
        path,
    )
    rows, attributes, price = (
        product_input.rows_N.numpy(),
        product_input.attributes_NA.numpy(),
        product_input.price_N.numpy(),
    )
    vectors_ND = ProductEncoder(path, "cpu", products.attributes.sizes).encode(rows, attributes, price)
    with torch.inference_mode():
        check_parity(
            path,
            vectors_ND,
            towers.product(product_input.rows_N, product_input.attributes_NA, product_input.price_N).numpy(),
        )
    return vectors_ND


def _described(path: Path, products: Products) -> NDArray[np.float32]:
    """Return the vector of every product (N, D) as if it had no id, as an exported product tower computes it."""
    attributes = products.attributes
    encoder = ProductEncoder(path, "cpu", attributes.sizes)
    nothing_N, codes_NA = np.full(len(products.ids), -1, np.int64), attributes.codes_NA.astype(np.int64)
    return encoder.encode(nothing_N, codes_NA, products.price_N.astype(np.float32))


def _export_customer_tower(
    path: Path, towers: Towers, release: Release, vectors_ND: NDArray[np.float32], recipe: Recipe
) -> None:
    histories, sizes, cpu = release.histories, release.catalogue.context.sizes, torch.device("cpu")
    pasts = [histories[row] for row in range(min(64, len(histories.customers)))] + [histories.of(None)]
    situations = [
        Situation(row % len(recipe.channels), -1, 3_600 * row, tuple(row % size for size in sizes))
        for row in range(len(pasts))
    ]
    tower_input = encode(pasts, situations, recipe.towers.history_length)
    history_BLD = torch.as_tensor(gather(vectors_ND, tower_input.products_BL))
    types_BL, ages_BL, attributes_BA, context_BC = customer_tensors(tower_input, cpu)
    # The exporter takes a length of one for a constant; a pad more changes no vector.
    pad = nn.functional.pad
    arguments = (pad(history_BLD, (0, 0, 0, 1)), pad(types_BL, (0, 1)), pad(ages_BL, (0, 1)), attributes_BA, context_BC)
    names = ["history", "types", "ages", "attributes", "context"]
    to_onnx(
        towers.customer,
        arguments,
        names,
        {"history": "BL", "types": "BL", "ages": "BL", "attributes": "B", "context": "B"},
        path,
    )
    with torch.inference_mode():
        expected_BD = towers.customer(*arguments).numpy()
    check_parity(
        path,
        CustomerEncoder(path, "cpu", situation_sizes(release.catalogue)).encode(tower_input, vectors_ND),
        expected_BD,
    )


def export_ranker(path: Path, ranker: Ranker) -> None:
    """Export a ranker of products; ParityError if ONNX Runtime and torch disagree."""
    features_MF = _features_of_any_size(len(RANKER_FEATURES))
    features = torch.from_numpy(features_MF)
    to_onnx(ranker, (features,), ["features"], {"features": "M"}, path, "probabilities")
    with torch.inference_mode():
        check_parity(path, RankerSession(path, "cpu").rank(features_MF), ranker(features).numpy())


def export_offer_ranker(path: Path, ranker: OfferRanker) -> None:
    """Export a ranker of offers; ParityError if ONNX Runtime and torch disagree."""
    features_OF = _features_of_any_size(len(OFFER_FEATURES))
    features = torch.from_numpy(features_OF)
    to_onnx(ranker, (features,), ["features"], {"features": "O"}, path, "logits")
    with torch.inference_mode():
        check_parity(path, OfferRankerSession(path, "cpu").rank(features_OF), ranker(features).numpy())


def export_redemption(path: Path, model: Redemption) -> None:
    """Export the upper level of offers; ParityError if ONNX Runtime and torch disagree."""
    features_VF = _features_of_any_size(len(VISIT_FEATURES))
    features = torch.from_numpy(features_VF)
    to_onnx(model, (features,), ["features"], {"features": "V"}, path, "probabilities")
    with torch.inference_mode():
        check_parity(path, RedemptionSession(path, "cpu").likely(features_VF), model(features).numpy())


def _features_of_any_size(width: int) -> NDArray[np.float32]:
    """Return counts and days of every size a feature may have, also zeros where nothing is known."""
    features_MF = np.random.default_rng(0).exponential(10, (256, width)).astype(np.float32)
    features_MF[np.random.default_rng(1).random(features_MF.shape) < 0.5] = 0
    return features_MF


def to_onnx(
    module: nn.Module,
    arguments: tuple[torch.Tensor, ...],
    names: list[str],
    dynamic: dict[str, str],
    path: Path,
    output: str = "vectors",
    longest: Mapping[str, int] | None = None,
) -> None:
    """Export a module with named, dynamic leading axes.

    Args:
        module: what to export.
        arguments: an example of its inputs.
        names: of the inputs.
        dynamic: by input, one letter an axis, from the first on.
        path: where to write.
        output: what the result is called.
        longest: the greatest length of an axis, by its letter; any length where nothing is said.
    """
    greatest = longest or {}
    letters = {one: torch.export.Dim(one, max=greatest.get(one)) for axes in dynamic.values() for one in axes}
    shapes = tuple({axis: letters[letter] for axis, letter in enumerate(dynamic[name])} for name in names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporter warns of its own deprecations
        program = torch.onnx.export(
            module.eval(),
            arguments,
            dynamo=True,
            input_names=names,
            output_names=[output],
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise ParityError(f"torch exported nothing for {path.name}")
    # The exporter notes where in the source every node came from, with this machine's paths; a bundle is shared, and
    # its version must not depend on where it was trained.
    model = program.model_proto
    for annotated in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        annotated.ClearField("metadata_props")
    onnx.save(model, path)


def check_parity(path: Path, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Raise ParityError where an exported model's numbers are further from torch's than ``PARITY``.

    Numbers above 1 may differ by as large a share of themselves.
    """
    worst = float((np.abs(found - expected) / np.maximum(np.abs(expected), 1)).max(initial=0))
    if not worst <= PARITY:
        raise ParityError(f"{path.name} differs from torch by {worst:.1e}, more than {PARITY:.0e}")
