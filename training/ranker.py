"""The ranker: how likely a candidate is what this customer takes next, here and now.

Letters: M candidates, X inputs of the network.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from embeddings.ranking.transform import TRANSFORMED

_FARTHEST = 8.0


class Ranker(nn.Module):
    """A small network over what ``inputs.transform`` makes of features; its output is a probability.

    Args:
        widths: of the hidden layers.
    """

    mean: Tensor
    spread: Tensor
    calibration: Tensor

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(TRANSFORMED))
        self.register_buffer("spread", torch.ones(TRANSFORMED))
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))
        layers: list[nn.Module] = []
        for inputs, width in pairwise([TRANSFORMED, *widths]):
            layers += [nn.Linear(inputs, width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Calibrated probabilities (M) of some candidates' inputs (M, X)."""
        return torch.sigmoid(self.logits(inputs) * self.calibration[0] + self.calibration[1])

    def logits(self, inputs: Tensor) -> Tensor:
        """Log-odds (M) before calibration."""
        # Far from everything it has learnt from, an input weighs no more than at the border: scores stay apart.
        return self.layers(((inputs - self.mean) * self.spread).clamp(-_FARTHEST, _FARTHEST)).squeeze(1)
