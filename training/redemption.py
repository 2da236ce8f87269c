"""The upper level of offers: how likely a customer redeems any of the eligible ones in a visit.

A logistic regression on features of the visit. One feature, the inclusive value, combines the odds that the ranker of
offers gives to all of them: a nested logit (McFadden, 1978). Letters: V visits, O offers, F features.
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embeddings.ranking.redemption import VISIT_FEATURES, sum_of_odds
from training.fit_ranker import calibration_error
from training.offer_ranker import FEWEST_VISITS, OfferRanker
from training.piecewise import Piecewise, minimise
from training.visits import VisitExample

_RIDGE = 1e-4
"""What the sum of the squared weights counts, of standardised inputs, beside the mean loss of a visit."""

_FOLDS = 5
_PRIOR_VISITS, _PRIOR_REDEEMING = 100.0, 1.0
"""What was seen before anything was: a base rate is never 0 or 1."""

_LEAST = 1e-6
"""Nearer to 0 or 1 no probability is taken to be where it calibrates."""

_KNOWN, _ODDS = VISIT_FEATURES.index("known"), VISIT_FEATURES.index("odds")

_log = logging.getLogger("opportune.train")


class Redemption(nn.Module):
    """Maps features of visits to probabilities; for somebody without a history it returns the base rate.

    Args:
        rate: the base rate.
    """

    base: Tensor
    calibration: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.register_buffer("base", torch.logit(torch.tensor(rate)))
        self.register_buffer("calibration", torch.tensor([1.0, 0.0]))
        self.curves = Piecewise(len(VISIT_FEATURES))
        self.shift = nn.Parameter(self.base.clone())

    def forward(self, features: Tensor) -> Tensor:
        """Return probabilities (V) of features (V, F)."""
        logits = (self.curves(features) + self.shift) * self.calibration[0] + self.calibration[1]
        return torch.sigmoid(torch.where(features[:, _KNOWN] > 0, logits, self.base))


def fit_redemption(visits: Sequence[VisitExample], offers: OfferRanker) -> Redemption:
    """Fit on visits; calibrate on log-odds that each visit gets from models fitted on other customers.

    The result depends on the arguments alone, as the loss is convex. With few redemptions it is the base rate for
    everybody.

    Args:
        visits: with and without redemptions, each with its weight.
        offers: the ranker of the offers, whose log-odds make the inclusive value.
    """
    taken_V = np.array([one.taken_O.any() for one in visits], np.float32)
    weights_V = np.array([one.visit.weight for one in visits], np.float32)
    redeeming = float(taken_V @ weights_V)
    model = Redemption((redeeming + _PRIOR_REDEEMING) / (float(weights_V.sum()) + _PRIOR_VISITS))
    if taken_V.sum() < FEWEST_VISITS:
        return model.eval()
    features_VF = visit_features(visits, offers)
    folds_V = np.array([one.visit.customer for one in visits]) % _FOLDS
    apart_V = np.zeros(len(visits), np.float32)
    for fold in range(_FOLDS):
        others_V = folds_V != fold
        part = Redemption(0.5)
        _fit(part, features_VF[others_V], taken_V[others_V], weights_V[others_V])
        with torch.inference_mode():
            apart_V[~others_V] = torch.logit(part(torch.from_numpy(features_VF[~others_V])), _LEAST).numpy()
    _fit(model, features_VF, taken_V, weights_V)
    _calibrate(model, apart_V, taken_V, weights_V)
    return model.eval()


def visit_features(visits: Sequence[VisitExample], offers: OfferRanker) -> NDArray[np.float32]:
    """Return the features (V, F) of some visits, at least one, the sum of odds among them."""
    features_VF = np.stack([one.features_F for one in visits])
    for place, logits_O in enumerate(offer_logits(visits, offers)):
        features_VF[place, _ODDS] = sum_of_odds(logits_O)
    return features_VF


def offer_logits(visits: Sequence[VisitExample], offers: OfferRanker) -> list[NDArray[np.float32]]:
    """Return the log-odds (O) of the offers of each visit."""
    ends = np.cumsum([len(one.taken_O) for one in visits])[:-1]
    with torch.inference_mode():
        logits = offers(torch.from_numpy(np.concatenate([one.features_OF for one in visits]))).numpy()
    return np.split(logits, ends)


def measure_offers(visits: Sequence[VisitExample], offers: OfferRanker, model: Redemption) -> Mapping[str, float]:
    """Return the calibration errors of the scores of offers and of the probabilities that any is redeemed.

    The errors are expected calibration errors: over all offers that were eligible in some visits, and over the visits.
    The result also tells how many visits these stand for, and in what share of them something was redeemed. It is empty
    without visits.
    """
    if not visits:
        return {}
    with torch.inference_mode():
        any_V = model(torch.from_numpy(visit_features(visits, offers))).numpy()
    shares = [torch.softmax(torch.from_numpy(logits_O), 0).numpy() for logits_O in offer_logits(visits, offers)]
    sizes_V = [len(shares_O) for shares_O in shares]
    taken_V = np.array([one.taken_O.any() for one in visits], np.float32)
    weights_V = np.array([one.visit.weight for one in visits], np.float32)
    scores_M = np.concatenate(shares) * np.repeat(any_V, sizes_V)
    taken_M = np.concatenate([one.taken_O for one in visits])
    return {
        "calibration_error": round(calibration_error(scores_M, taken_M, np.repeat(weights_V, sizes_V)), 5),
        "visit_calibration_error": round(calibration_error(any_V, taken_V, weights_V), 5),
        "visits": round(float(weights_V.sum()), 0),
        "redeeming": round(float(taken_V @ weights_V / weights_V.sum()), 5),
    }


def _fit(
    model: Redemption, features_VF: NDArray[np.float32], taken_V: NDArray[np.float32], weights_V: NDArray[np.float32]
) -> None:
    inputs = model.curves.fit_scaling(features_VF)
    taken, weighed = torch.from_numpy(taken_V), torch.from_numpy(weights_V / weights_V.sum())
    slopes, shift = model.curves.weights.weight, model.shift

    def loss() -> Tensor:
        logits = inputs @ slopes[0] + shift
        each = nn.functional.binary_cross_entropy_with_logits(logits, taken, weighed, reduction="sum")
        return each + _RIDGE * slopes.square().sum()

    minimise(loss, [slopes, shift])


def _calibrate(
    model: Redemption, apart_V: NDArray[np.float32], taken_V: NDArray[np.float32], weights_V: NDArray[np.float32]
) -> None:
    """Fit Platt scaling (1999) to the log-odds that a model gave to visits which it had not learnt from."""
    highest = apart_V[taken_V == 0].max(initial=-np.inf)
    if apart_V[taken_V > 0].min() > highest:  # the steeper the better, without an end
        return
    logits, taken, weighed = (torch.from_numpy(one) for one in (apart_V, taken_V, weights_V / weights_V.sum()))
    scale = torch.tensor([1.0, 0.0], requires_grad=True)
    minimise(
        lambda: nn.functional.binary_cross_entropy_with_logits(
            logits * scale[0] + scale[1], taken, weighed, reduction="sum"
        ),
        [scale],
    )
    found = scale.detach()
    if bool(torch.isfinite(found).all()) and float(found[0]) > 0:  # a slope below zero would turn the order round
        model.calibration.copy_(found)
