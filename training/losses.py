"""Sampled softmax. Letters: B customers, T targets, C candidates."""

import torch
from torch import Tensor


def sampled_softmax(
    inner_BC: Tensor, owners_T: Tensor, targets_T: Tensor, bought_BC: Tensor, log_inclusion_C: Tensor
) -> Tensor:
    """Mean of ``-log p(target)`` under a softmax over all products, its sum estimated from a sample.

    The sum over products that are not in the basket is estimated by weighting each sampled one by the inverse of
    its probability of being sampled (the logQ correction of Bengio and Senécal, 2008, with inclusion
    probabilities, as candidates are distinct); the target itself is there for certain and is not corrected.

    Args:
        inner_BC: inner products of customers and candidates.
        owners_T: the customer of each target.
        targets_T: the target's place among the candidates.
        bought_BC: candidates that are in the customer's basket, hence no negatives.
        log_inclusion_C: log of the probability that a candidate got into the sample.
    """
    others_B = (inner_BC - log_inclusion_C).masked_fill(bought_BC, -torch.inf).logsumexp(1)
    targets = inner_BC[owners_T, targets_T]
    return (torch.logaddexp(targets, others_B[owners_T]) - targets).mean()
