"""From a fitted model to the files of a release that the service opens.

A file of interactions knows no moments, places or channels. The release has one channel, on which everything may be
shown, no locations and no offers; histories are purchases, one a day, in order, the newest a day before the cut-off.
Letters: C customers, N products, D dimensions, V the same and popularity, B customers asked about, L events, E events
in all.
"""

from datetime import UTC, datetime
from importlib.metadata import version as library_version
from pathlib import Path

import faiss
import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embeddings.arrays import Ragged, of_length_one, save_array
from embeddings.catalogue.columns import Attributes, Catalogue, ChannelRule, Locations, Offers, Products, Promotions
from embeddings.customer.history import EVENT, PURCHASE, Histories
from embeddings.customer.tower_input import Situation, encode, gather, situation_sizes
from embeddings.ranking.observed import Observed
from embeddings.ranking.statistics import Statistics
from embeddings.release.bundle import (
    BUNDLE,
    CATALOG,
    CURVES,
    CUSTOMER_ENCODER,
    HISTORIES,
    STATISTICS,
    Epochs,
    HistoriesManifest,
    Manifest,
    hash_files,
    write_manifest,
)
from embeddings.release.encoders import CustomerEncoder
from embeddings.vocabulary import Vocabulary
from training.export import check_parity, to_onnx, version_of, write_vectors
from training.interactions.config import Recipe
from training.interactions.files import Interactions
from training.interactions.fit import Metrics
from training.interactions.model import Model
from training.interactions.sequences import Sequences
from training.pictures import draw_curves
from training.repeats import COMMON
from training.similar import Similar

CHANNEL = "web"
CUSTOMER_VECTORS = "vectors.npy"
"""Every known customer's vector (C, V), beside the histories: it is personal data, and a bundle holds none."""

_DAY = 86_400
_LIBRARIES = ("torch", "numpy", "onnx", "onnxruntime", "scipy")
_SAMPLE = 64
"""How many customers the exported encoder is checked with."""


class AverageEncoder(nn.Module):
    """A customer as the average of the products in their history: one hop, without a vector of their own."""

    def forward(self, history: Tensor, types: Tensor, ages: Tensor, attributes: Tensor, context: Tensor) -> Tensor:
        """Return customer vectors (B, V), which without a history are zeros but for popularity.

        The arguments are those of `CustomerEncoder`.
        """
        summed_BD = (history[:, :, :-1] * (types > 0).unsqueeze(2)).sum(1)
        return _minding_popularity(nn.functional.normalize(summed_BD, dim=1)) + _unread(ages, attributes, context)


class NewestEncoder(nn.Module):
    """A customer as the vector that a sequence encoder predicts to follow their history."""

    def __init__(self, sequences: Sequences) -> None:
        super().__init__()
        self.encoder = sequences.encoder

    def forward(self, history: Tensor, types: Tensor, ages: Tensor, attributes: Tensor, context: Tensor) -> Tensor:
        """Return customer vectors (B, V); the arguments are those of `CustomerEncoder`."""
        found_BD = self.encoder(history[:, :, :-1], types > 0)[:, 0]
        return _minding_popularity(found_BD) + _unread(ages, attributes, context)


def export(
    staged: Path,
    model: Model,
    interactions: Interactions,
    recipe: Recipe,
    metrics: dict[str, Metrics],
    curves: dict[str, list[Epochs]],
    *,
    until: datetime,
    data: str,
) -> Manifest:
    """Write bundle and histories into a staged folder, with their manifests.

    Args:
        staged: from ``BundleStore.stage``.
        model: fitted on all the interactions.
        interactions: what it was fitted on.
        recipe: its settings.
        metrics: by method, from validation.
        curves: the course of each fit, by what was fitted.
        until: the cut-off that histories end at.
        data: what the manifest calls the data.

    Raises:
        ParityError: ONNX Runtime and torch disagree by more than ``PARITY``.
    """
    bundle, past = staged / BUNDLE, staged / HISTORIES
    found = model.vectors()
    histories = _histories(interactions, until)
    products_ND = found.products_NV[:, :-1]
    similar = Similar(of_length_one(products_ND), np.zeros(products_ND.shape[1], np.float32))
    write_vectors(bundle, found.products_NV, similar)
    (bundle / CATALOG).mkdir()
    catalogue = _catalogue(interactions)
    catalogue.save(bundle / CATALOG)
    Statistics.none(_observed(interactions), 0).save(bundle / STATISTICS)
    _export_encoder(bundle / CUSTOMER_ENCODER, model, catalogue, histories, found.products_NV, recipe.history_length)
    draw_curves(bundle / CURVES, curves)
    histories.save(past)
    save_array(past / CUSTOMER_VECTORS, found.customers_CV)

    files, past_files = hash_files(bundle), hash_files(past)
    created_at = datetime.now(UTC)
    version = version_of(until, files, past_files)
    manifest = Manifest(
        version=version,
        created_at=created_at,
        data_cut_off=until,
        data=data,
        filter_already_bought=interactions.repeated < COMMON,
        notes=("the moments of events are made up: the data has none",),
        counts={
            "products": len(interactions.products),
            "customers": len(interactions.customers),
            "events": len(histories.events),
        },
        seed=recipe.seed,
        dimensions=found.products_NV.shape[1],
        history_length=recipe.history_length,
        recipe=msgspec.to_builtins(recipe),
        metrics=metrics,
        curves=curves,
        libraries={name: library_version(name) for name in _LIBRARIES} | {"faiss": faiss.__version__},
        files=files,
    )
    write_manifest(bundle, manifest)
    write_manifest(
        past, HistoriesManifest(version=version, created_at=created_at, data_cut_off=until, files=past_files)
    )
    return manifest


def _histories(interactions: Interactions, until: datetime) -> Histories:
    offsets, values = interactions.rows.offsets, interactions.rows.values
    sizes_C = np.diff(offsets)
    events = np.zeros(len(values), EVENT)
    days_left_E = np.repeat(offsets[1:], sizes_C) - np.arange(len(values))
    events["at"] = int(until.timestamp()) - days_left_E * _DAY
    events["product"], events["type"] = values, PURCHASE
    events["offer"], events["location"] = -1, -1
    events["quantity"], events["value"] = 1, np.nan
    customers = len(interactions.customers)
    return Histories(
        customers=Vocabulary.of(interactions.customers),
        events=events,
        offsets=offsets,
        attributes_CA=np.zeros((customers, 0), np.int32),
        audiences=Ragged(np.zeros(customers + 1, np.int64), np.zeros(0, np.int32)),
        attribute_names=(),
        attribute_labels=(),
    )


def _catalogue(interactions: Interactions) -> Catalogue:
    products, none = len(interactions.products), Ragged.of([])
    numbers, rows, nobody = np.zeros(0, np.int64), np.zeros(0, np.int32), Vocabulary.of(())
    return Catalogue(
        channels={CHANNEL: ChannelRule.EVERYTHING},
        audiences=(),
        products=Products(
            ids=Vocabulary.of(interactions.products),
            attributes=Attributes((), (), np.zeros((products, 0), np.int32)),
            price_N=np.full(products, np.nan),
            recommendable_N=np.ones(products, np.bool_),
        ),
        locations=Locations(
            ids=nobody,
            coordinates_M2=np.zeros((0, 2)),
            regions=(),
            regions_M=rows,
            assortment=none,
            why_L=np.zeros(0, np.uint8),
            assumed=Ragged.of([[]]),
            withdrawn_M=np.zeros(0, np.bool_),
            unavailable=none,
        ),
        offers=Offers(
            ids=nobody,
            kinds_O=np.zeros(0, np.uint8),
            starts_O=numbers,
            ends_O=numbers,
            audiences_O=rows,
            uses_O=rows,
            withdrawn_O=np.zeros(0, np.bool_),
            products=none,
            channels=none,
            locations=none,
        ),
        promotions=Promotions(
            ids=nobody, channels_G=rows, locations_G=rows, starts_G=numbers, ends_G=numbers, products=none
        ),
    )


def _observed(interactions: Interactions) -> Observed:
    return Observed(
        popularity_N=interactions.product_counts().astype(np.float32),
        trained_N=np.ones(len(interactions.products), np.bool_),
        sold=Ragged.of([[]]),
        popularity_L=np.zeros(0, np.float32),
        lists_M=np.zeros(0, np.int64),
    )


def _minding_popularity(vectors_BD: Tensor) -> Tensor:
    """Return customer vectors (B, V) with a last number by which a product's popularity counts once."""
    return torch.cat([vectors_BD, torch.ones_like(vectors_BD[:, :1])], 1)


def _unread(*inputs: Tensor) -> Tensor:
    """Return zeros (B, 1) that depend on inputs: the exporter drops inputs that nothing depends on."""
    return sum((one.float() * 0).sum(1, keepdim=True) for one in inputs)  # pyright: ignore[reportReturnType]


def _export_encoder(
    path: Path,
    model: Model,
    catalogue: Catalogue,
    histories: Histories,
    products_NV: NDArray[np.float32],
    length: int,
) -> None:
    encoder = (NewestEncoder(model) if isinstance(model, Sequences) else AverageEncoder()).cpu().eval()
    pasts = [histories[row] for row in range(min(_SAMPLE, len(histories.customers)))] + [histories.of(None)]
    tower_input = encode(pasts, [Situation(0, -1, 0)] * len(pasts), length)
    # The exporter takes a length of one for a constant; a pad more changes no vector.
    wider = tower_input._replace(
        products_BL=np.pad(tower_input.products_BL, ((0, 0), (0, 1)), constant_values=-1)[:, : max(2, length)],
        types_BL=np.pad(tower_input.types_BL, ((0, 0), (0, 1)))[:, : max(2, length)],
        ages_BL=np.pad(tower_input.ages_BL, ((0, 0), (0, 1)))[:, : max(2, length)],
    )
    arguments = (
        torch.as_tensor(gather(products_NV, np.ascontiguousarray(wider.products_BL))),
        torch.as_tensor(wider.types_BL),
        torch.as_tensor(wider.ages_BL),
        torch.as_tensor(wider.attributes_BA),
        torch.as_tensor(wider.context_BC),
    )
    names = ["history", "types", "ages", "attributes", "context"]
    dynamic = {"history": "BL", "types": "BL", "ages": "BL", "attributes": "B", "context": "B"}
    to_onnx(encoder, arguments, names, dynamic, path, longest={"L": length})
    with torch.inference_mode():
        expected_BV = encoder(*arguments).numpy()
    check_parity(
        path, CustomerEncoder(path, "cpu", situation_sizes(catalogue)).encode(tower_input, products_NV), expected_BV
    )
