"""Customers and products as vectors: matrix factorisation, and LightGCN with one hop.

LightGCN: He et al., 2020 (arXiv 2002.02126). Scores are cosines, so that all product vectors are of length one and a
customer's length does not matter. Letters: C customers, N products, D dimensions, B customers of a batch, K drawn
products, P pairs of a batch.
"""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.interactions.config import FactorsRecipe
from training.interactions.files import Interactions
from training.interactions.losses import bilateral_softmax
from training.interactions.model import Model, Vectors
from training.interactions.negatives import Negatives

ORDER, SAMPLE = 1, 2
"""Random streams of one seed, kept apart by these."""


class Graph:
    """Who had to do with what: edges of weight ``1 / sqrt(customer's products * product's customers)``."""

    def __init__(self, interactions: Interactions, device: torch.device) -> None:
        matrix_CN = interactions.matrix()
        owners, columns = matrix_CN.nonzero()
        of_customers_C, of_products_N = np.bincount(owners), np.bincount(columns)
        matrix_CN.data[:] = 1 / np.sqrt(of_customers_C[owners] * of_products_N[columns])
        self.to_customers = _sparse(matrix_CN, device)
        self.to_products = _sparse(matrix_CN.T.tocsr(), device)


class _Spread(torch.autograd.Function):
    """Vectors summed along the edges, each side from the other."""

    @staticmethod
    def forward(ctx: Any, customers_CD: Tensor, products_ND: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        ctx.graph = graph
        return graph.to_customers @ products_ND, graph.to_products @ customers_CD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        to_customers_CD, to_products_ND = grads
        graph: Graph = ctx.graph
        return graph.to_customers @ to_products_ND, graph.to_products @ to_customers_CD, None


def _sparse(matrix: Any, device: torch.device) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its sparse rows a beta
        return torch.sparse_csr_tensor(
            torch.as_tensor(matrix.indptr.astype(np.int64)),
            torch.as_tensor(matrix.indices.astype(np.int64)),
            torch.as_tensor(matrix.data),
            size=matrix.shape,
            device=device,
        )


class Factors(Model):
    """The vectors of every customer and product, and how a batch of customers teaches them."""

    def __init__(self, interactions: Interactions, recipe: FactorsRecipe, device: torch.device) -> None:
        super().__init__()
        self._rows = interactions.rows
        self._recipe = recipe
        self._device = device
        self._negatives = Negatives(interactions.product_counts(), recipe.loss)
        self._log_weights_N = torch.as_tensor(self._negatives.log_weights_N, device=device)
        self._place_N = np.full(len(interactions.products), -1)
        self._active = np.flatnonzero(np.diff(self._rows.offsets))
        self._graph = Graph(interactions, device) if recipe.hops else None
        self.customers = nn.Parameter(torch.empty(len(interactions.customers), recipe.dimensions))
        self.products = nn.Parameter(torch.empty(len(interactions.products), recipe.dimensions))
        nn.init.xavier_uniform_(self.customers)
        nn.init.xavier_uniform_(self.products)
        self.to(device)

    @property
    def steps(self) -> int:
        """How many batches make an epoch."""
        return -(-len(self._active) // self._recipe.fit.customers_a_batch)

    @property
    def examples(self) -> int:
        """How many products an epoch shows with a customer, to be foretold."""
        return len(self._rows.values)

    def forward(self) -> tuple[Tensor, Tensor]:
        """The vectors of all customers (C, D), and of all products (N, D), these of length one."""
        customers_CD, products_ND = self.customers, self.products
        if self._graph is not None:
            spread: Any = _Spread.apply(customers_CD, products_ND, self._graph)
            customers_CD, products_ND = customers_CD + spread[0], products_ND + spread[1]
        return customers_CD, nn.functional.normalize(products_ND, dim=1)

    def loss(self, epoch: int, step: int) -> Tensor:
        """The loss of one batch, drawn by seed, epoch and step alone."""
        recipe, device = self._recipe, self._device
        size = recipe.fit.customers_a_batch
        order = np.random.default_rng([recipe.seed, ORDER, epoch]).permutation(self._active)
        rows_B = order[step * size : (step + 1) * size]
        drawn_K = self._negatives.draw(np.random.default_rng([recipe.seed, SAMPLE, epoch, step]))
        counts_B = self._rows.offsets[rows_B + 1] - self._rows.offsets[rows_B]
        bought_P = np.concatenate([self._rows[row] for row in rows_B.tolist()])
        owners_P = np.repeat(np.arange(len(rows_B)), counts_B)

        customers_CD, products_ND = self()
        customers_BD = nn.functional.normalize(customers_CD[torch.as_tensor(rows_B, device=device)], dim=1)
        drawn = torch.as_tensor(drawn_K, device=device)
        drawn_BK = customers_BD @ products_ND[drawn].T / recipe.loss.temperature + self._log_weights_N[drawn]
        # What a customer had to do with is no negative of theirs.
        self._place_N[drawn_K] = np.arange(len(drawn_K))
        places_P = self._place_N[bought_P]
        self._place_N[drawn_K] = -1
        own = places_P >= 0
        drawn_BK = drawn_BK.index_put(
            (torch.as_tensor(owners_P[own], device=device), torch.as_tensor(places_P[own], device=device)),
            torch.tensor(-torch.inf, device=device),
        )
        ends_B = np.cumsum(counts_B)
        summed_BD = nn.functional.embedding_bag(
            torch.as_tensor(bought_P.astype(np.int64), device=device),
            products_ND,
            torch.as_tensor(ends_B - counts_B, device=device),
            mode="sum",
        )
        positive_B = (customers_BD * summed_BD).sum(1) / recipe.loss.temperature
        counts = torch.as_tensor(counts_B.astype(np.float32), device=device)
        return bilateral_softmax(positive_B, counts, drawn_BK, recipe.exponent)

    def vectors(self) -> Vectors:
        """The vectors of every customer and product, all of length one."""
        with torch.inference_mode():
            customers_CD, products_ND = self()
            return Vectors(nn.functional.normalize(customers_CD, dim=1).cpu().numpy(), products_ND.cpu().numpy())
