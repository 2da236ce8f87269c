"""Sequences as training examples: at every position the next product is to be predicted.

Letters: S sequences, B sequences of a batch, L positions, D dimensions, N products, K drawn products, T targets.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.interactions.config import SequencesRecipe
from training.interactions.factors import ORDER, SAMPLE
from training.interactions.files import Interactions
from training.interactions.losses import sampled_softmax
from training.interactions.model import Model, Vectors
from training.interactions.negatives import Negatives
from training.interactions.sasrec import PAD, SPREAD, SequenceEncoder

_SORTED_TOGETHER = 16
"""Batches of like length are cut from so many batches' worth of sequences, so that short ones are not mostly pads."""
_AT_ONCE = 512


class Sequences(Model):
    """Product vectors, the encoder that reads them, and how a batch of sequences teaches both."""

    def __init__(self, interactions: Interactions, recipe: SequencesRecipe, device: torch.device) -> None:
        super().__init__()
        self._rows = interactions.rows
        self._recipe = recipe
        self._device = device
        self._sizes_S = np.diff(self._rows.offsets)
        self._active = np.flatnonzero(self._sizes_S >= 2)
        self._negatives = Negatives(interactions.product_counts(), recipe.loss)
        self._log_shares_N = torch.as_tensor(self._negatives.log_shares_N, device=device)
        self._log_weights_N = torch.as_tensor(self._negatives.log_weights_N, device=device)
        self._order: tuple[int, list[NDArray[np.int64]]] | None = None
        self.products = nn.Parameter(torch.empty(len(interactions.products), recipe.dimensions))
        nn.init.normal_(self.products, std=SPREAD)
        self.encoder = SequenceEncoder(
            recipe.dimensions,
            recipe.history_length,
            recipe.layers,
            recipe.heads,
            recipe.dropout,
            recipe.smoothing,
        )
        self.to(device)

    @property
    def steps(self) -> int:
        """Return how many batches make an epoch."""
        return -(-len(self._active) // self._recipe.fit.customers_a_batch)

    @property
    def examples(self) -> int:
        """Return how many products an epoch shows with a customer, to be predicted."""
        return int(np.minimum(self._sizes_S[self._active] - 1, self._recipe.history_length).sum())

    def loss(self, epoch: int, step: int) -> Tensor:
        """Return the loss of one batch, drawn by seed, epoch and step alone."""
        recipe, device = self._recipe, self._device
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self.batches(epoch)
        random = np.random.default_rng([recipe.seed, SAMPLE, epoch, step])
        drawn = torch.as_tensor(self._negatives.draw(random), device=device)
        sequences = [self._rows[row] for row in self._order[1][step].tolist()]
        past_BL = torch.as_tensor(padded([one[:-1] for one in sequences], recipe.history_length), device=device)
        next_BL = torch.as_tensor(padded([one[1:] for one in sequences], recipe.history_length), device=device)
        there_BL = past_BL != PAD
        history_BLD = self.products[past_BL.clamp(min=0)] * there_BL.unsqueeze(2)
        predicted_TD = self.encoder(history_BLD, there_BL)[there_BL]
        target_T = next_BL[there_BL]
        drawn_TK = predicted_TD @ self.products[drawn].T / recipe.loss.temperature
        drawn_TK = (drawn_TK + self._log_weights_N[drawn]).masked_fill(target_T.unsqueeze(1) == drawn, -torch.inf)
        positive_T = (predicted_TD * self.products[target_T]).sum(1)
        return sampled_softmax(positive_T / recipe.loss.temperature, self._log_shares_N[target_T], drawn_TK)

    def vectors(self) -> Vectors:
        """Return the vectors of every product, and of every sequence that the model was made for.

        A sequence's vector predicts the product that follows it.
        """
        rows = self._rows
        vectors_SD = np.empty((len(rows), self._recipe.dimensions), np.float32)
        order = np.argsort(self._sizes_S, kind="stable")
        with torch.inference_mode():
            products_ND = self.products.detach()
            for start in range(0, len(order), _AT_ONCE):
                some = order[start : start + _AT_ONCE]
                past_BL = padded([rows[row] for row in some.tolist()], self._recipe.history_length)
                past = torch.as_tensor(past_BL, device=self._device)
                there = past != PAD
                history_BLD = products_ND[past.clamp(min=0)] * there.unsqueeze(2)
                vectors_SD[some] = self.encoder(history_BLD, there)[:, 0].cpu().numpy()
            return Vectors.of(vectors_SD, products_ND.cpu().numpy(), self._negatives.added_N)

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the sequences of each batch of an epoch."""
        random = np.random.default_rng([self._recipe.seed, ORDER, epoch])
        size = self._recipe.fit.customers_a_batch
        order = random.permutation(self._active)
        batches: list[NDArray[np.int64]] = []
        for start in range(0, len(order), size * _SORTED_TOGETHER):
            some = order[start : start + size * _SORTED_TOGETHER]
            some = some[np.argsort(self._sizes_S[some], kind="stable")]
            batches += [some[at : at + size] for at in range(0, len(some), size)]
        return [batches[number] for number in random.permutation(len(batches))]


def padded(sequences: list[NDArray[np.int32]], length: int) -> NDArray[np.int64]:
    """Return the latest products of sequences, newest first and padded (B, L); L is at least 1.

    The sequences given lie oldest first.
    """
    width = max(1, min(length, max(len(one) for one in sequences)))
    rows_BL = np.full((len(sequences), width), PAD, np.int64)
    for row, one in enumerate(sequences):
        latest = one[::-1][:width]
        rows_BL[row, : len(latest)] = latest
    return rows_BL
