"""FAISS flat with an ``IDSelectorBitmap``: exact, at the price of the whole catalogue's bitmap in every search."""

from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np

from benchmarks.peers.stack import Past
from embeddings.catalogue.eligible import EligibleSet

_faiss: Any = faiss  # its type hints know the C++ constructors only


def selecting(eligible: EligibleSet, rows: int) -> Any:
    """Return FAISS search parameters that let only the set pass; the wrappers keep selector and bits alive."""
    allowed_N = np.zeros(rows, np.bool_)
    allowed_N[eligible.rows_N] = True
    return _faiss.SearchParameters(sel=_faiss.IDSelectorBitmap(np.packbits(allowed_N, bitorder="little")))


class FlatBitmapPeer:
    """One flat index over everything, and a bitmap per eligible set, kept."""

    def __init__(self, past: Past) -> None:
        faiss.omp_set_num_threads(1)
        self._customers_CD = past.customers_CD
        self._size, dimensions = past.vectors_ND.shape
        self._index = faiss.IndexFlatIP(dimensions)
        self._index.add(past.vectors_ND)
        self._parameters: dict[bytes, Any] = {}

    def top(self, customer: int, eligible: EligibleSet, k: int) -> tuple[Sequence[int], Sequence[float]]:
        """See `Peer.top`."""
        parameters = self._parameters.get(eligible.fingerprint)
        if parameters is None:
            parameters = self._parameters[eligible.fingerprint] = selecting(eligible, self._size)
        query_1D = self._customers_CD[customer : customer + 1]
        scores_1K, rows_1K = self._index.search(query_1D, k, params=parameters)
        return rows_1K[0].tolist(), scores_1K[0].tolist()


def build(past: Past) -> FlatBitmapPeer:
    """Return a peer that is ready to answer."""
    return FlatBitmapPeer(past)
