"""Customers and products as vectors: matrix factorisation, and LightGCN with one hop.

LightGCN: He et al., 2020 (arXiv 2002.02126). Scores are cosines, to which a product's popularity is added. Letters: C
customers, N products, D dimensions, B customers of a batch, K drawn products, P pairs of a batch, E pairs in all.
"""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.interactions.config import FactorsRecipe
from training.interactions.files import Interactions
from training.interactions.losses import bilateral_softmax
from training.interactions.model import Model, Vectors
from training.interactions.negatives import Negatives

ORDER, SAMPLE = 1, 2
"""Random streams of one seed, kept apart by these."""


class Graph:
    """Who had to do with what: edges of weight ``1 / sqrt(customer's products * product's customers)``.

    Attributes:
        weights_E: of the edges, in the order of the interactions.
        to_customers: the edges as a matrix (C, N).
        to_products: its transpose.
    """

    def __init__(self, interactions: Interactions, device: torch.device) -> None:
        matrix_CN = interactions.matrix()
        owners, columns = matrix_CN.nonzero()
        of_customers_C, of_products_N = np.bincount(owners), np.bincount(columns)
        matrix_CN.data[:] = 1 / np.sqrt(of_customers_C[owners] * of_products_N[columns])
        self.weights_E = torch.as_tensor(matrix_CN.data, device=device)
        self.to_customers = _sparse(matrix_CN, device)
        self.to_products = _sparse(matrix_CN.T.tocsr(), device)


class _ToProducts(torch.autograd.Function):
    """Customers' vectors summed along the edges (N, D)."""

    @staticmethod
    def forward(ctx: Any, customers_CD: Tensor, graph: Graph) -> Tensor:
        ctx.graph = graph
        return graph.to_products @ customers_CD

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        graph: Graph = ctx.graph
        return graph.to_customers @ grads[0], None


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
        """Return how many batches make an epoch."""
        return -(-len(self._active) // self._recipe.fit.customers_a_batch)

    @property
    def examples(self) -> int:
        """Return how many products an epoch shows with a customer, to be predicted."""
        return len(self._rows.values)

    def loss(self, epoch: int, step: int) -> Tensor:
        """Return the loss of one batch, drawn by seed, epoch and step alone."""
        recipe, device = self._recipe, self._device
        size = recipe.fit.customers_a_batch
        order = np.random.default_rng([recipe.seed, ORDER, epoch]).permutation(self._active)
        rows_B = order[step * size : (step + 1) * size]
        drawn_K = self._negatives.draw(np.random.default_rng([recipe.seed, SAMPLE, epoch, step]))
        edges_P, starts_B, counts_B = self._edges(rows_B)
        bought_P = self._rows.values[edges_P]

        customers_BD, products_ND = self._customers(rows_B), self._products()
        drawn = torch.as_tensor(drawn_K, device=device)
        drawn_BK = customers_BD @ products_ND[drawn].T / recipe.loss.temperature + self._log_weights_N[drawn]
        # What a customer had to do with is no negative of theirs.
        self._place_N[drawn_K] = np.arange(len(drawn_K))
        places_P = self._place_N[bought_P]
        self._place_N[drawn_K] = -1
        own = places_P >= 0
        owners_P = np.repeat(np.arange(len(rows_B)), counts_B)
        drawn_BK = drawn_BK.index_put(
            (torch.as_tensor(owners_P[own], device=device), torch.as_tensor(places_P[own], device=device)),
            torch.tensor(-torch.inf, device=device),
        )
        summed_BD = nn.functional.embedding_bag(
            torch.as_tensor(bought_P.astype(np.int64), device=device),
            products_ND,
            torch.as_tensor(starts_B, device=device),
            mode="sum",
        )
        positive_B = (customers_BD * summed_BD).sum(1) / recipe.loss.temperature
        counts = torch.as_tensor(counts_B.astype(np.float32), device=device)
        return bilateral_softmax(positive_B, counts, drawn_BK, recipe.exponent, recipe.evenness)

    def vectors(self) -> Vectors:
        """Return the vectors of every customer and product."""
        with torch.inference_mode():
            customers_CD, products_ND = self._customers(np.arange(len(self.customers))), self._products()
            return Vectors.of(customers_CD.cpu().numpy(), products_ND.cpu().numpy(), self._negatives.added_N)

    def _edges(self, rows_B: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the places of some customers' interactions (P), each customer's first of them (B), and counts (B)."""
        counts_B = self._rows.offsets[rows_B + 1] - self._rows.offsets[rows_B]
        starts_B = np.cumsum(counts_B) - counts_B
        shifts_P = np.repeat(self._rows.offsets[rows_B] - starts_B, counts_B)
        return shifts_P + np.arange(len(shifts_P)), starts_B, counts_B

    def _customers(self, rows_B: NDArray[np.int64]) -> Tensor:
        """Return the vectors of some customers (B, D), of length one."""
        customers_BD = self.customers[torch.as_tensor(rows_B, device=self._device)]
        if self._graph is not None:
            edges_P, starts_B, _ = self._edges(rows_B)
            customers_BD = customers_BD + nn.functional.embedding_bag(
                torch.as_tensor(self._rows.values[edges_P].astype(np.int64), device=self._device),
                self.products,
                torch.as_tensor(starts_B, device=self._device),
                mode="sum",
                per_sample_weights=self._graph.weights_E[torch.as_tensor(edges_P, device=self._device)],
            )
        return nn.functional.normalize(customers_BD, dim=1)

    def _products(self) -> Tensor:
        """Return the vectors of all products (N, D), of length one."""
        products_ND = self.products
        if self._graph is not None:
            spread: Any = _ToProducts.apply(self.customers, self._graph)
            products_ND = products_ND + spread
        return nn.functional.normalize(products_ND, dim=1)
