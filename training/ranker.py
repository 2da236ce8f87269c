"""The rankers: how likely a candidate is what this customer takes next, here and now.

Letters: M candidates, F features, X what the feature transform makes of them.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

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
            layers += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return calibrated probabilities (M) of some candidates' features (M, F)."""
        return torch.sigmoid(self.logits(self.transform(features)) * self.calibration[0] + self.calibration[1])

    def logits(self, inputs: Tensor) -> Tensor:
        """Return log-odds (M) before calibration of transformed features (M, X)."""
        # Far from everything it has learnt from, an input weighs no more than at the border: scores stay apart.
        return self.layers(((inputs - self.mean) * self.spread).clamp(-_FARTHEST, _FARTHEST)).squeeze(1)
