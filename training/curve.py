"""The course of a fit, epoch by epoch: recorded while it runs, kept in its checkpoints, published in its release."""

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager

import msgspec
import torch
from torch import Tensor

from embeddings.release.bundle import Epochs


class _Told(msgspec.Struct, frozen=True):
    """A curve in a checkpoint: the complete epochs, and the sums of the epoch under way."""

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
        """Leave the time of the block out of the fit's, for validations and checkpoints."""
        began = time.perf_counter()
        yield
        self._began += time.perf_counter() - began

    def step(self, loss: Tensor) -> None:
        """Add one step that was done, with its loss."""
        self._lost = self._lost.to(loss.device) + loss.detach().double()
        self._steps += 1

    def close(self, metrics: Mapping[str, float]) -> None:
        """End the epoch, with what was measured after it on the held-out data, if anything was."""
        loss = self._lost.item() / self._steps
        seconds = time.perf_counter() - self._began
        count = len(self.points) + 1
        self.points.append(Epochs(count, count * self._examples, round(seconds, 3), loss, dict(metrics)))
        self._steps, self._lost = 0, torch.zeros((), dtype=torch.float64)

    def tell(self) -> str:
        """Return the whole curve as text, for a checkpoint."""
        seconds = time.perf_counter() - self._began
        return msgspec.json.encode(_Told(self.points, self._steps, self._lost.item(), seconds)).decode()
