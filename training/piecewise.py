"""A sum of curves, one a feature, piecewise linear in its logarithm: the model of both levels of offers.

Redemptions are few, and a sum of curves over single features holds where a network only remembers. Letters: O examples,
F features, X inputs, Y bends of a line.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

_BENDS = (1 / 3, 2 / 3)
"""Where the line of each feature may change its slope: at these quantiles."""

_STEPS = 100


class Piecewise(nn.Module):
    """Maps features, none of them negative, to log-odds.

    Args:
        features: how many.
    """

    bends: Tensor
    mean: Tensor
    spread: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        inputs = features * (1 + len(_BENDS))
        self.register_buffer("bends", torch.zeros(features, len(_BENDS)))
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))
        self.weights = nn.Linear(inputs, 1, bias=False)
        nn.init.zeros_(self.weights.weight)

    def inputs(self, features: Tensor) -> Tensor:
        """Return the logarithm of each feature, and how far it lies beyond each bend (O, X), of features (O, F)."""
        logs_OF = torch.log1p(features)
        beyond_OFY = torch.relu(logs_OF[:, :, None] - self.bends)
        return (torch.cat([logs_OF, beyond_OFY.flatten(1)], dim=1) - self.mean) * self.spread

    def forward(self, features: Tensor) -> Tensor:
        """Return the log-odds (O) of features (O, F)."""
        return self.weights(self.inputs(features)).squeeze(1)

    def fit_scaling(self, features_OF: NDArray[np.float32]) -> Tensor:
        """Set bends and scaling from examples; return the scaled inputs (O, X) of these examples."""
        features = torch.from_numpy(features_OF)
        self.bends.copy_(torch.from_numpy(np.quantile(np.log1p(features_OF), _BENDS, axis=0).T))
        inputs = self.inputs(features)
        self.mean.copy_(inputs.mean(0))
        self.spread.copy_(1 / (inputs.std(0, correction=0) + 1e-3))
        return (inputs - self.mean) * self.spread


def minimise(loss: Callable[[], Tensor], parameters: list[Tensor]) -> None:
    """Change parameters until their convex loss is least; the result depends on their first values alone."""
    optimiser = torch.optim.LBFGS(parameters, max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    optimiser.step(closure)
