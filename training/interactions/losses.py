"""Softmax losses whose sum over all products is estimated. Letters: B rows (customers, positions), K drawn products."""

import torch
from torch import Tensor


def bilateral_softmax(
    positive_B: Tensor, counts_B: Tensor, drawn_BK: Tensor, exponent: float, evenness: float
) -> Tensor:
    """Return the weighted mean over all positives of ``-log(exp(positive) / sum ** exponent)``.

    This is the bilateral softmax loss (Wu et al., 2024, arXiv 2312.12882, equation 11 as its code computes it for
    LightGCN on Gowalla): the exponent is the ratio of the temperatures of the negative and the positive side. With
    exponent 1 it is the softmax loss with the positive left out of the sum. A customer who had to do with all
    drawn products teaches nothing and does not count.

    Args:
        positive_B: the sum of each customer's positive scores, over the temperature.
        counts_B: how many they are.
        drawn_BK: scores of drawn products over the temperature, plus their log weights; -inf leaves one out.
        exponent: see above.
        evenness: a positive weighs its customer's count to the power of minus this.
    """
    left_B = drawn_BK.isfinite().any(1)
    weights_B = counts_B**-evenness * left_B
    # Not the sum of nothing, of which weight 0 would make no number.
    sums_B = drawn_BK.masked_fill(~left_B.unsqueeze(1), 0).logsumexp(1)
    losses_B = exponent * counts_B * sums_B - positive_B
    return (weights_B * losses_B).sum() / (weights_B * counts_B).sum().clamp(min=1e-9)


def sampled_softmax(positive_B: Tensor, log_shares_B: Tensor, drawn_BK: Tensor) -> Tensor:
    """Return the mean of ``-log p(positive)`` under a softmax over all products.

    The softmax's sum is estimated from the drawn products.

    Args:
        positive_B: each position's positive score over the temperature.
        log_shares_B: log of the positive's own weight in the sum, where it stands for certain.
        drawn_BK: scores of drawn products over the temperature, plus their log weights; -inf leaves one out, as the
            positive itself has to be.
    """
    return (torch.logaddexp(positive_B + log_shares_B, drawn_BK.logsumexp(1)) - positive_B).mean()
