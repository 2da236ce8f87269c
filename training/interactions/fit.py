"""The loop: optimise, validate, stop in time, checkpoint, and go on after a kill as if there had been none."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from embeddings.release.bundle import Epochs
from training.curve import Curve
from training.interactions.config import FitConfig
from training.interactions.model import Model
from training.loop import loss_progress, resume, save, schedule
from training.progress import tell

Metrics = dict[str, float]
CHOSEN_BY = "ndcg"
"""The metric that tells the best epoch: the one whose name begins so."""

_DROPOUT = 3


def best(curve: Sequence[Epochs]) -> Epochs:
    """Return the best of the validated epochs; of equals, the one after the fewest epochs."""
    return max(_validated(curve), key=lambda one: (_figure(one), -one.epochs))


def fit(
    model: Model,
    config: FitConfig,
    seed: int,
    checkpoints: Path,
    *,
    epochs: int,
    measure: Callable[[], Metrics] | None = None,
) -> list[Epochs]:
    """Fit a model in place; return the course of the fit, validated where that was due.

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
    about = resume(checkpoints, model, optimiser)
    done = 0 if about is None else int(about["done"])
    curve = Curve(model.examples, None if about is None else about["curve"])
    saved = time.monotonic()
    with loss_progress() as progress:
        task = progress.add_task("fitting", total=epochs * model.steps, completed=done, loss="")
        while True:
            epoch, step = divmod(done, model.steps)
            if step == 0 and epoch > len(curve.points):
                due = measure is not None and (epoch % config.validate_every == 0 or epoch == epochs)
                with curve.aside():
                    metrics = _measured(model, measure) if measure is not None and due else {}
                curve.close(metrics)
                if metrics:
                    shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
                    progress.console.print(f"epoch {epoch}: {shown}")
            validated = _validated(curve.points)
            if epoch == epochs or (validated and epoch - best(validated).epochs >= config.patience):
                break
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * schedule(done / (config.epochs * model.steps))
            torch.manual_seed(int(np.random.SeedSequence([seed, _DROPOUT, epoch, step]).generate_state(1)[0]))
            loss = model.loss(epoch, step)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            curve.step(loss)
            done += 1
            if done % 10 == 0:
                progress.update(task, completed=done, loss=f"loss {loss.item():.3f}")
                tell("fitting", done, epochs * model.steps)
            if time.monotonic() - saved >= config.checkpoint_seconds:
                with curve.aside():
                    save(checkpoints, model, optimiser, _about(done, curve))
                saved = time.monotonic()
        progress.update(task, completed=done)
    save(checkpoints, model, optimiser, _about(done, curve))
    model.eval()
    return curve.points


def _validated(curve: Sequence[Epochs]) -> list[Epochs]:
    return [one for one in curve if one.metrics]


def _figure(epochs: Epochs) -> float:
    """Return the metric that chooses the best epoch."""
    return next(value for name, value in epochs.metrics.items() if name.startswith(CHOSEN_BY))


def _measured(module: nn.Module, measure: Callable[[], Metrics]) -> Metrics:
    module.eval()
    metrics = measure()
    module.train()
    return metrics


def _about(done: int, curve: Curve) -> dict[str, str]:
    """Return the part of a checkpoint besides its tensors: the steps done and the curve."""
    return {"done": str(done), "curve": curve.tell()}
