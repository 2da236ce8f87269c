"""The parts that every fit shares: a device, a learning rate that falls, progress, and checkpoints."""

import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

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
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from embeddings.device import DeviceChoice
from embeddings.errors import DeviceUnavailable

_RISE = 0.05
"""The share of a run during which the learning rate rises."""

_DIGEST = "digest"

_log = logging.getLogger("opportune.train")


def torch_device(choice: DeviceChoice) -> torch.device:
    """Return the device to fit on.

    Raises:
        DeviceUnavailable: cuda was asked for and is absent.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable(
            "--device cuda: torch finds no CUDA device; use --device cpu, or install opportune[gpu]"
        )
    if choice == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(choice)


def schedule(progress: float) -> float:
    """Return the factor of the learning rate: a short linear rise over a run, then a cosine down to nothing."""
    return min(1.0, progress / _RISE + 0.01) * 0.5 * (1 + float(np.cos(np.pi * progress)))


def loss_progress() -> Progress:
    """Return a progress bar with steps, time and the loss, which is the task's field ``loss``."""
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
    with fresh.open("wb") as file:  # what the library writes by itself fails without the error of the system
        file.write(to_bytes(tensors, metadata={**about, _DIGEST: _digest(tensors, about)}))
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(folder / "checkpoint.safetensors")


def resume(folder: Path, module: nn.Module, optimiser: torch.optim.Optimizer) -> Mapping[str, str] | None:
    """Load a checkpoint and return what ``save`` was told in ``about``.

    The result is None if there is no checkpoint, or only a damaged one.
    """
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return None
    try:
        about, tensors = _read(path)
    except (SafetensorError, ValueError) as error:
        _log.warning("%s is damaged: %s; this fit begins anew", path, error)
        return None
    model: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "model":
            model[rest] = value
        else:
            number, _, moment = rest.partition("/")
            moments.setdefault(int(number), {})[moment] = value
    module.load_state_dict(model)
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return about


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read a checkpoint.

    Raises:
        SafetensorError, ValueError: it is not what was written.
    """
    with safe_open(path, framework="pt") as file:
        about: dict[str, str] = dict(file.metadata() or {})
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    expected, found = about.pop(_DIGEST, None), _digest(tensors, about)
    if expected != found:
        raise ValueError(f"expected SHA-256 {expected}, found {found}")
    return about, tensors


def _digest(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """Return the SHA-256 of everything that a checkpoint holds."""
    digest = hashlib.sha256(msgspec.json.encode(sorted(about.items())))
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.cpu().numpy().reshape(-1).data)
    return digest.hexdigest()
