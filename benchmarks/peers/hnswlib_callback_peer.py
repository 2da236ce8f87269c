"""hnswlib with its filter callback: the graph is walked as ever, and Python is asked about every row it meets.

hnswlib raises when its beam met too few rows that pass; the set is scanned then, which is exact.
"""

from collections.abc import Callable, Sequence

import hnswlib
import numpy as np

from benchmarks.peers.stack import Past
from embeddings.catalogue.eligible import EligibleSet

_NEIGHBOURS, _EF_CONSTRUCTION, _EF_SEARCH = 16, 200, 256


class HnswlibCallbackPeer:
    """One graph over everything, and a set of row numbers per eligible set, kept."""

    def __init__(self, past: Past) -> None:
        self._customers_CD, self._vectors_ND = past.customers_CD, past.vectors_ND
        size, dimensions = past.vectors_ND.shape
        self._index = hnswlib.Index("ip", dimensions)
        self._index.init_index(size, M=_NEIGHBOURS, ef_construction=_EF_CONSTRUCTION)
        self._index.add_items(past.vectors_ND)
        self._index.set_ef(_EF_SEARCH)
        self._filters: dict[bytes, Callable[[int], bool]] = {}

    def top(self, customer: int, eligible: EligibleSet, k: int) -> tuple[Sequence[int], Sequence[float]]:
        """See `Peer.top`."""
        passes = self._filters.get(eligible.fingerprint)
        if passes is None:
            passes = self._filters[eligible.fingerprint] = frozenset(eligible.rows_N.tolist()).__contains__
        query_D = self._customers_CD[customer]
        try:
            rows_1K, distances_1K = self._index.knn_query(query_D, k, num_threads=1, filter=passes)
        except RuntimeError:
            return self._scan(query_D, eligible, k)
        return rows_1K[0].tolist(), (1 - distances_1K[0]).tolist()

    def _scan(self, query_D: np.ndarray, eligible: EligibleSet, k: int) -> tuple[Sequence[int], Sequence[float]]:
        scores_N = self._vectors_ND[eligible.rows_N] @ query_D
        places_K = np.argpartition(-scores_N, k - 1)[:k]
        places_K = places_K[np.argsort(-scores_N[places_K])]
        return eligible.rows_N[places_K].tolist(), scores_N[places_K].tolist()


def build(past: Past) -> HnswlibCallbackPeer:
    """Return a peer that is ready to answer, after some seconds of building the graph."""
    return HnswlibCallbackPeer(past)
