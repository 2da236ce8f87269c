"""The rankers: how likely a candidate is what this customer takes next, here and now.

Letters: M candidates, F features, X what the feature transform makes of them.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from training.transform import TRANSFORMED, FeatureTransform

_FARTHEST = 8.0


class Rankers(NamedTuple):
    """Two rankers, each for its own questions; `features.is_regular` says which judges a candidate.

    Attributes:
        regular: for customers who have bought before: what they buy next, mostly again.
        newcomers: for all else: nobody known, what a customer never bought, and what nobody ever bought.
        longest_absence: as in ``Statistics``: days, of the examples that they have learnt from.
    """

    regular: "Ranker"
    newcomers: "Ranker"
    longest_absence: float


class Dropout(nn.Module):
    """Leaves out a random share of a layer in every step of a fit; does nothing afterwards.

    It does what torch's does, whose random numbers take a third of the time of a fit on a CPU: here a byte decides.

    Args:
        share: of the layer, to the nearest 256th.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self._left_out = round(share * 256)
        self._random = np.random.default_rng(torch.initial_seed())

    def forward(self, layer: Tensor) -> Tensor:
        """Return a layer of any shape without what is left out, the rest enlarged so that its mean stays."""
        if not self.training or not self._left_out:
            return layer
        drawn = np.frombuffer(bytearray(self._random.bytes(layer.numel())), np.uint8).reshape(layer.shape)
        kept = torch.from_numpy(drawn).to(layer.device) >= self._left_out
        return layer * (kept * (256 / (256 - self._left_out)))


class Ranker(nn.Module):
    """A feature transform and a small network over it; its output is a probability.

    Args:
        widths: of the hidden layers.
        dropout: the share of each hidden layer that is left out of a step of the fit.
    """

    mean: Tensor
    spread: Tensor
    calibration: Tensor

    def __init__(self, widths: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.transform = FeatureTransform()
        self.register_buffer("mean", torch.zeros(TRANSFORMED))
        self.register_buffer("spread", torch.ones(TRANSFORMED))
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))
        layers: list[nn.Module] = []
        for inputs, width in pairwise([TRANSFORMED, *widths]):
            layers += [nn.Linear(inputs, width), nn.ReLU(), Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return calibrated probabilities (M) of some candidates' features (M, F)."""
        return torch.sigmoid(self.logits(self.transform(features)) * self.calibration[0] + self.calibration[1])

    def logits(self, inputs: Tensor) -> Tensor:
        """Return log-odds (M) before calibration of transformed features (M, X)."""
        # Far from everything it has learnt from, an input weighs no more than at the border: scores stay apart.
        return self.layers(((inputs - self.mean) * self.spread).clamp(-_FARTHEST, _FARTHEST)).squeeze(1)
