"""implicit's own ``recommend``, told which items the context allows.

``items=`` is its documented way to restrict an answer; ``filter_items=`` would have to name the whole rest of the
catalogue in every call.
"""

from collections.abc import Sequence

import numpy as np
from implicit.cpu.matrix_factorization_base import MatrixFactorizationBase
from numpy.typing import NDArray

from benchmarks.peers.stack import Past
from embeddings.catalogue.eligible import EligibleSet
from embeddings.index.base import F32


class _Factors(MatrixFactorizationBase):
    """A model of implicit with factors from elsewhere."""

    def __init__(self, customers_CD: F32, vectors_ND: F32) -> None:
        super().__init__(num_threads=1)
        self.user_factors: NDArray[np.float32] = customers_CD
        self.item_factors: NDArray[np.float32] = vectors_ND

    def fit(self, *_: object, **__: object) -> None:
        """Raise NotImplementedError: the factors are given."""
        raise NotImplementedError

    def save(self, file: object) -> None:
        """Raise NotImplementedError: the factors are in a bundle already."""
        raise NotImplementedError


class ImplicitPeer:
    """Exact: it gathers the factors of the items allowed in every call, and scores those."""

    def __init__(self, past: Past) -> None:
        self._model = _Factors(past.customers_CD, past.vectors_ND)

    def top(self, customer: int, eligible: EligibleSet, k: int) -> tuple[Sequence[int], Sequence[float]]:
        """See `Peer.top`."""
        rows_K, scores_K = self._model.recommend(
            customer, None, N=k, filter_already_liked_items=False, items=eligible.rows_N
        )
        return rows_K.tolist(), scores_K.tolist()


def build(past: Past) -> ImplicitPeer:
    """Return a peer that is ready to answer."""
    return ImplicitPeer(past)
