"""One run on a file of interactions or of sequences, to a published release; it reads from top to bottom."""

import hashlib
import logging
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import torch

from embeddings.device import DeviceChoice
from embeddings.errors import InvalidInput, RefusedByGate
from embeddings.release.bundle import FORMAT_VERSION, Manifest
from embeddings.release.store import BundleStore
from training.interactions.config import FactorsRecipe, Recipe
from training.interactions.evaluate import popular, validate
from training.interactions.export import export
from training.interactions.factors import Factors
from training.interactions.files import (
    Interactions,
    Kind,
    Split,
    hold_out,
    hold_out_newest,
    hold_out_share,
    read,
    read_part,
)
from training.interactions.fit import CHOSEN_BY, Metrics, best, fit
from training.interactions.model import Model
from training.interactions.sequences import Sequences
from training.loop import torch_device
from training.publish import publish

RANKED: dict[Kind, int] = {"interactions": 20, "sequences": 10}
"""How many products of a ranking count, as the literature has it."""

DEFAULT_RECIPES: dict[Kind, str] = {"interactions": "lightgcn.toml", "sequences": "sasrec.toml"}
"""Recipes for those who give none."""

_log = logging.getLogger("opportune.train")


def kind_of(data: str) -> Kind | None:
    """Return the kind of file that ``--data`` names, as in ``interactions:FILE``; None for any other data."""
    return next((kind for kind in RANKED if data.startswith(f"{kind}:")), None)


def run(
    data: str,
    store: Path,
    recipe: Recipe,
    *,
    validation: Path | None,
    until: datetime | None,
    device: DeviceChoice,
    gated: bool,
) -> Manifest:
    """Find the number of epochs on held-out products, fit once more on everything, and publish.

    Args:
        data: ``interactions:FILE`` or ``sequences:FILE``.
        store: where to publish; created if absent.
        recipe: the settings.
        validation: a file of those pairs of interactions that are held out; None for a random share of them, and for
            sequences, where it is the newest product of each.
        until: the moment that the release is dated to; None for now.
        device: where to fit.
        gated: whether a model worse than popularity is refused.

    Raises:
        InvalidInput: the files cannot be used, or the recipe is for the other kind; nothing was written.
        DeviceUnavailable: cuda was asked for and is absent.
        RefusedByGate: the model is worse than popularity; nothing was published.
    """
    chosen = torch_device(device)
    whole, parts = _read(data, validation, recipe)
    until = (until or datetime.now(UTC)).replace(microsecond=0)
    _log.info(
        "%d customers, %d products, %d interactions; %d held out for validation",
        len(whole.customers),
        len(whole.products),
        len(whole.rows.values),
        len(parts.held_out.rows.values),
    )

    k = RANKED[whole.kind]
    bundles = BundleStore(store)
    with bundles.training() as runs:
        checkpoints = runs / _fingerprint(recipe, parts, chosen)
        model = _model(parts.fit, recipe, chosen)
        curve = fit(
            model,
            recipe.fit,
            recipe.seed,
            checkpoints / "validated",
            epochs=recipe.fit.epochs,
            measure=lambda: validate(model.vectors(), parts, k),
        )
        chosen_epochs = best(curve)
        metrics = {"popular": validate(popular(parts), parts, k), recipe.name: chosen_epochs.metrics}
        for method, values in metrics.items():
            _log.info("validation %-22s %s", method, "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
        if gated:
            _gate(metrics["popular"], chosen_epochs.metrics)

        _log.info("fitting on everything for %d epochs", chosen_epochs.epochs)
        model = _model(whole, recipe, chosen)
        again = fit(model, recipe.fit, recipe.seed, checkpoints / "whole", epochs=chosen_epochs.epochs)

        curves = {recipe.name: curve, f"{recipe.name} on everything": again}

        def write(staged: Path) -> Manifest:
            return export(staged, model, whole, recipe, metrics, curves, until=until, data=data)

        return publish(bundles, write, keep=recipe.keep_versions)


def _read(data: str, validation: Path | None, recipe: Recipe) -> tuple[Interactions, Split]:
    """Read a file; return all of it, and the same in two parts."""
    kind: Kind = "interactions" if isinstance(recipe, FactorsRecipe) else "sequences"
    if kind_of(data) != kind:
        raise InvalidInput("--data", f"expected {kind}:FILE for this recipe; got {data}")
    whole = read(Path(data.removeprefix(f"{kind}:")), kind)
    if isinstance(recipe, FactorsRecipe):
        if validation is not None:
            return whole, hold_out(whole, read_part(validation, whole))
        return whole, hold_out_share(whole, recipe.split, recipe.seed)
    if validation is not None:
        raise InvalidInput("--validation", "expected none for sequences: the newest product of each is held out")
    return whole, hold_out_newest(whole)


def _model(interactions: Interactions, recipe: Recipe, device: torch.device) -> Model:
    """Return a model to be fitted, with its first numbers drawn by the recipe's seed."""
    torch.manual_seed(recipe.seed)
    if isinstance(recipe, FactorsRecipe):
        return Factors(interactions, recipe, device)
    return Sequences(interactions, recipe, device)


def _gate(popularity: Metrics, reached: Metrics) -> None:
    for name, floor in popularity.items():
        if name.startswith(CHOSEN_BY) and not reached[name] >= floor:  # not a number is refused too
            raise RefusedByGate(
                f"the model reached {name} {reached[name]:.4f} in validation, less than popularity's {floor:.4f}; "
                "nothing was published. Look at the data and the recipe, or publish it nonetheless with --no-gate"
            )


def _fingerprint(recipe: Recipe, parts: Split, device: torch.device) -> str:
    """Return a digest that is equal for runs that would compute the same.

    No other run continues their checkpoint.
    """
    sizes = len(parts.fit.customers), len(parts.fit.products)
    digest = hashlib.sha256(msgspec.json.encode((FORMAT_VERSION, recipe, sizes, device.type)))
    for part in (parts.fit.rows, parts.held_out.rows):
        digest.update(part.offsets.tobytes())
        digest.update(part.values.tobytes())
    return digest.hexdigest()[:16]
