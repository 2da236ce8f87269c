"""What every fit needs around its steps: a device, a learning rate that falls, progress, and checkpoints."""

import os
from collections.abc import Mapping
from pathlib import Path

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

from embeddings.device import DeviceChoice
from embeddings.errors import DeviceUnavailable

_RISE = 0.05
"""The share of a run during which the learning rate rises."""


def torch_device(choice: DeviceChoice) -> torch.device:
    """The device to fit on; DeviceUnavailable if cuda was asked for and is absent."""
    if choice == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable(
            "--device cuda: torch finds no CUDA device; use --device cpu, or install opportune[gpu]"
        )
    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(choice)


def schedule(progress: float) -> float:
    """Learning rate over a run: a short linear rise, then a cosine down to nothing."""
    return min(1.0, progress / _RISE + 0.01) * 0.5 * (1 + float(np.cos(np.pi * progress)))


def loss_progress() -> Progress:
    """A bar with steps, time and, as the task's field ``loss``, what the loss is."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )


def save(folder: Path, module: nn.Module, optimiser: torch.optim.Optimizer, about: Mapping[str, str]) -> None:
    """Write a checkpoint beside the old one and rename it over it.

    Args:
        folder: of this very fit.
        module: what is fitted.
        optimiser: with its moments.
        about: what else the fit has to know to go on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model/{name}": value.contiguous() for name, value in module.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{number}/{name}": value.contiguous() for name, value in state.items()}
    fresh = folder / "checkpoint.new"
    save_file(tensors, fresh, metadata=dict(about))
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.rename(folder / "checkpoint.safetensors")


def resume(folder: Path, module: nn.Module, optimiser: torch.optim.Optimizer) -> Mapping[str, str] | None:
    """Take up a checkpoint; returns what ``save`` was told about it, None if there is none."""
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return None
    model: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    with safe_open(path, framework="pt") as file:
        about: Mapping[str, str] = file.metadata()
        for name in file.keys():  # noqa: SIM118 - not a mapping
            kind, _, rest = name.partition("/")
            if kind == "model":
                model[rest] = file.get_tensor(name)
            else:
                number, _, moment = rest.partition("/")
                moments.setdefault(int(number), {})[moment] = file.get_tensor(name)
    module.load_state_dict(model)
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return about
