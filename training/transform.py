"""The feature transform: features aged to the moment, logarithms of counts and days, ratios of them.

It is the first layer of the ranker, and so a part of what is exported: training and service cannot differ in it.
Letters: M candidates, F features, C counts, R ratios, X what comes out.
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

_SHARES = ("product_share", *(f"product_{group}_share" for group in GROUPINGS))
_SHARE_SCALE = 1e5
"""What brings shares of all purchases among the sizes of counts."""

TRANSFORMED = len(RANKER_FEATURES) + len(_RATIOS) + 2
"""X."""

_AWAY, _POPULAR_HERE, _SOLD_HERE, _PRODUCT_SHARE, _INNER, _RETRIEVED = (
    RANKER_FEATURES.index(name) for name in ("away", "popular_here", "sold_here", "product_share", "inner", "retrieved")
)


class FeatureTransform(nn.Module):
    """Turns features (M, F), in the order of ``RANKER_FEATURES``, into the inputs of the network (M, X).

    These are the logarithms of one plus each count, of each ratio and of the share of the location's purchases, then
    the features that are no counts, and how far the inner product lies above what was retrieved. There is nothing to
    fit.
    """

    decays_F: Tensor
    ages_F: Tensor
    scales_C: Tensor
    above_R: Tensor
    below_R: Tensor
    least_R: Tensor

    def __init__(self) -> None:
        super().__init__()
        decays = [math.log(_DECAY.get(name, 1.0)) for name in RANKER_FEATURES]
        self.register_buffer("decays_F", torch.tensor(decays))
        self.register_buffer("ages_F", torch.tensor([float(name in _AGEING) for name in RANKER_FEATURES]))
        scales = [_SHARE_SCALE if name in _SHARES else 1.0 for name in RANKER_FEATURES[:COUNTED]]
        self.register_buffer("scales_C", torch.tensor(scales))
        for place, name in enumerate(("above_R", "below_R")):
            self.register_buffer(name, torch.tensor([RANKER_FEATURES.index(ratio[place]) for ratio in _RATIOS]))
        self.register_buffer("least_R", torch.tensor([least for *_, least in _RATIOS]))

    def forward(self, features: Tensor) -> Tensor:
        """Return the inputs of the network (M, X)."""
        away = features[:, _AWAY, None]
        aged = features * torch.exp(away * self.decays_F) + away * self.ages_F
        counts = 1 + torch.relu(aged[:, :COUNTED] * self.scales_C)
        below = torch.maximum(aged.index_select(1, self.below_R), self.least_R)
        ratios = (aged.index_select(1, self.above_R) / below).clamp(max=_MOST) + _ABOVE_RATIOS
        bought_here = features[:, _POPULAR_HERE] + _PRIOR * features[:, _PRODUCT_SHARE]
        share = bought_here / (features[:, _SOLD_HERE] + _PRIOR) + _ABOVE_SHARES
        logarithms = torch.log(torch.cat([counts, ratios, share[:, None]], dim=1))
        above = features[:, _INNER] - features[:, _RETRIEVED]
        return torch.cat([logarithms, aged[:, COUNTED:], above[:, None]], dim=1)
