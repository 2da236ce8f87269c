"""One training run, from tables to a published release; it reads from top to bottom."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from embeddings.bundle import Manifest
from embeddings.device import DeviceChoice
from embeddings.errors import InvalidInput
from embeddings.store import BundleStore
from training.batches import Baskets
from training.catalogue import master_catalog, observe, still_promoted
from training.config import Recipe
from training.datasets import Dataset, as_of, open_dataset
from training.evaluate import evaluate
from training.export import Release, export
from training.gate import gate
from training.histories import read_histories
from training.loop import torch_device
from training.publish import publish
from training.questions import ask
from training.stages import Stages, windows
from training.statistics import Nearby, count

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
    chosen = torch_device(device)
    now = datetime.now(UTC)
    dataset = open_dataset(data, channels=recipe.channels, now=now)
    # In whole seconds, as every moment in a bundle.
    until = (until or min(now, _newest(dataset) + timedelta(seconds=1))).replace(microsecond=0)
    dataset = as_of(dataset, until)
    for note in dataset.notes:
        _log.info("%s", note)

    since = until - timedelta(days=recipe.validation_days)
    learnt_from = since - timedelta(weeks=recipe.ranker.windows)
    master = master_catalog(dataset, recipe, learnt_from)
    histories = read_histories(dataset, master)
    window = int(since.timestamp())
    past = histories.before(window)
    moment = int(until.timestamp())
    baskets = Baskets.of(histories)
    inside = baskets.between(window, moment)
    for some, when in ((len(baskets) - len(inside), "before"), (len(inside), "in")):
        if not some:
            days = f"the last {recipe.validation_days} days until {until}"
            raise InvalidInput("--data", f"expected purchases of products {when} {days}; found none")
    begins = windows(past, window, recipe.ranker.windows)
    _log.info(
        "%d events before %s, %d of them in the validation window",
        len(histories.events),
        until,
        len(histories.events) - len(past.events),
    )

    bundles = BundleStore(store)
    with bundles.training() as runs:
        stages = Stages(master, recipe, chosen, runs)
        ranker = stages.ranker(past, begins)
        als, fitted = stages.towers(past, window, inside)
        # Redemptions are few and the gate judges products alone: offers are learnt from all that happened.
        offers = stages.offers(histories, window, moment, fitted, ranker)
        metrics = evaluate(ask(past, inside, fitted.catalog), fitted, ranker, als, recipe.towers.history_length)
        if offers.metrics:
            metrics = {**metrics, "offers": offers.metrics}
        for method, values in metrics.items():
            _log.info("validation %-22s %s", method, "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
        if gated:
            gate(metrics)

        catalog = observe(master, histories.events[histories.purchased()], moment, recipe.assortment)
        # A product first sold in the validation window is popular and carried, but its id taught the towers nothing.
        catalog = catalog._replace(
            products=catalog.products._replace(trained_N=fitted.catalog.products.trained_N),
            promotions=still_promoted(catalog.promotions, moment),
        )
        statistics = count(histories, catalog, moment, Nearby.of(fitted.statistics), recipe.ranker)
        curves = {name: curve.points for name, curve in stages.curves.items()}
        release = Release(
            fitted.towers,
            ranker,
            offers.offers,
            offers.redemption,
            catalog,
            statistics,
            histories,
            metrics,
            curves,
        )

        def write(staged: Path) -> Manifest:
            return export(staged, release, recipe, until=until, data=dataset.name, notes=dataset.notes)

        return publish(bundles, write, keep=recipe.keep_versions)


def _newest(dataset: Dataset) -> datetime:
    return dataset.events.select(pl.col("at").max()).collect().item()
