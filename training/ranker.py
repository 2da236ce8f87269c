"""The ranker: how likely a candidate is what this customer takes next, here and now.

Letters: M candidates, F features, X what the feature transform makes of them.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from training.transform import TRANSFORMED, FeatureTransform

_FARTHEST = 8.0


class Ranker(nn.Module):
    """A feature transform and a small network over it; its output is a probability.

    Args:
        widths: of the hidden layers.
    """

    mean: Tensor
    spread: Tensor
    calibration: Tensor

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.transform = FeatureTransform()
        self.register_buffer("mean", torch.zeros(TRANSFORMED))
        self.register_buffer("spread", torch.ones(TRANSFORMED))
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))
        layers: list[nn.Module] = []
        for inputs, width in pairwise([TRANSFORMED, *widths]):
            layers += [nn.Linear(inputs, width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return calibrated probabilities (M) of some candidates' features (M, F)."""
        return torch.sigmoid(self.logits(self.transform(features)) * self.calibration[0] + self.calibration[1])

    def logits(self, inputs: Tensor) -> Tensor:
        """Return log-odds (M) before calibration of transformed features (M, X)."""
        # Far from everything it has learnt from, an input weighs no more than at the border: scores stay apart.
        return self.layers(((inputs - self.mean) * self.spread).clamp(-_FARTHEST, _FARTHEST)).squeeze(1)
