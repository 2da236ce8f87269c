"""FAISS HNSW, filtered afterwards: fetch more than is asked for, drop what the context forbids, widen if too few stay.

A set so small that widening would end up walking most of the graph is scanned instead, which is exact.
"""

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np

from benchmarks.peers.stack import Past
from embeddings.catalogue.eligible import EligibleSet

_NEIGHBOURS, _EF_CONSTRUCTION = 32, 80
_FIRST, _WIDENED_BY, _LARGEST = 256, 4, 4096


_faiss: Any = faiss  # its type hints leave most of it out


class HnswPostfilterPeer:
    """One graph over everything."""

    def __init__(self, past: Past) -> None:
        self._customers_CD, self._vectors_ND = past.customers_CD, past.vectors_ND
        self._index = faiss.IndexHNSWFlat(past.vectors_ND.shape[1], _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = _EF_CONSTRUCTION
        self._index.add(past.vectors_ND)
        faiss.omp_set_num_threads(1)

    def top(self, customer: int, eligible: EligibleSet, k: int) -> tuple[Sequence[int], Sequence[float]]:
        """See `Peer.top`."""
        query_1D = self._customers_CD[customer : customer + 1]
        fetched = _FIRST
        while fetched <= min(_LARGEST, len(self._vectors_ND)):
            parameters = _faiss.SearchParametersHNSW(efSearch=fetched)
            scores_1F, rows_1F = self._index.search(query_1D, fetched, params=parameters)
            places_K = np.flatnonzero(eligible.contains(rows_1F[0]))[:k]
            if len(places_K) == k:
                return rows_1F[0][places_K].tolist(), scores_1F[0][places_K].tolist()
            fetched *= _WIDENED_BY
        scores_N = self._vectors_ND[eligible.rows_N] @ query_1D[0]
        places_K = np.argpartition(-scores_N, k - 1)[:k]
        places_K = places_K[np.argsort(-scores_N[places_K])]
        return eligible.rows_N[places_K].tolist(), scores_N[places_K].tolist()


def build(past: Past) -> HnswPostfilterPeer:
    """Return a peer that is ready to answer, after some seconds of building the graph."""
    return HnswPostfilterPeer(past)
