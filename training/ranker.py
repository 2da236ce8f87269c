"""The ranker: how likely a candidate is what this customer takes next, here and now.

Letters: M candidates, F facts, R ratios, X inputs of the network.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from embeddings.facts import COUNTED, FACTS
from embeddings.profile import DECAYS, GROUP_DECAY
from embeddings.statistics import RHYTHMS

_AT = {name: place for place, name in enumerate(FACTS)}
_SLOW = ("own_slow", "own_here", "visits", "visits_here", *(f"{group}_slow" for group in RHYTHMS))
_DECAY = (
    dict.fromkeys(_SLOW, DECAYS[0])
    | {"own_middling": DECAYS[1], "own_fast": DECAYS[2]}
    | {f"{group}_lately": GROUP_DECAY for group in RHYTHMS}
)
_AGEING = ("own_since", *(f"{group}_since" for group in RHYTHMS))
_RATIOS = (
    ("own_since", "own_gap", 0.5),
    ("own_slow", "visits", 0.5),
    ("own_here", "visits_here", 0.5),
    ("visits_here", "visits", 0.1),
    *((f"{group}_since", f"{group}_gap", 0.5) for group in RHYTHMS),
    *((f"{group}_slow", "visits", 0.5) for group in RHYTHMS),
    *(("own_slow", f"{group}_slow", 0.1) for group in RHYTHMS),
)
"""What is due, how often per visit, and what share of a group: a fact, over another one, which is at least so much."""

_LEAST, _MOST = 0.02, 50.0
_FARTHEST = 8.0
_PRIOR = 100.0
"""Purchases' worth of the shares of all locations in those of one."""

_SHARES = ("product_share", *(f"product_{group}_share" for group in RHYTHMS))
_SHARE_SCALE = 1e5
"""What brings shares of all purchases among the sizes of counts."""


class Ranker(nn.Module):
    """A small network over facts that it ages, scales and divides first; its output is a probability.

    Args:
        widths: of the hidden layers.
    """

    decay: Tensor
    ageing: Tensor
    scale: Tensor
    above: Tensor
    below: Tensor
    at_least: Tensor
    mean: Tensor
    spread: Tensor
    calibration: Tensor

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        constants = {
            "decay": [math.log(_DECAY.get(name, 1.0)) for name in FACTS],
            "ageing": [float(name in _AGEING) for name in FACTS],
            "scale": [_SHARE_SCALE if name in _SHARES else 1.0 for name in FACTS[:COUNTED]],
            # Columns are chosen by multiplying with ones and zeros: faster than gathering them.
            "above": [[float(name == above) for above, _, _ in _RATIOS] for name in FACTS],
            "below": [[float(name == below) for _, below, _ in _RATIOS] for name in FACTS],
            "at_least": [least for _, _, least in _RATIOS],
        }
        for name, values in constants.items():
            self.register_buffer(name, torch.tensor(values), persistent=False)
        inputs = self.derive(torch.zeros(1, len(FACTS))).shape[1]
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("spread", torch.ones(inputs))
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, 1))

    def forward(self, facts: Tensor) -> Tensor:
        """Calibrated probabilities (M) of some candidates' facts (M, F)."""
        return torch.sigmoid(self.logits(facts) * self.calibration[0] + self.calibration[1])

    def logits(self, facts: Tensor) -> Tensor:
        """Log-odds (M) before calibration."""
        # Far from everything it has learnt from, a fact weighs no more than at the border: scores stay apart.
        inputs = ((self.derive(facts) - self.mean) * self.spread).clamp(-_FARTHEST, _FARTHEST)
        return self.layers(inputs).squeeze(1)

    def derive(self, facts: Tensor) -> Tensor:
        """What the network reads (M, X): facts aged to the moment, logarithms of counts and days, ratios of them."""
        away = _column(facts, "away")
        facts = facts * torch.exp(away * self.decay) + away * self.ageing
        ratios = (facts @ self.above) / torch.maximum(facts @ self.below, self.at_least)
        bought_here = _column(facts, "popular_here") + _PRIOR * _column(facts, "product_share")
        share_here = bought_here / (_column(facts, "sold_here") + _PRIOR)
        return torch.cat(
            [
                torch.log1p((facts[:, :COUNTED] * self.scale).clamp(min=0.0)),
                facts[:, COUNTED:],
                torch.log(ratios.clamp(max=_MOST) + _LEAST),
                torch.log(share_here + 1e-6),
                _column(facts, "inner") - _column(facts, "retrieved"),
            ],
            dim=1,
        )


def _column(facts: Tensor, name: str) -> Tensor:
    """One fact (M, 1)."""
    return facts[:, _AT[name] : _AT[name] + 1]
