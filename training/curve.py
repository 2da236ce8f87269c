"""What becomes of a fit, epoch by epoch: kept while it runs, told to its checkpoints, published with what it made."""

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager

import msgspec
import torch
from torch import Tensor

from embeddings.release.bundle import Epochs


class _Told(msgspec.Struct, frozen=True):
    """A curve in a checkpoint: what is complete, and what the epoch under way has come to."""

    points: list[Epochs]
    steps: int
    lost: float
    seconds: float


class Curve:
    """The course of one fit; it measures the time of its steps as they happen.

    Args:
        examples: how many an epoch shows.
        told: what ``tell`` said before the fit was killed; None for a fit that begins.
    """

    def __init__(self, examples: int, told: str | None = None) -> None:
        before = msgspec.json.decode(told, type=_Told) if told is not None else _Told([], 0, 0.0, 0.0)
        self.points = before.points
        self._examples = examples
        self._steps = before.steps
        # A tensor, so that a loss on a GPU need not be waited for; of double width, so that a sum continued is the sum.
        self._lost = torch.tensor(before.lost, dtype=torch.float64)
        self._began = time.perf_counter() - before.seconds

    @contextmanager
    def aside(self) -> Generator[None]:
        """What happens inside is not part of fitting, and its time not counted: validations and checkpoints."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def step(self, loss: Tensor) -> None:
        """One step more was done, at this loss."""
        self._lost = self._lost.to(loss.device) + loss.detach().double()
        self._steps += 1

    def close(self, metrics: Mapping[str, float]) -> None:
        """The epoch is over; after it this was measured on what is held out, if anything was."""
        loss = self._lost.item() / self._steps
        seconds = time.perf_counter() - self._began
        count = len(self.points) + 1
        self.points.append(Epochs(count, count * self._examples, round(seconds, 3), loss, dict(metrics)))
        self._steps, self._lost = 0, torch.zeros((), dtype=torch.float64)

    def tell(self) -> str:
        """All of it, for a checkpoint."""
        seconds = time.perf_counter() - self._began
        return msgspec.json.encode(_Told(self.points, self._steps, self._lost.item(), seconds)).decode()
