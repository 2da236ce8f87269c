"""The feature transform: features aged to the moment, logarithms of counts and days, ratios of them.

It is the first layer of the ranker, and so a part of what is exported: training and service cannot differ in it.
Letters: M candidates, F features, C counts, Q quotients, J columns that are mixed of features, X what comes out.
"""

import math

import torch
from torch import Tensor, nn

from embeddings.ranking.features import COUNTED, RANKER_FEATURES
from embeddings.ranking.profile import DECAYS, GROUP_DECAY
from embeddings.ranking.statistics import GROUPINGS

_SLOW = (
    "own_slow",
    "own_here",
    "own_hour",
    "visits",
    "visits_here",
    "visits_hour",
    *(f"{group}_slow" for group in GROUPINGS),
)
_DECAY = (
    dict.fromkeys(_SLOW, DECAYS[0])
    | {"own_middling": DECAYS[1], "own_fast": DECAYS[2]}
    | {f"{group}_lately": GROUP_DECAY for group in GROUPINGS}
)
_AGEING = ("own_since", *(f"{group}_since" for group in GROUPINGS))
_RATIOS = (
    ("own_since", "own_gap", 0.5),
    ("own_slow", "visits", 0.5),
    ("own_here", "visits_here", 0.5),
    ("visits_here", "visits", 0.1),
    ("own_hour", "visits_hour", 0.5),
    ("own_basket_size", "basket_size", 1.0),
    ("basket_size_hour", "basket_size", 1.0),
    ("product_price_lately", "own_price", 0.01),
    ("product_price_lately", "product_price", 0.01),
    *((f"{group}_since", f"{group}_gap", 0.5) for group in GROUPINGS),
    *((f"{group}_slow", "visits", 0.5) for group in GROUPINGS),
    *(("own_slow", f"{group}_slow", 0.1) for group in GROUPINGS),
)
"""What is due, how often per visit, and what share of a group: one feature over another, which is at least so much."""

_MOST = 50.0
_ABOVE_RATIOS, _ABOVE_SHARES = 0.02, 1e-6
"""What is added before a logarithm is taken, so that it is one of something."""

_PRIOR = 100.0
"""Purchases' worth of the shares of all locations in those of one."""

_HAZARDS = ("own_hazard", "type_hazard")
_HAZARD_SCALE = 1e3

_SHARES = ("product_share", *(f"product_{group}_share" for group in GROUPINGS))
_SHARE_SCALE = 1e5
"""What brings shares of all purchases among the sizes of counts."""

_QUOTIENTS = len(_RATIOS) + 1
"""Q: the ratios, and the share of the location's purchases."""

TRANSFORMED = len(RANKER_FEATURES) + len(_RATIOS) + 2
"""X."""

_AWAY = RANKER_FEATURES.index("away")


class FeatureTransform(nn.Module):
    """Turns features (M, F), in the order of ``RANKER_FEATURES``, into what the network reads (M, X).

    The logarithms of one and each count, of each ratio and of the share of the location's purchases, then the features
    that are no counts, and how far the inner product lies above what was retrieved. There is nothing to fit.
    """

    decays_F: Tensor
    ages_F: Tensor
    scales_C: Tensor
    mixture_FJ: Tensor
    offsets_J: Tensor
    least_Q: Tensor
    most_Q: Tensor
    added_Q: Tensor

    def __init__(self) -> None:
        super().__init__()
        decays = [math.log(_DECAY.get(name, 1.0)) for name in RANKER_FEATURES]
        self.register_buffer("decays_F", torch.tensor(decays))
        self.register_buffer("ages_F", torch.tensor([float(name in _AGEING) for name in RANKER_FEATURES]))
        scale_of = dict.fromkeys(_SHARES, _SHARE_SCALE) | dict.fromkeys(_HAZARDS, _HAZARD_SCALE)
        scales = [scale_of.get(name, 1.0) for name in RANKER_FEATURES[:COUNTED]]
        self.register_buffer("scales_C", torch.tensor(scales))
        # All quotients by one product of matrices, which copies features: looking up columns would cost twice as much.
        above = [{above: 1.0} for above, _, _ in _RATIOS] + [{"popular_here": 1.0, "product_share": _PRIOR}]
        below = [{below: 1.0} for _, below, _ in _RATIOS] + [{"sold_here": 1.0}]
        columns = [*above, *below, {"inner": 1.0, "retrieved": -1.0}]
        mixture = torch.zeros(len(RANKER_FEATURES), len(columns))
        for place, column in enumerate(columns):
            for name, weight in column.items():
                mixture[RANKER_FEATURES.index(name), place] = weight
        self.register_buffer("mixture_FJ", mixture)
        offsets = torch.zeros(len(columns))
        offsets[2 * _QUOTIENTS - 1] = _PRIOR  # below the last quotient, the share of the location's purchases
        self.register_buffer("offsets_J", offsets)
        self.register_buffer("least_Q", torch.tensor([*(least for *_, least in _RATIOS), _PRIOR]))
        self.register_buffer("most_Q", torch.tensor([_MOST] * len(_RATIOS) + [torch.inf]))
        self.register_buffer("added_Q", torch.tensor([_ABOVE_RATIOS] * len(_RATIOS) + [_ABOVE_SHARES]))

    def forward(self, features: Tensor) -> Tensor:
        """Return what the network reads (M, X)."""
        away = features[:, _AWAY : _AWAY + 1]
        aged = features * torch.exp(away * self.decays_F) + away * self.ages_F
        counts = torch.relu(aged[:, :COUNTED] * self.scales_C) + 1
        mixed = torch.addmm(self.offsets_J, aged, self.mixture_FJ)
        above, below = mixed[:, :_QUOTIENTS], torch.maximum(mixed[:, _QUOTIENTS : 2 * _QUOTIENTS], self.least_Q)
        quotients = torch.minimum(above / below, self.most_Q) + self.added_Q
        logarithms = torch.log(torch.cat([counts, quotients], dim=1))
        return torch.cat([logarithms, aged[:, COUNTED:], mixed[:, 2 * _QUOTIENTS :]], dim=1)
