"""An eligible set as FAISS selects by it: one bit a catalogue row."""

from typing import Any

import faiss
import numpy as np

from embeddings.catalogue.eligible import EligibleSet

_faiss: Any = faiss  # its type hints know the C++ constructors only


class Bitmap:
    """Selects the rows of a set in a search of the whole catalogue.

    Attributes:
        nbytes: of the bits, one for each catalogue row.
    """

    def __init__(self, eligible: EligibleSet, catalogue_rows: int) -> None:
        allowed_N = np.zeros(catalogue_rows, np.bool_)
        allowed_N[eligible.rows_N] = True
        # FAISS reads bits and selector by address: whoever searches by the parameters must hold this object meanwhile.
        self._bits = np.packbits(allowed_N, bitorder="little")
        self._selector = _faiss.IDSelectorBitmap(self._bits)
        self._flat = _faiss.SearchParameters(sel=self._selector)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._bits.nbytes

    def flat(self) -> Any:
        """The parameters of a flat search."""
        return self._flat

    def ivf(self, cells: int) -> Any:
        """The parameters of a search of this many cells."""
        return _faiss.SearchParametersIVF(sel=self._selector, nprobe=cells)
