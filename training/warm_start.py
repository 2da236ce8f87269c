"""Where the fit of the towers starts: at the factors of alternating least squares (ALS).

Letters: N products, D dimensions.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.towers import CustomerTower, ProductTower

CONFIDENCE = 40.0
"""So many times as much as a product not bought a single purchase counts in ALS where repeats are rare, as in the paper
(Hu, Koren and Volinsky, 2008). Where they are common, how often something was bought tells enough."""

_SHARPNESS = 10.0
"""What the mean of a history is multiplied by, so that inner products with it make a softmax that prefers something."""


def start_products(tower: ProductTower, als_ND: NDArray[np.float32], trained_N: NDArray[np.bool_]) -> None:
    """Let the own vectors of products begin at ALS factors.

    Args:
        tower: of products.
        als_ND: the factors.
        trained_N: which products the histories hold.
    """
    # ALS' scale depends on its counts; the towers want vectors of about unit length.
    scale = np.linalg.norm(als_ND, axis=1)[trained_N].mean()
    tower.ids.weight.data.copy_(torch.as_tensor(als_ND / max(float(scale), 1e-9)))


def start_at_histories(product: ProductTower, customer: CustomerTower) -> None:
    """Let a customer's vector begin at the mean of the history's products, and these at their own vectors alone.

    All that the layers in between add is zero at first, and is learnt from there.
    """
    blocks = torch.eye(customer.value.out_features).repeat(1, customer.heads)
    with torch.no_grad():
        customer.value.weight.copy_(blocks * (_SHARPNESS / customer.heads))
    added = [product.mix[-1], customer.mix[-1], customer.age[-1]]
    for parameter in (*(one for layer in added for one in layer.parameters()), customer.value.bias, customer.ask.bias):
        nn.init.zeros_(parameter)


def whitened(als_ND: NDArray[np.float32], regularisation: float) -> NDArray[np.float32]:
    """Return ALS factors whose inner products are those of ALS' own step from a purchase to another product.

    That step is the inverse of the Gram matrix; here each factor is multiplied by its square root.

    Args:
        als_ND: the factors.
        regularisation: what they were fitted with.
    """
    factors_ND = als_ND.astype(np.float64)
    lengths_D, axes_DD = np.linalg.eigh(factors_ND.T @ factors_ND + regularisation * np.eye(factors_ND.shape[1]))
    return (factors_ND @ (axes_DD / np.sqrt(lengths_D)) @ axes_DD.T).astype(np.float32)
