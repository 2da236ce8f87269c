"""One training run, from tables to a published release; it reads from top to bottom."""

import hashlib
import logging
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl
import torch

from embeddings.bundle import Manifest
from embeddings.catalog import Catalog
from embeddings.device import DeviceChoice
from embeddings.errors import DeviceUnavailable, InvalidInput
from embeddings.history import Histories
from embeddings.store import BundleStore
from training.batches import Baskets
from training.catalogue import master_catalog, observe, still_promoted
from training.config import Recipe
from training.datasets import Dataset, as_of, open_dataset
from training.evaluate import ask, evaluate
from training.export import export
from training.fit import fit, fit_als, product_vectors
from training.gate import gate
from training.histories import read_histories

_log = logging.getLogger("opportune.train")


def run(
    data: str, store: Path, recipe: Recipe, *, until: datetime | None, device: DeviceChoice, gated: bool
) -> Manifest:
    """Train on what happened before a moment and publish the release.

    Args:
        data: a known data set's name or a directory of tables.
        store: where to publish; created if absent.
        recipe: the settings.
        until: the data cut-off; None for just after the newest event, but never later than now.
        device: where to fit.
        gated: whether a model worse than popularity is refused.

    Raises:
        InvalidInput, InvalidTables: the data cannot be used; nothing was written.
        DeviceUnavailable: cuda was asked for and is absent.
        RefusedByGate: the model is worse than popularity; nothing was published.
    """
    chosen = _torch_device(device)
    now = datetime.now(UTC)
    dataset = open_dataset(data, channels=recipe.channels, now=now)
    # In whole seconds, as every moment in a bundle.
    until = (until or min(now, _newest(dataset) + timedelta(seconds=1))).replace(microsecond=0)
    dataset = as_of(dataset, until)
    for note in dataset.notes:
        _log.info("%s", note)

    since = until - timedelta(days=recipe.validation_days)
    master = master_catalog(dataset, recipe, since)
    histories = read_histories(dataset, master)
    window = int(since.timestamp())
    past = histories.before(window)
    moments_S = Baskets.of(histories).moments_S
    for share, when in ((moments_S < window, "before"), (moments_S >= window, "in")):
        if not share.any():
            days = f"the last {recipe.validation_days} days until {until}"
            raise InvalidInput("--data", f"expected purchases of products {when} {days}; found none")
    before = observe(master, past.events, window, recipe.assortment)
    _log.info(
        "%d events before %s, %d of them in the validation window",
        len(histories.events),
        until,
        len(histories.events) - len(past.events),
    )

    als = fit_als(past, len(master.products.ids), recipe)
    checkpoints = store / "runs" / _fingerprint(recipe, past, before, chosen)
    towers = fit(before, past, als.products_ND, recipe, chosen, checkpoints)

    evaluation = evaluate(
        ask(histories, before, window),
        before,
        towers,
        product_vectors(towers, before, chosen),
        als,
        recipe.towers.history_length,
        recipe.score,
    )
    for method, values in evaluation.metrics.items():
        _log.info("validation %-22s %s", method, "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
    if gated:
        gate(evaluation.metrics)

    catalog = observe(master, histories.events, int(until.timestamp()), recipe.assortment)
    # A product first sold in the validation window is popular and carried, but its id taught the towers nothing.
    catalog = catalog._replace(
        products=catalog.products._replace(trained_N=before.products.trained_N),
        promotions=still_promoted(catalog.promotions, int(until.timestamp())),
    )
    bundles = BundleStore(store)
    with bundles.lock():
        staged = bundles.stage()
        manifest = export(
            staged,
            towers,
            catalog,
            histories,
            evaluation,
            recipe,
            until=until,
            data=dataset.name,
            notes=dataset.notes,
        )
        bundles.publish(staged)
        for version in bundles.prune(recipe.keep_versions):
            _log.info("pruned %s", version)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return manifest


def _newest(dataset: Dataset) -> datetime:
    return dataset.events.select(pl.col("at").max()).collect().item()


def _torch_device(choice: DeviceChoice) -> torch.device:
    if choice == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable(
            "--device cuda: torch finds no CUDA device; use --device cpu, or install opportune[gpu]"
        )
    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(choice)


def _fingerprint(recipe: Recipe, past: Histories, catalog: Catalog, device: torch.device) -> str:
    """Equal for runs that would compute the same, so that a checkpoint is continued by no other run."""
    products = catalog.products
    sizes = (past.attribute_sizes, products.attributes.sizes, len(products.ids), len(catalog.locations.ids))
    digest = hashlib.sha256(msgspec.json.encode((recipe, sizes, device.type)))
    for array in (
        past.events,
        past.offsets,
        past.attributes_CA,
        products.attributes.codes_NA,
        products.price_N,
        products.trained_N,
    ):
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
