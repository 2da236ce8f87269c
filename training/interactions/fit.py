"""The loop: optimise, validate, stop in time, checkpoint, and go on after a kill as if there had been none."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from training.interactions.config import FitConfig
from training.interactions.model import Model

Metrics = dict[str, float]
CHOSEN_BY = "ndcg"
"""The metric that tells the best epoch: the one whose name begins so."""

_DROPOUT = 3
_RISE = 0.05
"""The share of a run during which the learning rate rises."""


class Validation(NamedTuple):
    """What was measured after so many epochs."""

    epochs: int
    metrics: Metrics

    @property
    def figure(self) -> float:
        """The one that counts."""
        return next(value for name, value in self.metrics.items() if name.startswith(CHOSEN_BY))


def best(curve: list[Validation]) -> Validation:
    """The best validation; of equals the one after fewest epochs."""
    return max(curve, key=lambda one: (one.figure, -one.epochs))


def fit(
    model: Model,
    config: FitConfig,
    seed: int,
    checkpoints: Path,
    *,
    epochs: int,
    measure: Callable[[], Metrics] | None = None,
) -> list[Validation]:
    """Fit a model in place; returns the curve of its validations.

    On the CPU the result depends on the arguments alone, also when the run was killed and continued from its
    checkpoint, or had already ended.

    Args:
        model: to be fitted.
        config: the settings.
        seed: of what is dropped out.
        checkpoints: a folder for this very fit's checkpoint; a checkpoint in it is continued.
        epochs: after how many to end; the learning rate falls over ``config.epochs`` whatever it is.
        measure: measures the model on what is held out; where it is given, fitting ends early once nothing has got
            better for ``config.patience`` epochs.
    """
    torch.use_deterministic_algorithms(next(model.parameters()).device.type == "cpu")
    optimiser = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    done, curve = _resume(checkpoints, model, optimiser)
    saved = time.monotonic()
    with _progress() as progress:
        task = progress.add_task("fitting", total=epochs * model.steps, completed=done, loss="")
        while True:
            epoch, step = divmod(done, model.steps)
            if measure is not None and step == 0 and _due(epoch, epochs, config, curve):
                curve.append(Validation(epoch, _measured(model, measure)))
                shown = "  ".join(f"{name} {value:.4f}" for name, value in curve[-1].metrics.items())
                progress.console.print(f"epoch {epoch}: {shown}")
            if epoch == epochs or (curve and epoch - best(curve).epochs >= config.patience):
                break
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * _schedule(done / (config.epochs * model.steps))
            torch.manual_seed(int(np.random.SeedSequence([seed, _DROPOUT, epoch, step]).generate_state(1)[0]))
            loss = model.loss(epoch, step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            done += 1
            if done % 10 == 0:
                progress.update(task, completed=done, loss=f"loss {loss.item():.3f}")
            if time.monotonic() - saved >= config.checkpoint_seconds:
                _save(checkpoints, model, optimiser, done, curve)
                saved = time.monotonic()
        progress.update(task, completed=done)
    _save(checkpoints, model, optimiser, done, curve)
    model.eval()
    return curve


def _due(epoch: int, epochs: int, config: FitConfig, curve: list[Validation]) -> bool:
    """Whether a validation after this many epochs is due, and not behind us yet."""
    behind = curve[-1].epochs if curve else 0
    return epoch > behind and (epoch % config.validate_every == 0 or epoch == epochs)


def _measured(module: nn.Module, measure: Callable[[], Metrics]) -> Metrics:
    module.eval()
    metrics = measure()
    module.train()
    return metrics


def _schedule(progress: float) -> float:
    """Learning rate over a run: a short linear rise, then a cosine down to nothing."""
    return min(1.0, progress / _RISE + 0.01) * 0.5 * (1 + float(np.cos(np.pi * progress)))


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )


def _save(
    folder: Path, module: nn.Module, optimiser: torch.optim.Optimizer, done: int, curve: list[Validation]
) -> None:
    """Write a checkpoint beside the old one and rename it over it."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model/{name}": value.contiguous() for name, value in module.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{number}/{name}": value.contiguous() for name, value in state.items()}
    fresh = folder / "checkpoint.new"
    save_file(tensors, fresh, metadata={"done": str(done), "curve": msgspec.json.encode(curve).decode()})
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.rename(folder / "checkpoint.safetensors")


def _resume(folder: Path, module: nn.Module, optimiser: torch.optim.Optimizer) -> tuple[int, list[Validation]]:
    """Take up a checkpoint if there is one; returns the number of steps it had done, and its validations."""
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return 0, []
    state: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
        for name in file.keys():  # noqa: SIM118 - not a mapping
            kind, _, rest = name.partition("/")
            if kind == "model":
                state[rest] = file.get_tensor(name)
            else:
                number, _, moment = rest.partition("/")
                moments.setdefault(int(number), {})[moment] = file.get_tensor(name)
    module.load_state_dict(state)
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return int(about["done"]), msgspec.json.decode(about["curve"], type=list[Validation])
