"""The ranker of offers: which of the eligible offers a customer redeems, given that they redeem one.

A conditional logit (McFadden, 1974), additive in bent lines of the logarithms of features.
"""

import logging
from collections.abc import Sequence

import numpy as np
import torch

from embeddings.ranking.offer_features import OFFER_FEATURES
from training.losses import listwise_softmax
from training.piecewise import Piecewise, minimise
from training.visits import VisitExample

FEWEST_VISITS = 50
"""So many visits with redemptions are needed to fit; with fewer, purchases of what is covered, per root of its size,
decide."""

_RIDGE = 1e-2
"""What the sum of the squared weights counts, of standardised inputs, beside the mean loss of a visit."""

_log = logging.getLogger("opportune.train")


class OfferRanker(Piecewise):
    """Maps features of offers to log-odds; what all offers have in common decides nothing."""

    def __init__(self) -> None:
        super().__init__(len(OFFER_FEATURES))
        self.weights.weight.data[0, OFFER_FEATURES.index("slow_per_root")] = 1.0


def fit_offers(visits: Sequence[VisitExample]) -> OfferRanker:
    """Fit a ranker on the offers that were redeemed.

    The result depends on the visits alone, as the loss is convex and the weights begin at zero.
    """
    ranker = OfferRanker()
    redeeming = [one for one in visits if one.taken_O.any()]
    if len(redeeming) < FEWEST_VISITS:
        _log.info("%d visits with redemptions: too few to rank offers by, at least %d", len(redeeming), FEWEST_VISITS)
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
