"""Losses. Letters: B customers, T targets, C candidates; M candidates of many lists."""

import torch
from torch import Tensor


def sampled_softmax(
    inner_BC: Tensor, owners_T: Tensor, targets_T: Tensor, bought_BC: Tensor, log_inclusion_C: Tensor
) -> Tensor:
    """Return the mean of ``-log p(target)`` under a softmax over all products, its sum estimated from a sample.

    The sum over products that are not in the basket is estimated by weighting each sampled one by the inverse of its
    probability of being sampled (the logQ correction of Bengio and Senécal, 2008, with inclusion probabilities, as
    candidates are distinct). The target itself is there for certain and is not corrected.

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


def listwise_softmax(logits_M: Tensor, taken_M: Tensor, owners_M: Tensor, lists: int) -> Tensor:
    """Return the mean over lists of the cross-entropy between the taken candidates and a softmax over the list.

    The candidates taken count in equal shares. This is ListNet's top-one loss (Cao et al., 2007).

    Args:
        logits_M: scores of all candidates.
        taken_M: 1 for what was taken, else 0.
        owners_M: which list each candidate belongs to, ascending.
        lists: how many lists there are.
    """
    highest = logits_M.detach().new_full((lists,), -torch.inf).scatter_reduce(0, owners_M, logits_M.detach(), "amax")
    shifted_M = logits_M - highest[owners_M]
    sums = torch.zeros_like(highest).index_add(0, owners_M, shifted_M.exp())
    taken = torch.zeros_like(highest).index_add(0, owners_M, taken_M)
    return -((shifted_M - sums.log()[owners_M]) * taken_M / taken.clamp(min=1)[owners_M]).sum() / lists
