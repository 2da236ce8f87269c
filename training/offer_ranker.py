"""The ranker of offers, additive in bent lines of the logarithms of features.

It learns which of the eligible offers a customer redeems, given that they redeem one: a conditional logit (McFadden,
1974). Where the data hold what was shown and refused, it learns whether a customer accepts what is shown: a logistic
regression.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embeddings.metrics import area_under_curve
from embeddings.ranking.offer_features import OFFER_FEATURES
from training.acceptance import FEWEST
from training.fit_ranker import calibration_error
from training.losses import listwise_softmax
from training.piecewise import Piecewise, minimise
from training.visits import VisitExample

FEWEST_VISITS = 50
"""So many visits with redemptions are needed to fit; with fewer, purchases of what is covered, per root of its size,
decide."""

_RIDGE = 1e-2
"""What the sum of the squared weights counts, of standardised inputs, beside the mean loss of a visit."""

_RIDGE_OF_SHOWN = 1e-3
"""The same beside the mean loss of an offer that was shown."""


class OfferRanker(Piecewise):
    """Maps features of offers to log-odds: of being accepted when shown, or such that only differences matter."""

    intercept: Tensor

    def __init__(self) -> None:
        super().__init__(len(OFFER_FEATURES))
        self.register_buffer("intercept", torch.zeros(1))
        self.weights.weight.data[0, OFFER_FEATURES.index("slow_per_root")] = 1.0

    def forward(self, features: Tensor) -> Tensor:
        """Return the log-odds (O) of features (O, F)."""
        return super().forward(features) + self.intercept


class _Shown(NamedTuple):
    """Offers that were shown: their features (O, F), 1 for those that were accepted, and how many each stands for."""

    features: NDArray[np.float32]
    taken: NDArray[np.float32]
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, visits: Sequence[VisitExample]) -> Self:
        """Return all offers that were shown in some visits."""
        sizes = [len(one.taken_O) for one in visits]
        return cls(
            np.concatenate([np.zeros((0, len(OFFER_FEATURES)), np.float32), *(one.features_OF for one in visits)]),
            np.concatenate([np.zeros(0, np.float32), *(one.taken_O for one in visits)]),
            np.repeat(np.array([one.visit.weight for one in visits], np.float32), sizes),
        )


def is_enough_to_fit(visits: Sequence[VisitExample]) -> bool:
    """Return whether in some visits enough offers were shown, both accepted and refused, for `fit_accepted`."""
    taken = _Shown.of(visits).taken
    return min(taken.sum(), len(taken) - taken.sum()) >= FEWEST


def fit_accepted(visits: Sequence[VisitExample]) -> OfferRanker:
    """Fit a ranker on the offers that were shown, some of them accepted and some refused.

    The result depends on the visits alone, as the loss is convex and the weights begin at zero.
    """
    ranker, shown = OfferRanker(), _Shown.of(visits)
    inputs = ranker.fit_scaling(shown.features)
    weights, intercept = torch.nn.init.zeros_(ranker.weights.weight), torch.zeros(1, requires_grad=True)
    accepted, weighed = torch.from_numpy(shown.taken), torch.from_numpy(shown.weights / shown.weights.sum())

    def loss() -> Tensor:
        logits = inputs @ weights[0] + intercept
        each = torch.nn.functional.binary_cross_entropy_with_logits(logits, accepted, weighed, reduction="sum")
        return each + _RIDGE_OF_SHOWN * weights.square().sum()

    minimise(loss, [weights, intercept])
    ranker.intercept.copy_(intercept.detach())
    return ranker.eval()


def measure_accepted(visits: Sequence[VisitExample], ranker: OfferRanker) -> Mapping[str, float]:
    """Return how well a ranker tells accepted from refused offers, beside what their rates of acceptance alone say.

    These are areas under the curve, over all offers shown; ``calibration_error`` is the expected one. The result is
    empty without both accepted and refused ones.
    """
    shown = _Shown.of(visits)
    if not 0 < shown.taken.sum() < len(shown.taken):
        return {}
    with torch.inference_mode():
        scores = torch.sigmoid(ranker(torch.from_numpy(shown.features))).numpy()
    rates = shown.features[:, OFFER_FEATURES.index("accepted")]
    return {
        "calibration_error": round(calibration_error(scores, shown.taken, shown.weights), 5),
        "auc": round(area_under_curve(scores, shown.taken, shown.weights), 5),
        "auc_of_rates": round(area_under_curve(rates, shown.taken, shown.weights), 5),
        "shown": round(float(shown.weights.sum()), 0),
        "accepted": round(float(shown.taken @ shown.weights / shown.weights.sum()), 5),
    }


def fit_offers(visits: Sequence[VisitExample]) -> OfferRanker:
    """Fit a ranker on the offers that were redeemed.

    The result depends on the visits alone, as the loss is convex and the weights begin at zero.
    """
    ranker = OfferRanker()
    redeeming = [one for one in visits if one.taken_O.any()]
    if len(redeeming) < FEWEST_VISITS:
        return ranker.eval()
    taken = torch.from_numpy(np.concatenate([one.taken_O for one in redeeming]))
    owners = torch.from_numpy(np.repeat(np.arange(len(redeeming)), [len(one.taken_O) for one in redeeming]))
    inputs = ranker.fit_scaling(np.concatenate([one.features_OF for one in redeeming]))
    weights = torch.nn.init.zeros_(ranker.weights.weight)
    minimise(
        lambda: listwise_softmax(inputs @ weights[0], taken, owners, len(redeeming)) + _RIDGE * weights.square().sum(),
        [weights],
    )
    return ranker.eval()
